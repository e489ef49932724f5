import { createServer, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'

const PAGE = `<!doctype html><meta charset="utf-8"><title>Cupbearer</title>
<p>Cupbearer has the answer. This window can be closed; the terminal says how the login went.</p>
`
const HEADERS = {
  'content-type': 'text/html; charset=utf-8',
  'content-security-policy': "default-src 'none'",
  'referrer-policy': 'no-referrer',
  'cache-control': 'no-store',
  connection: 'close',
}

/** Where the browser is sent after a login: on the loopback of this machine (RFC 8252 §7.3). */
export class RedirectListener {
  readonly #received: (url: string) => void
  #server: Server | undefined
  #uri = ''

  constructor(received: (url: string) => void) {
    this.#received = received
  }

  /** Listens on any free port; the redirect URI, or undefined where that cannot be. */
  async listen(): Promise<string | undefined> {
    const port = await this.#open('127.0.0.1', 0)
    if (port === undefined) return undefined
    this.#uri = `http://127.0.0.1:${port}/callback`
    return this.#uri
  }

  /** Makes sure that it is this URI that it listens on; false for one that no listener here can serve. */
  async serve(redirectUri: string): Promise<boolean> {
    if (redirectUri === this.#uri) return true
    const { protocol, hostname, port } = new URL(redirectUri)
    const loopback = hostname === 'localhost' || /^127\.|^\[::1\]$/.test(hostname)
    if (protocol !== 'http:' || !loopback) return false
    const address = hostname === '[::1]' ? '::1' : hostname === 'localhost' ? '127.0.0.1' : hostname
    const current = new URL(this.#uri || 'http://127.0.0.1:0/')
    if (current.port !== port || current.hostname !== address) {
      await this.close()
      if ((await this.#open(address, Number(port || 80))) === undefined) return false
    }
    this.#uri = redirectUri
    return true
  }

  async close(): Promise<void> {
    const server = this.#server
    this.#server = undefined
    if (!server) return
    const closed = new Promise((resolve) => server.close(resolve))
    server.closeAllConnections()
    await closed
  }

  #open(host: string, port: number): Promise<number | undefined> {
    const server = createServer((request, response) => {
      const { pathname } = new URL(this.#uri)
      const url = new URL(request.url ?? '/', this.#uri)
      // Browsers ask for more than they are sent to.
      if (request.method !== 'GET' || url.pathname !== pathname || url.search === '') {
        response.writeHead(404, HEADERS).end()
        return
      }
      response.writeHead(200, HEADERS).end(PAGE)
      this.#received(url.href)
    })
    return new Promise((resolve) => {
      server.once('error', () => resolve(undefined))
      server.listen(port, host, () => {
        this.#server = server
        resolve((server.address() as AddressInfo).port)
      })
    })
  }
}
