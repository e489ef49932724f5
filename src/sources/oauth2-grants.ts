import {
  type Configuration,
  clientCredentialsGrant,
  refreshTokenGrant,
  type TokenEndpointResponse,
} from 'openid-client'
import type { OAuth2SourceConfig } from '../config/schema.ts'
import { SourceError } from '../errors.ts'
import type { Secret } from '../lib/secret.ts'
import type { TokenSet } from '../token/token.ts'

/** One grant of OAuth 2.0, as the token endpoint is asked for it. */
export interface Grant {
  /** The refresh token to ask with; undefined for grants that use none. */
  refreshToken(config: OAuth2SourceConfig, previous: TokenSet | undefined): Secret | undefined
  request(
    client: Configuration,
    parameters: URLSearchParams,
    refreshToken: Secret | undefined,
  ): Promise<TokenEndpointResponse>
  /** What `invalid_grant` means here and what the operator can do about it. */
  readonly revoked: string
}

export const GRANTS: Record<OAuth2SourceConfig['grant'], Grant> = {
  /** RFC 6749 §4.4; its answers should hold no refresh token (§4.4.3), and one would be of no use. */
  client_credentials: {
    refreshToken: () => undefined,
    request: (client, parameters) => clientCredentialsGrant(client, parameters),
    revoked: 'the client is no longer entitled to tokens; check it at the authorization server',
  },

  /** RFC 6749 §6. */
  refresh_token: {
    refreshToken: (config, previous) => previous?.refreshToken ?? config.refreshToken,
    async request(client, parameters, refreshToken) {
      if (!refreshToken) throw new SourceError('transient', 'there is no refresh token to ask with')
      return refreshTokenGrant(client, refreshToken.reveal(), parameters)
    },
    revoked:
      'the refresh token has expired, was revoked or was used before; log in again and put the new refresh token into the configuration',
  },
}
