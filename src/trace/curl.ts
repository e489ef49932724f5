import { headerValue } from '../lib/headers.ts'
import { REDACTED } from '../lib/secret.ts'
import type { Trace } from './trace.ts'

/** curl and the connection set these by themselves. */
const OWN =
  /^(host|content-length|transfer-encoding|connection|te|upgrade|sec-websocket-.*|expect)$/i

/**
 * The request as a curl command through the proxy, which puts the token in anew; it holds no secret, and asks for
 * the client's password. Undefined for what no request of a client's was.
 */
export function curlFor(
  trace: Trace,
  proxy: { readonly url: string; readonly ca: string },
): string | undefined {
  if (trace.kind === 'refresh' || trace.kind === 'lease' || !URL.canParse(trace.url))
    return undefined
  const parts = ['curl', '--globoff', '-x', quoted(proxy.url)]
  if (trace.client.name) parts.push('--proxy-user', quoted(trace.client.name))
  // The certificate of a tunnel is its target's own.
  const secure = trace.url.startsWith('https:')
  if (secure && trace.kind !== 'tunnel') parts.push('--cacert', quoted(proxy.ca))
  const { method } = trace
  if (method === 'HEAD') parts.push('--head')
  else if (method !== 'GET' && method !== 'CONNECT') parts.push('-X', quoted(method))
  const request = trace.messages?.request
  const headers = request?.headers ?? []
  for (let i = 0; i < headers.length; i += 2) {
    const [name, value] = [headers[i] as string, headers[i + 1] as string]
    if (!OWN.test(name) && !value.includes(REDACTED)) parts.push('-H', quoted(`${name}: ${value}`))
  }
  const body = request?.body
  if (body && !body.cut && !body.text.includes(REDACTED)) {
    parts.push('--data-binary', quoted(body.text))
    // curl would say that it is a form.
    if (headerValue(headers, 'content-type') === undefined)
      parts.push('-H', quoted('content-type:'))
  }
  parts.push(quoted(trace.url))
  return parts.join(' ')
}

function quoted(text: string): string {
  return /^[\w./:@%+=,-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`
}
