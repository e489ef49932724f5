import type { Argv } from 'yargs'
import type { Config } from '../config/schema.ts'
import { ConfigError, CupbearerError } from '../errors.ts'
import { HINTS } from './hints.ts'

/** What every command takes. */
export interface CommonOptions {
  readonly config: string
}

/** Adds one command to the command line. */
export type Command = (cli: Argv<CommonOptions>) => Argv<CommonOptions>

export const EXIT = { fine: 0, failed: 1, usage: 2 } as const

/** A failure of a command: one sentence, and a second one that says what to do. */
export class CommandError extends Error {
  readonly exitCode: number
  readonly hint: string | undefined

  constructor(
    exitCode: number,
    message: string,
    hint?: string | undefined,
    options?: { cause?: unknown },
  ) {
    super(message, options)
    this.name = 'CommandError'
    this.exitCode = exitCode
    this.hint = hint
  }
}

/** Loads the configuration for a command. An error nobody foresaw shows its stack only at log level debug. */
export async function withConfig(
  file: string,
  body: (config: Config) => Promise<void>,
): Promise<void> {
  // Loaded when it is needed: `--help` and wrong uses answer without it.
  const { loadConfig } = await import('../config/load.ts')
  const config = await loadConfig(file)
  try {
    await body(config)
  } catch (error) {
    const verbose = config.log.level === 'debug' || config.log.level === 'trace'
    if (verbose && !isForeseen(error)) {
      const { whereFrom } = await import('../lib/log.ts')
      const { error: name, at } = whereFrom(error)
      process.stderr.write(`${[name, ...at].join('\n    ')}\n`)
    }
    throw error
  }
}

const isForeseen = (error: unknown): error is CommandError | CupbearerError =>
  error instanceof CommandError || error instanceof CupbearerError

/** Says on standard error what went wrong and returns the exit code. */
export function reportError(error: unknown): number {
  const lines = [`cupbearer: ${messageOf(error)}`]
  const hint = hintFor(error)
  if (hint) lines.push(`  hint: ${hint}`)
  process.stderr.write(`${lines.join('\n')}\n`)
  if (error instanceof CommandError) return error.exitCode
  return error instanceof ConfigError ? EXIT.usage : EXIT.failed
}

/** A library's error may quote what it was given, so only its kind is shown. */
function messageOf(error: unknown): string {
  if (isForeseen(error)) return error.message
  const { code, syscall } = (error ?? {}) as NodeJS.ErrnoException
  const kind = code ?? (error instanceof Error ? error.name : typeof error)
  return `unexpected failure (${syscall ? `${syscall}: ` : ''}${kind})`
}

function hintFor(error: unknown): string | undefined {
  if (error instanceof CommandError) return error.hint
  if (error instanceof ConfigError) {
    return error.issues.some(({ message }) => message === 'cannot be read (no such file)')
      ? '`cupbearer init` writes a configuration to start from; -c names another file'
      : HINTS.CONFIG_INVALID
  }
  if (error instanceof CupbearerError) return HINTS[error.code]
  return 'set "log": { "level": "debug" } in the configuration to see where it comes from'
}

/** `-c FILE` as it has to be repeated in a command that the user is told to type. */
export const configFlag = (file: string) => (file === 'config.json' ? '' : ` -c ${file}`)

/** Writes a line to standard output. */
export function print(text: string): void {
  process.stdout.write(`${text}\n`)
}

/** Writes to standard error what does not stop the command. */
export function warn(text: string): void {
  process.stderr.write(`cupbearer: ${text}\n`)
}
