import type { RawHeaders } from '../headers.ts'

/** How a message's body ends (RFC 9112 §6.3); `close` is for responses alone. */
export type Framing = 'none' | 'length' | 'chunked' | 'close'

/** What requests and responses have in common. */
export interface MessageHead {
  /** HTTP/1.0 or HTTP/1.1. */
  readonly minor: 0 | 1
  /** As they came: case, order, duplicates; values without outer white space. */
  readonly headers: RawHeaders
  readonly framing: Framing
  /** The announced length; 0 where the framing is another. */
  readonly length: number
  /** Whether the sender keeps the connection (RFC 9112 §9.3). */
  readonly keepAlive: boolean
  /** The `Upgrade` field, lower-cased, where `Connection` lists it. */
  readonly upgrade: string | undefined
}

export interface RequestHead extends MessageHead {
  readonly method: string
  /** In whatever form it came (RFC 9112 §3.2). */
  readonly target: string
  /** The `Expect` field. */
  readonly expect: string | undefined
}

export interface ResponseHead extends MessageHead {
  readonly status: number
  readonly reason: string
}

/**
 * What becomes of a message after its head: a body as its fields frame it, none whatever they say (the answer to
 * HEAD), or no HTTP at all from here on (after a CONNECT or a 101).
 */
export type Course = 'body' | 'none' | 'upgrade'

/** What a parser finds, called from within `execute`, `next` and `finish`. */
export interface MessageHandler<Head extends MessageHead> {
  /** An interim response (1xx but 101) is a head alone: nothing follows it, and its answer does not count. */
  head(head: Head): Course
  /** A piece of what the parser was given, not a copy. */
  body(chunk: Buffer): void
  /** The message is whole, and the parser holds until `next`. Not called after an upgrade. */
  end(trailers: RawHeaders): void
}

/** What was wrong with a message. */
export type MessageFault =
  | 'start-line'
  | 'version'
  | 'header'
  | 'too-large'
  | 'framing'
  | 'chunk'
  | 'trailer'
  | 'incomplete'

/** The peer does not speak HTTP/1 as RFC 9112 has it; never holds a byte of what it said. */
export class MessageError extends Error {
  readonly fault: MessageFault

  constructor(fault: MessageFault) {
    super(`malformed HTTP message: ${fault}`)
    this.name = 'MessageError'
    this.fault = fault
  }
}
