/** The ways of getting tokens that `init` knows: what each has to be told, and what comes of it. */

export interface Question {
  /** The flag, and the key of its answer; a secret's flag is `--NAME-file`. */
  readonly name: string
  readonly text: string
  /** Not shown while it is typed, kept in a file of its own. */
  readonly secret?: boolean
  readonly optional?: boolean
  readonly default?: string
  /** Says what is wrong with an answer. */
  readonly wrong?: (answer: string) => string | undefined
  /** Whether it is asked at all. */
  readonly when?: (answers: Answers) => boolean
}

/** What was answered by name; a secret is there as its `${file:PATH}`. */
export type Answers = Readonly<Record<string, string | undefined>>

export interface SourceKind {
  readonly name: string
  readonly title: string
  readonly questions: readonly Question[]
  /** What stands in the credential beside its id. */
  readonly credential: (answers: Answers) => object
  /** What a person does once the proxy runs, for a token that only a person can get: nothing is tried then. */
  readonly byHand?: (pool: string, id: string, flag: string) => string
  /** More targets of the pool. */
  readonly targets?: (answers: Answers) => readonly string[]
}

const httpUrl = (text: string) =>
  /^https?:\/\/[^/\s]/.test(text) && URL.canParse(text) ? undefined : 'expected an http(s) URL'
const pointer = (text: string) =>
  text.startsWith('/') ? undefined : 'expected a JSON pointer such as /data/token'
const oneOf =
  (...words: string[]) =>
  (text: string) =>
    words.includes(text) ? undefined : `expected ${words.join(' or ')}`

const CLIENT: readonly Question[] = [
  {
    name: 'token-url',
    text: 'Token endpoint (empty: look it up at an issuer)',
    optional: true,
    wrong: httpUrl,
  },
  {
    name: 'issuer',
    text: 'Issuer',
    wrong: httpUrl,
    when: (answers) => answers['token-url'] === undefined,
  },
  { name: 'client-id', text: 'Client id' },
]
const SCOPE: Question = {
  name: 'scope',
  text: 'Scopes, separated by spaces (empty: none)',
  optional: true,
}
const ACCOUNT: readonly Question[] = [
  { name: 'user', text: 'User name' },
  { name: 'password', text: 'Password', secret: true },
]
const account = (answers: Answers) => ({ user: answers.user, password: answers.password })

/** The issuer names the endpoints that such a login needs beside that of tokens. */
const PERSON: readonly Question[] = [
  { name: 'issuer', text: 'Issuer', wrong: httpUrl },
  { name: 'client-id', text: 'Client id' },
  { name: 'client-secret', text: 'Client secret (empty: none)', secret: true, optional: true },
  {
    name: 'scope',
    text: 'Scopes, separated by spaces',
    default: 'openid offline_access',
  },
]
const login = (pool: string, id: string, flag: string) => `cupbearer login ${pool}/${id}${flag}`

const oauth2 = (grant: string, answers: Answers) => ({
  source: {
    type: 'oauth2',
    grant,
    tokenUrl: answers['token-url'],
    issuer: answers.issuer,
    clientId: answers['client-id'],
    clientSecret: answers['client-secret'],
    refreshToken: answers['refresh-token'],
    scope: answers.scope,
  },
})

export const SOURCE_KINDS: readonly SourceKind[] = [
  {
    name: 'client-credentials',
    title: 'OAuth 2.0, client id and secret',
    questions: [...CLIENT, { name: 'client-secret', text: 'Client secret', secret: true }, SCOPE],
    credential: (answers) => oauth2('client_credentials', answers),
  },
  {
    name: 'refresh-token',
    title: 'OAuth 2.0, a refresh token that I have',
    questions: [
      ...CLIENT,
      {
        name: 'client-secret',
        text: 'Client secret (empty: none)',
        secret: true,
        optional: true,
      },
      { name: 'refresh-token', text: 'Refresh token', secret: true },
    ],
    credential: (answers) => oauth2('refresh_token', answers),
  },
  {
    name: 'authorization-code',
    title: 'OAuth 2.0, I log in once in a browser',
    questions: PERSON,
    credential: (answers) => oauth2('authorization_code', answers),
    byHand: login,
  },
  {
    name: 'device-code',
    title: 'OAuth 2.0, I enter a code on another device',
    questions: PERSON,
    credential: (answers) => oauth2('device_code', answers),
    byHand: login,
  },
  {
    name: 'login',
    title: 'a login request with user name and password',
    questions: [
      { name: 'login-url', text: 'URL of the login request', wrong: httpUrl },
      ...ACCOUNT,
      { name: 'body', text: 'Sent as json or form', default: 'json', wrong: oneOf('json', 'form') },
      { name: 'user-field', text: 'Field of the user name', default: 'username' },
      { name: 'password-field', text: 'Field of the password', default: 'password' },
      {
        name: 'token-pointer',
        text: 'Where the token stands in the answer',
        default: '/access_token',
        wrong: pointer,
      },
      {
        name: 'expiry-pointer',
        text: 'Where its lifetime or end stands (empty: nowhere)',
        optional: true,
        wrong: pointer,
      },
    ],
    credential: (answers) => {
      const expiry = answers['expiry-pointer']
      const field = (name: string) => answers[name] as string
      return {
        vars: account(answers),
        source: {
          type: 'login',
          steps: [
            {
              url: answers['login-url'],
              [field('body')]: {
                [field('user-field')]: '{user}',
                [field('password-field')]: '{password}',
              },
              extract: {
                TOKEN: { json: answers['token-pointer'] },
                ...(expiry && { EXPIRY: { json: expiry } }),
              },
            },
          ],
          token: '{TOKEN}',
          ...(expiry && { expiresIn: '{EXPIRY}' }),
        },
      }
    },
  },
  {
    name: 'browser',
    title: 'a login page, in a browser without a window',
    questions: [
      { name: 'login-url', text: 'URL of the login page', wrong: httpUrl },
      ...ACCOUNT,
      {
        name: 'user-selector',
        text: 'Field of the user name (CSS)',
        default: 'input[name=username]',
      },
      {
        name: 'password-selector',
        text: 'Field of the password (CSS)',
        default: 'input[type=password]',
      },
    ],
    credential: (answers) => ({
      vars: account(answers),
      source: {
        type: 'browser',
        url: answers['login-url'],
        steps: [
          { fill: answers['user-selector'], value: '{user}' },
          { fill: answers['password-selector'], value: '{password}' },
          { press: 'Enter', on: answers['password-selector'] },
        ],
        capture: { request: { url: answers['target-glob'] } },
      },
    }),
  },
  {
    name: 'command',
    title: 'a command that prints it',
    questions: [
      {
        name: 'command',
        text: 'Command, run without a shell',
        wrong: (text) => (wordsOf(text) ? undefined : 'a quote is not closed'),
      },
    ],
    credential: (answers) => ({
      source: { type: 'exec', command: wordsOf(answers.command as string) },
    }),
  },
  {
    name: 'file',
    title: 'a file that something else keeps fresh',
    questions: [
      { name: 'path', text: 'Path of the file', default: 'token.txt' },
      {
        name: 'pointer',
        text: 'Where the token stands, if it is JSON (empty: all of it)',
        optional: true,
        wrong: pointer,
      },
    ],
    credential: ({ path, pointer: at }) => ({ source: { type: 'file', path, pointer: at } }),
  },
  {
    name: 'static',
    title: 'a token that I have, and that does not change',
    questions: [{ name: 'token', text: 'Token', secret: true }],
    credential: ({ token }) => ({ source: { type: 'static', token } }),
  },
  {
    name: 'capture',
    title: 'from traffic: I log in by hand, through the proxy',
    questions: [
      {
        name: 'token-host',
        text: 'Host that it is got and renewed at, if it is another (empty: none)',
        optional: true,
      },
    ],
    credential: () => ({ source: { type: 'capture' } }),
    byHand: (pool, _id, flag) => `cupbearer capture ${pool} --open${flag}, and log in`,
    targets: (answers) => (answers['token-host'] ? [answers['token-host']] : []),
  },
]

/** Splits a command line as a shell would where nothing is special but quotes; undefined where one is not closed. */
export function wordsOf(text: string): string[] | undefined {
  const words: string[] = []
  let rest = text.trim()
  while (rest !== '') {
    const word = /^(?:"[^"]*"|'[^']*'|[^\s"'])+/.exec(rest)?.[0]
    if (word === undefined) return undefined
    words.push(word.replace(/"([^"]*)"|'([^']*)'/g, (_, double, single) => double ?? single))
    rest = rest.slice(word.length)
    if (rest !== '' && !/^\s/.test(rest)) return undefined
    rest = rest.trimStart()
  }
  return words.length > 0 ? words : undefined
}
