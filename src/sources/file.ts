import { type FSWatcher, type Stats, statSync, watch } from 'node:fs'
import { type FileHandle, open, stat } from 'node:fs/promises'
import { dirname, resolve } from 'node:path'
import type { FileSourceConfig } from '../config/schema.ts'
import { SourceError } from '../errors.ts'
import { readToken } from '../token/jwt.ts'
import { readPointer } from './pointer.ts'
import type { Source } from './source.ts'

export interface FileSourceOptions {
  /** How often a watched file is looked at where the system reports no change, ms; 3000 by default. */
  readonly pollMs?: number | undefined
  /** How long a file must rest before a change is told, ms; 50 by default. */
  readonly settleMs?: number | undefined
}

const MAX_BYTES = 2 ** 20

/** A token in a file: the whole file, or a string in a JSON file. */
export function fileSource(config: FileSourceConfig, options: FileSourceOptions = {}): Source {
  const path = resolve(config.path)
  return {
    renewable: true,
    async obtain(_previous, context) {
      const text = await readText(path, context.signal)
      const token = config.pointer === undefined ? text : readMember(path, text, config.pointer)
      try {
        return readToken(token, { receivedAt: context.clock.now() })
      } catch (cause) {
        throw cause instanceof SourceError ? failure(path, cause.message) : cause
      }
    },
    watch: (changed) => watchFile(path, changed, options),
  }
}

/** The text of a regular file of up to 1 MiB; every failure is a `SourceError` that names the path. */
export async function readText(path: string, signal: AbortSignal): Promise<string> {
  let handle: FileHandle | undefined
  try {
    // Opening a pipe would wait for its writer, out of any signal's reach.
    if (!(await stat(path)).isFile()) throw failure(path, 'not a regular file')
    handle = await open(path)
    const buffer = Buffer.allocUnsafe(MAX_BYTES + 1)
    let length = 0
    while (length < buffer.length) {
      if (signal.aborted) throw failure(path, 'not read in time')
      const { bytesRead } = await handle.read(buffer, length, buffer.length - length)
      if (bytesRead === 0) break
      length += bytesRead
    }
    if (length > MAX_BYTES) throw failure(path, 'larger than 1 MiB')
    return buffer.toString('utf8', 0, length).replace(/^\ufeff/, '')
  } catch (cause) {
    if (cause instanceof SourceError) throw cause
    throw failure(path, `cannot be read (${systemCode(cause)})`, cause)
  } finally {
    await handle?.close()
  }
}

function readMember(path: string, text: string, pointer: string): string {
  let document: unknown
  try {
    document = JSON.parse(text)
  } catch {
    // The parser's own message quotes the text.
    throw failure(path, 'not valid JSON')
  }
  const value = readPointer(document, pointer)
  if (typeof value !== 'string') throw failure(path, `no string at ${pointer}`)
  return value
}

/**
 * Tells of each change of a file. The folder is watched, not the file: an atomic replace gives the name to
 * another inode, and Kubernetes swaps a symbolic link beside it. Polling covers what the system doesn't
 * report: links into other folders, network mounts, a folder that is made anew.
 */
function watchFile(path: string, changed: () => void, options: FileSourceOptions): () => void {
  let seen = currentSignature(path)
  let stopped = false
  let settling: NodeJS.Timeout | undefined
  let watcher: FSWatcher | undefined

  const look = async () => {
    const found = signature(await stat(path).catch(() => undefined))
    if (stopped || found === seen) return
    seen = found
    if (found !== undefined) changed()
  }
  const settle = () => {
    clearTimeout(settling)
    settling = setTimeout(look, options.settleMs ?? 50)
    settling.unref()
  }
  const poll = setInterval(look, options.pollMs ?? 3000)
  poll.unref()
  try {
    watcher = watch(dirname(path), { persistent: false }, settle)
    watcher.on('error', () => watcher?.close())
  } catch {
    // No such folder yet, or no watches left: polling remains.
  }
  return () => {
    stopped = true
    clearTimeout(settling)
    clearInterval(poll)
    watcher?.close()
  }
}

/** Taken at once, not later: a change right after the watch began must be seen. */
function currentSignature(path: string): string | undefined {
  try {
    return signature(statSync(path, { throwIfNoEntry: false }))
  } catch {
    return undefined
  }
}

/** What changes whenever a file is written, replaced or linked elsewhere. */
function signature(stats: Stats | undefined): string | undefined {
  return stats && [stats.dev, stats.ino, stats.size, stats.mtimeMs, stats.ctimeMs].join(':')
}

function failure(path: string, what: string, cause?: unknown): SourceError {
  return new SourceError(
    'transient',
    `token file ${path}: ${what}`,
    cause === undefined ? {} : { cause },
  )
}

function systemCode(cause: unknown): string {
  const code = (cause as NodeJS.ErrnoException | undefined)?.code
  return typeof code === 'string' ? code : 'unknown error'
}
