import {
  Client,
  credentials,
  type handleBidiStreamingCall,
  type handleClientStreamingCall,
  type handleServerStreamingCall,
  type handleUnaryCall,
  Metadata,
  type MethodDefinition,
  Server,
  ServerCredentials,
  type ServiceDefinition,
  type ServiceError,
  status,
} from '@grpc/grpc-js'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { startApp, type TestApp } from '../support/app.ts'
import { testAuthority } from '../support/certificates.ts'
import { trusting } from '../support/protected-origin.ts'
import { until } from '../support/until.ts'

/** Messages are plain bytes: what they mean is nobody's business here. */
function method(
  name: string,
  requestStream = false,
  responseStream = false,
): MethodDefinition<Buffer, Buffer> {
  const same = (message: Buffer) => message
  return {
    path: `/test.Echo/${name}`,
    requestStream,
    responseStream,
    requestSerialize: same,
    requestDeserialize: same,
    responseSerialize: same,
    responseDeserialize: same,
  }
}

const METHODS = {
  unary: method('Unary'),
  guarded: method('Guarded'),
  failing: method('Failing'),
  hanging: method('Hanging'),
  serverStream: method('ServerStream', false, true),
  clientStream: method('ClientStream', true, false),
  bidi: method('Bidi', true, true),
} satisfies ServiceDefinition

/** Calls that the server saw given up. */
let cancelled = 0
/** Calls that it leaves without an answer. */
let hung = 0

const unary: handleUnaryCall<Buffer, Buffer> = (call, done) => {
  const initial = new Metadata()
  initial.set('seen', String(call.metadata.get('authorization')[0]))
  call.sendMetadata(initial)
  const trailing = new Metadata()
  trailing.set('sum-bin', Buffer.from([0, 255]))
  done(null, call.request, trailing)
}

const guarded: handleUnaryCall<Buffer, Buffer> = (call, done) => {
  const live = call.metadata.get('authorization')[0] === 'Bearer token-live'
  if (live) done(null, call.request)
  else done({ code: status.UNAUTHENTICATED, details: 'the token has expired' })
}

const failing: handleUnaryCall<Buffer, Buffer> = (_call, done) => {
  done({ code: status.RESOURCE_EXHAUSTED, details: 'caf\u00e9: 50% used' })
}

const hanging: handleUnaryCall<Buffer, Buffer> = (call) => {
  hung += 1
  call.on('cancelled', () => {
    cancelled += 1
  })
}

const serverStream: handleServerStreamingCall<Buffer, Buffer> = (call) => {
  for (let i = 0; i < 3; i++) call.write(Buffer.from(`${call.request} ${i}`))
  call.end()
}

const clientStream: handleClientStreamingCall<Buffer, Buffer> = (call, done) => {
  let bytes = 0
  call.on('data', (message: Buffer) => {
    bytes += message.length
  })
  call.on('end', () => done(null, Buffer.from(String(bytes))))
}

const bidi: handleBidiStreamingCall<Buffer, Buffer> = (call) => {
  call.on('data', (message: Buffer) => call.write(message))
  call.on('end', () => call.end())
}

let server: Server
let app: TestApp
let client: Client

beforeAll(async () => {
  const { key, cert } = testAuthority().issue(['api.test'])
  server = new Server()
  server.addService(METHODS, {
    unary,
    guarded,
    failing,
    hanging,
    serverStream,
    clientStream,
    bidi,
  })
  const port = await new Promise<number>((resolve, reject) => {
    const tls = ServerCredentials.createSsl(null, [
      { private_key: Buffer.from(key), cert_chain: Buffer.from(cert) },
    ])
    server.bindAsync('127.0.0.1:0', tls, (error, bound) => (error ? reject(error) : resolve(bound)))
  })
  app = await startApp({
    upstream: trusting(['api.test']),
    pools: {
      api: {
        targets: [`api.test:${port}`],
        select: 'fill-first',
        expired: [{ status: 401 }, { header: { 'grpc-status': '^16$' } }],
        credentials: ['dead', 'live'].map((id) => ({
          id,
          source: { type: 'static', token: `token-${id}` },
        })),
      },
    },
  })
  // As a user points it at a proxy.
  process.env.grpc_proxy = app.app.proxyUrl
  client = new Client(`api.test:${port}`, credentials.createSsl(Buffer.from(app.ca)))
})

afterAll(async () => {
  delete process.env.grpc_proxy
  client?.close()
  await app?.[Symbol.asyncDispose]()
  server?.forceShutdown()
})

interface UnaryAnswer {
  readonly message: Buffer | undefined
  readonly error: ServiceError | null
  readonly metadata: Metadata | undefined
  readonly trailers: Metadata | undefined
}

function call(
  { path }: { path: string },
  message: Buffer,
  options: { deadline?: Date } = {},
): Promise<UnaryAnswer> {
  return new Promise((resolve) => {
    let metadata: Metadata | undefined
    let answer: Pick<UnaryAnswer, 'message' | 'error'> | undefined
    let trailers: Metadata | undefined
    const under = client.makeUnaryRequest(
      path,
      (sent: Buffer) => sent,
      (received: Buffer) => received,
      message,
      new Metadata(),
      options,
      (error, received) => {
        answer = { message: received, error }
        if (trailers) resolve({ ...answer, metadata, trailers })
      },
    )
    under.on('metadata', (fields) => {
      metadata = fields
    })
    under.on('status', (end) => {
      trailers = end.metadata
      if (answer) resolve({ ...answer, metadata, trailers })
    })
  })
}

describe('gRPC through the proxy', () => {
  test('a unary call gets a token, its metadata, its trailers and its status', async () => {
    const { message, error, metadata, trailers } = await call(METHODS.unary, Buffer.from('hello'))
    expect(error).toBeNull()
    expect(message?.toString()).toBe('hello')
    expect(String(metadata?.get('seen')[0])).toMatch(/^Bearer \[redacted\]$/)
    expect(trailers?.get('sum-bin')).toEqual([Buffer.from([0, 255])])
  })

  test('a big message is the same at the other end', async () => {
    const big = Buffer.alloc(3 * 2 ** 20, 'abc')
    const { message, error } = await call(METHODS.unary, big)
    expect(error).toBeNull()
    expect(message?.equals(big)).toBe(true)
  })

  test('a failing call keeps its status and details', async () => {
    const { error } = await call(METHODS.failing, Buffer.from('x'))
    expect(error).toMatchObject({
      code: status.RESOURCE_EXHAUSTED,
      details: 'caf\u00e9: 50% used',
    })
  })

  test('UNAUTHENTICATED is healed by a matcher on grpc-status, and the call sent again', async () => {
    const { message, error } = await call(METHODS.guarded, Buffer.from('again'))
    expect(error).toBeNull()
    expect(message?.toString()).toBe('again')
    const { traces } = await app.admin('/api/traces?limit=1')
    const statuses = traces[0].attempts.map(({ verdict }: { verdict: string }) => verdict)
    expect(statuses).toEqual(['expired', 'ok'])
    expect(traces[0].replay.done).toBe(true)
  })

  test('the server streams, the client streams, and both at once', async () => {
    const same = (message: Buffer) => message
    const received: string[] = []
    const stream = client.makeServerStreamRequest(
      METHODS.serverStream.path,
      same,
      same,
      Buffer.from('part'),
    )
    for await (const message of stream) received.push(String(message))
    expect(received).toEqual(['part 0', 'part 1', 'part 2'])

    const total = await new Promise((resolve, reject) => {
      const sending = client.makeClientStreamRequest(
        METHODS.clientStream.path,
        same,
        same,
        (error, answer) => (error ? reject(error) : resolve(String(answer))),
      )
      for (let i = 0; i < 100; i++) sending.write(Buffer.alloc(10_000))
      sending.end()
    })
    expect(total).toBe('1000000')

    // Each message comes back before the next is sent: nothing on the way waits for more.
    const both = client.makeBidiStreamRequest(METHODS.bidi.path, same, same)
    const echoes = both[Symbol.asyncIterator]()
    for (const text of ['one', 'two', 'three']) {
      both.write(Buffer.from(text))
      expect(String((await echoes.next()).value)).toBe(text)
    }
    both.end()
    expect((await echoes.next()).done).toBe(true)
  })

  test('a deadline and a cancel reach the server', async () => {
    const { error } = await call(METHODS.hanging, Buffer.from('x'), {
      // Long enough for it to be under way by then.
      deadline: new Date(Date.now() + 4000),
    })
    expect(error?.code).toBe(status.DEADLINE_EXCEEDED)
    await until(() => cancelled >= 1)
    const cancel = client.makeUnaryRequest(
      METHODS.hanging.path,
      (sent: Buffer) => sent,
      (received: Buffer) => received,
      Buffer.from('x'),
      () => {},
    )
    const end = new Promise((resolve) => cancel.on('status', resolve))
    await until(() => hung >= 2)
    cancel.cancel()
    expect(await end).toMatchObject({ code: status.CANCELLED })
    await until(() => cancelled >= 2)
  })
})
