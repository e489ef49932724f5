import {
  Server,
  ServerCredentials,
  type ServerUnaryCall,
  type ServerWritableStream,
  type sendUnaryData,
  status,
} from '@grpc/grpc-js'
import { testAuthority } from '../support/certificates.ts'
import type { Accounts } from './accounts.ts'
import type { Arrival } from './origin.ts'
import { BIG, BODIES } from './steps.ts'

type Unary = ServerUnaryCall<Buffer, Buffer>

/** The same API as a gRPC service, which says in its status that a token has died. */
export async function startGrpcService(options: {
  host: string
  accounts: Accounts
  onArrival: (arrival: Arrival) => void
}): Promise<{ port: number } & AsyncDisposable> {
  const { host, accounts, onArrival } = options
  const admit = (call: { metadata: Unary['metadata'] }, path: string): boolean => {
    if (path === '/healed') accounts.revokeOnce(host)
    const admitted = accounts.admits(host, `${call.metadata.get('authorization')[0]}`)
    onArrival({ host, method: 'POST', path, admitted })
    return admitted
  }
  const refusal = { code: status.UNAUTHENTICATED, details: 'token expired' }
  const unary =
    (path: string, answer: (request: Buffer) => Buffer) =>
    (call: Unary, done: sendUnaryData<Buffer>) =>
      admit(call, path) ? done(null, answer(call.request)) : done(refusal)
  const body = (step: string) => () => BODIES[step] as Buffer
  const big = (call: ServerWritableStream<Buffer, Buffer>) => {
    if (!admit(call, '/big')) return call.emit('error', refusal)
    for (let start = 0; start < BIG.length; start += 2 ** 20) {
      call.write(BIG.subarray(start, start + 2 ** 20))
    }
    return call.end()
  }
  const same = (bytes: Buffer) => bytes
  const method = (name: string, responseStream = false) => ({
    path: `/steps/${name}`,
    requestStream: false,
    responseStream,
    requestSerialize: same,
    requestDeserialize: same,
    responseSerialize: same,
    responseDeserialize: same,
  })
  const server = new Server()
  server.addService(
    {
      get: method('get'),
      echo: method('echo'),
      big: method('big', true),
      keep1: method('keep1'),
      keep2: method('keep2'),
      healed: method('healed'),
    },
    {
      get: unary('/get', body('get')),
      echo: unary('/echo', same),
      big,
      keep1: unary('/keep/1', body('keep-1')),
      keep2: unary('/keep/2', body('keep-2')),
      healed: unary('/healed', body('healed')),
    },
  )
  const { key, cert } = testAuthority().issue([host])
  const pair = { private_key: Buffer.from(key), cert_chain: Buffer.from(cert) }
  const secure = ServerCredentials.createSsl(null, [pair])
  const port = await new Promise<number>((resolve, reject) => {
    server.bindAsync('127.0.0.1:0', secure, (error, bound) =>
      error ? reject(error) : resolve(bound),
    )
  })
  return { port, [Symbol.asyncDispose]: async () => server.forceShutdown() }
}
