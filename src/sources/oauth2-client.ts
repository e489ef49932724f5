import { randomUUID, webcrypto } from 'node:crypto'
import {
  type ClientAuth,
  ClientSecretBasic,
  ClientSecretPost,
  type Configuration,
  type DPoPHandle,
  type DPoPOptions,
  getDPoPHandle,
  None,
} from 'openid-client'
import type { OAuth2SourceConfig } from '../config/schema.ts'
import type { Clock } from '../lib/clock.ts'
import { readPrivateKey, signingAlgorithms } from '../lib/private-key.ts'
import type { DpopKey } from '../token/dpop.ts'
import { signJwt } from '../token/sign.ts'
import type { ServerMetadata } from './oauth2-discovery.ts'
import type { SourceContext } from './source.ts'

/** Who the client is, and how it shows that: to the token endpoint by itself, in assertions, by a bound key. */

/** Signs an assertion by the configured key; `iat`, `exp` and `jti` are set. */
export type Sign = (
  claims: Readonly<Record<string, unknown>>,
  lifetimeMs: number,
  clock: Clock,
) => string

/** One try to get a token of one server. */
export interface TokenRequest {
  readonly config: OAuth2SourceConfig
  readonly server: ServerMetadata
  readonly client: Configuration
  /** Scope, audience, resource and what else the operator wants to be asked. */
  readonly parameters: URLSearchParams
  readonly options: DPoPOptions
  readonly sign: Sign | undefined
  readonly context: SourceContext
}

/** Long enough for a clock that is a little off, short enough to be of no use to a thief. */
const CLIENT_ASSERTION_MS = 60_000

/** What signs by the configured private key; undefined where there is none. */
export function createSigner(config: OAuth2SourceConfig): Sign | undefined {
  const key = config.privateKey && readPrivateKey(config.privateKey.reveal())
  const alg = config.keyAlgorithm ?? (key && signingAlgorithms(key)[0])
  if (!key || alg === undefined) return undefined
  const header = { alg, typ: 'JWT', ...(config.keyId !== undefined && { kid: config.keyId }) }
  return (claims, lifetimeMs, clock) => {
    const iat = Math.floor(clock.now() / 1000)
    const exp = iat + Math.max(1, Math.round(lifetimeMs / 1000))
    return signJwt(header, { ...claims, iat, exp, jti: randomUUID() }, key)
  }
}

/** RFC 6749 §2.3.1 and RFC 7523 §2.2. */
export function clientAuth(
  config: OAuth2SourceConfig,
  sign: Sign | undefined,
  clock: Clock,
): ClientAuth {
  const { clientSecret: secret } = config
  const signsAssertion = config.grant === 'jwt_bearer' && config.clientAuth === undefined
  const way =
    config.clientAuth ?? (secret ? 'basic' : sign && !signsAssertion ? 'private_key_jwt' : 'none')
  if (way === 'private_key_jwt' && sign) return privateKeyJwt(config, sign, clock)
  if (!secret || way === 'none') return None()
  return way === 'post' ? ClientSecretPost(secret.reveal()) : ClientSecretBasic(secret.reveal())
}

function privateKeyJwt(config: OAuth2SourceConfig, sign: Sign, clock: Clock): ClientAuth {
  const { clientId } = config
  return (server, _client, body) => {
    // The issuer is what names the server, where it is known (OpenID Connect Core §9 takes both).
    const aud = config.issuer === undefined ? server.token_endpoint : server.issuer
    const assertion = sign({ iss: clientId, sub: clientId, aud }, CLIENT_ASSERTION_MS, clock)
    body.set('client_id', clientId)
    body.set('client_assertion_type', 'urn:ietf:params:oauth:client-assertion-type:jwt-bearer')
    body.set('client_assertion', assertion)
  }
}

/** The library's hold of a key; it remembers the nonces of the token endpoint, so it should be kept. */
export async function dpopHandle(client: Configuration, key: DpopKey): Promise<DPoPHandle> {
  const { d, ...jwk } = JSON.parse(key.secret.reveal()) as webcrypto.JsonWebKey
  const curve = { name: 'ECDSA', namedCurve: 'P-256' }
  const { subtle } = webcrypto
  return getDPoPHandle(client, {
    privateKey: await subtle.importKey('jwk', { ...jwk, d: d as string }, curve, false, ['sign']),
    publicKey: await subtle.importKey('jwk', jwk, curve, true, ['verify']),
  })
}
