import type { IncomingMessage, ServerResponse } from 'node:http'
import { createServer } from 'node:https'
import type { Duplex } from 'node:stream'
import { buffer } from 'node:stream/consumers'
import { WebSocketServer } from 'ws'
import { testAuthority } from '../support/certificates.ts'
import { Listener } from '../support/listener.ts'
import type { Accounts } from './accounts.ts'
import type { GitServer } from './git-server.ts'
import { BIG, BODIES } from './steps.ts'

export interface Arrival {
  readonly host: string
  readonly method: string
  readonly path: string
  readonly admitted: boolean
}

export interface MatrixOrigin extends AsyncDisposable {
  readonly port: number
}

/** What all clients ask: an API that wants the living token of the host, its token endpoint and a git server. */
export async function startMatrixOrigin(options: {
  hosts: readonly string[]
  accounts: Accounts
  git: GitServer | undefined
  onArrival: (arrival: Arrival) => void
}): Promise<MatrixOrigin> {
  const { hosts, accounts, git, onArrival } = options
  const admit = (request: IncomingMessage): boolean => {
    const host = hostOf(request)
    const path = request.url ?? ''
    if (/^\/[a-z-]*healed/.test(path)) accounts.revokeOnce(host)
    const admitted = accounts.admits(host, request.headers.authorization)
    onArrival({ host, method: request.method ?? '', path, admitted })
    return admitted
  }
  const serve = async (request: IncomingMessage, response: ServerResponse) => {
    const path = request.url ?? ''
    if (path.startsWith('/token/')) {
      request.resume()
      const token = { access_token: accounts.issue(path.slice(7)), token_type: 'Bearer' }
      response.setHeader('content-type', 'application/json')
      response.end(JSON.stringify({ ...token, expires_in: 3600 }))
    } else if (!admit(request)) {
      request.resume()
      response.writeHead(401, { 'www-authenticate': 'Bearer error="invalid_token"' }).end()
    } else if (git && path.startsWith('/git')) {
      git.serve(request, response, path.replace(/^\/git[a-z-]*/, ''))
    } else {
      const body = await buffer(request)
      const answer = path === '/echo' ? body : BODIES[path.slice(1).replace('/', '-')]
      const content = answer ?? Buffer.from('<!doctype html>')
      const type = path === '/page' ? 'text/html' : 'application/octet-stream'
      response.writeHead(200, { 'content-type': type, 'content-length': content.length })
      response.end(content)
    }
  }
  const server = createServer(testAuthority().issue([...hosts, 'token.test']), (...exchange) => {
    serve(...exchange).catch(() => exchange[1].destroy())
  })
  const sockets = new WebSocketServer({ noServer: true, perMessageDeflate: false })
  server.on('upgrade', (request: IncomingMessage, socket: Duplex, head: Buffer) => {
    socket.on('error', () => {})
    if (!admit(request)) return void socket.end(UNAUTHORIZED)
    sockets.handleUpgrade(request, socket, head, (open) => {
      open.on('error', () => {})
      open.on('message', (data: Buffer) => open.send(data.length > 10 ? data : answerTo(`${data}`)))
    })
  })
  const listener = new Listener(server)
  const port = await listener.listen('127.0.0.1')
  return { port, [Symbol.asyncDispose]: () => listener.close() }
}

const UNAUTHORIZED = 'HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\nConnection: close\r\n\r\n'

const answerTo = (message: string): Buffer =>
  message === 'big' ? BIG : (BODIES[message] ?? Buffer.alloc(0))

const hostOf = (request: IncomingMessage): string =>
  (request.headers.host ?? '').replace(/:\d+$/, '').toLowerCase()
