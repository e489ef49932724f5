import { type Logger, pino } from 'pino'

export type { Logger }

export type LogLevel = 'silent' | 'error' | 'warn' | 'info' | 'debug' | 'trace'

/**
 * Logs go to stderr: stdout belongs to `start --json` and to the commands' answers.
 * Only named fields are logged; never a request's headers, nor an error's `cause` from a library.
 */
export async function createLog(options: {
  level: LogLevel
  format: 'pretty' | 'json'
}): Promise<Logger> {
  const base = { level: options.level, base: null, timestamp: pino.stdTimeFunctions.isoTime }
  if (options.format === 'json') return pino(base, pino.destination({ dest: 2, sync: true }))
  // What writes for a person to read is loaded where one reads.
  const { default: pretty } = await import('pino-pretty')
  return pino(base, pretty({ destination: 2, colorize: process.stderr.isTTY, sync: true }))
}

/** Where an unexpected error came from: its name and stack without its message, which may quote a secret. */
export function whereFrom(error: unknown): { error: string; at: string[] } {
  if (!(error instanceof Error)) return { error: typeof error, at: [] }
  const at = (error.stack ?? '').split('\n').filter((line) => /^\s+at /.test(line))
  return { error: error.name, at: at.map((line) => line.trim()) }
}

/** A log whose lines another process writes: `write` gets each as JSON. */
export function createLineLog(level: LogLevel, write: (line: string) => void): Logger {
  return pino({ level, base: null }, { write })
}

/** Writes a line of such a log into this one. */
export function writeLine(log: Logger, line: string, more: object): void {
  const { level, time: _, msg, ...fields } = JSON.parse(line) as Record<string, unknown>
  const name = pino.levels.labels[level as number] as Exclude<LogLevel, 'silent'> | undefined
  log[name ?? 'error']({ ...fields, ...more }, msg as string)
}
