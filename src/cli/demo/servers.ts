import type { IncomingMessage, ServerResponse } from 'node:http'
import { createServer } from 'node:https'
import { text } from 'node:stream/consumers'
import { openAuthority } from '../../ca/authority.ts'
import { LeafCache } from '../../ca/leaf.ts'
import { parseTarget, type Target } from '../../lib/authority.ts'
import { systemClock } from '../../lib/clock.ts'
import { Listener } from './listener.ts'
import type { Standing, TokenBook } from './token-book.ts'

export const API_HOST = 'api.demo.test'
export const LOGIN_HOST = 'login.demo.test'

/** What the API has seen, its own count. */
export interface ApiCount {
  requests: number
  ok: number
  refused: Record<Exclude<Standing, 'live'>, number>
  /** Requests that were refused once and answered 200 when they came again. */
  healed: number
}

/** The two servers that somebody else would run: the API, and the token endpoint of its accounts. */
export interface Servers {
  readonly apiPort: number
  readonly loginPort: number
  /** Certificate of the CA that signed theirs. */
  readonly caPath: string
  readonly count: ApiCount
  close(): Promise<void>
}

/** Starts both on loopback; their CA is made in `folder` and goes with it. */
export async function startServers(book: TokenBook, folder: string): Promise<Servers> {
  const authority = await openAuthority({
    dir: folder,
    nameConstraints: true,
    targets: [API_HOST, LOGIN_HOST].map((host) => parseTarget(host) as Target),
    clock: systemClock,
  })
  const leaves = new LeafCache(authority, { clock: systemClock })
  const secure = (handle: (request: IncomingMessage, response: ServerResponse) => void) =>
    createServer(
      {
        SNICallback(name, done) {
          try {
            done(null, leaves.contextFor(name))
          } catch (error) {
            done(error as Error)
          }
        },
      },
      handle,
    )
  const count: ApiCount = {
    requests: 0,
    ok: 0,
    refused: { expired: 0, revoked: 0, unknown: 0 },
    healed: 0,
  }
  const api = new Listener(secure(apiHandler(book, count)))
  const login = new Listener(secure(loginHandler(book)))
  const close = async () => {
    await Promise.all([api.close(), login.close()])
  }
  try {
    const apiPort = await api.listen('127.0.0.1')
    const loginPort = await login.listen('127.0.0.1')
    return { apiPort, loginPort, caPath: authority.certificatePath, count, close }
  } catch (error) {
    await close()
    throw error
  }
}

/** 200 to a live token, else 401 as RFC 6750 §3.1 says. */
function apiHandler(book: TokenBook, count: ApiCount) {
  const refusedPaths = new Set<string>()
  return (request: IncomingMessage, response: ServerResponse) => {
    request.resume()
    const path = request.url as string
    const from = request.socket.remoteAddress ?? ''
    const token = /^Bearer (\S+)$/.exec(request.headers.authorization ?? '')?.[1] ?? ''
    const { standing, account } = book.judge(token, from)
    count.requests += 1
    if (standing !== 'live') {
      count.refused[standing] += 1
      refusedPaths.add(path)
      const challenge = 'Bearer error="invalid_token"'
      return answer(response, 401, { error: standing }, { 'www-authenticate': challenge })
    }
    count.ok += 1
    if (refusedPaths.delete(path)) count.healed += 1
    answer(response, 200, { order: path.slice('/orders/'.length), account, seenFrom: from })
  }
}

/** RFC 6749 §4.4 and §6, for clients that authenticate by Basic; each refresh token is good for one use. */
function loginHandler(book: TokenBook) {
  return async (request: IncomingMessage, response: ServerResponse) => {
    book.calls += 1
    // A client that leaves half-way has sent nothing to act on.
    const body = await text(request).catch(() => undefined)
    if (body === undefined) return
    const form = new URLSearchParams(body)
    const [id, password] = readBasic(request.headers.authorization)
    const account = book.accounts.find((each) => each.id === id && each.clientSecret === password)
    if (!account) return answer(response, 401, { error: 'invalid_client' })
    if (form.get('grant_type') !== account.grant) {
      return answer(response, 400, { error: 'unauthorized_client' })
    }
    const renews = account.grant === 'refresh_token'
    if (renews && !book.spend(form.get('refresh_token') ?? '', account.id)) {
      return answer(response, 400, { error: 'invalid_grant' })
    }
    answer(response, 200, {
      access_token: book.issue(account, request.socket.remoteAddress ?? ''),
      token_type: 'Bearer',
      expires_in: book.lifetimeMs / 1000,
      ...(renews && { refresh_token: book.enrol(account.id) }),
    })
  }
}

/** RFC 6749 §2.3.1: both halves are form-encoded before they are joined. */
function readBasic(field: string | undefined): string[] {
  const encoded = /^Basic (\S+)$/i.exec(field ?? '')?.[1] ?? ''
  const pair = Buffer.from(encoded, 'base64').toString()
  return pair.split(':').map((half) => new URLSearchParams(`v=${half}`).get('v') ?? '')
}

function answer(
  response: ServerResponse,
  status: number,
  body: object,
  headers: Record<string, string> = {},
): void {
  response.writeHead(status, {
    'content-type': 'application/json',
    'cache-control': 'no-store',
    ...headers,
  })
  response.end(JSON.stringify(body))
}
