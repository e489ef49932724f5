import { setImmediate as turn } from 'node:timers/promises'
import type { FastifyInstance } from 'fastify'
import type { AdminBackend } from './backend.ts'
import { formatCredential } from './format.ts'
import { Lines } from './lines.ts'
import { AdminError, problemBody, toProblem } from './problem.ts'

/** What the stream of a capture tells, one JSON document a line; the last is `learned` or `failed`. */
export type CaptureLine =
  | {
      readonly step: 'begun'
      readonly proxy: string
      /** Of the key that the browser will meet, for one that is to trust nothing else. */
      readonly leafKeyHash: string
      readonly targets: readonly string[]
    }
  | { readonly step: 'note'; readonly message: string }
  | {
      readonly step: 'learned'
      /** Whether the way to renew the token was seen too. */
      readonly renews: boolean
      readonly credential: ReturnType<typeof formatCredential>
    }
  | { readonly step: 'failed'; readonly error: { readonly code: string; readonly message: string } }

/** Captures wait for people, so they could pile up. */
const MAX_CAPTURES = 16

/**
 * `POST …/capture` answers with a stream that lasts until a token of the pool has been learned from traffic; while
 * it lasts, logins pass. Closing it gives the capture up.
 */
export function addCaptureRoutes(server: FastifyInstance, backend: AdminBackend): void {
  let underWay = 0

  const findPool = (name: string) => {
    const pool = backend.pools().find((candidate) => candidate.name === name)
    if (!pool) throw new AdminError('NOT_FOUND', 'no such pool')
    return pool
  }

  server.post<{ Params: { name: string } }>('/api/pools/:name/capture', (request, reply) => {
    const { name } = request.params
    const { targets } = findPool(name)
    if (underWay >= MAX_CAPTURES) {
      throw new AdminError('TOO_MANY_STREAMS', 'too many captures are under way')
    }
    underWay += 1
    reply.hijack()
    const stream = new Lines<CaptureLine>(reply.raw)
    const note = (message: string) => stream.write({ step: 'note', message })
    const run = async () => {
      const learning = backend.capture(name, { note }, stream.closed)
      // One that fails at once fails before anybody is told to log in.
      await Promise.race([learning, turn()])
      const proxy = backend.proxyUrl()
      stream.write({ step: 'begun', proxy, leafKeyHash: backend.leafKeyHash(), targets })
      const lesson = await learning
      const status = findPool(name).credentials.find(({ id }) => id === lesson?.credential)
      if (!lesson || !status) throw new AdminError('NOT_FOUND', 'the credential has left')
      const credential = formatCredential(status, backend.egressAddress(status.egress))
      stream.write({ step: 'learned', renews: lesson.renews, credential })
    }
    run()
      .catch((error: unknown) => {
        stream.write({ step: 'failed', ...problemBody(toProblem(error)) })
      })
      .finally(() => {
        underWay -= 1
        stream.end()
      })
  })
}
