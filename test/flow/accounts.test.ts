import { writeFileSync } from 'node:fs'
import { copyFile, readFile, rename, writeFile } from 'node:fs/promises'
import type { ServerResponse } from 'node:http'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test, vi } from 'vitest'
import { said } from '../cli/command-line.ts'
import { Folder } from '../config/folder.ts'
import { startApp } from '../support/app.ts'
import { type ChildApp, ChildFolder } from '../support/child-app.ts'
import { type Origin, startOrigin } from '../support/origin.ts'
import { trusting } from '../support/protected-origin.ts'
import { json, type ScriptedEndpoint, startScriptedEndpoint } from '../support/scripted-endpoint.ts'

const EXAMPLES = new URL('../../examples/', import.meta.url)
const HEADER = 'ID,CLIENT,SECRET,NOTE'

let origin: Origin
let endpoint: ScriptedEndpoint
/** Answers to `/held`, which the test gives. */
let held: ServerResponse[]

beforeEach(async () => {
  held = []
  origin = await startOrigin({
    tls: true,
    handler: (request, response) => {
      if (request.url === '/held') return void held.push(response)
      const { authorization, 'user-agent': agent } = request.headers
      const { remoteAddress } = request.socket
      response.end(JSON.stringify({ authorization, agent, remoteAddress }))
    },
  })
  // A token tells whose it is and the how-manieth it is.
  endpoint = await startScriptedEndpoint((response, { headers }) => {
    const [client, secret] = basic(headers.authorization)
    const count = asked().filter((each) => each === client).length
    const right = secret === `secret-of-${client}` || secret?.startsWith('change-me')
    json(
      response,
      right ? 200 : 401,
      right
        ? { access_token: `${client}-${count}`, token_type: 'Bearer', expires_in: 3600 }
        : { error: 'invalid_client' },
    )
  })
})

afterEach(async () => {
  vi.unstubAllEnvs()
  await origin[Symbol.asyncDispose]()
  await endpoint[Symbol.asyncDispose]()
})

/** RFC 6749 §2.3.1: both parts are form-encoded within Basic. */
function basic(authorization = ''): (string | undefined)[] {
  const text = Buffer.from(authorization.replace('Basic ', ''), 'base64').toString()
  return text.split(':').map((part) => decodeURIComponent(part.replaceAll('+', ' ')))
}

/** Clients that have asked for a token, in order. */
const asked = () => endpoint.requests.map(({ headers }) => basic(headers.authorization)[0])

const row = (id: string, note = '') => `${id},client-${id},secret-of-client-${id},${note}`

const api = (path = '/') => `https://api.test:${origin.port}${path}`

function config(path = 'accounts.csv'): object {
  return {
    upstream: trusting(['api.test']),
    pools: {
      api: {
        targets: [`api.test:${origin.port}`],
        select: 'round-robin',
        credentialsFrom: {
          path,
          template: {
            id: '{ID}',
            labels: { note: '{NOTE}' },
            source: {
              type: 'oauth2',
              grant: 'client_credentials',
              tokenUrl: `${endpoint.url}/token`,
              clientId: '{CLIENT}',
              clientSecret: '{SECRET}',
            },
          },
        },
      },
    },
  }
}

async function accounts(child: Pick<ChildApp, 'admin'>): Promise<string[]> {
  const { credentials } = await child.admin('/api/pools/api')
  return credentials.map(({ id, state }: { id: string; state: string }) => `${id} ${state}`)
}

test('the example serves each account with its own secret, egress, header and limit', async () => {
  await using folder = await Folder.create()
  await copyFile(new URL('accounts.csv', EXAMPLES), folder.at('accounts.csv'))
  vi.stubEnv('ORDERS_API', `api.test:${origin.port}`)
  vi.stubEnv('TOKEN_URL', `${endpoint.url}/token`)
  const example = JSON.parse(await readFile(new URL('accounts.json', EXAMPLES), 'utf8'))
  await using app = await startApp({ ...example, upstream: trusting(['api.test']) }, folder.path)
  const answers = new Map<string, object>()
  await expect
    .poll(async () => {
      const answer = (await app.client().request(api())).json<{ authorization: string }>()
      answers.set(answer.authorization, answer)
      return answers.size
    })
    .toBe(3)
  expect([...answers.values()]).toEqual(
    expect.arrayContaining([
      {
        authorization: 'Bearer client-1001-1',
        agent: 'orders-sync/2.1 (berlin-1)',
        remoteAddress: '127.0.0.11',
      },
      {
        authorization: 'Bearer client-1002-1',
        agent: 'orders-sync/2.1 (berlin-2)',
        remoteAddress: '127.0.0.11',
      },
      {
        authorization: 'Bearer client-2001-1',
        agent: 'orders-sync/2.1 (oslo-1)',
        remoteAddress: '127.0.0.12',
      },
    ]),
  )
  const secrets = endpoint.requests.map(({ headers }) => basic(headers.authorization)[1])
  expect(secrets.toSorted()).toEqual(['change-me, 1002', 'change-me-1001', 'change-me-2001'])
  const { credentials } = await app.admin('/api/pools/orders')
  expect(credentials.map((each: { limits: { limit: string }[] }) => each.limits[0]?.limit)).toEqual(
    ['450/m', '450/m', '120/m'],
  )
  expect(JSON.stringify(credentials)).not.toContain('change-me')
})

test('a line that is added and saved is enough; one that goes drains; the rest keep their tokens', async () => {
  using folder = new ChildFolder(config())
  const file = join(folder.path, 'accounts.csv')
  await writeFile(file, [HEADER, row('a'), row('b')].join('\n'))
  await using child = await folder.start()
  await expect.poll(() => accounts(child)).toEqual(['a active', 'b active'])

  // As an editor saves: by a rename. What the source does not use may change.
  await writeFile(`${file}.new`, [HEADER, row('a', 'VIP'), row('b'), row('c')].join('\n'))
  await rename(`${file}.new`, file)
  await said(child.child.stderr, /configuration applied/)
  await expect.poll(() => accounts(child)).toEqual(['a active', 'b active', 'c active'])

  // And as a script does: in place (at once, or a half of it may be seen). Meanwhile a request of each is under way.
  const running = ['a', 'b', 'c'].map(() => child.client().request(api('/held')))
  await expect.poll(() => held.length).toBe(3)
  writeFileSync(file, [HEADER, row('a'), row('c')].join('\n'))
  await said(child.child.stderr, /configuration applied/)
  expect(await accounts(child)).toEqual(['a active', 'c active'])
  for (const response of held) response.end(response.req.headers.authorization)
  const served = await Promise.all(running)
  expect(served.map(({ body }) => body.toString()).toSorted()).toEqual([
    'Bearer client-a-1',
    'Bearer client-b-1',
    'Bearer client-c-1',
  ])
  for (let i = 0; i < 4; i++) {
    const { authorization } = (await child.client().request(api())).json()
    expect(authorization).toMatch(/^Bearer client-[ac]-1$/)
  }
  const ours = asked().filter((client) => /^client-[a-c]$/.test(client ?? ''))
  expect(ours.toSorted()).toEqual(['client-a', 'client-b', 'client-c'])
})

test('a file that is wrong changes nothing and says where, and the next save heals it', async () => {
  using folder = new ChildFolder(config())
  const file = join(folder.path, 'accounts.csv')
  await writeFile(file, [HEADER, row('a')].join('\n'))
  await using child = await folder.start()
  await expect.poll(() => accounts(child)).toEqual(['a active'])
  const refused = said(child.child.stderr, /refused.*\n/)
  writeFileSync(file, [HEADER, row('a'), 'b,client-b,secret-of-client-b'].join('\n'))
  const told = await refused
  expect(told).toContain('accounts.csv:3: expected 4 fields as in the header, found 3')
  expect(told).not.toContain('secret-of')
  expect(await accounts(child)).toEqual(['a active'])

  // The configuration may point elsewhere, at a file that is not right yet.
  const other = join(folder.path, 'other.ndjson')
  await writeFile(other, '{"ID":"x"')
  const again = said(child.child.stderr, /refused.*\n/)
  await folder.save(config('other.ndjson'))
  expect(await again).toContain('other.ndjson:1: not JSON')
  const applied = said(child.child.stderr, /configuration applied/)
  const account = { ID: 'd', CLIENT: 'client-d', SECRET: 'secret-of-client-d', NOTE: '' }
  writeFileSync(other, `${JSON.stringify(account)}\n`)
  await applied
  await expect.poll(() => accounts(child)).toEqual(['d active'])
})
