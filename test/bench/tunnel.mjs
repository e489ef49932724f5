import './names.mjs'
import http from 'node:http'
import net from 'node:net'
import { ready } from './ready.mjs'

/** A proxy that looks at nothing: CONNECT, then bytes. What is left is what two more sockets cost. */
const front = http.createServer({ noDelay: true })
front.on('connect', (request, client, head) => {
  const [host, port] = request.url.split(':')
  const upstream = net.connect({ host, port: Number(port), noDelay: true }, () => {
    client.write('HTTP/1.1 200 Connection Established\r\n\r\n')
    if (head.length > 0) upstream.write(head)
    client.pipe(upstream).pipe(client)
  })
  client.on('error', () => upstream.destroy()).on('close', () => upstream.destroy())
  upstream.on('error', () => client.destroy()).on('close', () => client.destroy())
})
front.listen(0, '127.0.0.1', 4096, () => ready({ port: front.address().port }))
