import { connectionListed, HOP_BY_HOP, type RawHeaders } from '../lib/headers.ts'
import { REDACTED } from '../lib/secret.ts'

/**
 * A response's headers as the client gets them: case, order and duplicates kept, hop-by-hop fields gone
 * (framing is the client leg's own), and the injected token replaced wherever upstream echoes it.
 */
export function scrubHeaders(headers: readonly string[], token: string | undefined): RawHeaders {
  const output: RawHeaders = []
  const listed = connectionListed(headers)
  for (let i = 0; i < headers.length; i += 2) {
    const name = headers[i] as string
    const lower = name.toLowerCase()
    if (HOP_BY_HOP.has(lower) || (listed?.has(lower) && lower !== 'content-length')) continue
    output.push(name, redact(headers[i + 1] as string, token))
  }
  return output
}

export function redact(text: string, token: string | undefined): string {
  if (token === undefined || text.length < token.length || !text.includes(token)) return text
  return text.replaceAll(token, REDACTED)
}
