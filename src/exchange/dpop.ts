import { headerValue, headerValues, type RawHeaders } from '../lib/headers.ts'
import type { Lease } from '../pool/lease.ts'
import type { ProxyRequest } from './request.ts'

type Sent = Pick<ProxyRequest, 'method' | 'scheme' | 'host'>

/** Turns the injected `Authorization` into one of the scheme DPoP, and adds the proof (RFC 9449 §7.1). */
export function addProof(
  headers: RawHeaders,
  request: Sent,
  path: string,
  lease: Lease,
  now: number,
): void {
  const { dpopKey, token } = lease
  if (!dpopKey) return
  for (let i = 0; i < headers.length; i += 2) {
    if ((headers[i] as string).toLowerCase() !== 'authorization') continue
    headers[i + 1] = `DPoP ${token.reveal()}`
  }
  const { method } = request
  headers.push('DPoP', dpopKey.prove({ method, origin: originOf(request), path, token, now }))
}

/** Takes note of the nonce of an answer; true when the answer says no more than that it wants one (§9). */
export function wantsNonce(
  request: Sent,
  { status, headers }: { readonly status: number; readonly headers: RawHeaders },
  lease: Lease,
): boolean {
  const nonce = headerValue(headers, 'dpop-nonce')
  if (nonce === undefined) return false
  lease.dpopKey?.learn(originOf(request), nonce)
  if (status !== 401) return false
  return headerValues(headers, 'www-authenticate').some((challenge) =>
    /\bDPoP\b.*\berror="?use_dpop_nonce\b/is.test(challenge),
  )
}

/** As a server sees it: the scheme's own port is left out. */
function originOf({ scheme, host }: Sent): string {
  return `${scheme}://${host}`
}
