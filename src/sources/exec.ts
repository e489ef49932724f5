import { type ChildProcessByStdio, spawn } from 'node:child_process'
import type { Readable } from 'node:stream'
import type { ExecSourceConfig } from '../config/exec.ts'
import { SourceError } from '../errors.ts'
import { Secret } from '../lib/secret.ts'
import { renderTemplate } from '../lib/template.ts'
import { readToken, type TokenFacts } from '../token/jwt.ts'
import type { TokenSet } from '../token/token.ts'
import { parseObject } from './endpoint.ts'
import { readExpiry } from './expiry.ts'
import { readPointer } from './pointer.ts'
import type { Source, SourceContext, SourceVars } from './source.ts'

const MAX_OUTPUT_BYTES = 2 ** 20

/** How long the output of a command that has ended may take to be read. */
const OUTPUT_WAIT_MS = 1000

/** What a command gets of our environment; secrets of the proxy's own stay here. */
const PASSED_ON = ['PATH', 'HOME', 'LANG']

/** A token that a command prints. */
export function execSource(
  config: ExecSourceConfig,
  options: { vars?: SourceVars | undefined } = {},
): Source {
  const where = `command ${config.command[0]}`
  return {
    renewable: true,
    async obtain(previous, context) {
      const env = environment(config, options.vars ?? {}, previous, context)
      const output = await run(config, env, where, context)
      const { token, ...facts } = readOutput(output, where)
      try {
        return readToken(token, { ...facts, receivedAt: context.clock.now() })
      } catch (cause) {
        throw cause instanceof SourceError ? failure(`${where}: ${cause.message}`) : cause
      }
    },
  }
}

/** What a command gets: the variables of its configuration, filled in, and who it is for. */
export function environment(
  config: Pick<ExecSourceConfig, 'env'>,
  vars: SourceVars,
  previous: TokenSet | undefined,
  { name = '' }: SourceContext,
): Record<string, string> {
  const env: Record<string, string> = {}
  for (const key of PASSED_ON) {
    const value = process.env[key]
    if (value !== undefined) env[key] = value
  }
  for (const [key, text] of Object.entries(config.env)) {
    env[key] = renderTemplate(text.reveal(), (each) => vars[each]?.reveal() ?? '')
  }
  const slash = name.indexOf('/')
  env.CUPBEARER_POOL = name.slice(0, Math.max(0, slash))
  env.CUPBEARER_CREDENTIAL = name.slice(slash + 1)
  if (previous?.refreshToken) env.CUPBEARER_REFRESH_TOKEN = previous.refreshToken.reveal()
  return env
}

/** What the command printed; it and all that it started are gone when this settles. */
export function run(
  { command, cwd, timeout }: Pick<ExecSourceConfig, 'command' | 'cwd' | 'timeout'>,
  env: Record<string, string>,
  where: string,
  { signal, clock }: SourceContext,
): Promise<string> {
  const [program, ...rest] = command as [string, ...string[]]
  if (signal.aborted) return Promise.reject(failure(`${where} was not started in time`))
  return new Promise((resolve, reject) => {
    let child: ChildProcessByStdio<null, Readable, Readable>
    try {
      // A group of its own, so that what it starts ends with it.
      child = spawn(program, rest, { env, cwd, detached: true, stdio: ['ignore', 'pipe', 'pipe'] })
    } catch {
      // The error may quote a variable.
      return reject(failure(`${where} cannot be started with these arguments and variables`))
    }
    const chunks: Buffer[] = []
    let length = 0
    let told = 0
    let ended: SourceError | undefined
    const killGroup = () => {
      try {
        if (child.pid !== undefined) process.kill(-child.pid, 'SIGKILL')
      } catch {
        // All of it has gone already.
      }
    }
    // A process that has left the group may hold the pipes open for ever.
    const letGo = () => {
      child.stdout.destroy()
      child.stderr.destroy()
    }
    const end = (error: SourceError) => {
      ended ??= error
      killGroup()
      letGo()
    }
    const abort = () => end(failure(`${where} did not end in time`))
    signal.addEventListener('abort', abort, { once: true })
    const cancel = timeout === undefined ? () => {} : clock.schedule(timeout, abort)

    child.stdout.on('data', (chunk: Buffer) => {
      length += chunk.length
      if (length > MAX_OUTPUT_BYTES) end(failure(`${where} printed more than 1 MiB`))
      else chunks.push(chunk)
    })
    // What stands there may be a secret: only its size is told.
    child.stderr.on('data', (chunk: Buffer) => {
      told += chunk.length
    })
    child.on('error', (cause: NodeJS.ErrnoException) => {
      ended ??= failure(`${where} cannot be started (${cause.code ?? 'unknown error'})`)
    })
    let cancelWait = () => {}
    child.on('exit', () => {
      // What it has left running goes; its own output is in the pipes already.
      killGroup()
      cancelWait = clock.schedule(OUTPUT_WAIT_MS, letGo)
    })
    child.on('close', (code, killedBy) => {
      signal.removeEventListener('abort', abort)
      cancel()
      cancelWait()
      if (ended) return reject(ended)
      if (code === 0) return resolve(Buffer.concat(chunks, length).toString('utf8'))
      const how = killedBy === null ? `with code ${code}` : `by ${killedBy}`
      reject(failure(`${where} ended ${how}, with ${told} bytes on standard error`))
    })
  })
}

interface Output extends Omit<TokenFacts, 'receivedAt'> {
  readonly token: string
}

/** A token as it is, or JSON: members of RFC 6749 §5.1, or an ExecCredential of Kubernetes. */
function readOutput(output: string, where: string): Output {
  const text = output.trim()
  if (text === '') throw failure(`${where} printed nothing`)
  if (!text.startsWith('{')) {
    if (/^</.test(text)) throw failure(`${where} printed markup, not a token`)
    return { token: text }
  }
  const members = parseObject(text)
  if (!members) throw failure(`${where} printed JSON that cannot be read`)
  const status = readPointer(members, '/status')
  if (members.kind === 'ExecCredential' || (typeof status === 'object' && status !== null)) {
    return {
      token: tokenIn(readPointer(members, '/status/token'), where),
      ...readExpiry(scalar(readPointer(members, '/status/expirationTimestamp'))),
    }
  }
  const { refresh_token: refreshToken, expires_in: lifetime, expires_at: end } = members
  return {
    token: tokenIn(members.token ?? members.access_token, where),
    ...(typeof refreshToken === 'string' && refreshToken !== ''
      ? { refreshToken: new Secret(refreshToken) }
      : {}),
    ...readExpiry(scalar(lifetime ?? end)),
  }
}

function tokenIn(value: unknown, where: string): string {
  if (typeof value === 'string' && value !== '') return value
  throw failure(`${where} printed JSON without a token`)
}

const scalar = (value: unknown): string =>
  typeof value === 'string' || typeof value === 'number' ? String(value) : ''

function failure(message: string): SourceError {
  return new SourceError('transient', message)
}
