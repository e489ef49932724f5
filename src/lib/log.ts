import { type Logger, pino } from 'pino'
import pretty from 'pino-pretty'

export type { Logger }

export type LogLevel = 'silent' | 'error' | 'warn' | 'info' | 'debug' | 'trace'

/**
 * Logs go to stderr: stdout belongs to `start --json` and to the commands' answers.
 * Only named fields are logged; never a request's headers, nor an error's `cause` from a library.
 */
export function createLog(options: { level: LogLevel; format: 'pretty' | 'json' }): Logger {
  const base = { level: options.level, base: null, timestamp: pino.stdTimeFunctions.isoTime }
  return options.format === 'pretty'
    ? pino(base, pretty({ destination: 2, colorize: process.stderr.isTTY, sync: true }))
    : pino(base, pino.destination({ dest: 2, sync: true }))
}
