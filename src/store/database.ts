import { chmodSync } from 'node:fs'
import { pathToFileURL } from 'node:url'
import Database from 'libsql'
import { CupbearerError, type OperatorCode } from '../errors.ts'

export type Connection = InstanceType<typeof Database>

/**
 * Opens a database file as schema `store` of a connection of its own.
 * Attached, because that is what can be closed: `close()` of libsql waits for the garbage collector while a
 * prepared statement lives, `DETACH` checkpoints and releases files and locks at once.
 * The connection holds the file alone, so it needs no shared-memory file.
 */
export function attach(file: string, mode: 'write' | 'inspect'): Connection {
  const connection = new Database(':memory:')
  // Unqualified, it holds for databases attached later; set after the attachment it would come too late.
  connection.exec('PRAGMA busy_timeout = 0; PRAGMA locking_mode = EXCLUSIVE')
  // `immutable` reads without locks and leaves every byte and name alone (sqlite.org/uri.html).
  const query = mode === 'write' ? 'mode=rw' : 'mode=ro&immutable=1'
  try {
    connection.prepare('ATTACH DATABASE ? AS store').run(`${pathToFileURL(file).href}?${query}`)
  } catch (error) {
    connection.close()
    throw error
  }
  return connection
}

/** Closes what `attach` opened; the last writer's changes go from the log into the file. */
export function detach(connection: Connection): void {
  try {
    if (connection.inTransaction) connection.exec('ROLLBACK')
    connection.exec('DETACH DATABASE store')
  } finally {
    connection.close()
  }
}

/** Holds the right to a store file. It ends with the process, however that ends. */
export interface FileLock {
  release(): void
}

/**
 * Locks a store file by an open transaction on an empty companion file: an operating-system lock, which
 * a killed holder cannot leave behind, and which SQLite also keeps between connections of one process.
 */
export function lockFile(file: string): FileLock {
  // No statement is prepared here, so `close()` is immediate.
  const connection = new Database(`${file}.lock`)
  try {
    chmodSync(`${file}.lock`, 0o600)
    // Without a journal file of its own: the transaction never writes.
    connection.exec('PRAGMA busy_timeout = 0; PRAGMA journal_mode = MEMORY; BEGIN EXCLUSIVE')
  } catch (error) {
    connection.close()
    throw error
  }
  return { release: () => connection.close() }
}

/** Gives a failure of the database or the file system its code; the library's own text stays in `cause`. */
export function storeError(error: unknown, file: string): CupbearerError {
  if (error instanceof CupbearerError) return error
  const reason = errorCode(error)
  if (/^SQLITE_(BUSY|LOCKED)/.test(reason)) {
    return named('STORE_IN_USE', `${file} is in use: a store file serves one process at a time`)
  }
  if (/^SQLITE_(CORRUPT|NOTADB)/.test(reason)) return corrupt(file, 'it is damaged or no store')
  return named('STORE_FAILED', `${file} cannot be read or written (${reason})`)

  function named(code: OperatorCode, message: string): CupbearerError {
    return new CupbearerError(code, message, { cause: error })
  }
}

/** A store that must not be touched, with what to do about it. */
export function corrupt(file: string, what: string): CupbearerError {
  return new CupbearerError(
    'STORE_CORRUPT',
    `${file}: ${what}; nothing was changed: restore it from a backup, or move it away to start afresh`,
  )
}

function errorCode(error: unknown): string {
  if (!(error instanceof Error)) return 'unknown error'
  if ('code' in error && typeof error.code === 'string' && error.code !== '') return error.code
  // libsql reports a failed open without a code of its own, the SQLite result code last in the text.
  const result = /: (\d+)"\)$/.exec(error.message)?.[1]
  return result === undefined ? error.name : `SQLite error ${result}`
}
