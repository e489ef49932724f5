import { createHash } from 'node:crypto'
import type { IncomingMessage } from 'node:http'
import { calculateJwkThumbprint, decodeJwt, EmbeddedJWK, jwtVerify } from 'jose'
import { type Origin, startOrigin } from './origin.ts'

export interface DpopOrigin extends AsyncDisposable {
  readonly origin: Origin
  /** The nonce that proofs must carry; undefined wants none. It can be changed at any time. */
  nonce: string | undefined
  /** Wants another nonce with every answer: no proof is ever good. */
  insatiable: boolean
  /** What each answer was, oldest first: 200 or the error of a 401. */
  readonly verdicts: readonly string[]
}

/** An HTTPS API that takes tokens only from whoever proves to hold their key (RFC 9449 §4.3 and §7). */
export async function startDpopOrigin(
  isActive: (token: string) => boolean,
  nonce?: string,
): Promise<DpopOrigin> {
  const seen = new Set<string>()
  const verdicts: string[] = []
  let count = 0

  const judge = async (request: IncomingMessage): Promise<string> => {
    const [scheme, token] = (request.headers.authorization ?? '').split(' ')
    if (scheme !== 'DPoP' || token === undefined || !isActive(token)) return 'invalid_token'
    const proofs = request.rawHeaders.filter((_, i, all) => all[i - 1]?.toLowerCase() === 'dpop')
    const verified = await jwtVerify(proofs[0] ?? '', EmbeddedJWK, { typ: 'dpop+jwt' }).catch(
      () => undefined,
    )
    if (!verified || proofs.length !== 1) return 'invalid_dpop_proof'
    const { payload, protectedHeader } = verified
    const bound = (decodeJwt(token).cnf as { jkt?: string } | undefined)?.jkt
    const expected = {
      htm: request.method,
      htu: `https://${request.headers.host}${request.url?.split('?')[0]}`,
      ath: createHash('sha256').update(token).digest('base64url'),
    }
    const fresh = Math.abs((payload.iat ?? 0) - Date.now() / 1000) < 60
    const once = typeof payload.jti === 'string' && !seen.has(payload.jti)
    const agrees = Object.entries(expected).every(([name, value]) => payload[name] === value)
    if (!agrees || !fresh || !once) return 'invalid_dpop_proof'
    if ((await calculateJwkThumbprint(protectedHeader.jwk ?? {})) !== bound) return 'invalid_token'
    seen.add(payload.jti as string)
    return state.insatiable || payload.nonce !== state.nonce ? 'use_dpop_nonce' : '200'
  }

  const origin = await startOrigin({
    tls: true,
    handler: async (request, response) => {
      let bytes = 0
      for await (const chunk of request) bytes += (chunk as Buffer).length
      const verdict = await judge(request)
      verdicts.push(verdict)
      if (state.insatiable) state.nonce = `nonce-${++count}`
      if (state.nonce !== undefined) response.setHeader('DPoP-Nonce', state.nonce)
      if (verdict !== '200') {
        response.setHeader('WWW-Authenticate', `DPoP error="${verdict}", algs="ES256"`)
      }
      response.writeHead(verdict === '200' ? 200 : 401, { 'content-type': 'application/json' })
      response.end(JSON.stringify({ verdict, bytes, headers: request.rawHeaders }))
    },
  })
  const state: DpopOrigin = {
    origin,
    nonce,
    insatiable: false,
    verdicts,
    [Symbol.asyncDispose]: () => origin.close(),
  }
  return state
}
