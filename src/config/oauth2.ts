import { z } from 'zod'
import { readPrivateKey, signingAlgorithms } from '../lib/private-key.ts'
import { Secret } from '../lib/secret.ts'
import { httpUrl, object, secret, timeout } from './values.ts'

/** The source `oauth2`: what it accepts, and the rules that look at several of its keys at once. */

export const OAUTH2_GRANTS = [
  'client_credentials',
  'refresh_token',
  'password',
  'jwt_bearer',
  'token_exchange',
  'device_code',
  'authorization_code',
] as const

const privateKey = z
  .string()
  .refine((text) => {
    const key = readPrivateKey(text)
    return key !== undefined && signingAlgorithms(key).length > 0
  }, 'expected a private key as PEM or JWK: RSA of 2048 bits or more, EC P-256, P-384, P-521 or Ed25519')
  .transform((text) => new Secret(text))

const algorithm = z.enum([
  'RS256',
  'RS384',
  'RS512',
  'PS256',
  'PS384',
  'PS512',
  'ES256',
  'ES384',
  'ES512',
  'EdDSA',
])

/** A token of somebody else's: written here, or in a file that is read anew each time. */
const foreignToken = z.union(
  [secret, object({ file: z.string().min(1, 'expected a path').describe('file that holds it') })],
  { error: 'expected a token, or { "file": PATH }' },
)

const assertion = z.union(
  [
    secret,
    object({ file: z.string().min(1, 'expected a path').describe('file that holds it') }),
    object({
      issuer: z.string().min(1).optional().describe('iss; default: the client id'),
      subject: z.string().min(1).optional().describe('sub; default: iss'),
      audience: z.string().min(1).optional().describe('aud; default: the token endpoint'),
      lifetime: timeout.prefault('5m').describe('from iat to exp'),
      claims: z
        .record(z.string(), z.union([z.string(), z.number(), z.boolean()]))
        .optional()
        .describe('further claims'),
    }),
  ],
  {
    error:
      'expected an assertion, { "file": PATH }, or { "issuer", "subject", "audience", "lifetime", "claims" }',
  },
)

export const oauth2Source = object({
  type: z.literal('oauth2'),
  grant: z.enum(OAUTH2_GRANTS).describe('OAuth 2.0 grant'),
  issuer: httpUrl.optional().describe('issuer whose metadata names the endpoints'),
  tokenUrl: httpUrl.optional().describe('token endpoint, instead of issuer'),
  authorizationUrl: httpUrl
    .optional()
    .describe('authorization endpoint, where tokenUrl stands for the issuer'),
  deviceUrl: httpUrl
    .optional()
    .describe('device authorization endpoint, where tokenUrl stands for the issuer'),
  redirectUri: z
    .url({ error: 'expected a URL' })
    .optional()
    .describe(
      'redirect URI as the client has it registered; default: http://127.0.0.1:PORT/callback of the machine where `cupbearer login` runs',
    ),
  clientId: z.string().min(1, 'expected a client id').describe('client id'),
  clientSecret: secret.optional().describe('client secret'),
  privateKey: privateKey
    .optional()
    .describe('private key, PEM or JWK, for private_key_jwt and for assertions'),
  keyId: z.string().min(1).optional().describe('kid that goes with privateKey'),
  keyAlgorithm: algorithm.optional().describe('JWS algorithm; default: by the kind of privateKey'),
  clientAuth: z
    .enum(['basic', 'post', 'private_key_jwt', 'none'])
    .optional()
    .describe(
      'how the client shows who it is; default: basic with a secret, private_key_jwt with a key that signs no assertion, else none',
    ),
  scope: z.string().optional().describe('scopes to ask for, separated by spaces'),
  audience: z.string().optional().describe('audience to ask for'),
  resource: z.string().optional().describe('resource to ask for (RFC 8707)'),
  username: z.string().min(1).optional().describe('user name for the grant password'),
  password: secret.optional().describe('password for the grant password'),
  refreshToken: secret.optional().describe('first refresh token; later ones are kept in the store'),
  assertion: assertion
    .optional()
    .describe(
      'assertion for the grant jwt_bearer: as it is, { "file": PATH }, or { "issuer", "subject", "audience", "lifetime", "claims" } to be signed with privateKey',
    ),
  subjectToken: foreignToken
    .optional()
    .describe('token to exchange, for the grant token_exchange; or { "file": PATH }'),
  subjectTokenType: z
    .string()
    .optional()
    .describe('its type; default: urn:ietf:params:oauth:token-type:access_token'),
  actorToken: foreignToken.optional().describe('token of the party that acts for the subject'),
  actorTokenType: z
    .string()
    .optional()
    .describe('its type; default: urn:ietf:params:oauth:token-type:access_token'),
  requestedTokenType: z.string().optional().describe('type of token to ask for in the exchange'),
  dpop: z
    .boolean()
    .optional()
    .describe('tokens bound to a key of the credential’s own (RFC 9449); default: false'),
  extra: z
    .record(z.string(), z.string())
    .optional()
    .describe('further parameters of the token request, and of the authorization request'),
})

export type OAuth2SourceConfig = z.output<typeof oauth2Source>

type Tree = Readonly<Record<string, unknown>>
type Report = (key: string | undefined, message: string) => void

/** What each grant must have, and what belongs to no other. */
const OWN_KEYS: Partial<Record<string, { needs: readonly string[]; may: readonly string[] }>> = {
  refresh_token: { needs: ['refreshToken'], may: [] },
  password: { needs: ['username', 'password'], may: [] },
  jwt_bearer: { needs: ['assertion'], may: [] },
  token_exchange: {
    needs: ['subjectToken'],
    may: ['subjectTokenType', 'actorToken', 'actorTokenType', 'requestedTokenType'],
  },
  device_code: { needs: [], may: ['refreshToken', 'deviceUrl'] },
  authorization_code: { needs: [], may: ['refreshToken', 'authorizationUrl', 'redirectUri'] },
}

/** Reports combinations of keys that cannot work. */
export function checkOAuth2(source: Tree, report: Report): void {
  const grant = String(source.grant)
  if ((source.issuer === undefined) === (source.tokenUrl === undefined)) {
    report(undefined, 'expected either issuer or tokenUrl')
  }
  // Of a grant that does not exist there is nothing more to say.
  if (!(OAUTH2_GRANTS as readonly string[]).includes(grant)) return
  const own = OWN_KEYS[grant] ?? { needs: [], may: [] }
  for (const key of own.needs) {
    if (source[key] === undefined) report(key, `required for the grant ${grant}`)
  }
  for (const { needs, may } of Object.values(OWN_KEYS as Record<string, typeof own>)) {
    for (const key of [...needs, ...may]) {
      if (source[key] === undefined || own.needs.includes(key) || own.may.includes(key)) continue
      report(key, `not used by the grant ${grant}`)
    }
  }
  const endpoint = { device_code: 'deviceUrl', authorization_code: 'authorizationUrl' }[grant]
  if (endpoint && source.tokenUrl !== undefined && source[endpoint] === undefined) {
    report(endpoint, `required for the grant ${grant} with tokenUrl`)
  }
  if (endpoint && source.issuer !== undefined && source[endpoint] !== undefined) {
    report(endpoint, 'not used with issuer, which names it')
  }
  checkClient(source, grant, report)
}

function checkClient(source: Tree, grant: string, report: Report): void {
  const { clientAuth, clientSecret, privateKey } = source
  if (clientSecret !== undefined) {
    if (clientAuth === 'none') report('clientSecret', 'not used with clientAuth none')
    if (clientAuth === 'private_key_jwt') {
      report('clientSecret', 'not used with clientAuth private_key_jwt')
    }
  } else if (clientAuth === 'basic' || clientAuth === 'post') {
    report('clientSecret', `required for clientAuth ${clientAuth}`)
  }
  const signs = grant === 'jwt_bearer' && isSigned(source.assertion)
  if (privateKey === undefined) {
    if (clientAuth === 'private_key_jwt') report('privateKey', 'required for private_key_jwt')
    if (signs) report('privateKey', 'required to sign the assertion')
    for (const key of ['keyId', 'keyAlgorithm']) {
      if (source[key] !== undefined) report(key, 'not used without privateKey')
    }
    return
  }
  const authenticates =
    clientAuth === 'private_key_jwt' || (clientAuth === undefined && clientSecret === undefined)
  if (!signs && !authenticates) report('privateKey', 'not used by this grant and clientAuth')
  const key = typeof privateKey === 'string' ? readPrivateKey(privateKey) : undefined
  const able = key ? signingAlgorithms(key) : []
  if (able.length > 0 && source.keyAlgorithm !== undefined) {
    if (!able.includes(String(source.keyAlgorithm))) {
      report('keyAlgorithm', `expected one that privateKey can sign by: ${able.join(', ')}`)
    }
  }
}

const isSigned = (assertion: unknown): boolean =>
  typeof assertion === 'object' && assertion !== null && !('file' in assertion)
