import { randomBytes } from 'node:crypto'
import {
  closeSync,
  existsSync,
  fchmodSync,
  fstatSync,
  fsyncSync,
  openSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import { dirname } from 'node:path'
import { ConfigError, CupbearerError } from '../errors.ts'
import type { Secret } from '../lib/secret.ts'
import { syncFolder } from './folder.ts'

const EXPECTED = 'expected 32 bytes in base64'

/**
 * Finds the 32 bytes that seal a store: those of the configuration, else those in `FILE.key`, which is made
 * with a new store and never for an old one. Call it with the store's lock held.
 */
export function findKey(file: string, exists: boolean, configured: Secret | undefined): Buffer {
  if (configured !== undefined) {
    const key = parseKey(configured.reveal())
    if (key === undefined) throw new ConfigError([{ path: 'storeKey', message: EXPECTED }])
    return key
  }
  const keyFile = `${file}.key`
  if (existsSync(keyFile)) return readKeyFile(keyFile)
  if (exists) {
    throw new CupbearerError(
      'STORE_KEY_WRONG',
      `${keyFile} is missing: put it back, or give the key of ${file} as storeKey`,
    )
  }
  return createKeyFile(keyFile)
}

/** Base64 in either alphabet, padded or not (RFC 4648 §4, §5), with outer white space. */
export function parseKey(text: string): Buffer | undefined {
  const trimmed = text.trim()
  // 43 characters hold 258 bits: the last one must have its two spare bits clear, or it is a typing error.
  if (!/^[A-Za-z0-9+/_-]{42}[AEIMQUYcgkosw048]=?$/.test(trimmed)) return undefined
  return Buffer.from(trimmed, 'base64')
}

function readKeyFile(keyFile: string): Buffer {
  const descriptor = openSync(keyFile, 'r')
  try {
    const mode = fstatSync(descriptor).mode & 0o777
    if (process.platform !== 'win32' && (mode & 0o077) !== 0) {
      const message = `${keyFile} is open to other users (mode 0${mode.toString(8)}): run chmod 600 '${keyFile}'`
      throw new ConfigError([{ path: 'storeKey', message }])
    }
    const key = parseKey(readFileSync(descriptor, 'latin1'))
    if (key === undefined) throw new CupbearerError('STORE_KEY_WRONG', `${keyFile}: ${EXPECTED}`)
    return key
  } finally {
    closeSync(descriptor)
  }
}

/** Written whole under another name first: no crash leaves half a key where the next start would read it. */
function createKeyFile(keyFile: string): Buffer {
  const key = randomBytes(32)
  const draft = `${keyFile}.new`
  rmSync(draft, { force: true })
  const descriptor = openSync(draft, 'wx', 0o600)
  try {
    fchmodSync(descriptor, 0o600)
    writeFileSync(descriptor, `${key.toString('base64')}\n`)
    fsyncSync(descriptor)
  } finally {
    closeSync(descriptor)
  }
  renameSync(draft, keyFile)
  syncFolder(dirname(keyFile))
  return key
}
