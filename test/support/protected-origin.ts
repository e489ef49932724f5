import type { AuthServer } from './auth-server.ts'
import { testAuthority } from './certificates.ts'
import { type Origin, startOrigin } from './origin.ts'

/**
 * An HTTPS API that answers 200 with what it saw to a live token of the auth server, else 401 as RFC 6750 §3
 * says. It reads the whole body first and tells its length.
 */
export function startProtectedOrigin(auth: AuthServer): Promise<Origin> {
  return startOrigin({
    tls: true,
    handler: async (request, response, connection) => {
      let bytes = 0
      try {
        for await (const chunk of request) bytes += (chunk as Buffer).length
      } catch {
        return
      }
      const token = /^Bearer (.+)$/.exec(request.headers.authorization ?? '')?.[1]
      const live = token !== undefined && (await auth.isActive(token))
      response.writeHead(live ? 200 : 401, {
        'content-type': 'application/json',
        ...(!live && { 'www-authenticate': 'Bearer error="invalid_token"' }),
      })
      response.end(
        JSON.stringify({
          live,
          method: request.method,
          path: request.url,
          bytes,
          connection,
          headers: request.rawHeaders,
          remoteAddress: request.socket.remoteAddress,
        }),
      )
    },
  })
}

/** Settings with which the proxy trusts the test's servers, and reaches `*.test` names on this machine. */
export function trusting(names: readonly string[] = []): object {
  return {
    ca: [testAuthority().caFile],
    resolve: Object.fromEntries(names.map((name) => [name, '127.0.0.1'])),
  }
}
