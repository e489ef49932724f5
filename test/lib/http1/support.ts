import { Duplex } from 'node:stream'
import {
  type Course,
  MessageError,
  type RequestHead,
  type ResponseHead,
} from '../../../src/lib/http1/message.ts'
import { RequestParser } from '../../../src/lib/http1/request.ts'
import { ResponseParser } from '../../../src/lib/http1/response.ts'

/** What a parser, ours or Node's, found in a message. */
export interface Found {
  readonly start: string
  readonly headers: readonly string[]
  readonly body: string
  readonly trailers: readonly string[]
}

export interface Reading {
  /** Messages that came to their end. */
  readonly messages: Found[]
  readonly heads: (RequestHead | ResponseHead)[]
  /** What was wrong, if anything was. */
  fault: string | undefined
}

export const MAX_HEADER_BYTES = 16 * 1024

/** Cuts bytes at these places, which wrap around. */
export function pieces(bytes: Buffer, sizes: readonly number[]): Buffer[] {
  const cut: Buffer[] = []
  for (let at = 0, i = 0; at < bytes.length; i++) {
    const size = sizes.length === 0 ? bytes.length : (sizes[i % sizes.length] as number)
    cut.push(bytes.subarray(at, at + size))
    at += size
  }
  return cut
}

/** All requests of a connection, up to the first that does not keep it. */
export function readRequests(bytes: Buffer, sizes: readonly number[] = []): Reading {
  const reading: Reading = { messages: [], heads: [], fault: undefined }
  let head: RequestHead | undefined
  let body = ''
  const parser = new RequestParser(
    {
      head(found): Course {
        head = found
        body = ''
        reading.heads.push(found)
        return found.method === 'CONNECT' ? 'upgrade' : 'body'
      },
      body(chunk) {
        body += chunk.toString('latin1')
      },
      end(trailers) {
        const { method, target, minor, headers, keepAlive } = head as RequestHead
        reading.messages.push({ start: `${method} ${target} 1.${minor}`, headers, body, trailers })
        if (keepAlive) parser.next()
        else parser.stop()
      },
    },
    { maxHeaderBytes: MAX_HEADER_BYTES },
  )
  feed(parser, pieces(bytes, sizes), reading)
  return reading
}

/** One response with its interim ones, as the answer to a request of this method. */
export function readResponse(
  bytes: Buffer,
  sizes: readonly number[] = [],
  method = 'GET',
): Reading & { rest: string } {
  const reading = { messages: [], heads: [], fault: undefined, rest: '' } as Reading & {
    rest: string
  }
  let head: ResponseHead | undefined
  let body = ''
  const parser = new ResponseParser(
    {
      head(found): Course {
        head = found
        reading.heads.push(found)
        if (found.status === 101) return 'upgrade'
        return method === 'HEAD' ? 'none' : 'body'
      },
      body(chunk) {
        body += chunk.toString('latin1')
      },
      end(trailers) {
        const { status, reason, minor, headers } = head as ResponseHead
        reading.messages.push({ start: `1.${minor} ${status} ${reason}`, headers, body, trailers })
      },
    },
    { maxHeaderBytes: MAX_HEADER_BYTES },
  )
  feed(parser, pieces(bytes, sizes), reading)
  reading.rest = parser.takeRest()?.toString('latin1') ?? ''
  return reading
}

function feed(
  parser: RequestParser | ResponseParser,
  chunks: readonly Buffer[],
  reading: Reading,
): void {
  try {
    for (const chunk of chunks) parser.execute(chunk)
    parser.finish()
  } catch (error) {
    if (!(error instanceof MessageError)) throw error
    reading.fault = error.fault
  }
}

/** A connection whose peer says these bytes and then ends. */
export class Wire extends Duplex {
  readonly #chunks: Buffer[]
  /** How often the reader has asked for more. */
  reads = 0

  constructor(chunks: readonly Buffer[]) {
    super()
    this.#chunks = [...chunks]
    this.on('error', () => {})
  }

  override _read(): void {
    this.reads += 1
    this.push(this.#chunks.shift() ?? null)
  }

  override _write(_chunk: Buffer, _encoding: string, done: () => void): void {
    done()
  }

  /** Node asks these of a socket. */
  destroySoon(): void {
    this.end(() => this.destroy())
  }
  setTimeout(): this {
    return this
  }
  setNoDelay(): this {
    return this
  }
  setKeepAlive(): this {
    return this
  }
}

export const latin1 = (text: string): Buffer => Buffer.from(text, 'latin1')
