import { execFile } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { afterAll, beforeAll, expect, test } from 'vitest'
import type { Trace } from '../../src/trace/recorder.ts'
import { Folder } from '../config/folder.ts'
import { type ChildApp, ChildFolder } from '../support/child-app.ts'
import type { ProxyClient } from '../support/client.ts'
import { harProblems } from '../support/har-schema.ts'
import { type Origin, startOrigin } from '../support/origin.ts'
import { trusting } from '../support/protected-origin.ts'
import { begin, cupbearer, said } from './command-line.ts'

const PASSWORD = 'pass word'

/** One proxy for all that only look at it. */
let origin: Origin
let folder: ChildFolder
let app: ChildApp
let client: ProxyClient
let url: string

beforeAll(async () => {
  origin = await startOrigin({
    tls: true,
    handler: (request, response) => {
      const status = Number(/^\/status\/(\d+)/.exec(request.url ?? '')?.[1] ?? 200)
      response.writeHead(status).end(`token: ${request.headers.authorization}`)
    },
  })
  url = `https://api.test:${origin.port}`
  folder = new ChildFolder(configuration())
  app = await folder.start()
  client = app.client({ auth: `crawler:${PASSWORD}` })
})

afterAll(async () => {
  await app?.[Symbol.asyncDispose]()
  folder?.[Symbol.dispose]()
  await origin?.[Symbol.asyncDispose]()
})

function configuration() {
  return {
    upstream: trusting(['api.test']),
    trace: { headers: true },
    clients: { crawler: { password: PASSWORD } },
    pools: {
      supplier: {
        targets: [`api.test:${origin.port}`],
        credentials: [{ id: 'alice', source: { type: 'static', token: 's3cr3t-token' } }],
      },
    },
  }
}

/** Sends a request; gives its trace id once the trace is there. */
async function ask(
  path: string,
  headers: Record<string, string> = {},
  by: { app: ChildApp; client: ProxyClient } = { app, client },
): Promise<string> {
  const answer = await by.client.request(url + path, { headers })
  const id = String(answer.headers['cupbearer-trace'])
  await expect.poll(async () => (await by.app.admin(`/api/traces/${id}`)).id).toBe(id)
  return id
}

const command = (...args: string[]) => cupbearer(args, { cwd: folder.path })

function follow(args: readonly string[], env: NodeJS.ProcessEnv = {}, cwd = folder.path) {
  return begin(['trace', '--follow', ...args], { cwd, env })
}

test('trace ID tells a story, --json all of it, and --curl a command that curl runs', async () => {
  const id = await ask('/orders?page=2&api_key=hunter2', { 'X-Note': "it's" })
  const { out } = await command('trace', id)
  expect(out).toMatch(
    /^GET https:\/\/api\.test:\d+\/orders\?page=2&api_key=\[redacted\]\n200 after /,
  )
  expect(out).toMatch(/it came from crawler at 127\.0\.0\.1 for pool supplier/)
  expect(out).toMatch(
    /with the token of alice \(generation \d+\) by egress direct to 127\.0\.0\.1:/,
  )
  const json = JSON.parse((await command('trace', id, '--json')).out) as Trace
  expect(json).toMatchObject({ id, status: 200, story: expect.any(Array) })

  const { out: line } = await command('trace', id, '--curl')
  expect(line).toContain('--proxy-user crawler')
  expect(line).not.toMatch(/hunter2|s3cr3t|pass word/)
  // What curl would ask a person for.
  const typed = line.trim().replace('--proxy-user crawler', "--proxy-user 'crawler:pass word'")
  const resolve = `--resolve api.test:${origin.port}:127.0.0.1`
  const { stdout } = await promisify(execFile)('sh', ['-c', `${typed} -sS ${resolve}`])
  expect(stdout).toBe('token: Bearer s3cr3t-token')
  const { traces } = JSON.parse((await command('trace', '--json', '--limit', '1')).out) as {
    traces: Trace[]
  }
  const headers = traces[0]?.messages?.request.headers ?? []
  const names = headers.map((each) => each.toLowerCase())
  expect(headers[names.indexOf('x-note') + 1]).toBe("it's")
})

test('trace --follow shows those that come, past the filters and since when', async () => {
  await ask('/before')
  await ask('/status/404')
  const plain = follow(['--since', '5m', '--status', '200'])
  await said(plain.stdout, /\/before .*\n/)
  await ask('/status/500')
  await ask('/after')
  expect(await said(plain.stdout, /\/after .*\n/)).not.toMatch(/status\/500|\x1b|before/)
  plain.kill('SIGINT')
  plain.stderr.resume()
  await once(plain, 'close')
  expect(plain.exitCode).toBe(0)
})

test('trace --follow writes in colours where they are wanted, and JSON line by line', async () => {
  const coloured = follow(['--since', '1h'], { FORCE_COLOR: '1' })
  const bare = follow(['--since', '1h'], { FORCE_COLOR: '1', NO_COLOR: '1' })
  const json = follow(['--since', '1h', '--json', '--pool', 'supplier'])
  const id = await ask('/status/404')
  expect(await said(coloured.stdout, /status\/404.*\n/)).toContain('\x1b[33m404\x1b[0m')
  expect(await said(bare.stdout, /status\/404.*\n/)).not.toContain('\x1b')
  const lines = (await said(json.stdout, new RegExp(`${id}.*\n`))).trim().split('\n')
  expect(lines.map((line) => (JSON.parse(line) as Trace).kind)).toContain('exchange')
})

test('trace --follow says when the proxy has ended', async () => {
  using own = new ChildFolder(configuration())
  let told: Promise<string>
  {
    await using ending = await own.start()
    const by = { app: ending, client: ending.client({ auth: `crawler:${PASSWORD}` }) }
    const id = await ask('/', {}, by)
    // It listens before it asks for those that were.
    const child = follow(['--since', '1h'], {}, own.path)
    // What a child has said is gone when it has ended, unless somebody listens by then.
    told = said(child.stderr, /\n/)
    await said(child.stdout, new RegExp(id))
  }
  expect(await told).toBe('cupbearer: the proxy has ended the stream\n')
})

test('har writes a valid archive that is its owner’s alone, and filters', async () => {
  await ask('/a')
  await ask('/status/410')
  const { out } = await command('har', '-o', 'out.har', '--kind', 'exchange')
  expect(out).toMatch(/^\d+ requests in .*out\.har\n$/)
  const file = join(folder.path, 'out.har')
  expect(statSync(file).mode & 0o777).toBe(0o600)
  expect(harProblems(JSON.parse(readFileSync(file, 'utf8')))).toEqual([])
  const { out: one } = await command('har', '--status', '410')
  expect(JSON.parse(one).log.entries).toHaveLength(1)
})

test.each([
  [['trace', '--since', 'tomorrowish'], /--since takes a time/],
  [['trace', '--follow', 'abc'], /--follow shows all requests/],
  [['trace', '--curl'], /--curl takes an ID/],
  [['trace', '--kind', 'nonsense'], /kind/],
  [['har', '--status', 'x'], /--status takes a number/],
])('%j is a wrong use', async (args, message) => {
  await using folder = await Folder.create()
  const { code, err } = await cupbearer(args, { cwd: folder.path })
  expect(code).toBe(2)
  expect(err).toMatch(message)
})
