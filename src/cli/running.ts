import { readFile } from 'node:fs/promises'
import { Agent, type IncomingMessage, request } from 'node:http'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { text } from 'node:stream/consumers'
import type { Config } from '../config/schema.ts'
import { CommandError, EXIT } from './command.ts'

/** Where a running proxy is, as it says itself in the data folder. */
export interface Running {
  readonly pid: number
  readonly proxy: string
  readonly admin: string
  readonly ca: string
}

/** A refresh may take as long as the pool's time-out for it, so the answer may be a while. */
const ANSWER_TIMEOUT_MS = 120_000

/** Finds the proxy that runs with this configuration. */
export async function findRunning(config: Config): Promise<Running> {
  try {
    const found: unknown = JSON.parse(await readFile(join(config.dataDir, 'running.json'), 'utf8'))
    if (isRunning(found)) return found
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'EACCES') {
      throw new CommandError(
        EXIT.failed,
        `${join(config.dataDir, 'running.json')} belongs to another user`,
        'use the account that the proxy runs under',
      )
    }
  }
  throw notRunning(config)
}

function isRunning(value: unknown): value is Running {
  const { proxy, admin, ca } = (value ?? {}) as Partial<Running>
  return typeof proxy === 'string' && typeof ca === 'string' && URL.canParse(admin ?? '')
}

export function notRunning(config: Config, cause?: unknown): CommandError {
  return new CommandError(
    EXIT.failed,
    `no proxy is running with ${config.file}`,
    '`cupbearer start` starts one; -c names another configuration',
    { cause },
  )
}

/** Asks the admin API of the running proxy; anything but success is a `CommandError`. */
export async function callAdmin<T>(
  config: Config,
  method: 'GET' | 'POST',
  path: string,
  body?: object,
): Promise<T> {
  const { admin } = await findRunning(config)
  try {
    const signal = AbortSignal.timeout(ANSWER_TIMEOUT_MS)
    const response = await send(config, admin, method, path, body, signal)
    return readAnswer<T>(response.statusCode ?? 0, await text(response), admin)
  } catch (error) {
    throw unanswered(config, admin, error)
  }
}

/** Starts what the admin API tells of line by line, each a JSON document; the signal gives it up. */
export async function* followAdmin<T>(
  config: Config,
  path: string,
  body: object,
  signal: AbortSignal,
): AsyncGenerator<T, void> {
  const { admin } = await findRunning(config)
  try {
    const response = await send(config, admin, 'POST', path, body, signal)
    const status = response.statusCode ?? 0
    if (status !== 200) readAnswer<T>(status, await text(response), admin)
    for await (const line of createInterface({ input: response })) {
      yield readAnswer<T>(status, line, admin)
    }
  } catch (error) {
    throw unanswered(config, admin, error)
  }
}

/** Opens an answer that goes on, such as a stream of events; the signal gives it up. */
export async function openAdmin(
  config: Config,
  path: string,
  signal: AbortSignal,
): Promise<IncomingMessage> {
  const { admin } = await findRunning(config)
  try {
    const response = await send(config, admin, 'GET', path, undefined, signal)
    const status = response.statusCode ?? 0
    if (status !== 200) readAnswer(status, await text(response), admin)
    return response
  } catch (error) {
    throw unanswered(config, admin, error)
  }
}

function unanswered(config: Config, admin: string, error: unknown): CommandError {
  if (error instanceof CommandError) return error
  const { code, name } = error as NodeJS.ErrnoException
  if (code === 'ECONNREFUSED') return notRunning(config, error)
  const message = `no answer from ${admin} (${code ?? name})`
  return new CommandError(EXIT.failed, message, undefined, { cause: error })
}

async function send(
  config: Config,
  admin: string,
  method: string,
  path: string,
  body: object | undefined,
  signal: AbortSignal,
): Promise<IncomingMessage> {
  const token = config.admin.token?.reveal() ?? (await readAdminToken(config))
  const headers = { authorization: `Bearer ${token}`, 'content-type': 'application/json' }
  return new Promise((resolve, reject) => {
    // An agent of its own: the global one may go by HTTP_PROXY, and so may one made by `agent: false`.
    const outgoing = request(new URL(path, admin), { method, headers, agent: new Agent(), signal })
    outgoing.on('response', resolve).on('error', reject)
    outgoing.end(body && JSON.stringify(body))
  })
}

async function readAdminToken(config: Config): Promise<string> {
  const file = join(config.dataDir, 'admin-token')
  try {
    return (await readFile(file, 'utf8')).trim()
  } catch (cause) {
    throw new CommandError(
      EXIT.failed,
      `the admin token in ${file} cannot be read`,
      'use the account that the proxy runs under',
      { cause },
    )
  }
}

function readAnswer<T>(status: number, body: string, admin: string): T {
  let answer: unknown
  try {
    answer = JSON.parse(body)
  } catch {
    throw new CommandError(EXIT.failed, `what answers at ${admin} is not Cupbearer`)
  }
  if (status >= 200 && status < 300) return answer as T
  if (status === 401) {
    throw new CommandError(
      EXIT.failed,
      'the proxy refuses the admin token',
      'it may have been started with another configuration: restart it',
    )
  }
  const said = (answer as { error?: { message?: unknown } }).error?.message
  throw new CommandError(EXIT.failed, typeof said === 'string' ? said : `HTTP status ${status}`)
}
