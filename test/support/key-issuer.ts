import { createServer } from 'node:http'
import { exportJWK, generateKeyPair, type JWK, type JWTPayload, SignJWT } from 'jose'
import { Listener } from './listener.ts'

/** A key that signs; `jwk` is its public half. */
export interface SigningKey {
  readonly id: string
  readonly jwk: JWK
  sign(claims: JWTPayload): Promise<string>
}

/** Makes an ES256 key of that name. */
export async function makeKey(id: string): Promise<SigningKey> {
  const { publicKey, privateKey } = await generateKeyPair('ES256')
  return {
    id,
    jwk: { ...(await exportJWK(publicKey)), kid: id, alg: 'ES256', use: 'sig' },
    sign: (claims) =>
      new SignJWT(claims).setProtectedHeader({ alg: 'ES256', kid: id }).sign(privateKey),
  }
}

/** An issuer of JWTs whose keys, claims and clock the test turns. */
export interface KeyIssuer extends AsyncDisposable {
  readonly issuer: string
  readonly tokenUrl: string
  readonly jwksUrl: string
  /** Path, and from where it was asked for, oldest first. */
  readonly calls: {
    readonly path: string
    readonly remoteAddress: string
    readonly client: string
  }[]
  /** Signs the tokens from now on. */
  signWith: SigningKey
  /** Is published from now on. */
  published: readonly SigningKey[]
  /** Members of the token endpoint's answers besides the token. */
  answer: object
  /** Claims by client id, besides `iss`, `iat` and `exp`; undefined leaves one of those out. */
  claims: (clientId: string) => Record<string, unknown>
  /** How far its clock is ahead, ms. */
  aheadMs: number
}

/** Starts an issuer with metadata, key set and a token endpoint for client_credentials. */
export async function startKeyIssuer(first: SigningKey): Promise<KeyIssuer> {
  const calls: KeyIssuer['calls'] = []
  const server = createServer(async (request, response) => {
    request.resume()
    const basic = /^Basic (.+)$/.exec(request.headers.authorization ?? '')?.[1] ?? ''
    const client = Buffer.from(basic, 'base64').toString().split(':')[0] ?? ''
    const path = request.url ?? ''
    calls.push({ path, remoteAddress: request.socket.remoteAddress ?? '', client })
    const now = Date.now() + issuer.aheadMs
    response.setHeader('date', new Date(now).toUTCString())
    response.setHeader('content-type', 'application/json')
    const send = (document: object) => response.end(JSON.stringify(document))
    if (path === '/.well-known/openid-configuration') {
      send({ issuer: issuer.issuer, jwks_uri: issuer.jwksUrl, token_endpoint: issuer.tokenUrl })
    } else if (path === '/keys') {
      send({ keys: issuer.published.map(({ jwk }) => jwk) })
    } else if (path === '/token') {
      const seconds = Math.floor(now / 1000)
      const usual = { iss: issuer.issuer, iat: seconds, exp: seconds + 3600 }
      const claims = { ...usual, ...issuer.claims(client) } as JWTPayload
      const token = await issuer.signWith.sign(claims)
      send({ access_token: token, token_type: 'Bearer', ...issuer.answer })
    } else response.writeHead(404).end('{}')
  })
  const lifecycle = new Listener(server)
  const url = `http://127.0.0.1:${await lifecycle.listen('127.0.0.1')}`
  const issuer: KeyIssuer = {
    issuer: url,
    tokenUrl: `${url}/token`,
    jwksUrl: `${url}/keys`,
    calls,
    signWith: first,
    published: [first],
    answer: {},
    claims: () => ({}),
    aheadMs: 0,
    [Symbol.asyncDispose]: () => lifecycle.close(),
  }
  return issuer
}
