import type { ServerResponse } from 'node:http'
import { describe, expect, it } from 'vitest'
import type { OAuth2SourceConfig } from '../../src/config/schema.ts'
import { SourceError } from '../../src/errors.ts'
import { Secret } from '../../src/lib/secret.ts'
import type { SourceContext } from '../../src/sources/source.ts'
import { createSource } from '../../src/sources/table.ts'
import { TestDialogue } from '../support/dialogue.ts'
import { json, startScriptedEndpoint } from '../support/scripted-endpoint.ts'
import { sourceContext } from '../support/source-context.ts'

const SECRET = new Secret('hidden')

/** Each grant as far as its token request. */
const GRANTS: Record<string, Partial<OAuth2SourceConfig> & Pick<OAuth2SourceConfig, 'grant'>> = {
  client_credentials: { grant: 'client_credentials', clientSecret: SECRET },
  password: { grant: 'password', username: 'alice', password: SECRET },
  jwt_bearer: { grant: 'jwt_bearer', assertion: SECRET },
  token_exchange: { grant: 'token_exchange', subjectToken: SECRET },
  'client_credentials with DPoP': { grant: 'client_credentials', clientSecret: SECRET, dpop: true },
  authorization_code: { grant: 'authorization_code' },
}

const BAD: Record<string, [(response: ServerResponse) => void, RegExp]> = {
  HTML: [(r) => r.writeHead(200).end('<h1>hidden</h1>'), /other than JSON/],
  '10 MB': [(r) => r.writeHead(200).end(Buffer.alloc(10_000_000, 0x20)), /more than 1 MiB/],
  'a redirect to itself': [
    (r) => r.writeHead(307, { location: '/token' }).end(),
    /redirect \(307\)/,
  ],
  '500': [(r) => r.writeHead(500).end('hidden'), /answered 500$/],
  'no token': [(r) => json(r, 200, { expires_in: 60 }), /without an access token/],
  'a token with CR and LF': [
    (r) => json(r, 200, { access_token: 'a\r\nhidden: b', token_type: 'DPoP' }),
    /no header field can carry/,
  ],
  'an error in prose': [(r) => json(r, 400, { error: 'hidden text of theirs' }), /answered 400$/],
  'nothing, and the connection ends': [(r) => r.destroy(), /ECONNRESET|UND_ERR_SOCKET/],
}

const obtain = async (
  url: string,
  given: (typeof GRANTS)[string],
  context: Partial<SourceContext> = {},
) => {
  const source = createSource({
    type: 'oauth2',
    clientId: 'client',
    tokenUrl: `${url}/token`,
    authorizationUrl: `${url}/authorize`,
    ...given,
  })
  const dialogue = new TestDialogue()
  dialogue.give('the-code')
  return source.login
    ? source.login(dialogue, sourceContext(context))
    : source.obtain(undefined, sourceContext(context))
}

describe.each(Object.entries(GRANTS))('the grant %s', (_name, given) => {
  it.each(Object.entries(BAD))(
    'ends in a clear error after %s',
    async (_what, [answer, message]) => {
      await using endpoint = await startScriptedEndpoint(answer)
      const error = await obtain(endpoint.url, given).catch((reason: unknown) => reason)
      expect(error).toBeInstanceOf(SourceError)
      expect(error).toMatchObject({ kind: 'transient', message: expect.stringMatching(message) })
      expect((error as Error).message).not.toContain('hidden')
      expect(endpoint.requests).toHaveLength(1)
    },
  )

  it('takes a token without an end', async () => {
    await using endpoint = await startScriptedEndpoint((response) =>
      json(response, 200, { access_token: 'opaque', token_type: given.dpop ? 'DPoP' : 'Bearer' }),
    )
    const token = await obtain(endpoint.url, given)
    expect(token.token.reveal()).toBe('opaque')
    expect(token.expiresAt).toBeUndefined()
  })

  it('leaves an endpoint that hangs as soon as it is told to', async () => {
    const abort = new AbortController()
    await using endpoint = await startScriptedEndpoint((response) => {
      response.writeHead(200).write('{')
      abort.abort()
    })
    const failing = obtain(endpoint.url, given, { signal: abort.signal })
    await expect(failing).rejects.toThrow(/did not answer in time/)
    while (endpoint.open > 0) await new Promise((resolve) => setImmediate(resolve))
  })
})
