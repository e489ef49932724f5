/**
 * Loaded first by every Node program under `cupbearer run` (`NODE_OPTIONS=--require …`). Newer Node reads the proxy
 * variables by itself (`NODE_USE_ENV_PROXY`); for older ones this does the same: the global dispatcher of fetch and
 * undici, and the global agents of http and https, go by `HTTP_PROXY`, `HTTPS_PROXY` and `NO_PROXY`.
 */
;(() => {
  if (process.allowedNodeEnvironmentFlags.has('--use-env-proxy')) return
  const { env } = process
  const secure = proxyOf(env.https_proxy ?? env.HTTPS_PROXY)
  const plain = proxyOf(env.http_proxy ?? env.HTTP_PROXY)
  const exceptions = (env.no_proxy ?? env.NO_PROXY ?? '').toLowerCase().split(/[\s,]+/)

  const http = require('node:http') as typeof import('node:http')
  const https = require('node:https') as typeof import('node:https')
  const settings = { keepAlive: true, scheduling: 'lifo', timeout: 5000 } as const

  type Duplex = import('node:stream').Duplex
  type Options = import('node:https').RequestOptions & { socket?: Duplex }
  type Done = (error: Error | null, socket?: Duplex) => void

  /** Reaches https origins through a tunnel. */
  class TunnelAgent extends https.Agent {
    override createConnection(
      options: Options,
      done?: (error: Error | null, socket: Duplex) => void,
    ) {
      if (!secure || options.socketPath || isException(options)) {
        return super.createConnection(options, done)
      }
      const settle = done as Done
      const authority = authorityOf(options, 443)
      const connect = http.request({
        ...secure.address,
        agent: false,
        method: 'CONNECT',
        path: authority,
        headers: { host: authority, ...secure.headers },
      })
      connect.once('connect', ({ statusCode }, socket) => {
        if (statusCode === 200) {
          settle(null, super.createConnection({ ...options, socket } as Options) as Duplex)
        } else {
          socket.destroy()
          settle(new Error(`the proxy answered CONNECT ${authority} with ${statusCode}`))
        }
      })
      connect.once('error', settle)
      connect.end()
      return undefined
    }
  }

  /** Sends the request for an http origin to the proxy, with the whole URL (RFC 9112 §3.2.2). */
  class ForwardAgent extends http.Agent {
    addRequest(request: import('node:http').ClientRequest, options: Options) {
      let to = options
      const tunnel = request.method === 'CONNECT' || request.headersSent
      if (plain && !tunnel && !options.socketPath && !isException(options)) {
        request.path = `http://${authorityOf(options, 80)}${request.path}`
        for (const [name, value] of Object.entries(plain.headers)) request.setHeader(name, value)
        to = { ...options, ...plain.address }
      }
      // @ts-expect-error: what every agent of Node has; its types leave it out.
      super.addRequest(request, to)
    }
  }

  function proxyOf(text: string | undefined) {
    if (!text || !URL.canParse(text)) return undefined
    const { hostname, port, username, password } = new URL(text)
    const credentials = `${decodeURIComponent(username)}:${decodeURIComponent(password)}`
    const basic = `Basic ${Buffer.from(credentials).toString('base64')}`
    const headers: Record<string, string> = username ? { 'proxy-authorization': basic } : {}
    return {
      address: { host: hostname.replace(/^\[|\]$/g, ''), port: Number(port || 80) },
      headers,
    }
  }

  function authorityOf({ host, port }: Options, defaultPort: number): string {
    const name = host ?? 'localhost'
    return `${name.includes(':') ? `[${name}]` : name}:${port ?? defaultPort}`
  }

  /** Whether it goes by itself: to the proxy, or where NO_PROXY says. */
  function isException(options: Options): boolean {
    const { host, port } = plain?.address ?? {}
    return (options.host === host && Number(options.port) === port) || isListed(options)
  }

  /** `host`, `.host` and `*.host` cover what is beneath too, as curl and undici read them. */
  function isListed({ host, port }: Options): boolean {
    const name = (host ?? 'localhost').toLowerCase()
    return exceptions.some((entry) => {
      if (entry === '') return false
      if (entry === '*') return true
      const [, pattern = '', only] = /^(.*?)(?::(\d+))?$/.exec(entry) ?? []
      if (only && name !== entry && Number(only) !== Number(port)) return false
      const bare = (only && name === entry ? entry : pattern).replace(/^\*?\./, '')
      return name === bare || name.endsWith(`.${bare}`)
    })
  }

  http.globalAgent = new ForwardAgent(settings)
  https.globalAgent = new TunnelAgent(settings) as typeof https.globalAgent

  // Loading undici takes a while: only a program that asks for the global dispatcher pays for it.
  const slot = Symbol.for('undici.globalDispatcher.1')
  const fill = (value: unknown) =>
    Object.defineProperty(globalThis, slot, { value, writable: true, configurable: true })
  Object.defineProperty(globalThis, slot, {
    configurable: true,
    get() {
      // First the part alone: undici as a whole, which gives it its methods, looks here while it loads.
      const EnvHttpProxyAgent = require('undici/lib/dispatcher/env-http-proxy-agent.js')
      const dispatcher = new EnvHttpProxyAgent()
      fill(dispatcher)
      require('undici')
      return dispatcher
    },
    set: fill,
  })
})()
