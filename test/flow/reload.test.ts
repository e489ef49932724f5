import { chmod, writeFile } from 'node:fs/promises'
import type { ServerResponse } from 'node:http'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { said } from '../cli/command-line.ts'
import { startApp, type TestApp } from '../support/app.ts'
import { type AuthServer, startAuthServer } from '../support/auth-server.ts'
import { ChildFolder } from '../support/child-app.ts'
import { startHttpProxy } from '../support/http-proxy.ts'
import { type Origin, startOrigin } from '../support/origin.ts'
import { trusting } from '../support/protected-origin.ts'
import { until } from '../support/until.ts'

interface Seen {
  authorization?: string
  remoteAddress: string
}

let auth: AuthServer
let origin: Origin
let app: TestApp | undefined
/** Answers to `/held` and `/stream`, which the test gives. */
let held: ServerResponse[]

beforeEach(async () => {
  held = []
  auth = await startAuthServer({ accessTokenTtlSeconds: 600 })
  origin = await startOrigin({
    tls: true,
    handler: (request, response) => {
      if (request.url === '/held') return void held.push(response)
      if (request.url === '/stream') {
        response.flushHeaders()
        return void held.push(response)
      }
      const { authorization, 'x-team': team } = request.headers
      const { remoteAddress } = request.socket
      response.end(JSON.stringify({ authorization, team, remoteAddress }))
    },
  })
})

afterEach(async () => {
  await app?.[Symbol.asyncDispose]()
  app = undefined
  await origin[Symbol.asyncDispose]()
  await auth[Symbol.asyncDispose]()
})

const api = (path = '/') => `https://api.test:${origin.port}${path}`

/** A credential that gets its token from the auth server: each time it does shows in `auth.calls`. */
function account(id: string, more: object = {}): object {
  const { tokenUrl, clientId, clientSecret } = auth
  const grant = 'client_credentials'
  return { id, source: { type: 'oauth2', grant, tokenUrl, clientId, clientSecret }, ...more }
}

function fixed(id: string, token = `token-of-${id}`, more: object = {}): object {
  return { id, source: { type: 'static', token }, ...more }
}

function config(pool: object = {}, more: object = {}): object {
  return {
    upstream: trusting(['api.test', 'other.example.test', 'new.example.test']),
    pools: { api: { targets: [`api.test:${origin.port}`], credentials: [account('a')], ...pool } },
    ...more,
  }
}

async function tokenSeen(running: TestApp, url = api()): Promise<string | undefined> {
  return (await running.client().request(url)).json<Seen>().authorization
}

async function started(pool?: object, more?: object): Promise<TestApp> {
  app = await startApp(config(pool, more))
  return app
}

async function arrived(count: number): Promise<void> {
  await until(() => held.length >= count)
}

describe('a process that is told to reload', () => {
  test('takes up a saved file, and on SIGHUP what the file refers to, without asking for a token', async () => {
    const team = { headers: { 'x-team': 'red' } }
    using folder = new ChildFolder(config(team))
    await using child = await folder.start()
    const seen = async () =>
      (await child.client().request(api())).json<{ authorization: string; team: string }>()
    const first = await seen()
    expect(first).toMatchObject({ team: 'red', authorization: /^Bearer ./ })
    const applied = () => said(child.child.stderr, /configuration applied/)

    await writeFile(join(folder.path, 'team'), 'blue')
    await folder.save(config({ headers: { 'x-team': `\${file:team}` } }))
    await applied()
    expect(await seen()).toEqual({ ...first, team: 'blue' })

    await writeFile(join(folder.path, 'team'), 'green')
    child.child.kill('SIGHUP')
    await applied()
    expect(await seen()).toEqual({ ...first, team: 'green' })

    await folder.save('{ "pools": ')
    expect(await said(child.child.stderr, /refused.*\n/)).toContain('not JSON')
    expect(await seen()).toEqual({ ...first, team: 'green' })
    expect(auth.calls).toHaveLength(1)
  })
})

describe('unchanged credentials', () => {
  test('keep token, generation and counts through every other change', async () => {
    const running = await started({ credentials: [account('a'), account('b')] })
    const token = await tokenSeen(running)
    const before = (await running.admin('/api/pools/api')).credentials
    expect(auth.calls).toHaveLength(2)
    const { applied } = await running.reconfigure(
      config({
        credentials: [
          fixed('first'),
          account('b', { headers: { 'x-team': 'red' }, limits: { rate: ['100/s'] } }),
          account('a'),
        ],
        select: 'round-robin',
        refresh: { ahead: 0.2 },
      }),
    )
    expect(applied).toBe(true)
    const after = (await running.admin('/api/pools/api')).credentials
    const facts = (of: { id: string }[], id: string) => {
      const { generation, issuedAt, expiresAt, uses } = of.find((each) => each.id === id) as never
      return { generation, issuedAt, expiresAt, uses }
    }
    for (const id of ['a', 'b']) expect(facts(after, id)).toEqual(facts(before, id))
    expect(auth.calls).toHaveLength(2)
    const tokens = new Set<string | undefined>()
    for (let i = 0; i < 6; i++) tokens.add(await tokenSeen(running))
    expect(tokens).toContain(token)
    expect(tokens.size).toBe(3)
  })

  test('that are revoked or quarantined stay so', async () => {
    const running = await started({ credentials: [fixed('a'), fixed('b')] })
    await running.admin('/api/pools/api/credentials/b/quarantine', 'POST')
    await running.reconfigure(config({ credentials: [fixed('a'), fixed('b'), fixed('c')] }))
    const states = async () => {
      const { credentials } = await running.admin('/api/pools/api')
      return credentials.map(({ state }: { state: string }) => state)
    }
    await expect.poll(states).toEqual(['active', 'quarantined', 'active'])
  })
})

describe('what is added, changed or removed', () => {
  test('takes effect: credentials', async () => {
    const running = await started({ credentials: [fixed('a')] })
    expect(await tokenSeen(running)).toBe('Bearer token-of-a')
    await running.reconfigure(config({ credentials: [fixed('b')] }))
    expect(await tokenSeen(running)).toBe('Bearer token-of-b')
    await running.reconfigure(config({ credentials: [fixed('b', 'another-token')] }))
    expect(await tokenSeen(running)).toBe('Bearer another-token')
  })

  test('takes effect: pools, with their hosts', async () => {
    const ca = { nameConstraints: false }
    const running = await started({ credentials: [fixed('a')] }, { ca })
    const other = `https://other.example.test:${origin.port}/`
    const pools = {
      api: { targets: [`api.test:${origin.port}`], credentials: [fixed('a')] },
      other: { targets: [`other.example.test:${origin.port}`], credentials: [fixed('o')] },
    }
    const added = await running.reconfigure(config({}, { pools, ca }))
    expect(added).toEqual({ applied: true, problems: [] })
    expect(await tokenSeen(running, other)).toBe('Bearer token-of-o')
    const { api: _, ...rest } = pools
    const deny = { action: 'deny' }
    await running.reconfigure(config({}, { pools: rest, passthrough: deny, ca }))
    expect(await tokenSeen(running, other)).toBe('Bearer token-of-o')
    const { status, socket } = await running.client().tunnel(`api.test:${origin.port}`)
    socket.destroy()
    expect(status).toBe(403)
  })

  test('serves requests that wait already', async () => {
    const busy = { limits: { concurrency: 1 } }
    const running = await started({ ...busy, credentials: [fixed('a')] })
    const first = running.client().request(api('/held'))
    await arrived(1)
    const second = tokenSeen(running)
    while ((await running.admin('/api/pools/api')).waiting !== 1) {}
    await running.reconfigure(config({ ...busy, credentials: [fixed('a'), fixed('b')] }))
    expect(await second).toBe('Bearer token-of-b')
    held[0]?.end()
    expect((await first).status).toBe(200)
  })
})

describe('running exchanges', () => {
  test('end as they began, though their pool, their credential or their egress is gone', async () => {
    await using way = await startHttpProxy({ host: '127.0.0.2' })
    const egress = { way: way.url }
    const pinned = [fixed('a', undefined, { egress: 'way' })]
    const running = await started({ credentials: pinned }, { egress })
    const client = running.client()
    const stream = await client.open(api('/stream'))
    const answers = [client.request(api('/held'))]
    await arrived(2)
    // Another egress for the same credential, another credential, no pool at all.
    for (const [index, next] of [
      config({ credentials: [fixed('a')] }),
      config({ credentials: [fixed('b')] }),
      config({}, { pools: {} }),
    ].entries()) {
      expect(await running.reconfigure(next)).toMatchObject({ applied: true })
      if (index === 2) break
      answers.push(client.request(api('/held')))
      await arrived(index + 3)
    }
    for (const response of held) response.end('whole')
    const bodies = await Promise.all(answers.map(async (answer) => (await answer).body.toString()))
    expect(bodies).toEqual(['whole', 'whole', 'whole'])
    const chunks: Buffer[] = []
    for await (const chunk of stream) chunks.push(chunk as Buffer)
    expect(Buffer.concat(chunks).toString()).toBe('whole')
  })

  test('come through whole while the configuration changes all the time', async () => {
    await using one = await startHttpProxy({ host: '127.0.0.2' })
    await using two = await startHttpProxy({ host: '127.0.0.3' })
    const variants = [
      config({ credentials: [fixed('a', undefined, { egress: 'x' })] }, { egress: { x: one.url } }),
      config({ credentials: [fixed('a', undefined, { egress: 'y' })] }, { egress: { y: two.url } }),
      config({ credentials: [fixed('b'), fixed('a')] }),
      config({ credentials: [account('a')], limits: { concurrency: 4 } }),
    ]
    app = await startApp(variants[0] as object)
    const running = app
    const client = running.client({ maxSockets: 8 })
    let over = false
    const problems: unknown[] = []
    const load = Promise.all(
      Array.from({ length: 8 }, async () => {
        while (!over) {
          const answer = await client.request(api())
          if (answer.status !== 200) problems.push([answer.status, answer.body.toString()])
        }
      }),
    )
    for (let round = 0; round < 40; round++) {
      const { applied } = await running.reconfigure(variants[round % 4] as object)
      expect(applied).toBe(true)
    }
    over = true
    await load
    expect(problems.slice(0, 3)).toEqual([])
    const { credentials } = await running.admin('/api/pools/api')
    expect(credentials[0]).toMatchObject({ state: 'active', inFlight: 0 })
  })
})

describe('an invalid file', () => {
  test('keeps the old configuration whole and names every error', async () => {
    const running = await started({ credentials: [fixed('a')] })
    const { applied, problems } = await running.reconfigure(
      config(
        { credentials: [fixed('b'), fixed('b', 'x', { egress: 'nowhere' })], limts: {} },
        { passthrough: { action: 'deny' } },
      ),
    )
    expect(applied).toBe(false)
    const text = problems.join('\n')
    expect(text).toContain('pools.api.limts')
    expect(text).toContain('pools.api.credentials[1].egress')
    expect(await tokenSeen(running)).toBe('Bearer token-of-a')
    const { status, socket } = await running.client().tunnel(`127.0.0.1:${origin.port}`)
    socket.destroy()
    expect(status).toBe(200)
  })

  test('leaves nothing of itself when the CA is what fails', async () => {
    await using one = await startHttpProxy({ host: '127.0.0.2' })
    await using two = await startHttpProxy({ host: '127.0.0.3' })
    const pinned = { credentials: [fixed('a', undefined, { egress: 'way' })] }
    const running = await started(pinned, { egress: { way: one.url } })
    await tokenSeen(running)
    await chmod(join(running.dir, 'certs', 'ca-key.pem'), 0o644)
    const next = config(pinned, { egress: { way: two.url } })
    const { applied, problems } = await running.reconfigure(next)
    expect(applied).toBe(false)
    expect(problems.join()).toContain('chmod 600')
    const { remoteAddress } = (await running.client().request(api())).json<Seen>()
    expect(remoteAddress).toBe('127.0.0.2')
    expect(two.targets).toEqual([])
  })

  test('says what takes a restart', async () => {
    const running = await started({ credentials: [fixed('a')] })
    const next = config({ credentials: [fixed('a')] }, { listen: '127.0.0.1:1' })
    expect(await running.reconfigure(next)).toEqual({
      applied: true,
      problems: ['listen changed: that takes a restart'],
    })
  })
})

describe('a new name outside the constraints of the CA', () => {
  test('has the CA re-issued with the same key: old clients go on, new ones reach both', async () => {
    const running = await started({ credentials: [fixed('a')] })
    const old = running.client()
    expect((await old.request(api())).status).toBe(200)
    const url = `https://new.example.test:${origin.port}/`
    const targets = [`api.test:${origin.port}`, `new.example.test:${origin.port}`]
    await running.reconfigure(config({ targets, credentials: [fixed('a')] }))
    const caPem = await (await fetch(`${running.app.adminUrl}/ca.pem`)).text()
    expect(caPem).not.toBe(running.ca)
    const fresh = running.client({ ca: caPem })
    for (const each of [api(), url]) {
      expect((await fresh.request(each)).json<Seen>().authorization).toBe('Bearer token-of-a')
    }
    expect((await running.client().request(api())).status).toBe(200)
    // The old certificate does not permit the new name.
    await expect(running.client().request(url)).rejects.toThrow(/permitted|constraint/i)
  })
})
