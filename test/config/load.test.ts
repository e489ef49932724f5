import { inspect } from 'node:util'
import { describe, expect, test } from 'vitest'
import { loadConfig } from '../../src/config/load.ts'
import { ConfigError, type ConfigIssue } from '../../src/errors.ts'
import { Secret } from '../../src/lib/secret.ts'
import { Folder } from './folder.ts'

const CREDENTIAL = { id: 'a', source: { type: 'static', token: 't0ken' } }
const pool = (more: object = {}) => ({
  targets: ['api.example.com'],
  credentials: [CREDENTIAL],
  ...more,
})

async function issuesOf(content: unknown, env: NodeJS.ProcessEnv = {}): Promise<ConfigIssue[]> {
  await using folder = await Folder.create()
  const file = await folder.write('config.json', content)
  const error = await loadConfig(file, env).then(
    () => undefined,
    (error: unknown) => error,
  )
  if (error === undefined) return []
  expect(error).toBeInstanceOf(ConfigError)
  return [...(error as ConfigError).issues]
}

async function load(content: unknown, env: NodeJS.ProcessEnv = {}) {
  await using folder = await Folder.create()
  return {
    folder: folder.path,
    config: await loadConfig(await folder.write('config.json', content), env),
  }
}

describe('a valid configuration', () => {
  test('gets every default, and units become numbers', async () => {
    const { config } = await load({ pools: { supplier: pool({ limits: { rate: ['10/s'] } }) } })
    expect(config.listen).toEqual({ host: '127.0.0.1', port: 8080 })
    expect(config.upstream.bodyTimeout).toBe(300_000)
    expect(config.server.maxHeaderSize).toBe(16_384)
    const supplier = config.pools.supplier
    expect(supplier?.refresh).toEqual({
      ahead: 0.1,
      floor: 30_000,
      timeout: 30_000,
      minInterval: 5000,
      parallel: 8,
    })
    expect(supplier?.limits.rate).toEqual([{ count: 10, windowMs: 1000 }])
    expect(supplier?.egress).toEqual(['direct'])
    expect(supplier?.inject).toEqual({ header: 'authorization', value: 'Bearer {token}' })
  })

  test('has paths that are absolute from the file, and a data folder beside the store', async () => {
    const { folder, config } = await load({
      ca: { dir: 'authority' },
      store: 'file:state/tokens.db',
      pools: {
        p: pool({ credentials: [{ id: 'a', source: { type: 'file', path: 'tokens/a' } }] }),
      },
    })
    expect(config.file).toBe(`${folder}/config.json`)
    expect(config.ca.dir).toBe(`${folder}/authority`)
    expect(config.store).toBe(`file:${folder}/state/tokens.db`)
    expect(config.dataDir).toBe(`${folder}/state`)
    expect(config.pools.p?.credentials[0]?.source).toMatchObject({ path: `${folder}/tokens/a` })
    expect((await load({ store: 'memory:' })).config.dataDir).toMatch(/\/data$/)
  })

  test('is frozen to the bottom, and its secrets do not print', async () => {
    const { config } = await load({
      clients: { worker: { password: 'hunter2hunter2' } },
      egress: { de: 'socks5://user:hunter2hunter2@127.0.0.1:1080' },
      storeKey: Buffer.alloc(32, 7).toString('base64'),
      pools: { p: pool() },
    })
    expect(() => {
      Object.assign(config.pools.p?.credentials[0] as object, { id: 'other' })
    }).toThrow(TypeError)
    expect(Object.isFrozen(config.upstream.ca)).toBe(true)
    expect(config.clients.worker?.password).toBeInstanceOf(Secret)
    expect(config.clients.worker?.password.reveal()).toBe('hunter2hunter2')
    expect(inspect(config, { depth: 20 }) + JSON.stringify(config)).not.toMatch(/hunter2|t0ken/)
  })

  test('finds no names that nobody wrote', async () => {
    const { config } = await load({ pools: { p: pool() } })
    for (const record of [config.clients, config.pools, config.egress, config.upstream.resolve]) {
      expect(record.constructor).toBeUndefined()
    }
  })

  test('may start with a byte order mark and name its schema', async () => {
    await expect(load('\uFEFF{"$schema": "./config.schema.json"}')).resolves.toBeDefined()
  })

  test('knows the hosts of upstream.resolve by their one spelling', async () => {
    const { config } = await load({ upstream: { resolve: { 'API.Example.COM.': '127.0.0.2' } } })
    expect({ ...config.upstream.resolve }).toEqual({ 'api.example.com': '127.0.0.2' })
  })
})

describe('references', () => {
  test('come from the environment and from files beside the config', async () => {
    await using folder = await Folder.create()
    await folder.write('token.txt', 'from-file\r\n\n')
    const file = await folder.write('config.json', {
      listen: '127.0.0.1:${env:PORT}',
      pools: {
        p: pool({
          credentials: [
            { id: 'a', source: { type: 'static', token: '${file:token.txt}' } },
            { id: 'b', source: { type: 'static', token: '${env:A}-${env:B}' } },
          ],
        }),
      },
    })
    const config = await loadConfig(file, { PORT: '0', A: 'x', B: '${env:A}' })
    expect(config.listen.port).toBe(0)
    const sources = config.pools.p?.credentials.map(({ source }) => source)
    expect(sources?.map((source) => source.type === 'static' && source.token.reveal())).toEqual([
      'from-file',
      // What came in is not expanded again.
      'x-${env:A}',
    ])
  })

  test('that lead nowhere are each named once, with their place', async () => {
    const issues = await issuesOf({
      listen: '${env:ADDRESS}',
      storeKey: '${file:missing.key}',
      pools: { p: pool({ egress: ['${env:constructor}'] }) },
    })
    expect(issues).toEqual([
      { path: 'listen', message: 'the environment variable ADDRESS is not set' },
      { path: 'storeKey', message: expect.stringMatching(/missing\.key.*no such file/) },
      {
        path: 'pools.p.egress[0]',
        message: 'the environment variable constructor is not set',
      },
    ])
  })
})

describe('errors', () => {
  test('are all reported at once, the schema’s and those between two places', async () => {
    const issues = await issuesOf({
      lisen: '127.0.0.1:1',
      admin: { listen: 'nowhere' },
      log: { level: 'loud' },
      passthrough: { egress: 'gone', allow: ['10.0.0.0/33', 'a b'], deny: ['::1', '*.x.example'] },
      egress: { odd: 'local://here', worse: { url: 'ftp://x', prob: 'y' } },
      pools: {
        supplier: {
          targets: ['api.example.com', '*.*'],
          queue: { wait: 'long' },
          quarantine: { base: '1h', max: '1m' },
          inject: { header: 'bad header' },
          credentials: [
            CREDENTIAL,
            { id: 'a', egress: 'nope', source: { type: 'oauth2', grant: 'refresh_token' } },
            { id: 'c', source: { type: 'magic' } },
          ],
        },
        other: pool({ targets: ['https://API.example.com:443/'], select: 3, credentials: [] }),
      },
    })
    expect(Object.fromEntries(issues.map(({ path, message }) => [path, message]))).toEqual({
      lisen: 'unknown key, did you mean "listen"?',
      'admin.listen': 'expected HOST:PORT',
      'log.level': 'expected one of "silent", "error", "warn", "info", "debug", "trace"',
      'passthrough.egress': 'expected the name of an egress: direct, odd, worse',
      'passthrough.allow[0]': expect.stringContaining('a CIDR'),
      'passthrough.allow[1]': expect.stringContaining('a CIDR'),
      'egress.odd': 'expected an IP address after local://',
      'egress.worse.url': expect.stringContaining('socks5://'),
      'egress.worse.prob': 'unknown key, did you mean "probe"?',
      'pools.supplier.targets[1]': expect.stringContaining('expected'),
      'pools.supplier.queue.wait': expect.stringContaining('expected a duration'),
      'pools.supplier.quarantine.base': 'expected no more than quarantine.max',
      'pools.supplier.inject.header': 'expected a header name',
      'pools.supplier.credentials[1].id': expect.stringContaining('no other credential'),
      'pools.supplier.credentials[1].egress': expect.stringContaining('direct, odd, worse'),
      'pools.supplier.credentials[1].source': 'expected either issuer or tokenUrl',
      'pools.supplier.credentials[1].source.clientId': 'required: expected a string',
      'pools.supplier.credentials[1].source.refreshToken': expect.stringContaining('required'),
      'pools.supplier.credentials[2].source.type': expect.stringMatching(
        /^expected one of "static", "file", /,
      ),
      'pools.other.targets[0]': 'the pool supplier has this target already',
      'pools.other.select': expect.stringContaining('"least-used"'),
      'pools.other.credentials': 'expected at least one credential, or credentialsFrom',
    })
  })

  test('name no value, wherever a secret stands by mistake', async () => {
    const secret = 's3cr3t-VALUE'
    const issues = await issuesOf(
      {
        listen: '${env:S}',
        admin: { token: `${secret}\n\u0007` },
        storeKey: secret,
        log: { level: secret },
        clients: { a: { password: 5, pools: [secret] } },
        egress: { e: `${secret}://x` },
        upstream: { ca: ['missing.pem'], connectTimeout: secret, resolve: { 'x.example': secret } },
        pools: { p: pool({ egress: [secret], inject: secret, targets: [`${secret}:x`] }) },
      },
      { S: secret },
    )
    expect(issues.length).toBeGreaterThan(9)
    expect(JSON.stringify(issues)).not.toContain(secret)
  })

  test.each([
    ['{\n  "a": 1,\n  "password": hunter2\n}', 'line 3, column 15', 'expected a value'],
    ['{ "a": "hunter2', 'line 1, column 8', 'ends on its line'],
    ['{ "a": 1 // hunter2\n}', 'line 1, column 10', 'no comments'],
    ['{ "a": 1, }', 'line 1, column 11', 'a key in double quotes'],
    ['{} hunter2', 'line 1, column 4', 'the end of the file'],
    ['', 'line 1, column 1', 'expected a value'],
    ['['.repeat(100_000), 'column 66', 'levels'],
  ])('in the JSON are placed without quoting it: %#', async (text, place, expected) => {
    const issues = await issuesOf(text)
    expect(issues).toHaveLength(1)
    expect(issues[0]?.message).toContain(place)
    expect(issues[0]?.message).toContain(expected)
    expect(issues[0]?.message).not.toContain('hunter2')
  })

  test('tell of a key that stands twice', async () => {
    expect(await issuesOf('{"pools": {\n"p": {},\n"p": {}}}')).toEqual([
      { path: 'pools.p', message: 'stands here a second time (line 3, column 1)' },
    ])
  })

  test('tell of a file that is not there', async () => {
    await expect(loadConfig('/nowhere/config.json')).rejects.toThrow(/no such file/)
  })

  test.each([
    ['0.0.0.0:8080', 1],
    ['[::]:8080', 1],
    ['192.0.2.1:8080', 1],
    ['proxy.example:8080', 1],
    ['[::1]:8080', 0],
    ['127.9.9.9:8080', 0],
    ['localhost:8080', 0],
    ['8080', 0],
  ])('listening on %s without clients: %i', async (listen, count) => {
    const config = { listen, admin: { listen: '127.0.0.1:1' } }
    expect(await issuesOf(config)).toHaveLength(count)
    expect(await issuesOf({ ...config, clients: { a: { password: 'p' } } })).toEqual([])
  })

  test('tell of two listeners on one port', async () => {
    const clients = { a: { password: 'p' } }
    for (const listen of ['127.0.0.1:8081', '0.0.0.0:8081']) {
      expect(await issuesOf({ listen, clients })).toMatchObject([{ path: 'admin.listen' }])
    }
    expect(await issuesOf({ listen: '127.0.0.1:0', admin: { listen: '127.0.0.1:0' } })).toEqual([])
  })

  test('tell of pools that a client names and nobody has', async () => {
    expect(
      await issuesOf({
        clients: { a: { password: 'p', pools: ['p', 'q'] } },
        pools: { p: pool() },
      }),
    ).toEqual([{ path: 'clients.a.pools[1]', message: 'expected the name of a pool: p' }])
  })

  test('tell of an upstream CA that is missing or holds no certificate', async () => {
    await using folder = await Folder.create()
    await folder.write('empty.pem', 'nothing')
    const file = await folder.write('config.json', { upstream: { ca: ['gone.pem', 'empty.pem'] } })
    const error = await loadConfig(file).catch((error: unknown) => error as ConfigError)
    expect((error as ConfigError).issues).toEqual([
      { path: 'upstream.ca[0]', message: 'cannot be read (no such file)' },
      { path: 'upstream.ca[1]', message: 'expected certificates in PEM form' },
    ])
  })

  test('refuse headers that frame the message, and a second meaning of direct', async () => {
    const issues = await issuesOf({
      egress: { direct: 'http://127.0.0.1:3128' },
      pools: { p: pool({ headers: { 'Content-Length': '3', 'user-agent': 'x' } }) },
    })
    expect(issues.map(({ path }) => path)).toEqual([
      'pools.p.headers.Content-Length',
      'egress.direct',
    ])
  })

  test('refuse a time-out that no timer can hold', async () => {
    for (const connectTimeout of ['0s', '25d']) {
      expect(await issuesOf({ upstream: { connectTimeout } })).toMatchObject([
        { path: 'upstream.connectTimeout' },
      ])
    }
  })
})
