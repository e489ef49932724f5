import { connect, createServer, type Socket } from 'node:net'
import { Listener } from '../support/listener.ts'

/** Stands between one client and the proxy, to count the connections that the client opens. */
export interface Relay extends AsyncDisposable {
  readonly url: string
  readonly connections: number
}

export async function openRelay(proxyUrl: string): Promise<Relay> {
  const proxy = new URL(proxyUrl)
  let connections = 0
  const join = (from: Socket, to: Socket) => {
    from.pipe(to)
    from.once('close', () => to.destroy())
  }
  const server = createServer({ noDelay: true }, (client) => {
    connections++
    const onward = connect({ host: proxy.hostname, port: Number(proxy.port), noDelay: true })
    listener.track(onward)
    join(client, onward)
    join(onward, client)
  })
  const listener = new Listener(server)
  const port = await listener.listen('127.0.0.1')
  return {
    url: `http://127.0.0.1:${port}`,
    get connections() {
      return connections
    },
    [Symbol.asyncDispose]: () => listener.close(),
  }
}
