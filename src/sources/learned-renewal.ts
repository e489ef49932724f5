import { Secret } from '../lib/secret.ts'
import { readToken } from '../token/jwt.ts'
import type { TokenSet } from '../token/token.ts'
import { readExpiry } from './expiry.ts'
import type { FoundToken } from './source.ts'

/** How a token is renewed, learned from the request that got it. */
export interface Renewal {
  readonly grant: 'refresh_token' | 'client_credentials'
  readonly tokenUrl: string
  readonly clientId: string
  readonly clientAuth: 'basic' | 'post' | 'none'
  readonly clientSecret?: Secret
  readonly scope?: string
  readonly audience?: string
  readonly resource?: string
  readonly extra?: Record<string, string>
  /** `Origin` of the page that asked. */
  readonly origin?: string
}

/** A request for a token (RFC 6749 §3.2) that came by. */
export interface SeenTokenRequest {
  readonly grant: string
  /** The refresh token that it was made with. */
  readonly presented: Secret | undefined
  /** The scope that it asked for. */
  readonly scope: string | undefined
  /** How to ask again, with a refresh token where the grant is one of a person's. Undefined when that cannot be told. */
  readonly renewal: Renewal | undefined
}

/** What is part of one grant only, and what is learned by another name. */
const NOT_REPEATED = new Set([
  'grant_type',
  'refresh_token',
  'client_id',
  'client_secret',
  'scope',
  'audience',
  'resource',
])
const MAX_EXTRA = 16
const MAX_RENEWAL_LENGTH = 8 * 1024
const MAX_REFRESH_TOKEN_LENGTH = 16 * 1024
const CONTROL = /[\x00-\x1f\x7f]/

/** Reads the form of a POST; undefined when it asks for no token. `url` is the endpoint's. */
export function readTokenRequest(
  url: string,
  form: string,
  headers: { readonly authorization: string | undefined; readonly origin: string | undefined },
): SeenTokenRequest | undefined {
  const parameters = new URLSearchParams(form)
  const grant = parameters.get('grant_type')
  if (!grant) return undefined
  const presented = grant === 'refresh_token' ? parameters.get('refresh_token') : null
  return {
    grant,
    presented: presented ? new Secret(presented) : undefined,
    scope: parameters.get('scope') ?? undefined,
    renewal: renewalOf(url, grant, parameters, headers),
  }
}

function renewalOf(
  url: string,
  grant: string,
  parameters: URLSearchParams,
  headers: { readonly authorization: string | undefined; readonly origin: string | undefined },
): Renewal | undefined {
  // A signed assertion serves once, and the key that signs the next one stays with the client.
  if (parameters.has('client_assertion') || !URL.canParse(url)) return undefined
  const client = readClient(parameters, headers.authorization)
  if (!client) return undefined
  const again = grant === 'client_credentials' || grant === 'refresh_token'
  const value = (name: string) => {
    const values = parameters.getAll(name)
    return values.length === 1 && values[0] ? { [name]: values[0] } : {}
  }
  const extra = [...parameters].filter(([name]) => !NOT_REPEATED.has(name)).slice(0, MAX_EXTRA)
  return {
    grant: grant === 'client_credentials' ? grant : 'refresh_token',
    tokenUrl: url,
    ...client,
    ...value('audience'),
    ...value('resource'),
    // A code or a password is of the grant that was seen, and not of the refresh.
    ...(again ? { ...value('scope'), extra: Object.fromEntries(extra) } : {}),
    ...(headers.origin !== undefined && headers.origin !== 'null' && { origin: headers.origin }),
  }
}

/** RFC 6749 §2.3.1: who asks, and how that was shown. */
function readClient(
  parameters: URLSearchParams,
  authorization: string | undefined,
): Pick<Renewal, 'clientId' | 'clientAuth' | 'clientSecret'> | undefined {
  const basic = /^basic +([\w+/=-]+) *$/i.exec(authorization ?? '')?.[1]
  if (basic !== undefined) {
    const text = Buffer.from(basic, 'base64').toString('utf8')
    const colon = text.indexOf(':')
    const clientId = formDecode(text.slice(0, colon))
    if (colon < 1 || !clientId) return undefined
    const secret = formDecode(text.slice(colon + 1))
    if (!secret) return { clientId, clientAuth: 'none' }
    return { clientId, clientAuth: 'basic', clientSecret: new Secret(secret) }
  }
  const clientId = parameters.get('client_id')
  if (!clientId) return undefined
  const secret = parameters.get('client_secret')
  if (!secret) return { clientId, clientAuth: 'none' }
  return { clientId, clientAuth: 'post', clientSecret: new Secret(secret) }
}

/** Clients that skip the encoding are taken at their word. */
function formDecode(text: string): string {
  try {
    return decodeURIComponent(text.replaceAll('+', ' '))
  } catch {
    return text
  }
}

/**
 * The token of an answer to such a request (RFC 6749 §5.1); undefined where the answer is none, or its token is
 * bound to a key that only its client has. Throws `SourceError` for a token that cannot be sent.
 */
export function readTokenAnswer(
  seen: SeenTokenRequest,
  document: unknown,
  now: number,
): TokenSet | undefined {
  if (typeof document !== 'object' || document === null) return undefined
  const members = document as Record<string, unknown>
  const { access_token: token, token_type: type, expires_in: expiresIn, scope } = members
  if (typeof token !== 'string' || token === '') return undefined
  if (typeof type === 'string' && /^(?:dpop|pop|mac)$/i.test(type)) return undefined
  const given = members.refresh_token
  const refreshToken = typeof given === 'string' ? given : seen.presented?.reveal()
  const seconds = Number.parseFloat(String(expiresIn))
  return learned(
    readToken(token, {
      receivedAt: now,
      ...(seconds > 0 && { expiresIn: seconds }),
      scope: typeof scope === 'string' ? scope : seen.scope,
      refreshToken: usable(refreshToken),
    }),
    seen.renewal,
  )
}

/**
 * The token of an answer that the configuration describes; `seen` where its request was one of OAuth 2.0. Throws
 * `SourceError` for a token that cannot be sent.
 */
export function readFoundToken(
  found: FoundToken,
  seen: SeenTokenRequest | undefined,
  now: number,
): TokenSet {
  const token = readToken(found.token, {
    receivedAt: now,
    ...(found.expiresIn !== undefined && readExpiry(found.expiresIn)),
    refreshToken: usable(found.refreshToken),
  })
  return learned(token, seen?.renewal)
}

/** Only what can be repeated counts as a renewal. */
function learned(token: TokenSet, renewal: Renewal | undefined): TokenSet {
  if (!renewal || (renewal.grant === 'refresh_token' && !token.refreshToken)) return token
  const text = writeRenewal(renewal)
  return text.length > MAX_RENEWAL_LENGTH ? token : { ...token, renewal: new Secret(text) }
}

function usable(refreshToken: string | undefined): Secret | undefined {
  if (!refreshToken || refreshToken.length > MAX_REFRESH_TOKEN_LENGTH) return undefined
  return CONTROL.test(refreshToken) ? undefined : new Secret(refreshToken)
}

function writeRenewal({ clientSecret, ...rest }: Renewal): string {
  return JSON.stringify({ ...rest, ...(clientSecret && { clientSecret: clientSecret.reveal() }) })
}

/** Reads what was learned back from the store; undefined for what this version cannot use. */
export function readRenewal(text: Secret): Renewal | undefined {
  try {
    const { clientSecret, ...rest } = JSON.parse(text.reveal()) as Omit<Renewal, 'clientSecret'> & {
      clientSecret?: string
    }
    if (!URL.canParse(rest.tokenUrl) || !rest.clientId) return undefined
    return {
      ...rest,
      ...(clientSecret !== undefined && { clientSecret: new Secret(clientSecret) }),
    }
  } catch {
    return undefined
  }
}
