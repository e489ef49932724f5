import { inspect } from 'node:util'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { readCsv } from '../../src/config/csv.ts'
import { loadConfig } from '../../src/config/load.ts'
import type { CredentialConfig } from '../../src/config/schema.ts'
import { ConfigError } from '../../src/errors.ts'
import { Pauses } from '../support/pauses.ts'
import { Folder } from './folder.ts'

const OAUTH2 = {
  type: 'oauth2',
  grant: 'client_credentials',
  tokenUrl: 'https://auth.example/token',
  clientId: '{CLIENT}',
  clientSecret: '{SECRET}',
}
const TEMPLATE = { id: '{ID}', source: OAUTH2 }
const SECRET = 'hunter2-hunter2'

interface Options {
  readonly name?: string
  readonly template?: object
  readonly pool?: object
  readonly env?: NodeJS.ProcessEnv
}

/** Loads a configuration whose pool `p` takes its accounts from a file with this content. */
async function load(
  text: string,
  { name = 'accounts.csv', template = TEMPLATE, pool = {}, env = {} }: Options = {},
) {
  await using folder = await Folder.create()
  await folder.write(name, text)
  const p = { targets: ['a.example'], credentialsFrom: { path: name, template }, ...pool }
  const file = await folder.write('config.json', { pools: { p } })
  const seen: string[] = []
  const loaded = loadConfig(file, env, (paths) => seen.push(...paths))
  const config = await loaded.catch((error: unknown) => error as ConfigError)
  expect(seen).toEqual([folder.at(name)])
  return config
}

async function credentials(text: string, options?: Options): Promise<readonly CredentialConfig[]> {
  const config = await load(text, options)
  if (config instanceof ConfigError) throw config
  return config.pools.p?.credentials ?? []
}

/** `place: message` of each issue; none of them may hold the secret. */
async function issues(text: string, options?: Options): Promise<string[]> {
  const error = await load(text, options)
  if (!(error instanceof ConfigError)) throw new Error('the configuration is valid')
  expect(inspect(error, { depth: 9 })).not.toContain(SECRET)
  expect(error.message).not.toContain(SECRET)
  return error.issues.map(({ path, message }) => `${path}: ${message}`)
}

const ids = (list: readonly CredentialConfig[]) => list.map(({ id }) => id)

const clients = (list: readonly CredentialConfig[]) =>
  list.map(({ source }) =>
    source.type === 'oauth2' ? [source.clientId, source.clientSecret?.reveal()] : [],
  )

describe('a CSV file', () => {
  test('becomes one credential for each row, secrets wrapped, after those written out', async () => {
    const written = { id: 'written', source: { type: 'static', token: 't' } }
    const text = `ID,CLIENT,SECRET,NOTE\na,client-a,${SECRET},x\nb,client-b,other,y\n`
    const list = await credentials(text, { pool: { credentials: [written] } })
    expect(ids(list)).toEqual(['written', 'a', 'b'])
    expect(clients(list).slice(1)).toEqual([
      ['client-a', SECRET],
      ['client-b', 'other'],
    ])
    expect(inspect(list, { depth: 9 })).not.toContain(SECRET)
    expect(JSON.stringify(list)).not.toContain(SECRET)
  })

  test('may have a BOM, CRLF, quotes, empty lines and no end of line at its end', async () => {
    const text = '\ufeffID,"CLIENT" ,SECRET\r\n\r\na,"one, ""two""","line 1\nline 2"\r\n"b",c,d'
    const broken = await issues(text)
    expect(broken).toEqual([expect.stringMatching(/^accounts\.csv:1: column 2: expected quotes/)])
    const list = await credentials(text.replace('"CLIENT" ', '"CLIENT"'))
    expect(ids(list)).toEqual(['a', 'b'])
    expect(clients(list)).toEqual([
      ['one, "two"', 'line 1\nline 2'],
      ['c', 'd'],
    ])
  })

  test('may have no rows', async () => {
    expect(await credentials('ID,CLIENT,SECRET\n')).toEqual([])
  })

  test('what stands in it is no template and no reference', async () => {
    const text = 'ID,CLIENT,SECRET\na,{ID},${env:HOME} {{CLIENT}}\n'
    expect(clients(await credentials(text, { env: { HOME: '/root' } }))).toEqual([
      ['{ID}', '${env:HOME} {{CLIENT}}'],
    ])
  })

  test('fills any string of the template, and only braces around a name', async () => {
    const template = {
      id: 'x-{ID}-{ID}',
      headers: { 'user-agent': 'agent/{NOTE} ({{NOTE}})' },
      limits: { rate: ['{RATE}'], concurrency: '{PARALLEL}' },
      labels: { country: '{}{ NOTE }' },
      source: { type: 'static', token: '${env:PREFIX}{SECRET}' },
    }
    const text = `ID,NOTE,RATE,PARALLEL,SECRET\na,7,10/s,3,${SECRET}\n`
    const [one] = await credentials(text, { template, env: { PREFIX: '{NOTE}' } })
    expect(one).toMatchObject({
      id: 'x-a-a',
      headers: { 'user-agent': 'agent/7 ({NOTE})' },
      limits: { rate: [{ count: 10, windowMs: 1000 }], concurrency: 3 },
      labels: { country: '{}{ NOTE }' },
    })
    expect(one?.source.type === 'static' && one.source.token.reveal()).toBe(`{NOTE}${SECRET}`)
  })

  test('reads back whatever was written by the rules', () => {
    const field = fc.string({ unit: fc.constantFrom('a', '"', ',', '\n', '\r', ' ', 'é', '{') })
    const row = fc.array(field, { minLength: 2, maxLength: 4 })
    fc.assert(
      fc.property(fc.array(row), fc.constantFrom('\n', '\r\n'), (rows, end) => {
        const quote = (text: string) => `"${text.replaceAll('"', '""')}"`
        const text = rows.map((fields) => fields.map(quote).join(',') + end).join('')
        expect(readCsv(text).records.map(({ fields }) => fields)).toEqual(rows)
      }),
    )
  })
})

describe('an NDJSON file', () => {
  const name = 'accounts.ndjson'

  test('becomes one credential for each line; numbers are text', async () => {
    const text = `{"ID":"a","CLIENT":12,"SECRET":"${SECRET}","rest":{"deep":[]}}\r\n\n{"ID":"b","CLIENT":"c","SECRET":"d"}`
    expect(clients(await credentials(text, { name }))).toEqual([
      ['12', SECRET],
      ['c', 'd'],
    ])
  })

  test('is told by its first character where the name says nothing', async () => {
    const text = '{"ID":"a","CLIENT":"c","SECRET":"d"}\n'
    expect(ids(await credentials(text, { name: 'accounts' }))).toEqual(['a'])
    expect(ids(await credentials('ID,CLIENT,SECRET\na,c,d', { name: 'accounts' }))).toEqual(['a'])
  })

  test('is wrong by line and column', async () => {
    const text = [
      `{"ID":"a","CLIENT":"c","SECRET":"${SECRET}"`,
      `["${SECRET}"]`,
      `{"ID":"b","CLIENT":["${SECRET}"],"SECRET":"x"}`,
      '{"ID":"c","SECRET":"x"}',
      `{"ID":"d","ID":"d","CLIENT":"c","SECRET":"${SECRET}"}`,
    ].join('\n')
    expect(await issues(text, { name })).toEqual([
      'accounts.ndjson:1: not JSON: expected a comma or } at column 50',
      'accounts.ndjson:2: expected a JSON object',
      'accounts.ndjson:5: column ID: stands here a second time (column 11)',
      'accounts.ndjson:3: column CLIENT: expected a string or a number',
      'accounts.ndjson:4: column CLIENT: missing',
    ])
  })
})

describe('what is wrong is told by line and column, never by value', () => {
  test('rows of another length, and a header that is none', async () => {
    expect(await issues(`ID,CLIENT,SECRET\na,b\n"c\nd",x,${SECRET},y\n`)).toEqual([
      'accounts.csv:2: expected 3 fields as in the header, found 2',
      'accounts.csv:3: expected 3 fields as in the header, found 4',
    ])
    expect(await issues(`ID,,ID\na,b,${SECRET}`)).toEqual([
      'accounts.csv:1: column 2: expected a name',
      'accounts.csv:1: column 3: has the same name as column 1',
      'pools.p.credentialsFrom.template.source.clientId: expected in braces a name of the header; there is no column CLIENT',
      'pools.p.credentialsFrom.template.source.clientSecret: expected in braces a name of the header; there is no column SECRET',
    ])
    expect(await issues('')).toEqual([
      'accounts.csv:1: expected a header with the names of the columns',
    ])
  })

  test('quotes that do not end, or stand within a field', async () => {
    expect(await issues(`ID,CLIENT,SECRET\na,b,c\nd,"e,${SECRET}\n`)).toEqual([
      'accounts.csv:3: column 2: its quotes do not end',
    ])
    expect(await issues(`ID,CLIENT,SECRET\na,b,${SECRET}"\n`)).toEqual([
      'accounts.csv:2: column 3: expected quotes around a field with quotes, and none within but doubled',
    ])
  })

  test('a forgotten header does not put the first account into the message', async () => {
    const told = await issues(`a,client,${SECRET}\nb,client,x\n`)
    expect(told).toHaveLength(3)
    expect(told[2]).toBe(
      'pools.p.credentialsFrom.template.source.clientSecret: expected in braces a name of the header; there is no column SECRET',
    )
  })

  test('values that the schema or another rule refuses', async () => {
    const template = {
      id: '{ID}',
      egress: '{WAY}',
      limits: { rate: ['{RATE}'] },
      source: { type: 'static', token: '{SECRET}' },
    }
    const written = { id: 'b', source: { type: 'static', token: 't' } }
    const text = [
      'ID,WAY,RATE,SECRET',
      `a b,direct,10/s,${SECRET}`,
      `b,direct,often,${SECRET}`,
      `c,nowhere,1/s,"${SECRET}\u0007"`,
      `c,direct,1/s,${SECRET}`,
    ].join('\n')
    expect(await issues(text, { template, pool: { credentials: [written] } })).toEqual([
      'accounts.csv:2: column ID: expected a name of letters, digits and . _ @ + -',
      'accounts.csv:3: column RATE: expected a rate such as "10/s", "450/m", "100/10s" or "10000/d"',
      'accounts.csv:4: column SECRET: expected a token without control characters',
      'accounts.csv:4: column WAY: expected the name of an egress: direct',
      'accounts.csv:3: column ID: expected an id that no other credential of the pool has',
      'accounts.csv:5: column ID: expected an id that no other credential of the pool has',
    ])
  })

  test('what the template itself has wrong, once for all rows', async () => {
    const template = { ...TEMPLATE, source: { ...OAUTH2, grant: 'magic', tokenUrl: 'nowhere' } }
    const rows = Array.from({ length: 50 }, (_, i) => `a${i},c,s`)
    const told = await issues(['ID,CLIENT,SECRET', ...rows].join('\n'), { template })
    expect(told.map((each) => each.split(':')[0])).toEqual([
      'pools.p.credentialsFrom.template.source.grant',
      'pools.p.credentialsFrom.template.source.tokenUrl',
    ])
    expect(await issues('ID\na', { template: { id: '{ID}' } })).toEqual([
      expect.stringMatching(/^pools\.p\.credentialsFrom\.template\.source: required/),
    ])
  })

  test('a hundred of them for one file, and how many more there are', async () => {
    const rows = Array.from({ length: 5000 }, () => 'a b,c,s')
    const told = await issues(['ID,CLIENT,SECRET', ...rows].join('\n'))
    expect(told).toHaveLength(101)
    expect(told[0]).toContain('accounts.csv:2: column ID:')
    expect(told[100]).toMatch(/^accounts\.csv: \d+ more problems like these$/)
  })

  test('a file that cannot be read, and a pool without accounts', async () => {
    await using folder = await Folder.create()
    const pools = {
      gone: {
        targets: ['a.example'],
        credentialsFrom: { path: 'gone.csv', template: TEMPLATE },
      },
      folder: { targets: ['b.example'], credentialsFrom: { path: '.', template: TEMPLATE } },
      none: { targets: ['c.example'] },
      odd: { targets: ['d.example'], credentialsFrom: { path: 7, tmplate: {} } },
    }
    const file = await folder.write('config.json', { pools })
    const error = await loadConfig(file).catch((reason: ConfigError) => reason)
    const told = (error as ConfigError).issues.map(({ path, message }) => `${path}: ${message}`)
    expect(told).toEqual([
      'gone.csv: cannot be read (no such file)',
      '.: cannot be read (it is a folder)',
      'pools.odd.credentialsFrom.path: expected a string, found a number',
      'pools.odd.credentialsFrom.template: required: expected an object',
      'pools.odd.credentialsFrom.tmplate: unknown key, did you mean "template"?',
      'pools.none.credentials: expected at least one credential, or credentialsFrom',
    ])
  })
})

describe('a source with templates of its own', () => {
  const login = {
    type: 'login',
    steps: [
      {
        url: 'https://a.example/',
        form: { u: '{USER}', p: '{PASS}' },
        extract: { T: { json: '/t' } },
      },
    ],
    token: '{T}',
  }

  test('gets the columns that it asks for as vars, and fills them in itself', async () => {
    const template = { id: '{ID}', vars: { REALM: '{ID}.{NOTE}' }, source: login }
    const text = `ID,USER,PASS,NOTE\na,{T},${SECRET},x\n`
    const [one] = await credentials(text, { template })
    const vars = Object.entries(one?.vars ?? {}).map(([key, value]) => [key, value.reveal()])
    expect(Object.fromEntries(vars)).toEqual({ REALM: 'a.x', USER: '{T}', PASS: SECRET })
    expect(inspect(one, { depth: 9 })).not.toContain(SECRET)
  })

  test('names what is missing there', async () => {
    const told = await issues('ID,USER\na,b\nc,d\n', { template: { id: '{ID}', source: login } })
    expect(told).toHaveLength(1)
    expect(told[0]).toMatch(/^pools\.p\.credentialsFrom\.template\.source\.steps\[0\]/)
  })
})

test('ten thousand accounts are read within a second or two', async () => {
  const rows = Array.from({ length: 10_000 }, (_, i) => `a${i},client-${i},secret-${i}`)
  using pauses = new Pauses()
  const started = performance.now()
  const list = await credentials(['ID,CLIENT,SECRET', ...rows].join('\n'))
  const ms = performance.now() - started - pauses.lost
  expect(list).toHaveLength(10_000)
  process.stdout.write(`  10,000 accounts loaded in ${Math.round(ms)} ms\n`)
  expect(ms).toBeLessThan(5000)
})
