import { constants } from 'node:fs'
import { type FileHandle, mkdir, open, rename } from 'node:fs/promises'
import { dirname } from 'node:path'
import { type Logger, whereFrom } from '../lib/log.ts'
import { CREATOR, entriesOf } from './har.ts'
import type { TraceRecorder } from './recorder.ts'
import type { Trace } from './trace.ts'

const HEAD = `{"log":{"version":"1.2","creator":${JSON.stringify(CREATOR)},"entries":[\n`
const TAIL = '\n]}}\n'
/** What waits for the disk; more than that is dropped, the newest first, and said. */
const MAX_WAITING = 8 * 2 ** 20
/** Entries are written together, at the latest after this time. */
const WRITE_AFTER_MS = 200

export interface HarFileOptions {
  readonly path: string
  /** Bytes after which the file becomes `PATH.1`, in place of an earlier one, and a new one begins. */
  readonly max: number
}

/**
 * Appends each request to an HTTP archive. After every write the file is whole: what is appended begins where the
 * closing brackets stood, and brings them along. It is begun anew at each start, the old one kept as `PATH.1`.
 */
export class HarFile {
  readonly #options: HarFileOptions
  readonly #log: Logger
  readonly #unsubscribe: () => void
  #file: FileHandle | undefined
  /** Where the closing brackets stand. */
  #end = 0
  #empty = true
  #waiting: string[] = []
  #waitingBytes = 0
  #dropped = 0
  #timer: NodeJS.Timeout | undefined
  #writing: Promise<void> = Promise.resolve()
  #broken = false

  constructor(recorder: Pick<TraceRecorder, 'subscribe'>, options: HarFileOptions, log: Logger) {
    this.#options = options
    this.#log = log
    this.#unsubscribe = recorder.subscribe((trace) => this.#take(trace))
  }

  /** Begins the file; throws where that cannot be done. */
  async begin(): Promise<void> {
    const { path } = this.#options
    await mkdir(dirname(path), { recursive: true })
    await rename(path, `${path}.1`).catch(() => {})
    const flags = constants.O_RDWR | constants.O_CREAT | constants.O_TRUNC | constants.O_NOFOLLOW
    this.#file = await open(path, flags, 0o600)
    await this.#file.chmod(0o600)
    await this.#file.write(HEAD + TAIL, 0)
    this.#end = Buffer.byteLength(HEAD)
    this.#empty = true
  }

  /** Writes what waits and closes. */
  async close(): Promise<void> {
    this.#unsubscribe()
    clearTimeout(this.#timer)
    this.#flush()
    await this.#writing
    await this.#file?.close()
    this.#file = undefined
  }

  #take(trace: Trace): void {
    if (this.#broken) return
    for (const entry of entriesOf(trace)) {
      const text = JSON.stringify(entry)
      if (this.#waitingBytes + text.length > MAX_WAITING) {
        this.#dropped += 1
        continue
      }
      this.#waiting.push(text)
      this.#waitingBytes += text.length
    }
    this.#timer ??= setTimeout(() => this.#flush(), WRITE_AFTER_MS)
  }

  #flush(): void {
    this.#timer = undefined
    this.#writing = this.#writing.then(() => this.#write())
  }

  async #write(): Promise<void> {
    const entries = this.#waiting
    this.#waiting = []
    this.#waitingBytes = 0
    if (this.#dropped > 0) {
      this.#log.warn({ entries: this.#dropped }, 'the disk is too slow for the HAR file')
      this.#dropped = 0
    }
    if (entries.length === 0 || !this.#file) return
    try {
      const { max } = this.#options
      for (let next = 0; next < entries.length; ) {
        // At least one entry, however long; else as many as the file may still take.
        let length = this.#end
        const begin = next
        do {
          length += Buffer.byteLength(entries[next] as string) + 2
          next += 1
        } while (next < entries.length && length < max)
        await this.#append(entries.slice(begin, next))
        if (this.#end >= max) {
          await this.#file.close()
          await this.begin()
        }
      }
    } catch (error) {
      this.#broken = true
      this.#log.error(whereFrom(error), 'the HAR file cannot be written: no more is recorded there')
    }
  }

  async #append(entries: readonly string[]): Promise<void> {
    const text = `${this.#empty ? '' : ',\n'}${entries.join(',\n')}`
    await this.#file?.write(text + TAIL, this.#end)
    this.#end += Buffer.byteLength(text)
    this.#empty = false
  }
}
