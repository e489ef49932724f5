import { type SpawnOptions, spawn } from 'node:child_process'
import { text } from 'node:stream/consumers'
import { CommandError, EXIT } from '../command.ts'

/** What a client got: status 0 when it got no answer at all. */
export interface Answer {
  readonly status: number
  readonly body: string
}

/** Where curl is sent, and through what. */
export interface CurlOptions {
  readonly proxy: string
  readonly caPath: string
  readonly headers?: readonly string[]
  readonly signal: AbortSignal
}

/** Makes sure that there is a curl to run. */
export async function requireCurl(signal: AbortSignal): Promise<void> {
  await run(['--version'], signal)
}

/** One request by a curl of its own, which knows of no token. */
export async function curl(url: string, options: CurlOptions): Promise<Answer> {
  const { proxy, caPath, headers = [], signal } = options
  const flags = ['--proxy', proxy, '--cacert', caPath, '--max-time', '30']
  const fields = headers.flatMap((field) => ['--header', field])
  const output = await run(
    ['-q', '-sS', ...flags, ...fields, '--write-out', '\n%{http_code}', url],
    signal,
  )
  const end = output.lastIndexOf('\n')
  return { status: Number(output.slice(end + 1)), body: output.slice(0, end) }
}

/** Its own settings and ours only: a proxy of the environment's would lead it past the demo. */
async function run(args: readonly string[], signal: AbortSignal): Promise<string> {
  const options = {
    env: { PATH: process.env.PATH },
    stdio: ['ignore', 'pipe', 'ignore'],
    signal,
  } as const satisfies SpawnOptions
  const child = spawn('curl', args, options)
  const ended = new Promise<void>((resolve, reject) => {
    child.once('close', () => resolve())
    child.once('error', (cause: NodeJS.ErrnoException) => {
      if (cause.code !== 'ENOENT') return reject(cause)
      const hint = 'install the package curl, for example: apt install curl'
      reject(new CommandError(EXIT.failed, 'curl is not on PATH', hint, { cause }))
    })
  })
  const [output] = await Promise.all([text(child.stdout), ended])
  return output
}
