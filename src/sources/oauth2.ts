import {
  allowInsecureRequests,
  Configuration,
  customFetch,
  type DPoPHandle,
  refreshTokenGrant,
  type TokenEndpointResponse,
} from 'openid-client'
import type { OAuth2SourceConfig } from '../config/schema.ts'
import { SourceError } from '../errors.ts'
import { Secret } from '../lib/secret.ts'
import { DpopKey } from '../token/dpop.ts'
import { readToken } from '../token/jwt.ts'
import type { TokenSet } from '../token/token.ts'
import { type Answer, errorWord, isSuccess, parseObject, refusal } from './endpoint.ts'
import {
  clientAuth,
  createSigner,
  dpopHandle,
  type Sign,
  type TokenRequest,
} from './oauth2-client.ts'
import { discover, explicitServer, isInsecure, type ServerMetadata } from './oauth2-discovery.ts'
import { GRANTS, type Grant } from './oauth2-grants.ts'
import { errorAnswer, explain, jsonResponse, pinnedFetch, tolerantAnswer } from './oauth2-wire.ts'
import type { LoginDialogue, Source, SourceContext } from './source.ts'

const DISCOVERY_LIFETIME_MS = 3600_000

/** Statuses of an endpoint that has moved: what the issuer said of it is asked for again. */
const GONE = new Set([0, 301, 302, 303, 307, 308, 404, 405, 410])

/** How one grant request is made, and what is known of its answer beforehand. */
interface Try {
  readonly ask: (request: TokenRequest) => Promise<TokenEndpointResponse>
  /** What `invalid_grant` means. */
  readonly revoked: string
  /** The refresh token that is asked with. */
  readonly refreshToken?: Secret
  /** The key that the answer is bound to. */
  readonly dpopKey: DpopKey | undefined
  readonly previous?: TokenSet | undefined
  /** Errors of the token endpoint's that the asker understands. */
  readonly understands?: (word: string) => boolean
}

/** Tokens of an OAuth 2.0 authorization server. Remembers what the issuer said of itself, and nonces. */
class OAuth2Source implements Source {
  readonly renewable = true
  readonly login?: NonNullable<Source['login']>
  readonly #config: OAuth2SourceConfig
  readonly #grant: Grant
  readonly #sign: Sign | undefined
  readonly #handles = new WeakMap<DpopKey, DPoPHandle>()
  #discovered: { readonly server: ServerMetadata; readonly until: number } | undefined

  constructor(config: OAuth2SourceConfig) {
    this.#config = config
    this.#grant = GRANTS[config.grant]
    this.#sign = createSigner(config)
    if (this.#grant.login) this.login = (dialogue, context) => this.#login(dialogue, context)
  }

  async obtain(previous: TokenSet | undefined, context: SourceContext): Promise<TokenSet> {
    const { refreshes, request, revoked } = this.#grant
    const dpopKey = this.#config.dpop ? (previous?.dpopKey ?? DpopKey.generate()) : undefined
    const refreshToken = refreshes
      ? (previous?.refreshToken ?? this.#config.refreshToken)
      : undefined
    if (refreshToken) {
      try {
        return await this.#get(context, {
          ask: ({ client, parameters, options }) =>
            refreshTokenGrant(client, refreshToken.reveal(), parameters, options),
          revoked: this.#grant.login ? `${revoked}; ${loginNeeded(context)}` : revoked,
          refreshToken,
          dpopKey,
          previous,
        })
      } catch (error) {
        // What else the account offers may still work.
        if (!(request && error instanceof SourceError && error.kind === 'revoked')) throw error
      }
    }
    if (request) return this.#get(context, { ask: request, revoked, dpopKey, previous })
    if (!this.#grant.login) {
      throw new SourceError('transient', 'there is no refresh token to ask with')
    }
    throw this.#unattended(previous, context)
  }

  async #login(dialogue: LoginDialogue, context: SourceContext): Promise<TokenSet> {
    const { login } = this.#grant
    if (!login) throw new TypeError('this grant takes no person')
    const device = this.#config.grant === 'device_code'
    return this.#get(context, {
      ask: (request) => login(request, dialogue),
      revoked: 'the code is wrong, has expired or was used before; start the login again',
      dpopKey: this.#config.dpop ? DpopKey.generate() : undefined,
      understands: () => device,
    })
  }

  /** A token that still serves is not given up for the want of a person; one that is over is. */
  #unattended(previous: TokenSet | undefined, context: SourceContext): SourceError {
    const rest = (previous?.expiresAt ?? 0) - context.clock.now()
    if (!context.serving || !(rest > 0)) return new SourceError('revoked', loginNeeded(context))
    const message = `the token ends soon and came without a refresh token: ${loginNeeded(context)}`
    return new SourceError('transient', message, { retryAfterMs: rest })
  }

  async #get(context: SourceContext, how: Try): Promise<TokenSet> {
    const config = this.#config
    const server = await this.#server(context)
    const where = `token endpoint ${hostOf(server.token_endpoint)}`
    const auth = clientAuth(config, this.#sign, context.clock)
    const client = new Configuration(server, config.clientId, undefined, auth)
    // The library's own time-out is off: the context's signal ends the try.
    client.timeout = 0
    if (isInsecure(config)) allowInsecureRequests(client)
    const deviceUrl = server.device_authorization_endpoint
    client[customFetch] = pinnedFetch(
      context,
      (url) => (url === deviceUrl ? `device authorization endpoint ${hostOf(url)}` : where),
      (answer, place) => this.#judge(answer, place, place === where, how, context),
    )
    try {
      const DPoP = how.dpopKey && (await this.#handle(client, how.dpopKey))
      const answer = await how.ask({
        config,
        server,
        client,
        parameters: requestParameters(config),
        options: DPoP ? { DPoP } : {},
        sign: this.#sign,
        context,
      })
      return this.#read(answer, how, context)
    } catch (error) {
      throw explain(error, where)
    }
  }

  #read(answer: TokenEndpointResponse, how: Try, context: SourceContext): TokenSet {
    const { refreshToken, previous, dpopKey } = how
    // A refresh token that isn't replaced stays good (RFC 6749 §6).
    const next =
      answer.refresh_token === undefined ? refreshToken : new Secret(answer.refresh_token)
    const token = readToken(answer.access_token, {
      receivedAt: context.clock.now(),
      expiresIn: answer.expires_in,
      // A scope left out is the one that was asked for (RFC 6749 §5.1).
      scope: answer.scope ?? this.#config.scope ?? previous?.scopes?.join(' '),
      refreshToken: this.#grant.refreshes ? next : undefined,
    })
    return dpopKey ? { ...token, dpopKey } : token
  }

  /** Passes on to the library what it, or the asker, can use; throws for everything else. */
  #judge(
    answer: Answer,
    where: string,
    isToken: boolean,
    how: Try,
    context: SourceContext,
  ): Response {
    if (GONE.has(answer.status)) this.#discovered = undefined
    if (isSuccess(answer.status)) {
      if (isToken) return tolerantAnswer(answer, where, how.dpopKey !== undefined)
      if (parseObject(answer.body)) return jsonResponse(answer.body)
      throw new SourceError('transient', `${where} answered with something other than JSON`)
    }
    // RFC 6749 §5.2; any other status may be a firewall's, and 'revoked' is terminal.
    const isVerdict = answer.status === 400 || answer.status === 401
    const word = isVerdict ? errorWord(answer.body) : undefined
    if (word === undefined) throw refusal(answer, where, context)
    if (how.understands?.(word) || (how.dpopKey && word === 'use_dpop_nonce')) {
      return errorAnswer(answer, word)
    }
    if (word === 'invalid_grant') {
      throw new SourceError('revoked', `${where} says invalid_grant: ${how.revoked}`)
    }
    throw refusal(answer, where, context)
  }

  async #handle(client: Configuration, key: DpopKey): Promise<DPoPHandle> {
    const handle = this.#handles.get(key) ?? (await dpopHandle(client, key))
    this.#handles.set(key, handle)
    return handle
  }

  async #server(context: SourceContext): Promise<ServerMetadata> {
    const { issuer } = this.#config
    if (issuer === undefined) return explicitServer(this.#config)
    const now = context.clock.monotonic()
    if (!this.#discovered || this.#discovered.until <= now) {
      const server = await discover(new URL(issuer), this.#config, context)
      this.#discovered = { server, until: now + DISCOVERY_LIFETIME_MS }
    }
    return this.#discovered.server
  }
}

/** Makes a source of tokens by an OAuth 2.0 grant. */
export function oauth2Source(config: OAuth2SourceConfig): Source {
  return new OAuth2Source(config)
}

function loginNeeded({ name = 'POOL/ID' }: SourceContext): string {
  return `login needed, run: cupbearer login ${name}`
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
