import { connect, createServer, isIP, type Socket } from 'node:net'
import { Listener } from './listener.ts'

export type SocksProxyBehaviour =
  | 'normal'
  | 'refuse-auth'
  /** Reply 1, general failure; 5, connection refused: whatever the target would do. */
  | 'general-failure'
  | 'connection-refused'
  | 'garbage'
  /** Grants, and speaks into the connection in the same write. */
  | 'garbage-after-grant'
  | 'hang'
  | 'close'

export interface SocksProxyOptions {
  readonly host?: string
  /** Where another has been killed; a free one by default. */
  readonly port?: number
  /** Address that it dials from: the one that origins see. */
  readonly outboundAddress?: string
  readonly auth?: { readonly user: string; readonly pass: string }
  readonly behaviour?: SocksProxyBehaviour
  /** Names it resolves itself. */
  readonly names?: Readonly<Record<string, string>>
}

export interface SocksProxy extends AsyncDisposable {
  /** As the `egress` configuration wants it, credentials included. */
  readonly url: string
  readonly host: string
  readonly port: number
  /** `host:port` it was asked for, in order; a name stands as it came. */
  readonly targets: string[]
  readonly bytesThrough: number
  readonly openConnections: number
  behaviour: SocksProxyBehaviour
  close(): Promise<void>
}

const NONE = 0
const USER_PASS = 2
const NO_METHOD = 0xff

/** A real SOCKS5 server (RFC 1928, RFC 1929) that leaves by an address of its own. */
export async function startSocksProxy(options: SocksProxyOptions = {}): Promise<SocksProxy> {
  const host = options.host ?? '127.0.0.2'
  const outbound = options.outboundAddress ?? host
  const targets: string[] = []
  let behaviour = options.behaviour ?? 'normal'
  let bytesThrough = 0
  const server = createServer()
  const lifecycle = new Listener(server)

  const serve = async (client: Socket): Promise<unknown> => {
    client.setNoDelay(true)
    // Reads on, so that it notices when its client leaves.
    if (behaviour === 'hang') return client.resume()
    if (behaviour === 'close') return client.destroy()
    if (behaviour === 'garbage') return client.end('HTTP/1.1 400 Bad Request\r\n\r\n')
    const read = reader(client)
    const [, count] = await read(2)
    const methods = await read(count as number)
    const method = options.auth ? USER_PASS : NONE
    if (!methods.includes(method)) return client.end(Buffer.from([5, NO_METHOD]))
    client.write(Buffer.from([5, method]))
    if (options.auth) {
      const user = await read((await read(2))[1] as number)
      const pass = await read((await read(1))[0] as number)
      const right = user.toString() === options.auth.user && pass.toString() === options.auth.pass
      if (!right || behaviour === 'refuse-auth') return client.end(Buffer.from([1, 1]))
      client.write(Buffer.from([1, 0]))
    }
    const [, , , type] = await read(4)
    const name = await readHost(read, type as number)
    const port = (await read(2)).readUInt16BE()
    targets.push(`${name}:${port}`)
    if (behaviour === 'general-failure') return client.end(reply(1))
    if (behaviour === 'connection-refused') return client.end(reply(5))
    if (behaviour === 'garbage-after-grant') {
      return client.write(Buffer.concat([reply(0), Buffer.from('HTTP/1.1 200 OK\r\n\r\n')]))
    }
    const address = options.names?.[name] ?? name
    if (isIP(address) === 0) return client.end(reply(4))
    const origin = connect({ host: address, port, localAddress: outbound, noDelay: true })
    lifecycle.track(origin)
    origin.once('error', () => client.end(reply(5)))
    origin.once('connect', () => {
      client.write(reply(0))
      client.on('data', (chunk: Buffer) => {
        bytesThrough += chunk.length
      })
      client.pipe(origin).pipe(client)
      client.once('close', () => origin.destroy())
      origin.once('close', () => client.destroy())
    })
    return undefined
  }
  server.on('connection', (client) => {
    serve(client).catch(() => client.destroy())
  })
  const port = await lifecycle.listen(host, options.port)
  const user = options.auth
    ? `${encodeURIComponent(options.auth.user)}:${encodeURIComponent(options.auth.pass)}@`
    : ''
  const close = () => lifecycle.close()
  return {
    url: `socks5://${user}${host}:${port}`,
    host,
    port,
    targets,
    get bytesThrough() {
      return bytesThrough
    },
    get openConnections() {
      return lifecycle.openSockets
    },
    get behaviour() {
      return behaviour
    },
    set behaviour(next) {
      behaviour = next
    },
    close,
    [Symbol.asyncDispose]: close,
  }
}

type Read = (length: number) => Promise<Buffer>

async function readHost(read: Read, type: number): Promise<string> {
  if (type === 1) return [...(await read(4))].join('.')
  if (type === 3) return (await read((await read(1))[0] as number)).toString()
  const words = (await read(16)).toString('hex').match(/.{4}/g) ?? []
  return new URL(`http://[${words.join(':')}]`).hostname.slice(1, -1)
}

function reply(code: number): Buffer {
  return Buffer.from([5, code, 0, 1, 0, 0, 0, 0, 0, 0])
}

/** Reads exactly so many bytes at a time, and nothing beyond. */
function reader(socket: Socket): Read {
  return (length) =>
    new Promise((resolve, reject) => {
      const attempt = () => {
        const chunk = length === 0 ? Buffer.alloc(0) : socket.read(length)
        if (chunk === null) return
        socket.off('readable', attempt).off('close', closed)
        resolve(chunk)
      }
      const closed = () => reject(new Error('closed'))
      socket.on('readable', attempt).once('close', closed)
      attempt()
    })
}
