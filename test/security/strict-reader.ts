/** A request as it was meant, or as somebody read it. */
export interface Meaning {
  readonly method: string
  readonly target: string
  readonly headers: readonly string[]
  readonly body: string
}

const HEAD =
  /^([A-Z0-9_-]+) ([\x21-\x7e]+) HTTP\/1\.1\r\n((?:[!#$%&'*+\-.^_`|~0-9A-Za-z]+:[\t\x20-\x7e\x80-\xff]*\r\n)*)\r\n/
const CHUNK = /^([0-9a-f]{1,8})\r\n/
const TRAILERS = /^(?:[!#$%&'*+\-.^_`|~0-9A-Za-z]+:[\t\x20-\x7e\x80-\xff]*\r\n)*\r\n/

/**
 * Reads what was sent on one connection by the letter of RFC 9112, with none of the proxy's code: one spelling of
 * each thing, exactly one Host, one frame at most. Throws for whatever else it finds, and for a request that is not
 * whole unless `open`.
 */
export function readStrictly(sent: string, open = false): Meaning[] {
  const found: Meaning[] = []
  let rest = sent
  while (rest !== '') {
    const head = HEAD.exec(rest)
    if (!head) {
      if (open) break
      throw new Error(`not a request: ${JSON.stringify(rest.slice(0, 200))}`)
    }
    const headers: string[] = []
    for (const line of (head[3] as string).split('\r\n')) {
      if (line === '') continue
      const colon = line.indexOf(':')
      headers.push(line.slice(0, colon), line.slice(colon + 1).replace(/^[\t ]+|[\t ]+$/g, ''))
    }
    const values = (name: string) =>
      headers.filter((_, i) => i % 2 === 1 && headers[i - 1]?.toLowerCase() === name)
    if (values('host').length !== 1) throw new Error('not one Host')
    const lengths = values('content-length')
    const codings = values('transfer-encoding')
    if (lengths.length + codings.length > 1) throw new Error('more than one frame')
    rest = rest.slice(head[0].length)
    let body = ''
    if (codings.length > 0) {
      if (codings[0] !== 'chunked') throw new Error(`coding ${codings[0]}`)
      const read = readChunks(rest)
      if (!read) {
        if (open) break
        throw new Error('a chunked body that is not whole')
      }
      body = read.body
      rest = read.rest
    } else if (lengths.length > 0) {
      if (!/^\d{1,15}$/.test(lengths[0] as string)) throw new Error(`length ${lengths[0]}`)
      const length = Number(lengths[0])
      if (rest.length < length) {
        if (open) break
        throw new Error('a body that is not whole')
      }
      body = rest.slice(0, length)
      rest = rest.slice(length)
    }
    found.push({ method: head[1] as string, target: head[2] as string, headers, body })
  }
  return found
}

function readChunks(text: string): { body: string; rest: string } | undefined {
  let body = ''
  let rest = text
  for (;;) {
    const line = CHUNK.exec(rest)
    if (!line) return undefined
    const size = Number.parseInt(line[1] as string, 16)
    rest = rest.slice((line[0] as string).length)
    if (size === 0) break
    if (rest.slice(size, size + 2) !== '\r\n') return undefined
    body += rest.slice(0, size)
    rest = rest.slice(size + 2)
  }
  const trailers = TRAILERS.exec(rest)
  return trailers ? { body, rest: rest.slice(trailers[0].length) } : undefined
}
