import {
  closeSync,
  constants,
  copyFileSync,
  existsSync,
  fchmodSync,
  mkdtempSync,
  openSync,
  readdirSync,
  realpathSync,
  renameSync,
  rmSync,
  statSync,
} from 'node:fs'
import { basename, dirname, join } from 'node:path'
import { CupbearerError } from '../errors.ts'
import { attach, type Connection, corrupt, detach, storeError } from './database.ts'
import { makeFolder, syncFolder } from './folder.ts'
import type { Sealer } from './seal.ts'

/** "Cup1" in the header's application id: another program's database is never taken for a store. */
const APPLICATION_ID = 0x43757031
const SCHEMA_VERSION = 1

const SCHEMA = `
  PRAGMA store.application_id = ${APPLICATION_ID};
  PRAGMA store.user_version = ${SCHEMA_VERSION};
  CREATE TABLE store.canary (created TEXT NOT NULL, sealed TEXT NOT NULL) STRICT;
  CREATE TABLE store.credentials (
    pool TEXT NOT NULL, id TEXT NOT NULL, generation INTEGER NOT NULL, sealed TEXT NOT NULL,
    PRIMARY KEY (pool, id)
  ) STRICT;
  CREATE TABLE store.usage (
    pool TEXT NOT NULL, id TEXT NOT NULL, data TEXT NOT NULL,
    PRIMARY KEY (pool, id)
  ) STRICT;
`

/** The canary is sealed for no credential: it only tells whether the key fits. */
const CANARY = { pool: '', id: '' }

/** The one name of a store file, so that a link to it meets the same lock; its folder is made if absent. */
export function locate(path: string): string {
  if (existsSync(path)) {
    if (!statSync(path).isFile()) throw new CupbearerError('STORE_FAILED', `${path} is not a file`)
    return realpathSync(path)
  }
  makeFolder(dirname(path))
  return join(realpathSync(dirname(path)), basename(path))
}

/** Whether a store is there; a log without its file is neither a store nor a place for a new one. */
export function storeExists(file: string): boolean {
  if (existsSync(file)) return true
  if (existsSync(`${file}-wal`)) throw corrupt(file, `it is missing, but ${file}-wal is there`)
  return false
}

/** Makes a store complete under another name, then gives it its own: a store file is never half made. */
export async function createDatabase(file: string, sealer: Sealer, now: number): Promise<void> {
  const canary = await sealer.seal(CANARY, 'cupbearer')
  const draft = `${file}.new`
  for (const suffix of ['', '-wal', '-journal']) rmSync(`${draft}${suffix}`, { force: true })
  const descriptor = openSync(draft, 'wx', 0o600)
  try {
    // The log inherits this mode from SQLite (sqlite.org/fileio: the mode of the database file).
    fchmodSync(descriptor, 0o600)
  } finally {
    closeSync(descriptor)
  }
  const connection = attach(draft, 'write')
  try {
    connection.exec('PRAGMA store.journal_mode = WAL')
    connection.exec(`BEGIN; ${SCHEMA}`)
    connection
      .prepare('INSERT INTO store.canary VALUES (?, ?)')
      .run(new Date(now).toISOString(), canary)
    connection.exec('COMMIT')
  } finally {
    detach(connection)
  }
  // A checkpoint that failed is not told by DETACH: what it left in the log would not come along.
  if (existsSync(`${draft}-wal`)) {
    throw new CupbearerError('STORE_FAILED', `${file} cannot be written: the disk is full or fails`)
  }
  renameSync(draft, file)
  syncFolder(dirname(file))
}

/**
 * Proves that a file is a whole store of this key, without changing a byte of it. Where a log was left by
 * a crash, a copy is judged: opening the original would replay the log into it, and closing delete the log.
 */
export async function checkDatabase(file: string, sealer: Sealer): Promise<void> {
  // What a crash in the middle of an earlier check left behind.
  const prefix = `${basename(file)}.check-`
  for (const name of readdirSync(dirname(file))) {
    if (name.startsWith(prefix)) rmSync(join(dirname(file), name), { recursive: true, force: true })
  }
  if (statSync(file).size === 0) throw corrupt(file, 'it is empty')
  if ((statSync(`${file}-wal`, { throwIfNoEntry: false })?.size ?? 0) === 0) {
    return inspect(file, file, 'inspect', sealer)
  }
  const folder = mkdtempSync(`${file}.check-`)
  try {
    const copy = join(folder, 'copy')
    for (const suffix of ['', '-wal']) {
      copyFileSync(`${file}${suffix}`, `${copy}${suffix}`, constants.COPYFILE_FICLONE)
    }
    await inspect(file, copy, 'write', sealer)
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}

async function inspect(
  file: string,
  copy: string,
  mode: 'write' | 'inspect',
  sealer: Sealer,
): Promise<void> {
  const connection = attach(copy, mode)
  let canary: { created: string; sealed: string } | undefined
  try {
    if (pragma(connection, 'application_id') !== APPLICATION_ID) {
      throw corrupt(file, 'it is the database of another program')
    }
    const version = Number(pragma(connection, 'user_version'))
    if (version > SCHEMA_VERSION) {
      throw new CupbearerError(
        'STORE_FAILED',
        `${file} is of a newer version of Cupbearer (schema ${version}, this one knows ${SCHEMA_VERSION})`,
      )
    }
    if (pragma(connection, 'integrity_check(1)') !== 'ok') throw corrupt(file, 'it is damaged')
    canary = connection.prepare('SELECT created, sealed FROM store.canary').get() as typeof canary
  } finally {
    detach(connection)
  }
  if (canary === undefined) throw corrupt(file, 'it is damaged')
  try {
    await sealer.open(CANARY, canary.sealed)
  } catch (error) {
    const refused = storeError(error, file)
    if (refused.code !== 'STORE_KEY_WRONG') throw corrupt(file, 'it is damaged')
    throw new CupbearerError(
      'STORE_KEY_WRONG',
      `${file} was made at ${canary.created} with another key; nothing was changed: give that key`,
    )
  }
}

function pragma(connection: Connection, name: string): unknown {
  // Not `pluck()`, which libsql honours in `all()` only.
  const row = connection.prepare(`PRAGMA store.${name}`).raw().get() as [unknown] | undefined
  return row?.[0]
}
