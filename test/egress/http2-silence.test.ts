import { createServer as createTlsServer, type TLSSocket, connect as tlsConnect } from 'node:tls'
import { afterEach, describe, expect, test } from 'vitest'
import { Http2Connection } from '../../src/egress/http2.ts'
import type { ConnectionOptions } from '../../src/egress/upstream.ts'
import { testAuthority } from '../support/certificates.ts'
import { startHttp2Origin } from '../support/http2-origin.ts'
import { Listener } from '../support/listener.ts'
import { until } from '../support/until.ts'
import { failureOf } from './harness.ts'
import { Response } from './response.ts'

const open: AsyncDisposable[] = []
afterEach(async () => {
  for (const each of open.splice(0).reverse()) await each[Symbol.asyncDispose]()
})

describe('a silent peer', () => {
  const options = (log: string[]): ConnectionOptions => ({
    timings: undefined,
    headersTimeout: 60_000,
    bodyTimeout: 60_000,
    observer: {
      free: () => {},
      retired: () => log.push('retired'),
      closed: () => log.push('closed'),
      http1Required: () => {},
    },
  })
  const over = (port: number) =>
    new Promise<TLSSocket>((resolve) => {
      const socket = tlsConnect({ port, ALPNProtocols: ['h2'], rejectUnauthorized: false }, () =>
        resolve(socket),
      )
    })
  const request = (connection: Http2Connection, port: number) =>
    new Response(
      { dispatch: (sent, handler) => connection.send(sent, handler) },
      { origin: `https://127.0.0.1:${port}` },
    )

  test('is asked once whether it is there, and kept when it says so', async () => {
    const log: string[] = []
    let pings = 0
    const origin = await startHttp2Origin({
      handler: (_stream, { session }) => {
        session.on('ping', () => {
          pings += 1
        })
      },
    })
    open.push(origin)
    const socket = await over(origin.port)
    const connection = new Http2Connection(socket, options(log))
    const response = request(connection, origin.port)
    await until(() => origin.requests.length === 1)
    // In one go: nothing can come in between.
    for (const now of [0, 31_000]) connection.check(now)
    const { bytesRead } = socket
    await until(() => pings === 1 && socket.bytesRead > bytesRead)
    for (const now of [42_000, 52_000]) connection.check(now)
    expect(pings).toBe(1)
    expect(log).toEqual([])
    connection.destroy()
    await failureOf(response.whole)
    await until(() => log.length === 2)
    expect(log).toEqual(['retired', 'closed'])
  })

  test('that does not answer is given up before any time-out', async () => {
    const log: string[] = []
    const deaf = new Listener(
      createTlsServer({ ...testAuthority().issue(['127.0.0.1']), ALPNProtocols: ['h2'] }),
    )
    open.push(deaf)
    const port = await deaf.listen('127.0.0.1')
    const connection = new Http2Connection(await over(port), options(log))
    const response = request(connection, port)
    for (const now of [0, 1000, 32_000, 43_000]) {
      connection.check(now)
      // What is to leave leaves between two checks.
      await new Promise((resolve) => setImmediate(resolve))
    }
    const failure = await failureOf(response.whole)
    expect(failure).toMatchObject({ code: 'UPSTREAM_RESET', sent: true })
    await until(() => log.length === 2)
  })
})
