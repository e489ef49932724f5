import {
  clientCredentialsGrant,
  genericGrantRequest,
  type TokenEndpointResponse,
} from 'openid-client'
import type { OAuth2SourceConfig } from '../config/schema.ts'
import { SourceError } from '../errors.ts'
import { Secret } from '../lib/secret.ts'
import { readText } from './file.ts'
import type { TokenRequest } from './oauth2-client.ts'
import { type AskPerson, codeLogin, deviceLogin } from './oauth2-login.ts'
import type { SourceContext } from './source.ts'

/** One grant of OAuth 2.0, as the token endpoint is asked for it. */
export interface Grant {
  /** Whether the refresh token that came with the last token is used for the next. */
  readonly refreshes: boolean
  /** Gets a token anew; undefined where that takes a person, or cannot be done. */
  readonly request?: (request: TokenRequest) => Promise<TokenEndpointResponse>
  /** Gets a token with a person's help. */
  readonly login?: AskPerson
  /** What `invalid_grant` means here and what the operator can do about it. */
  readonly revoked: string
}

const ACCESS_TOKEN = 'urn:ietf:params:oauth:token-type:access_token'
const DEAD_REFRESH_TOKEN = 'the refresh token has expired, was revoked or was used before'

export const GRANTS: Record<OAuth2SourceConfig['grant'], Grant> = {
  /** RFC 6749 §4.4; its answers should hold no refresh token (§4.4.3), and one would be of no use. */
  client_credentials: {
    refreshes: false,
    request: ({ client, parameters, options }) =>
      clientCredentialsGrant(client, parameters, options),
    revoked: 'the client is no longer entitled to tokens; check it at the authorization server',
  },

  /** RFC 6749 §6. */
  refresh_token: {
    refreshes: true,
    revoked: `${DEAD_REFRESH_TOKEN}; log in again and put the new refresh token into the configuration`,
  },

  /** RFC 6749 §4.3. */
  password: {
    refreshes: true,
    async request({ config, client, parameters, options }) {
      parameters.set('username', config.username ?? '')
      parameters.set('password', config.password?.reveal() ?? '')
      return genericGrantRequest(client, 'password', parameters, options)
    },
    revoked: 'user name or password are wrong, or the account is locked',
  },

  /** RFC 7523 §2.1. */
  jwt_bearer: {
    refreshes: true,
    async request(request) {
      const { client, parameters, options } = request
      parameters.set('assertion', (await assertionOf(request)).reveal())
      const grant = 'urn:ietf:params:oauth:grant-type:jwt-bearer'
      return genericGrantRequest(client, grant, parameters, options)
    },
    revoked: 'the assertion is refused; check its issuer, subject, audience and key',
  },

  /** RFC 8693 §2.1. */
  token_exchange: {
    refreshes: true,
    async request({ config, client, parameters, options, context }) {
      const { subjectToken, actorToken, requestedTokenType } = config
      if (!subjectToken) throw new SourceError('transient', 'there is no token to exchange')
      parameters.set('subject_token', (await readForeign(subjectToken, context)).reveal())
      parameters.set('subject_token_type', config.subjectTokenType ?? ACCESS_TOKEN)
      if (actorToken) {
        parameters.set('actor_token', (await readForeign(actorToken, context)).reveal())
        parameters.set('actor_token_type', config.actorTokenType ?? ACCESS_TOKEN)
      }
      if (requestedTokenType) parameters.set('requested_token_type', requestedTokenType)
      const grant = 'urn:ietf:params:oauth:grant-type:token-exchange'
      return genericGrantRequest(client, grant, parameters, options)
    },
    revoked: 'the token to exchange is refused; it may have expired',
  },

  /** RFC 8628. */
  device_code: { refreshes: true, login: deviceLogin, revoked: DEAD_REFRESH_TOKEN },

  /** RFC 6749 §4.1 with PKCE (RFC 7636). */
  authorization_code: { refreshes: true, login: codeLogin, revoked: DEAD_REFRESH_TOKEN },
}

/** The assertion as it was given, or made and signed here (RFC 7523 §3). */
async function assertionOf({ config, server, sign, context }: TokenRequest): Promise<Secret> {
  const { assertion } = config
  if (!assertion) throw new SourceError('transient', 'there is no assertion to ask with')
  if (assertion instanceof Secret || 'file' in assertion) return readForeign(assertion, context)
  if (!sign) throw new SourceError('transient', 'there is no key to sign the assertion with')
  const issuer = assertion.issuer ?? config.clientId
  const claims = {
    ...assertion.claims,
    iss: issuer,
    sub: assertion.subject ?? issuer,
    aud: assertion.audience ?? server.token_endpoint,
  }
  return new Secret(sign(claims, assertion.lifetime, context.clock))
}

async function readForeign(
  token: Secret | { readonly file: string },
  { signal }: SourceContext,
): Promise<Secret> {
  if (token instanceof Secret) return token
  const text = (await readText(token.file, signal)).trim()
  if (text === '') throw new SourceError('transient', `token file ${token.file}: empty`)
  return new Secret(text)
}
