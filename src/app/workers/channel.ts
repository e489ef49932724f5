import type { Duplex } from 'node:stream'

/** More than this, waiting to be written, is taken for a peer that does not keep up. */
const CROWDED_BYTES = 4 * 1024 * 1024
const LINE_FEED = 10
/** How long what nobody waits for may lie: many share a system call then. */
const POST_MS = 20

/**
 * One end of the private pipe between the primary and a worker. What is sent within one turn of the event loop
 * goes out as one line of JSON: a system call, not one for each message.
 */
export class Channel<Out extends readonly unknown[], In extends readonly unknown[]> {
  readonly #pipe: Duplex
  readonly #receive: (message: In) => void
  #outbox: Out[] = []
  /** Of a line whose end has not come yet. */
  #rest: Buffer[] = []
  /** Whether a turn's end is waited for, which takes along whatever is there. */
  #hurried = false
  #lazy: NodeJS.Timeout | undefined
  #closed = false

  /** `receive` hears each message in the order of sending; `closed` once, when the other end has gone. */
  constructor(pipe: Duplex, receive: (message: In) => void, closed: () => void) {
    this.#pipe = pipe
    this.#receive = receive
    pipe.on('data', (chunk: Buffer) => this.#read(chunk))
    // What goes wrong with a pipe ends it.
    pipe.on('error', () => pipe.destroy())
    pipe.once('end', () => pipe.destroy())
    pipe.once('close', () => {
      this.#closed = true
      this.#outbox = []
      clearTimeout(this.#lazy)
      closed()
    })
  }

  /** Whether the other end reads slower than this one writes. */
  get crowded(): boolean {
    return this.#pipe.writableLength > CROWDED_BYTES
  }

  /** Sends a message at the end of this turn; one to an end that has gone is dropped. */
  send(message: Out): void {
    if (this.#closed) return
    this.#outbox.push(message)
    if (this.#hurried) return
    this.#hurried = true
    setImmediate(this.#flush)
  }

  /** The same for what nobody waits for: it goes with the next message that is sent, or soon. */
  post(message: Out): void {
    if (this.#closed) return
    this.#outbox.push(message)
    if (!this.#hurried) this.#lazy ??= setTimeout(this.#flush, POST_MS)
  }

  /** Resolves when all that was sent has been handed to the system, or the other end has gone. */
  async flushed(): Promise<void> {
    this.#flush()
    if (this.#closed || this.#pipe.writableLength === 0) return
    await new Promise<void>((resolve) => {
      const done = () => {
        this.#pipe.off('drain', done).off('close', done)
        resolve()
      }
      // `drain` comes only after a write that found the buffer full; an empty one always ends.
      this.#pipe.once('close', done)
      this.#pipe.write('', () => done())
    })
  }

  close(): void {
    this.#pipe.destroy()
  }

  readonly #flush = (): void => {
    this.#hurried = false
    clearTimeout(this.#lazy)
    this.#lazy = undefined
    const messages = this.#outbox
    if (messages.length === 0 || this.#closed) return
    this.#outbox = []
    this.#pipe.write(`${JSON.stringify(messages)}\n`)
  }

  #read(chunk: Buffer): void {
    let from = 0
    for (let end = chunk.indexOf(LINE_FEED); end !== -1; end = chunk.indexOf(LINE_FEED, from)) {
      let line = chunk.subarray(from, end)
      if (this.#rest.length > 0) {
        line = Buffer.concat([...this.#rest, line])
        this.#rest = []
      }
      from = end + 1
      for (const message of JSON.parse(line.toString('utf8')) as In[]) this.#receive(message)
    }
    if (from < chunk.length) this.#rest.push(from === 0 ? chunk : chunk.subarray(from))
  }
}
