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
/** As much may wait while the disk writes before the client is paused. */
const SPILL_AHEAD = 512 * 1024
/**
 * As much may wait for the disk in the whole process before anything is written: most bodies are answered and
 * forgotten before that, and never touch the disk.
 */
const WRITE_BEHIND = 16 * 1024 * 1024

/**
 * A request body that can be sent more than once: it is recorded while the first attempt reads it, in memory,
 * then on disk. The source is read only as fast as an attempt takes it, so backpressure holds end to end.
 * `release()` must be called once the exchange is over; it deletes the spool file.
 */
export class RequestBody {
  readonly #whole: Buffer | undefined
  readonly #source: Readable | undefined
  readonly #limits: BodyLimits
  #memory: Buffer[] = []
  #memoryBytes = 0
  #spool: Spool | undefined
  /** False once the body is too long to be recorded. */
  #recording = true
  #released = false
  #bytesRead = 0
  #ended = false
  #failure: Error | undefined
  #attached = false
  #attempt: Attempt | undefined

  constructor(source: Readable | Buffer, limits: BodyLimits) {
    this.#limits = limits
    if (Buffer.isBuffer(source)) {
      this.#whole = source
      this.#bytesRead = source.length
    } else {
      this.#source = source
    }
  }

  /** Whether another attempt can send the whole body again. */
  get replayable(): boolean {
    return this.#recording && !this.#released
  }

  /** The body, where it was taken whole before it was sent. */
  get whole(): Buffer | undefined {
    return this.#whole
  }

  /** The first bytes, as far as they are in memory. */
  beginning(limit: number): Buffer {
    if (this.#whole) return this.#whole.subarray(0, limit)
    const chunks: Buffer[] = []
    let length = 0
    for (const chunk of this.#memory) {
      if (length >= limit) break
      chunks.push(chunk)
      length += chunk.length
    }
    return Buffer.concat(chunks).subarray(0, limit)
  }

  /** Bytes that came from the client so far. */
  get bytesRead(): number {
    return this.#bytesRead
  }

  /** The body for one attempt, from its first byte; an earlier attempt's stream is ended first. */
  open(): Buffer | Readable {
    if (this.#whole) return this.#whole
    this.#attempt?.destroy()
    if (!this.replayable) throw new Error('this body cannot be sent again')
    this.#attach()
    this.#attempt = new Attempt((attempt) => this.#feed(attempt))
    return this.#attempt
  }

  /** Ends what still reads, forgets the record and deletes the spool file. */
  release(): void {
    if (this.#released) return
    this.#released = true
    this.#attempt?.destroy()
    this.#forget()
    this.#source?.resume()
  }

  #attach(): void {
    if (this.#attached) return
    this.#attached = true
    const source = this.#source as Readable
    source.pause()
    source.on('data', (chunk: Buffer) => this.#take(chunk))
    source.once('end', () => {
      this.#ended = true
      if (this.#attempt?.live) this.#attempt.push(null)
    })
    const broken = (error?: Error) => {
      if (this.#ended) return
      this.#failure ??= error ?? new Error('the client left within its request body')
      if (this.#attempt?.live) this.#attempt.destroy(this.#failure)
    }
    source.once('error', broken)
    source.once('close', () => broken())
  }

  #take(chunk: Buffer): void {
    // The rest of a body that nobody wants any more is let through, so that the connection can serve again.
    if (this.#released) return
    const source = this.#source as Readable
    this.#bytesRead += chunk.length
    if (this.#recording) this.#record(chunk)
    const attempt = this.#attempt
    const wanted = attempt?.live === true && attempt.push(chunk)
    if (!wanted || this.#spool?.behind) source.pause()
  }

  /** The attempt asks for more: what is recorded first, then what comes live. */
  async #feed(attempt: Attempt): Promise<void> {
    if (!attempt.live) {
      if (attempt.chunk < this.#memory.length) {
        attempt.push(this.#memory[attempt.chunk++])
        return
      }
      const spool = this.#spool
      if (spool && attempt.offset < spool.length) {
        const piece = await spool.read(attempt.offset)
        attempt.offset += piece.length
        attempt.push(piece)
        return
      }
      attempt.live = true
      if (this.#ended) {
        attempt.push(null)
        return
      }
    }
    if (this.#failure) throw this.#failure
    if (this.#spool?.behind) await this.#spool.flushed()
    if (!this.#ended) this.#source?.resume()
  }

  #record(chunk: Buffer): void {
    if (!this.#spool && this.#memoryBytes + chunk.length <= this.#limits.memory) {
      this.#memory.push(chunk)
      this.#memoryBytes += chunk.length
      return
    }
    if ((this.#spool?.length ?? 0) + chunk.length > this.#limits.disk) {
      this.#forget()
      return
    }
    // A full disk costs the replay, not the request.
    this.#spool ??= new Spool(this.#limits.dir, () => this.#forget())
    this.#spool.append(chunk)
  }

  /** From here on the body passes through once. */
  #forget(): void {
    this.#recording = false
    this.#memory = []
    this.#memoryBytes = 0
    this.#spool?.close()
    this.#spool = undefined
  }
}

/** The body as one attempt reads it. */
class Attempt extends Readable {
  /** Next recorded piece in memory. */
  chunk = 0
  /** Next recorded byte on disk. */
  offset = 0
  /** Whether it has caught up with the record and takes what comes. */
  live = false
  readonly #feed: (attempt: Attempt) => Promise<void>

  constructor(feed: (attempt: Attempt) => Promise<void>) {
    super({ highWaterMark: 2 * READ_SIZE })
    this.#feed = feed
  }

  override _read(): void {
    this.#feed(this).catch((error: Error) => this.destroy(error))
  }
}

/** Bytes that wait for the disk in all spools. */
let waiting = 0

/** A file without a name: what was appended can be read back, and a crash leaves nothing behind. */
class Spool {
  /** Bytes appended. */
  length = 0
  readonly #dir: string
  readonly #failed: () => void
  /** Appended and not given to the disk yet. */
  #queue: Buffer[] = []
  #queued = 0
  #file: FileHandle | undefined
  #written = 0
  #closed = false
  #flushing: Promise<void> | undefined

  constructor(dir: string, failed: () => void) {
    this.#dir = dir
    this.#failed = failed
  }

  /** Whether the disk is slower than the client. */
  get behind(): boolean {
    return this.#flushing !== undefined && this.#queued > SPILL_AHEAD
  }

  append(chunk: Buffer): void {
    this.#queue.push(chunk)
    this.length += chunk.length
    this.#queued += chunk.length
    waiting += chunk.length
    if (waiting > WRITE_BEHIND) this.#flushing ??= this.#flush()
  }

  flushed(): Promise<void> {
    return this.#flushing ?? Promise.resolve()
  }

  async read(offset: number): Promise<Buffer> {
    if (offset >= this.#written) {
      await this.flushed()
      let start = this.#written
      for (const chunk of this.#queue) {
        if (offset < start + chunk.length && offset >= start) return chunk.subarray(offset - start)
        start += chunk.length
      }
    }
    if (!this.#file || this.#closed) throw new Error('the request body was released')
    const piece = Buffer.allocUnsafe(Math.min(READ_SIZE, this.#written - offset))
    const { bytesRead } = await this.#file.read(piece, 0, piece.length, offset)
    if (bytesRead === 0) throw new Error('the request body was released')
    return piece.subarray(0, bytesRead)
  }

  close(): void {
    this.#closed = true
    this.#takeQueue()
    if (!this.#flushing) void this.#closeFile()
  }

  #takeQueue(): Buffer[] {
    const batch = this.#queue
    waiting -= this.#queued
    this.#queue = []
    this.#queued = 0
    return batch
  }

  /** Writes whatever has gathered, as one vector at a time. */
  async #flush(): Promise<void> {
    try {
      this.#file ??= await this.#open()
      while (this.#queue.length > 0) {
        const batch = this.#takeQueue()
        const { bytesWritten } = await this.#file.writev(batch, this.#written)
        const size = batch.reduce((sum, chunk) => sum + chunk.length, 0)
        if (bytesWritten !== size) throw new Error('the disk took less than it was given')
        this.#written += size
      }
    } catch {
      this.#closed = true
      this.#failed()
    } finally {
      this.#flushing = undefined
      if (this.#closed) await this.#closeFile()
    }
  }

  async #open(): Promise<FileHandle> {
    const path = join(this.#dir, `body-${randomUUID()}`)
    const flags = constants.O_RDWR | constants.O_CREAT | constants.O_EXCL
    const handle = await open(path, flags, 0o600)
    await unlink(path).catch(() => {})
    return handle
  }

  async #closeFile(): Promise<void> {
    const file = this.#file
    this.#file = undefined
    await file?.close().catch(() => {})
  }
}
