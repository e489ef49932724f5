import { type ChildProcessByStdio, spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync } from 'node:fs'
import { mkdir, writeFile } from 'node:fs/promises'
import { createServer, type IncomingMessage, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import type { Readable } from 'node:stream'
import { text } from 'node:stream/consumers'
import { fileURLToPath } from 'node:url'
import { onTestFinished } from 'vitest'
import { testAuthority } from '../support/certificates.ts'

/** The build of this checkout, or another one that `TEST_MAIN` names. */
export const MAIN =
  process.env.TEST_MAIN ?? fileURLToPath(new URL('../../dist/cli/main.js', import.meta.url))

export type CommandLine = ChildProcessByStdio<null, Readable, Readable>

/** Starts the built command line in a folder. */
export function begin(
  args: readonly string[],
  options: { cwd: string; env?: NodeJS.ProcessEnv },
): CommandLine {
  if (!existsSync(MAIN)) throw new Error('dist/cli/main.js is missing: run `npm run build` first')
  const child = spawn(process.execPath, [MAIN, ...args], {
    cwd: options.cwd,
    env: { PATH: process.env.PATH, ...options.env },
    stdio: ['ignore', 'pipe', 'pipe'],
    // A group of its own, so that a test that fails leaves nothing behind, children of the child included.
    detached: true,
  })
  onTestFinished(() => {
    try {
      process.kill(-(child.pid as number), 'SIGKILL')
    } catch {
      // The whole group has ended by itself.
    }
  })
  return child
}

/** Runs the built command line to its end. */
export async function cupbearer(
  args: readonly string[],
  options: { cwd: string; env?: NodeJS.ProcessEnv },
): Promise<{ code: number | null; out: string; err: string }> {
  const child = begin(args, options)
  const [out, err] = await Promise.all([
    text(child.stdout),
    text(child.stderr),
    once(child, 'close'),
  ])
  return { code: child.exitCode, out, err }
}

interface Heard {
  text: string
  ended: boolean
}
const transcripts = new WeakMap<Readable, Heard>()

/** Resolves, once a stream says what is wanted, with all that it has said since it was last asked. */
export async function said(stream: Readable, wanted: RegExp): Promise<string> {
  const heard = hear(stream)
  while (!wanted.test(heard.text)) {
    if (heard.ended) throw new Error(`the stream ended after: ${heard.text}`)
    await Promise.race([once(stream, 'data'), once(stream, 'close')])
  }
  const { text } = heard
  heard.text = ''
  return text
}

/** Keeps what a stream says from now on, so that nothing of it is lost before somebody asks. */
export function hear(stream: Readable): Heard {
  const known = transcripts.get(stream)
  if (known) return known
  const heard: Heard = { text: '', ended: false }
  transcripts.set(stream, heard)
  stream.setEncoding('utf8')
  stream.on('data', (chunk: string) => {
    heard.text += chunk
  })
  stream.on('close', () => {
    heard.ended = true
  })
  return heard
}

export const ADMIN_TOKEN = 'admin-t0ken'

/** Stands in for a running proxy: its admin API, and its files in the data folder. */
export class FakeProxy {
  readonly #server: Server
  /** Every request in order, as `METHOD PATH`. */
  readonly requests: string[] = []
  readonly url: string

  private constructor(server: Server) {
    this.#server = server
    this.url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
  }

  /** `answers` maps `METHOD PATH` to a body; what it lacks is answered with 404. */
  static async start(
    folder: string,
    answers: Readonly<Record<string, unknown>>,
  ): Promise<FakeProxy> {
    const server = createServer()
    server.listen(0, '127.0.0.1')
    await once(server, 'listening')
    const fake = new FakeProxy(server)
    server.on('request', (request: IncomingMessage, response) => {
      const key = `${request.method} ${request.url}`
      fake.requests.push(key)
      const known = Object.hasOwn(answers, key)
      const allowed = request.headers.authorization === `Bearer ${ADMIN_TOKEN}`
      const problem = { error: { code: 'NOT_FOUND', message: 'no such credential' } }
      response.writeHead(allowed ? (known ? 200 : 404) : 401, {
        'content-type': 'application/json',
      })
      response.end(JSON.stringify(known ? answers[key] : problem))
    })
    await mkdir(join(folder, 'data'), { recursive: true })
    await writeFile(join(folder, 'ca.pem'), testAuthority().caPem)
    await writeFile(join(folder, 'data', 'admin-token'), `${ADMIN_TOKEN}\n`)
    await writeFile(
      join(folder, 'data', 'running.json'),
      JSON.stringify({
        pid: process.pid,
        proxy: 'http://127.0.0.1:8080',
        admin: fake.url,
        ca: join(folder, 'ca.pem'),
      }),
    )
    return fake
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#server.closeAllConnections()
    this.#server.close()
    await once(this.#server, 'close')
  }
}
