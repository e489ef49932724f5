import type { CustomFetch } from 'openid-client'
import { SourceError } from '../errors.ts'
import { type Answer, ask, errorWord, ownError, parseObject } from './endpoint.ts'
import type { SourceContext } from './source.ts'

/** What stands between `openid-client` and the pinned egress, in both directions. */

const PROBLEMS: Record<string, string> = {
  OAUTH_HTTP_REQUEST_FORBIDDEN: 'names an http:// endpoint, although its own URL is https://',
  OAUTH_JSON_ATTRIBUTE_COMPARISON_FAILED: 'describes another issuer than the configured one',
  OAUTH_MISSING_SERVER_METADATA: 'names no token endpoint',
  OAUTH_INVALID_SERVER_METADATA: 'names no usable token endpoint',
  OAUTH_INVALID_RESPONSE: 'answered without what it must hold',
  OAUTH_PARSE_ERROR: 'answered with something other than JSON',
  OAUTH_RESPONSE_IS_NOT_JSON: 'answered with something other than JSON',
}

/** A `fetch` for the library: by the pinned egress, bounded; `judge` says what the library gets of an answer. */
export function pinnedFetch(
  context: SourceContext,
  whereOf: (url: string) => string,
  judge: (answer: Answer, where: string) => Response,
): CustomFetch {
  return async (url, init) => {
    const where = whereOf(url)
    const headers = new Headers(init.headers)
    // The library's name is dropped: the user agent is the credential's own.
    headers.delete('user-agent')
    const body = init.body?.toString()
    const request = { method: init.method, headers, ...(body === undefined ? {} : { body }) }
    return judge(await ask(context, where, url, request), where)
  }
}

/**
 * The answer without what the library would stumble over. A refresh token may just have been rotated: to
 * refuse the answer for a member that isn't needed would lose it.
 * - `id_token` says nothing about the access token, and its issuer is unknown without discovery
 * - `token_type` is free text in the wild; how a token is presented is the pool's `inject`. Only where a bound
 *   token is asked for it must say so (RFC 9449 §5): a bearer token in its place would be a silent downgrade
 */
export function tolerantAnswer(answer: Answer, where: string, bound: boolean): Response {
  const members = parseObject(answer.body)
  if (!members) {
    throw new SourceError('transient', `${where} answered with something other than JSON`)
  }
  const { access_token: token, refresh_token: refreshToken, expires_in: expiresIn, scope } = members
  if (typeof token !== 'string' || token === '') {
    const word = errorWord(answer.body)
    const detail = word === undefined ? '' : ` (${word})`
    throw new SourceError('transient', `${where} answered without an access token${detail}`)
  }
  if (bound && String(members.token_type).toLowerCase() !== 'dpop') {
    throw new SourceError(
      'transient',
      `${where} gave a token that is bound to no key; it may not support DPoP`,
    )
  }
  const seconds = typeof expiresIn === 'string' ? Number.parseFloat(expiresIn) : expiresIn
  const scopes = Array.isArray(scope) ? scope.join(' ') : scope
  return jsonResponse(
    JSON.stringify({
      access_token: token,
      token_type: 'bearer',
      ...(typeof refreshToken === 'string' && refreshToken ? { refresh_token: refreshToken } : {}),
      ...(typeof seconds === 'number' && seconds >= 0 ? { expires_in: seconds } : {}),
      ...(typeof scopes === 'string' ? { scope: scopes } : {}),
    }),
    { nonce: nonceOf(answer) },
  )
}

/** An error that the library, or whoever called it, knows what to do about. */
export function errorAnswer(answer: Answer, word: string): Response {
  const { status } = answer
  return jsonResponse(JSON.stringify({ error: word }), { status, nonce: nonceOf(answer) })
}

/** An answer as the library takes it. */
export function jsonResponse(
  body: string,
  { status = 200, nonce }: { status?: number; nonce?: string | undefined } = {},
): Response {
  const headers = { 'content-type': 'application/json', ...(nonce && { 'dpop-nonce': nonce }) }
  return new Response(body, { status, headers })
}

/** RFC 9449 §8: the library remembers it for the next proof. */
function nonceOf(answer: Answer): string | undefined {
  return answer.headers.get('dpop-nonce') ?? undefined
}

/** The library's errors hold whole answers, tokens too: they are told by their code and never passed on. */
export function explain(error: unknown, where: string): Error {
  const own = ownError(error)
  if (own) return own
  const { code, status, error: word } = (error ?? {}) as Record<string, unknown>
  // The word is ours to show: no other gets as far as the library.
  if (code === 'OAUTH_RESPONSE_BODY_ERROR') {
    return new SourceError('transient', `${where} answered ${status} (${word})`)
  }
  const problem = typeof code === 'string' ? PROBLEMS[code] : undefined
  return new SourceError('transient', `${where} ${problem ?? 'could not be used'}`)
}
