import { constants, createSecureServer, type Http2ServerRequest } from 'node:http2'
import { afterEach, expect, test } from 'vitest'
import { startApp } from '../support/app.ts'
import { testAuthority } from '../support/certificates.ts'
import { bodyOf } from '../support/http2-origin.ts'
import { Listener } from '../support/listener.ts'
import { trusting } from '../support/protected-origin.ts'

const open: AsyncDisposable[] = []
afterEach(async () => {
  for (const each of open.splice(0).reverse()) await each[Symbol.asyncDispose]()
})

const { NGHTTP2_HTTP_1_1_REQUIRED } = constants
/** How an origin that has agreed on HTTP/2 asks for HTTP/1.1 (RFC 9113 §7). */
const WAYS: Record<string, (request: Http2ServerRequest) => void> = {
  'resets the stream': ({ stream }) => stream.close(NGHTTP2_HTTP_1_1_REQUIRED),
  'ends the session': ({ stream }) => {
    stream.session?.goaway(NGHTTP2_HTTP_1_1_REQUIRED, 0)
    stream.session?.close()
  },
}

test.each(Object.entries(WAYS))(
  'an origin that %s as it requires HTTP/1.1 gets that, then and from then on',
  async (_name, refuse) => {
    const seen: string[] = []
    const server = createSecureServer(
      { ...testAuthority().issue(['api.test']), allowHTTP1: true },
      async (request, response) => {
        seen.push(request.httpVersion)
        if (request.httpVersionMajor === 2) refuse(request)
        else response.end(await bodyOf(request))
      },
    )
    server.on('sessionError', () => {})
    const origin = new Listener(server)
    open.push(origin)
    const target = `api.test:${await origin.listen('127.0.0.1')}`
    const app = await startApp({
      upstream: trusting(['api.test']),
      pools: {
        api: {
          targets: [target],
          credentials: [{ id: 'a', source: { type: 'static', token: 'token' } }],
        },
      },
    })
    open.push(app)
    const client = app.client()
    const post = (body: string) => client.request(`https://${target}/`, { method: 'POST', body })
    expect(await post('first')).toMatchObject({ status: 200, body: Buffer.from('first') })
    expect(await post('second')).toMatchObject({ status: 200, body: Buffer.from('second') })
    expect(seen).toEqual(['2.0', '1.1', '1.1'])
  },
)
