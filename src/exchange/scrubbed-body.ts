import type { Transform } from 'node:stream'
import { createBrotliDecompress, createGunzip, createInflate, createInflateRaw } from 'node:zlib'
import type { Attempt, BodySink } from '../egress/attempt.ts'
import { UpstreamError } from '../errors.ts'
import type { RawHeaders } from '../lib/headers.ts'
import { type Coding, codingOf, TokenScrubber } from '../route/scrub-body.ts'
import type { ProxyRequest } from './request.ts'

/**
 * In which coding the body of this answer is to be searched; undefined where it has none. Gives up an answer
 * that cannot be searched, and throws `UPSTREAM_RESET`: the token might stand in it.
 */
export function searchableCoding(method: string, attempt: Attempt): Coding | undefined {
  const { status } = attempt
  if (method === 'HEAD' || status === 101 || status === 204 || status === 304) return undefined
  const coding = codingOf(attempt.headers)
  if (coding) return coding
  attempt.abort()
  const message = 'the answer came in a coding that cannot be searched for the token'
  throw new UpstreamError('UPSTREAM_RESET', message, { sent: true })
}

/** Passes the body of an attempt on without the token; resolves when its last byte has gone on. */
export async function pipeScrubbed(
  request: ProxyRequest,
  attempt: Attempt,
  options: { sink: BodySink; coding: Coding; token: string },
): Promise<void> {
  const body = new ScrubbedBody({ ...options, giveUp: () => attempt.abort() })
  const abort = () => {
    attempt.abort()
    // What upstream has sent already may still wait for the client.
    body.cancel()
  }
  request.underway = { abort }
  await attempt.pipe(body)
  if (request.closed) abort()
  await body.done
}

/**
 * Passes a body on without the token that its request carried. What came compressed leaves as it is meant: a
 * coder would only add to the time, and to what could go wrong. Every piece goes on as soon as it is known to
 * hold no beginning of a token, so events still stream.
 */
export class ScrubbedBody implements BodySink {
  /** Resolves, never rejects, when the last byte has gone on or the body was given up. */
  readonly done: Promise<void>
  readonly #sink: BodySink
  readonly #coding: Coding
  readonly #scrubber: TokenScrubber
  /** Gives up an answer that cannot be read. */
  readonly #giveUp: () => void
  #decoder: Transform | undefined
  #trailers: RawHeaders = []
  #resume: (() => void) | undefined
  #over = false
  #settle!: () => void

  constructor(options: { sink: BodySink; coding: Coding; token: string; giveUp: () => void }) {
    this.#sink = options.sink
    this.#coding = options.coding
    this.#scrubber = new TokenScrubber(options.token)
    this.#giveUp = options.giveUp
    this.done = new Promise((resolve) => {
      this.#settle = resolve
    })
    this.#sink.onDrain(() => {
      if (this.#coding === 'identity') this.#resume?.()
      else this.#decoder?.resume()
    })
  }

  write(chunk: Buffer): boolean {
    if (this.#over || chunk.length === 0) return true
    if (this.#coding === 'identity') return this.#pass(chunk)
    return this.#decoderFor(chunk).write(chunk)
  }

  onDrain(resume: () => void): void {
    this.#resume = resume
  }

  flush(): void {
    this.#sink.flush()
  }

  end(lastChunk: Buffer | undefined, trailers: RawHeaders): void {
    if (this.#over) return
    this.#trailers = trailers
    if (this.#coding === 'identity') {
      const last = lastChunk ? this.#scrubber.push(lastChunk) : undefined
      this.#finish(last)
    } else if (lastChunk && lastChunk.length > 0) this.#decoderFor(lastChunk).end(lastChunk)
    else if (this.#decoder) this.#decoder.end()
    // No body at all, as in the answer to HEAD.
    else this.#finish(undefined)
  }

  abort(error: UpstreamError): void {
    if (!this.#close()) return
    this.#sink.abort(error)
    this.#settle()
  }

  /** The client has gone: what is still on the way to it is let go. */
  cancel(): void {
    if (this.#close()) this.#settle()
  }

  #close(): boolean {
    if (this.#over) return false
    this.#over = true
    this.#decoder?.destroy()
    return true
  }

  #pass(chunk: Buffer): boolean {
    const clean = this.#scrubber.push(chunk)
    if (clean.length > 0) return this.#sink.write(clean)
    // All of it may be a beginning; the headers need not wait for what follows.
    this.#sink.flush()
    return true
  }

  #finish(last: Buffer | undefined): void {
    const rest = this.#scrubber.end()
    this.#over = true
    const whole = last && rest.length > 0 ? Buffer.concat([last, rest]) : (last ?? rest)
    this.#sink.end(whole.length > 0 ? whole : undefined, this.#trailers)
    this.#settle()
  }

  #decoderFor(first: Buffer): Transform {
    if (this.#decoder) return this.#decoder
    const decoder = decoderOf(this.#coding, first)
    this.#decoder = decoder
    return decoder
      .on('data', (chunk: Buffer) => {
        if (!this.#over && !this.#pass(chunk)) decoder.pause()
      })
      .on('drain', () => this.#resume?.())
      .on('end', () => {
        if (!this.#over) this.#finish(undefined)
      })
      .on('error', (cause) => {
        if (this.#over) return
        // The message of a decoder says nothing of the body; that it broke off is all there is to tell.
        this.abort(
          new UpstreamError('UPSTREAM_RESET', 'the body cannot be decoded', { cause, sent: true }),
        )
        this.#giveUp()
      })
  }
}

function decoderOf(coding: Coding, first: Buffer): Transform {
  if (coding === 'gzip') return createGunzip()
  if (coding === 'br') return createBrotliDecompress()
  // RFC 9110 §8.4.1.2: some send it without the zlib format around it, whose first byte names the method, 8.
  return ((first[0] as number) & 0x0f) === 8 ? createInflate() : createInflateRaw()
}
