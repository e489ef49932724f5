import {
  allowInsecureRequests,
  customFetch,
  discovery,
  None,
  type ServerMetadata as OpenIdMetadata,
} from 'openid-client'
import type { OAuth2SourceConfig } from '../config/schema.ts'
import { SourceError } from '../errors.ts'
import { isSuccess, refusal } from './endpoint.ts'
import { explain, jsonResponse, pinnedFetch } from './oauth2-wire.ts'
import type { SourceContext } from './source.ts'

/** The members of RFC 8414 metadata that a grant needs. */
export type ServerMetadata = OpenIdMetadata & { readonly token_endpoint: string }

/** What the configuration says of a server that is not asked for its metadata. */
export function explicitServer(config: OAuth2SourceConfig): ServerMetadata {
  const tokenUrl = config.tokenUrl as string
  return {
    issuer: new URL(tokenUrl).origin,
    token_endpoint: tokenUrl,
    authorization_endpoint: config.authorizationUrl,
    device_authorization_endpoint: config.deviceUrl,
  } as ServerMetadata
}

/** Asks the issuer for its metadata: as OpenID Connect Discovery §4 has it, else as RFC 8414 §3. */
export async function discover(
  issuer: URL,
  config: OAuth2SourceConfig,
  context: SourceContext,
): Promise<ServerMetadata> {
  const where = `issuer ${issuer.host}`
  let missing = false
  const fetch = pinnedFetch(
    context,
    () => where,
    (answer) => {
      missing = answer.status === 404
      if (!isSuccess(answer.status)) throw refusal(answer, where, context)
      return jsonResponse(answer.body)
    },
  )
  const look = async (algorithm: 'oidc' | 'oauth2') => {
    const found = await discovery(issuer, config.clientId, undefined, None(), {
      algorithm,
      [customFetch]: fetch,
      execute: isInsecure(config) ? [allowInsecureRequests] : [],
    })
    return readMetadata(found.serverMetadata(), where)
  }
  try {
    return await look('oidc').catch((error: unknown) => {
      if (!missing) throw error
      return look('oauth2')
    })
  } catch (error) {
    throw explain(error, where)
  }
}

/** Only what is used is taken over, and endpoints only as URLs. */
function readMetadata(server: Readonly<OpenIdMetadata>, where: string): ServerMetadata {
  const { token_endpoint: tokenEndpoint } = server
  if (typeof tokenEndpoint !== 'string' || !URL.canParse(tokenEndpoint)) {
    throw new SourceError('transient', `${where} names no token endpoint`)
  }
  const url = (endpoint: unknown) =>
    typeof endpoint === 'string' && URL.canParse(endpoint) ? endpoint : undefined
  return {
    issuer: server.issuer,
    token_endpoint: tokenEndpoint,
    authorization_endpoint: url(server.authorization_endpoint),
    device_authorization_endpoint: url(server.device_authorization_endpoint),
    authorization_response_iss_parameter_supported:
      server.authorization_response_iss_parameter_supported === true,
  } as ServerMetadata
}

/** Plain HTTP is spoken only where the operator wrote it. */
export function isInsecure({ issuer, tokenUrl }: OAuth2SourceConfig): boolean {
  return new URL((tokenUrl ?? issuer) as string).protocol === 'http:'
}
