import {
  allowInsecureRequests,
  type ClientAuth,
  ClientSecretBasic,
  ClientSecretPost,
  Configuration,
  customFetch,
  None,
} from 'openid-client'
import type { OAuth2SourceConfig } from '../config/schema.ts'
import { SourceError } from '../errors.ts'
import { Secret } from '../lib/secret.ts'
import { readToken } from '../token/jwt.ts'
import type { TokenSet } from '../token/token.ts'
import { type Answer, errorWord, isSuccess, refusal } from './endpoint.ts'
import { discover, isInsecure, type ServerMetadata } from './oauth2-discovery.ts'
import { GRANTS, type Grant } from './oauth2-grants.ts'
import { explain, pinnedFetch, tolerantAnswer } from './oauth2-wire.ts'
import type { Source, SourceContext } from './source.ts'

const DISCOVERY_LIFETIME_MS = 3600_000

/** Statuses of an endpoint that has moved: what the issuer said of it is asked for again. */
const GONE = new Set([0, 301, 302, 303, 307, 308, 404, 405, 410])

/** Tokens of an OAuth 2.0 authorization server. Remembers nothing but what the issuer said of itself. */
class OAuth2Source implements Source {
  readonly renewable = true
  readonly #config: OAuth2SourceConfig
  readonly #grant: Grant
  #discovered: { readonly server: ServerMetadata; readonly until: number } | undefined

  constructor(config: OAuth2SourceConfig) {
    this.#config = config
    this.#grant = GRANTS[config.grant]
  }

  async obtain(previous: TokenSet | undefined, context: SourceContext): Promise<TokenSet> {
    const config = this.#config
    const server = await this.#server(context)
    const where = `token endpoint ${hostOf(server.token_endpoint)}`
    const refreshToken = this.#grant.refreshToken(config, previous)
    const client = new Configuration(server, config.clientId, undefined, clientAuth(config))
    // The library's own time-out is off: the context's signal ends the try.
    client.timeout = 0
    if (isInsecure(config)) allowInsecureRequests(client)
    client[customFetch] = pinnedFetch(context, where, (answer) =>
      this.#judge(answer, where, context),
    )
    try {
      const answer = await this.#grant.request(client, requestParameters(config), refreshToken)
      // A refresh token that isn't replaced stays good (RFC 6749 §6).
      const next =
        answer.refresh_token === undefined ? refreshToken : new Secret(answer.refresh_token)
      return readToken(answer.access_token, {
        receivedAt: context.clock.now(),
        expiresIn: answer.expires_in,
        // A scope left out is the one that was asked for (RFC 6749 §5.1).
        scope: answer.scope ?? config.scope ?? previous?.scopes?.join(' '),
        refreshToken: refreshToken && next,
      })
    } catch (error) {
      throw explain(error, where)
    }
  }

  /** Passes a success on to the library; throws for everything else. */
  #judge(answer: Answer, where: string, context: SourceContext): Response {
    if (GONE.has(answer.status)) this.#discovered = undefined
    if (isSuccess(answer.status)) return tolerantAnswer(answer, where)
    // RFC 6749 §5.2; any other status may be a firewall's, and 'revoked' is terminal.
    const isVerdict = answer.status === 400 || answer.status === 401
    if (isVerdict && errorWord(answer.body) === 'invalid_grant') {
      throw new SourceError('revoked', `${where} says invalid_grant: ${this.#grant.revoked}`)
    }
    throw refusal(answer, where, context)
  }

  async #server(context: SourceContext): Promise<ServerMetadata> {
    const { issuer, tokenUrl } = this.#config
    if (tokenUrl !== undefined) {
      return { issuer: new URL(tokenUrl).origin, token_endpoint: tokenUrl }
    }
    const now = context.clock.monotonic()
    if (!this.#discovered || this.#discovered.until <= now) {
      const server = await discover(new URL(issuer as string), this.#config, context)
      this.#discovered = { server, until: now + DISCOVERY_LIFETIME_MS }
    }
    return this.#discovered.server
  }
}

/** Makes a source of tokens by an OAuth 2.0 grant. */
export function oauth2Source(config: OAuth2SourceConfig): Source {
  return new OAuth2Source(config)
}

/** RFC 6749 §2.3.1. */
function clientAuth(config: OAuth2SourceConfig): ClientAuth {
  const secret = config.clientSecret
  if (!secret || config.clientAuth === 'none') return None()
  return config.clientAuth === 'post'
    ? ClientSecretPost(secret.reveal())
    : ClientSecretBasic(secret.reveal())
}

function requestParameters(config: OAuth2SourceConfig): URLSearchParams {
  const parameters = new URLSearchParams(config.extra)
  for (const name of ['scope', 'audience', 'resource'] as const) {
    const value = config[name]
    if (value !== undefined) parameters.set(name, value)
  }
  return parameters
}

function hostOf(url: string): string {
  return URL.canParse(url) ? new URL(url).host : 'of the issuer'
}
