import { readFile } from 'node:fs/promises'
import { type IncomingMessage, request } from 'node:http'
import { join } from 'node:path'
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

function notRunning(config: Config, cause?: unknown): CommandError {
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
): Promise<T> {
  const { admin } = await findRunning(config)
  const token = config.admin.token?.reveal() ?? (await readAdminToken(config))
  let response: IncomingMessage
  let body: string
  try {
    response = await send(new URL(path, admin), method, token)
    body = await text(response)
  } catch (error) {
    const { code, name } = error as NodeJS.ErrnoException
    if (code === 'ECONNREFUSED') throw notRunning(config, error)
    throw new CommandError(EXIT.failed, `no answer from ${admin} (${code ?? name})`, undefined, {
      cause: error,
    })
  }
  return readAnswer<T>(response.statusCode ?? 0, body, admin)
}

function send(url: URL, method: string, token: string): Promise<IncomingMessage> {
  return new Promise((resolve, reject) => {
    const outgoing = request(url, {
      method,
      headers: { authorization: `Bearer ${token}` },
      // A connection of its own: the global agent may go by HTTP_PROXY (NODE_USE_ENV_PROXY).
      agent: false,
      signal: AbortSignal.timeout(ANSWER_TIMEOUT_MS),
    })
    outgoing.on('response', resolve).on('error', reject).end()
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
