import type { RawHeaders } from '../headers.ts'
import { FieldReader } from './fields.ts'
import {
  MessageError,
  type MessageHandler,
  type MessageHead,
  type RequestHead,
  type ResponseHead,
} from './message.ts'

export interface ParserOptions {
  /** Of a start line with its fields, and of trailers. */
  readonly maxHeaderBytes: number
}

/** Empty lines that may stand before a start line (RFC 9112 §2.2). */
const MAX_EMPTY_LINES = 4

/** Of one line with a chunk's size, extensions included, and of all extensions of one message. */
const MAX_CHUNK_LINE = 1024
const MAX_EXTENSIONS = 16 * 1024

const CR = 0x0d
const LF = 0x0a

const enum_ = {
  /** Waits for `next`. */
  held: 0,
  head: 1,
  length: 2,
  untilClose: 3,
  chunkSize: 4,
  chunkData: 5,
  chunkEnd: 6,
  trailers: 7,
  closed: 8,
} as const
