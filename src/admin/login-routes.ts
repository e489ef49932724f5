import { randomBytes } from 'node:crypto'
import type { FastifyInstance } from 'fastify'
import type { LoginDialogue, LoginStep } from '../sources/source.ts'
import type { AdminBackend } from './backend.ts'
import { type JsonObject, takeJsonObjects } from './body.ts'
import { formatCredential } from './format.ts'
import { Lines } from './lines.ts'
import { AdminError, problemBody, toProblem } from './problem.ts'

/** What the stream of a login tells, one JSON document a line; the last is `done` or `failed`. */
export type LoginLine =
  | { readonly step: 'begun'; readonly login: string }
  | LoginStep
  | { readonly step: 'done'; readonly credential: ReturnType<typeof formatCredential> }
  | { readonly step: 'failed'; readonly error: { readonly code: string; readonly message: string } }

/** Logins wait for people, so they could pile up. */
const MAX_LOGINS = 64
const MAX_BODY_BYTES = 32 * 1024
/** Answers that wait to be looked at. */
const MAX_ANSWERS = 16

/**
 * Logins with a person at the other end: `POST …/login` answers with a stream that lasts as long as the login,
 * and ends it when it is closed; `POST /api/logins/ID` hands over what the person has got back.
 */
export function addLoginRoutes(server: FastifyInstance, backend: AdminBackend): void {
  const waiting = new Map<string, Answers>()

  const find = (pool: string, id: string) =>
    backend
      .pools()
      .find(({ name }) => name === pool)
      ?.credentials.find((credential) => credential.id === id)

  server.register(async (scope) => {
    takeJsonObjects(scope, MAX_BODY_BYTES)

    scope.post<{ Params: { name: string; id: string }; Body: JsonObject }>(
      '/api/pools/:name/credentials/:id/login',
      (request, reply) => {
        const { name, id } = request.params
        if (!find(name, id)) throw new AdminError('NOT_FOUND', 'no such credential')
        if (waiting.size >= MAX_LOGINS) {
          throw new AdminError('TOO_MANY_STREAMS', 'too many logins are under way')
        }
        const redirectUri = readRedirectUri(request.body?.redirectUri)
        const login = randomBytes(16).toString('base64url')
        const answers = new Answers()
        waiting.set(login, answers)
        reply.hijack()
        const stream = new Lines<LoginLine>(reply.raw)
        stream.write({ step: 'begun', login })
        const dialogue: LoginDialogue = {
          redirectUri,
          tell: (step) => stream.write(step),
          answer: () => answers.next(),
        }
        const run = async () => backend.login(name, id, dialogue, stream.closed)
        run()
          .then(() => {
            const status = find(name, id)
            if (!status) throw new AdminError('NOT_FOUND', 'the credential has left')
            const address = backend.egressAddress(status.egress)
            stream.write({ step: 'done', credential: formatCredential(status, address) })
          })
          .catch((error: unknown) => {
            stream.write({ step: 'failed', ...problemBody(toProblem(error)) })
          })
          .finally(() => {
            waiting.delete(login)
            stream.end()
          })
      },
    )

    scope.post<{ Params: { id: string }; Body: JsonObject }>('/api/logins/:id', (request) => {
      const answers = waiting.get(request.params.id)
      if (!answers) throw new AdminError('NOT_FOUND', 'no such login, or it has ended')
      const redirected = request.body?.redirected
      if (typeof redirected !== 'string' || redirected === '') {
        throw new AdminError('BAD_REQUEST', 'expected {"redirected": "an address or a code"}')
      }
      answers.add(redirected)
      return { accepted: true }
    })
  })
}

/** The listener of a command line: what comes back there has to come from the person's own machine (RFC 8252 §7.3). */
function readRedirectUri(value: unknown): string | undefined {
  if (value === undefined) return undefined
  if (
    typeof value === 'string' &&
    /^http:\/\/(127\.0\.0\.1|\[::1\]):\d{1,5}\/[\w./-]*$/.test(value)
  ) {
    return value
  }
  throw new AdminError(
    'BAD_REQUEST',
    'expected redirectUri on the loopback, http://127.0.0.1:PORT/…',
  )
}

/** What a person has handed over and nobody has looked at yet. */
class Answers {
  readonly #held: string[] = []
  #wanted: ((answer: string) => void) | undefined

  add(answer: string): void {
    const wanted = this.#wanted
    this.#wanted = undefined
    if (wanted) wanted(answer)
    else if (this.#held.length < MAX_ANSWERS) this.#held.push(answer)
    else throw new AdminError('TOO_MANY_STREAMS', 'too many answers wait already')
  }

  next(): Promise<string> {
    const held = this.#held.shift()
    if (held !== undefined) return Promise.resolve(held)
    return new Promise((resolve) => {
      this.#wanted = resolve
    })
  }
}
