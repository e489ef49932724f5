/** HTTP/1.1 message framing, as little of it as origin and generator need (RFC 9112, 6 and 7). */

const END = Buffer.from('\r\n\r\n')

/** Splits off a head: `{ head, rest }`, or undefined while its end has not come. */
export function splitHead(bytes) {
  const end = bytes.indexOf(END)
  if (end < 0) return undefined
  return { head: bytes.latin1Slice(0, end + 2), rest: bytes.subarray(end + 4) }
}

/** Reads one body, framed by length or chunked; `onPart` sees its bytes. */
export class Body {
  #left
  #chunked
  #line = ''
  #trailer = false
  #onPart

  constructor(head, onPart) {
    const length = /^content-length: *(\d+)\r$/im.exec(head)
    this.#left = length ? Number(length[1]) : 0
    this.#chunked = !length && /^transfer-encoding: *chunked\r$/im.test(head)
    this.#onPart = onPart
  }

  /** Takes bytes; gives what follows the body's end, or undefined while it goes on. */
  take(bytes) {
    let rest = bytes
    for (;;) {
      if (this.#left > 0) {
        const part = rest.length > this.#left ? rest.subarray(0, this.#left) : rest
        this.#left -= part.length
        this.#onPart?.(part)
        if (this.#left > 0) return undefined
        rest = rest.subarray(part.length)
      }
      if (!this.#chunked) return rest
      const end = rest.indexOf(10)
      this.#line += rest.latin1Slice(0, end < 0 ? rest.length : end)
      if (end < 0) return undefined
      rest = rest.subarray(end + 1)
      const line = this.#line.trim()
      this.#line = ''
      if (this.#trailer) {
        if (line === '') return rest
      } else if (line !== '') {
        this.#left = Number.parseInt(line, 16)
        this.#trailer = this.#left === 0
      }
    }
  }
}
