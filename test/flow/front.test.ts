import { createServer, type Server, type Socket } from 'node:net'
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest'
import { startApp, type TestApp } from '../support/app.ts'
import { type Origin, startOrigin } from '../support/origin.ts'
import { PatientClock } from '../support/patient-clock.ts'
import { trusting } from '../support/protected-origin.ts'

let secure: Origin
let plain: Origin
let app: TestApp | undefined

beforeAll(async () => {
  secure = await startOrigin({ tls: true, names: ['api.test', 'open.test', 'other.test'] })
  plain = await startOrigin()
})

afterAll(async () => {
  await secure[Symbol.asyncDispose]()
  await plain[Symbol.asyncDispose]()
})

afterEach(async () => {
  await app?.[Symbol.asyncDispose]()
  app = undefined
})

async function start(config: object = {}, pool: object = {}): Promise<TestApp> {
  app = await startApp(
    {
      upstream: trusting(['api.test', 'other.test', 'plain.test', 'open.test']),
      ...config,
      pools: {
        api: {
          targets: [`api.test:${secure.port}`, `http://plain.test:${plain.port}`],
          credentials: [{ id: 'one', source: { type: 'static', token: 'tok-secret-1' } }],
          ...pool,
        },
      },
    },
    undefined,
    new PatientClock(),
  )
  return app
}

interface Seen {
  authorization?: string
  path: string
  method: string
}

describe('routing', () => {
  test('a plain http target gets its token in absolute form and through CONNECT', async () => {
    const { app: running, client } = await start()
    const absolute = await client().request(`http://plain.test:${plain.port}/a?b=c`)
    expect(absolute.json<Seen>()).toMatchObject({
      authorization: 'Bearer tok-secret-1',
      path: '/a?b=c',
    })
    const { socket, status } = await client().tunnel(`plain.test:${plain.port}`)
    expect(status).toBe(200)
    const answer = await exchange(
      socket,
      `GET /t HTTP/1.1\r\nHost: plain.test:${plain.port}\r\nConnection: close\r\n\r\n`,
    )
    expect(answer).toContain('Bearer tok-secret-1')
    expect(running.proxyUrl).toMatch(/^http:/)
  })

  test('an unmapped host is tunnelled untouched, with its own certificate', async () => {
    const { client } = await start()
    const { testAuthority } = await import('../support/certificates.ts')
    const answer = await client({ ca: testAuthority().caPem }).request(
      `https://open.test:${secure.port}/x`,
      {
        headers: { authorization: 'Bearer mine' },
      },
    )
    expect(answer.json<Seen>()).toMatchObject({ authorization: 'Bearer mine' })
    expect(answer.headers['cupbearer-trace']).toBeUndefined()
  })

  test('an unmapped host is denied under deny, unless it is allowed', async () => {
    const { client } = await start({ passthrough: { action: 'deny', allow: ['open.test'] } })
    expect((await client().tunnel(`other.test:${secure.port}`)).status).toBe(403)
    const open = await client().tunnel(`open.test:${secure.port}`)
    expect(open.status).toBe(200)
    open.socket.destroy()
  })

  test('a path that no target covers goes out without a token, with what the client sent', async () => {
    const { client } = await start({}, { targets: [`api.test:${secure.port}/v1/*`] })
    const url = `https://api.test:${secure.port}`
    expect((await client().request(`${url}/v1/x`)).json<Seen>().authorization).toBe(
      'Bearer tok-secret-1',
    )
    for (const path of ['/v2/x', '/v1', '/other']) {
      const answer = await client().request(url + path, {
        headers: { authorization: 'Bearer mine' },
      })
      expect(answer.json<Seen>()).toMatchObject({ authorization: 'Bearer mine', path })
    }
  })

  test.each([
    '/v1/../admin',
    '/v1/%2e%2e/admin',
    '/v1/..%2fadmin',
    '/v1/..%5cadmin',
    '/v1/..;/admin',
    '/v1/%252e%252e/admin',
  ])('a path that servers read differently gets no token: %s', async (path) => {
    const { client } = await start({}, { targets: [`api.test:${secure.port}/v1/*`] })
    const socket = await client().connect(`api.test:${secure.port}`)
    const answer = await exchange(
      socket,
      `GET ${path} HTTP/1.1\r\nHost: api.test:${secure.port}\r\nConnection: close\r\n\r\n`,
    )
    expect(answer).toMatch(/^HTTP\/1\.1 200/)
    expect(answer).not.toContain('tok-secret-1')
    expect(secure.requests.at(-1)?.headers.join()).not.toContain('tok-secret-1')
    expect(secure.requests.at(-1)?.url).toBe(path)
  })

  test('the listeners are not reachable through the proxy, in any spelling', async () => {
    const { app: running, client } = await start()
    for (const listener of [running.proxyUrl, running.adminUrl]) {
      const { port } = new URL(listener)
      for (const host of [
        '127.0.0.1',
        'localhost',
        '0.0.0.0',
        '2130706433',
        '0x7f.1',
        '[::ffff:127.0.0.1]',
        '127.1',
      ]) {
        const { socket, status } = await client().tunnel(`${host}:${port}`)
        socket.destroy()
        expect([host, status]).toEqual([host, 403])
      }
    }
  })

  test('link-local and metadata addresses are always denied', async () => {
    const { client } = await start()
    for (const host of [
      '169.254.169.254',
      '[fe80::1]',
      '100.100.100.200',
      '[::ffff:169.254.169.254]',
      '[64:ff9b::a9fe:a9fe]',
    ]) {
      const { socket, status } = await client().tunnel(`${host}:80`)
      socket.destroy()
      expect([host, status]).toEqual([host, 403])
    }
  })
})

describe('the authority', () => {
  test('a Host other than the CONNECT authority is answered with 421 and nothing is sent', async () => {
    const { client } = await start()
    const before = secure.requests.length
    for (const host of ['other.test', `api.test:${secure.port + 1}`]) {
      const answer = await client().request(`https://api.test:${secure.port}/`, {
        headers: { host },
      })
      expect(answer.status).toBe(421)
      expect(answer.json<{ error: { code: string } }>().error.code).toBe('AUTHORITY_MISMATCH')
    }
    expect(secure.requests.length).toBe(before)
  })

  test('a Host without port, in upper case or with a trailing dot is the same authority', async () => {
    const { client } = await start()
    for (const host of ['api.test', 'API.TEST', `api.test.:${secure.port}`]) {
      const answer = await client().request(`https://api.test:${secure.port}/`, {
        headers: { host },
      })
      expect([host, answer.status]).toEqual([host, 200])
    }
    const upstream = secure.requests.at(-1)?.headers ?? []
    expect(upstream[upstream.findIndex((name) => name.toLowerCase() === 'host') + 1]).toBe(
      `api.test:${secure.port}`,
    )
  })

  test('another name in SNI is answered with 421', async () => {
    const { client } = await start()
    const before = secure.requests.length
    const answer = await client({ servername: 'other.test' }).request(
      `https://api.test:${secure.port}/`,
    )
    expect(answer.status).toBe(421)
    expect(secure.requests.length).toBe(before)
  })

  test('no SNI at all is fine', async () => {
    const { client } = await start()
    expect(
      (await client({ servername: '' }).request(`https://api.test:${secure.port}/`)).status,
    ).toBe(200)
  })

  test('absolute form inside the tunnel is taken when it agrees, else refused', async () => {
    const { client } = await start()
    const good = await client().connect(`api.test:${secure.port}`)
    expect(
      await exchange(
        good,
        `GET https://api.test:${secure.port}/abs?q HTTP/1.1\r\nHost: api.test\r\nConnection: close\r\n\r\n`,
      ),
    ).toContain('"path":"/abs?q"')
    const bad = await client().connect(`api.test:${secure.port}`)
    expect(
      await exchange(
        bad,
        `GET https://other.test:${secure.port}/ HTTP/1.1\r\nHost: api.test\r\nConnection: close\r\n\r\n`,
      ),
    ).toMatch(/^HTTP\/1\.1 421/)
  })
})

describe('proxy authentication', () => {
  const clients = { worker: { password: 'hunter2' }, outsider: { password: 'pw', pools: [] } }

  test('every request needs the right credentials once a client is configured', async () => {
    const { client } = await start({ clients })
    expect((await client().tunnel(`api.test:${secure.port}`)).status).toBe(407)
    expect((await client({ auth: 'worker:wrong' }).tunnel(`api.test:${secure.port}`)).status).toBe(
      407,
    )
    expect((await client().request(`http://plain.test:${plain.port}/`)).status).toBe(407)
    const answer = await client({ auth: 'worker:hunter2' }).request(
      `https://api.test:${secure.port}/`,
    )
    expect(answer.json<Seen>().authorization).toBe('Bearer tok-secret-1')
    const http = await client({ auth: 'worker:hunter2' }).request(
      `http://plain.test:${plain.port}/`,
    )
    expect(http.json<Seen>().authorization).toBe('Bearer tok-secret-1')
    expect(plain.requests.at(-1)?.headers.join().toLowerCase()).not.toContain('proxy-authorization')
  })

  test('a client may use only its pools', async () => {
    const { client } = await start({ clients })
    const answer = await client({ auth: 'outsider:pw' }).request(`https://api.test:${secure.port}/`)
    expect(answer.status).toBe(403)
    expect(answer.json<{ error: { code: string } }>().error.code).toBe('DESTINATION_DENIED')
  })

  test('ten wrong guesses lock the address out, right credentials too', async () => {
    const { client } = await start({ clients })
    for (let i = 0; i < 10; i++) {
      const { socket } = await client({ auth: `worker:guess-${i}` }).tunnel(
        `api.test:${secure.port}`,
      )
      socket.destroy()
    }
    const { status, head, socket } = await client({ auth: 'worker:hunter2' }).tunnel(
      `api.test:${secure.port}`,
    )
    socket.destroy()
    expect(status).toBe(429)
    expect(head.toLowerCase()).toContain('retry-after: 1')
  })
})

describe('requests on the wire', () => {
  test('chunked bodies of GET and DELETE arrive framed', async () => {
    const { client } = await start()
    for (const method of ['GET', 'DELETE', 'POST']) {
      const socket = await client().connect(`api.test:${secure.port}`)
      const answer = await exchange(
        socket,
        `${method} /c HTTP/1.1\r\nHost: api.test\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n5\r\nhello\r\n0\r\n\r\n`,
      )
      expect(answer).toMatch(/^HTTP\/1\.1 200/)
      expect(secure.requests.at(-1)?.body.toString()).toBe('hello')
    }
  })

  test('hop-by-hop and Connection-listed fields go, the injected one never', async () => {
    const { client } = await start()
    const socket = await client().connect(`api.test:${secure.port}`)
    await exchange(
      socket,
      'GET / HTTP/1.1\r\nHost: api.test\r\nConnection: close, Authorization, X-Hop\r\nX-Hop: 1\r\nX-End: 2\r\nTE: gzip, trailers\r\nProxy-Connection: keep-alive\r\nCupbearer-Session: s\r\n\r\n',
    )
    const headers = secure.requests.at(-1)?.headers ?? []
    const names = headers.filter((_, i) => i % 2 === 0).map((name) => name.toLowerCase())
    expect(names).toContain('authorization')
    expect(names).toContain('x-end')
    for (const gone of ['x-hop', 'te', 'proxy-connection', 'cupbearer-session'])
      expect(names).not.toContain(gone)
  })

  test('TRACE is refused', async () => {
    const { client } = await start()
    const answer = await client().request(`https://api.test:${secure.port}/`, { method: 'TRACE' })
    expect(answer.status).toBe(405)
    expect(answer.headers['proxy-status']).toContain('METHOD_REFUSED')
  })

  test.each([
    [
      'both framings',
      'POST / HTTP/1.1\r\nHost: api.test\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n',
    ],
    [
      'two lengths',
      'POST / HTTP/1.1\r\nHost: api.test\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!',
    ],
    ['two hosts', 'GET / HTTP/1.1\r\nHost: api.test\r\nHost: api.test\r\n\r\n'],
    ['no host', 'GET / HTTP/1.1\r\n\r\n'],
    ['a folded header', 'GET / HTTP/1.1\r\nHost: api.test\r\nX-A: 1\r\n 2\r\n\r\n'],
    ['a space before the colon', 'GET / HTTP/1.1\r\nHost: api.test\r\nX-A : 1\r\n\r\n'],
    ['a NUL', 'GET / HTTP/1.1\r\nHost: api.test\r\nX-A: \0\r\n\r\n'],
    [
      'a bad chunk',
      'POST / HTTP/1.1\r\nHost: api.test\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n',
    ],
    ['a large header', `GET / HTTP/1.1\r\nHost: api.test\r\nX-A: ${'a'.repeat(20_000)}\r\n\r\n`],
    ['no HTTP', 'hello there\r\n\r\n'],
  ])(
    'a malformed request with %s is answered with 4xx and never reaches the origin',
    async (_, bytes) => {
      const { client } = await start()
      const before = secure.requests.length
      const socket = await client().connect(`api.test:${secure.port}`)
      const answer = await exchange(socket, bytes)
      expect(answer).toMatch(/^HTTP\/1\.1 4\d\d/)
      expect(secure.requests.length).toBe(before)
    },
  )
})

describe('answers on the wire', () => {
  test('pass with case, order, duplicates, reason and trailers kept and the token redacted', async () => {
    const raw = await startRaw(
      'HTTP/1.1 207 Very tok-secret-1 Fine\r\nX-Upper: A\r\nset-cookie: a=1\r\nSet-Cookie: b=tok-secret-1\r\nx-upper: B\r\nX-Latin: caf\xe9\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\nConnection: X-Gone\r\nX-Gone: 1\r\n\r\n3\r\nabc\r\n0\r\nX-Sum: tok-secret-1!\r\n\r\n',
    )
    try {
      const { client } = await start({}, { targets: [`http://plain.test:${raw.port}`] })
      const { socket } = await client().tunnel(`plain.test:${raw.port}`)
      const answer = await exchange(
        socket,
        'GET / HTTP/1.1\r\nHost: plain.test\r\nConnection: close\r\n\r\n',
      )
      expect(answer).toMatch(/^HTTP\/1\.1 207 Very \[redacted\] Fine\r\n/)
      expect(answer).toContain(
        'X-Upper: A\r\nset-cookie: a=1\r\nSet-Cookie: b=[redacted]\r\nx-upper: B\r\nX-Latin: caf\xe9\r\n',
      )
      expect(answer).toContain('X-Sum: [redacted]!')
      expect(answer).not.toContain('X-Gone')
      expect(answer).not.toContain('tok-secret')
    } finally {
      raw.close()
    }
  })

  test('interim responses pass', async () => {
    const raw = await startRaw(
      'HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok',
    )
    try {
      const { client } = await start({}, { targets: [`http://plain.test:${raw.port}`] })
      const { socket } = await client().tunnel(`plain.test:${raw.port}`)
      const answer = await exchange(
        socket,
        'GET / HTTP/1.1\r\nHost: plain.test\r\nConnection: close\r\n\r\n',
      )
      expect(answer).toMatch(
        /^HTTP\/1\.1 103 Early Hints\r\nLink: <\/a\.css>; rel=preload\r\n\r\nHTTP\/1\.1 200 OK\r\n/,
      )
    } finally {
      raw.close()
    }
  })

  test('failures on the way have their codes', async () => {
    const { testAuthority } = await import('../support/certificates.ts')
    const selfSigned = await startOrigin({
      tls: true,
      certificate: testAuthority().issue(['api.test'], { selfSigned: true }),
    })
    const silent = await startRaw(undefined)
    const cut = await startRaw('')
    try {
      const { client } = await start(
        {
          upstream: {
            ...trusting(['api.test', 'plain.test', 'dead.test']),
            headersTimeout: '200ms',
          },
        },
        {
          targets: [
            `api.test:${selfSigned.port}`,
            'http://dead.test:1',
            `http://plain.test:${silent.port}`,
            `http://plain.test:${cut.port}`,
          ],
        },
      )
      const code = async (url: string, method = 'GET') => {
        const answer = await client().request(url, { method })
        return [answer.status, answer.json<{ error: { code: string } }>().error.code]
      }
      expect(await code(`https://api.test:${selfSigned.port}/`)).toEqual([502, 'UPSTREAM_TLS'])
      expect(selfSigned.requests).toHaveLength(0)
      expect(await code('http://dead.test:1/')).toEqual([502, 'UPSTREAM_UNREACHABLE'])
      expect(await code(`http://plain.test:${silent.port}/`)).toEqual([504, 'UPSTREAM_TIMEOUT'])
      expect(await code(`http://plain.test:${cut.port}/`, 'POST')).toEqual([502, 'UPSTREAM_RESET'])
      expect(cut.connections).toBe(1)
      expect(await code(`http://plain.test:${cut.port}/`, 'GET')).toEqual([502, 'UPSTREAM_RESET'])
      expect(cut.connections).toBe(3)
    } finally {
      selfSigned.close()
      silent.close()
      cut.close()
    }
  })
})

/** Writes bytes and reads what comes until the end, as latin1. */
function exchange(socket: import('node:stream').Duplex, bytes: string): Promise<string> {
  return new Promise((resolve) => {
    let text = ''
    socket.on('data', (chunk: Buffer) => {
      text += chunk.toString('latin1')
    })
    socket.on('error', () => {})
    socket.once('close', () => resolve(text))
    socket.resume()
    socket.write(Buffer.from(bytes, 'latin1'))
  })
}

/** A server that answers each connection's first bytes with these, then ends; none keeps it silent, '' cuts it. */
async function startRaw(
  answer: string | undefined,
): Promise<{ port: number; readonly connections: number; close(): void }> {
  const sockets = new Set<Socket>()
  let connections = 0
  const server: Server = createServer((socket) => {
    connections += 1
    sockets.add(socket)
    socket.on('error', () => {})
    socket.once('data', () => {
      if (answer === '') socket.destroy()
      else if (answer !== undefined) socket.end(Buffer.from(answer, 'latin1'))
    })
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  return {
    port: (server.address() as import('node:net').AddressInfo).port,
    get connections() {
      return connections
    },
    close() {
      for (const socket of sockets) socket.destroy()
      server.close()
    },
  }
}
