import { randomUUID } from 'node:crypto'
import { constants } from 'node:fs'
import { type FileHandle, open, unlink } from 'node:fs/promises'
import { join } from 'node:path'
import { Readable } from 'node:stream'

export interface BodyLimits {
  /** Bytes kept in memory. */
  readonly memory: number
  /** Bytes kept on disk after that; past both the body cannot be sent twice. */
  readonly disk: number
  /** Folder of the spool files. */
  readonly dir: string
}

const READ_SIZE = 64 * 1024

/**
 * A request body that can be sent more than once: it is recorded while the first attempt reads it, in memory,
 * then on disk. The source is read only as fast as an attempt takes it, so backpressure holds end to end.
 * `release()` must be called once the exchange is over; it deletes the spool file.
 */
export class RequestBody {
  /** Bytes as announced by Content-Length; undefined for a chunked body. */
  readonly length: number | undefined
  readonly #limits: BodyLimits
  readonly #chunks: AsyncIterator<Buffer> | undefined
  readonly #source: Readable | undefined
  #memory: Buffer[] = []
  #memoryBytes = 0
  #file: FileHandle | undefined
  #fileBytes = 0
  #ended = false
  #replayable = true
  #released = false
  #bytesRead = 0
  #pulling: Promise<Buffer | null> | undefined
  #attempt: Readable | undefined
  /** Reads and closes of the spool file, one after another. */
  #fileWork: Promise<unknown> = Promise.resolve()

  constructor(source: Readable | Buffer, length: number | undefined, limits: BodyLimits) {
    this.length = length
    this.#limits = limits
    if (Buffer.isBuffer(source)) {
      this.#memory = [source]
      this.#memoryBytes = source.length
      this.#bytesRead = source.length
      this.#ended = true
    } else {
      this.#source = source
      this.#chunks = source.iterator({ destroyOnReturn: false }) as AsyncIterator<Buffer>
    }
  }

  /** Whether another attempt can send the whole body again. */
  get replayable(): boolean {
    return this.#replayable && !this.#released
  }

  /** Bytes that came from the client so far. */
  get bytesRead(): number {
    return this.#bytesRead
  }

  /** The body for one attempt, from its first byte; an earlier attempt's stream is ended first. */
  open(): Buffer | Readable {
    this.#attempt?.destroy()
    if (this.#source === undefined) return this.#memory[0] as Buffer
    if (!this.replayable) throw new Error('this body cannot be sent again')
    this.#attempt = this.#reader()
    return this.#attempt
  }

  /** Ends what still reads, forgets the record and deletes the spool file. */
  release(): void {
    if (this.#released) return
    this.#released = true
    this.#attempt?.destroy()
    this.#forget()
  }

  #reader(): Readable {
    let chunk = 0
    let offset = 0
    const next = async (): Promise<Buffer | null> => {
      if (chunk < this.#memory.length) return this.#memory[chunk++] as Buffer
      if (offset < this.#fileBytes) {
        const piece = await this.#readFile(offset)
        offset += piece.length
        return piece
      }
      if (this.#ended) return null
      const pulled = await this.#pull()
      // The pulled piece was recorded too: step over it, or over nothing when the record was given up.
      if (pulled !== null) {
        if (chunk < this.#memory.length) chunk = this.#memory.length
        else offset += pulled.length
      }
      return pulled
    }
    return new Readable({
      highWaterMark: READ_SIZE,
      read() {
        next().then(
          (piece) => this.push(piece),
          (error: Error) => this.destroy(error),
        )
      },
    })
  }

  /** Takes the next piece off the source and records it; two readers at the same place share the pull. */
  #pull(): Promise<Buffer | null> {
    this.#pulling ??= this.#take().finally(() => {
      this.#pulling = undefined
    })
    return this.#pulling
  }

  async #take(): Promise<Buffer | null> {
    const result = await (this.#chunks as AsyncIterator<Buffer>).next()
    if (result.done) {
      this.#ended = true
      return null
    }
    const piece = result.value
    this.#bytesRead += piece.length
    if (this.#replayable && !this.#released) await this.#record(piece)
    return piece
  }

  async #record(piece: Buffer): Promise<void> {
    if (this.#fileBytes === 0 && this.#memoryBytes + piece.length <= this.#limits.memory) {
      this.#memory.push(piece)
      this.#memoryBytes += piece.length
      return
    }
    if (this.#fileBytes + piece.length > this.#limits.disk) return this.#forget()
    const written = this.#fileWork.then(async () => {
      if (this.#released) return
      this.#file ??= await openSpool(this.#limits.dir)
      await this.#file.write(piece, 0, piece.length, this.#fileBytes)
      this.#fileBytes += piece.length
    })
    this.#fileWork = written.catch(() => {})
    // A full disk costs the replay, not the request.
    await written.catch(() => this.#forget())
  }

  async #readFile(offset: number): Promise<Buffer> {
    const piece = Buffer.allocUnsafe(Math.min(READ_SIZE, this.#fileBytes - offset))
    const read = this.#fileWork.then(async () => {
      if (!this.#file) throw new Error('the request body was released')
      return (await this.#file.read(piece, 0, piece.length, offset)).bytesRead
    })
    this.#fileWork = read.catch(() => {})
    return piece.subarray(0, await read)
  }

  /** From here on the body passes through once. */
  #forget(): void {
    this.#replayable = false
    this.#memory = []
    this.#memoryBytes = 0
    this.#fileWork = this.#fileWork.then(async () => {
      await this.#file?.close().catch(() => {})
      this.#file = undefined
      this.#fileBytes = 0
    })
  }
}

/** The spool has no name any more once it is open: a crash leaves nothing behind. */
async function openSpool(dir: string): Promise<FileHandle> {
  const path = join(dir, `body-${randomUUID()}`)
  const handle = await open(path, constants.O_RDWR | constants.O_CREAT | constants.O_EXCL, 0o600)
  await unlink(path).catch(() => {})
  return handle
}
