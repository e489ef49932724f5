import { createServer } from 'node:http'
import { connect, type Socket } from 'node:net'
import { parseAuthority } from '../../lib/authority.ts'
import { Listener } from './listener.ts'

/** Somebody's egress proxy: takes CONNECT, and dials from the address that it listens on. */
export interface EgressProxy {
  readonly url: string
  close(): Promise<void>
}

export async function startEgressProxy(address: string): Promise<EgressProxy> {
  const server = createServer((_request, response) => response.writeHead(405).end())
  const listener = new Listener(server)
  server.on('connect', (request, client: Socket, head: Buffer) => {
    const target = parseAuthority(request.url ?? '', 0)
    if (!target) return void client.end('HTTP/1.1 400 Bad Request\r\n\r\n')
    const origin = connect({ ...target, localAddress: address, noDelay: true })
    listener.track(origin)
    origin.once('connect', () => {
      client.write('HTTP/1.1 200 Connection established\r\n\r\n')
      origin.write(head)
      client.pipe(origin).pipe(client)
    })
    // Before the tunnel stands this is all the answer that a failed dial gets: an egress that is down.
    origin.once('close', () => client.destroy())
    client.once('close', () => origin.destroy())
  })
  const port = await listener.listen(address)
  return { url: `http://${address}:${port}`, close: () => listener.close() }
}
