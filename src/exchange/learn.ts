import { SourceError, type UpstreamError } from '../errors.ts'
import type { RequestBody } from '../lib/body.ts'
import type { Clock } from '../lib/clock.ts'
import { headerValue, type RawHeaders } from '../lib/headers.ts'
import { Secret } from '../lib/secret.ts'
import type { LoginWay } from '../pool/learning.ts'
import { type Judge, PEEK_BYTES, parseBody } from '../route/verdict.ts'
import {
  readFoundToken,
  readTokenAnswer,
  readTokenRequest,
  type SeenTokenRequest,
} from '../sources/learned-renewal.ts'
import type { Learns } from '../sources/source.ts'
import { readToken } from '../token/jwt.ts'
import type { TokenSet } from '../token/token.ts'
import { KeptTokens } from './kept-tokens.ts'
import type { ProxyReply, ProxyRequest } from './request.ts'

/** What a pool tells and takes of tokens that are seen in the traffic: see `pool/learning.ts`. */
export interface PoolLearning {
  readonly learners: readonly { readonly source: { readonly learns?: Learns | undefined } }[]
  readonly isAwaited: boolean
  wayIn(): LoginWay | undefined
  wayOfTokenRequest(presented: Secret | undefined): LoginWay | undefined
  offer(token: TokenSet, presented?: Secret): unknown
  /** Shares a token with other processes, which may see first what it is good for. */
  keep?(token: TokenSet): void
  refuse(reason: string): void
}

/** A pool as far as its answers can be learned from; `learning` is undefined where it learns nothing. */
interface LearningPool {
  readonly learning?: PoolLearning | undefined
  readonly judge: Judge
}

/** A request that passes with what the client sent, while its answer is looked at. */
export interface Passage {
  /** The way of the credential that will learn; undefined for the way of unmapped hosts. */
  readonly way: LoginWay | undefined
  /** The reply to write to, instead of the client's own. */
  watch(reply: ProxyReply): ProxyReply
}

/**
 * Learns tokens from traffic for the pools that have a `capture` source; there is none where no pool has. What it
 * looks at passes as it came, at its own pace; of a body no more than PEEK_BYTES are kept.
 */
export class Learner {
  readonly #pools: readonly PoolLearning[]
  readonly #clock: Clock
  readonly #kept: KeptTokens

  constructor(pools: readonly PoolLearning[], clock: Clock) {
    this.#pools = pools
    this.#clock = clock
    this.#kept = new KeptTokens(clock)
  }

  /** Whether a request's body must be at hand before `passage` can judge it. */
  reads({ method, headers, body, route }: ProxyRequest): boolean {
    if (!route) return false
    if (method !== 'POST' || body?.length === undefined || body.length > PEEK_BYTES) return false
    const type = headerValue(headers, 'content-type') ?? ''
    return /^\s*application\/x-www-form-urlencoded\s*(?:;|$)/i.test(type)
  }

  /** How a request passes by itself; undefined where nothing sets it apart. */
  passage(
    request: ProxyRequest,
    target: LearningPool | undefined,
    body: RequestBody | undefined,
  ): Passage | undefined {
    // What goes to a host that is not mapped is nobody's business.
    if (!request.route || (target && !target.learning)) return undefined
    const url = request.origin + request.path
    const asked = this.#tokenRequest(request, url, body)
    if (!target) {
      if (!asked && !this.#covers(this.#pools, url)) return undefined
      return this.#watch(undefined, { url, asked, target, bearer: undefined })
    }
    const { learning } = target
    if (!learning) return undefined
    const bearer = ownBearer(request.headers)
    const way = asked
      ? learning.wayOfTokenRequest(asked.presented)
      : learning.isAwaited || this.#bringsOwn(request, url, learning)
        ? learning.wayIn()
        : undefined
    return way && this.#watch(way, { url, asked, target, bearer })
  }

  #tokenRequest(
    request: ProxyRequest,
    url: string,
    body: RequestBody | undefined,
  ): SeenTokenRequest | undefined {
    if (!body?.whole || !this.reads(request)) return undefined
    return readTokenRequest(url, body.whole.toString('utf8'), {
      authorization: headerValue(request.headers, 'authorization'),
      origin: headerValue(request.headers, 'origin'),
    })
  }

  /** Its own `Authorization`, a login that the configuration describes, or a browser's question ahead of them. */
  #bringsOwn({ method, headers }: ProxyRequest, url: string, learning: PoolLearning): boolean {
    if (headerValue(headers, 'authorization') !== undefined) return true
    // Fetch standard: a preflight never carries a credential.
    const ahead = headerValue(headers, 'access-control-request-method') !== undefined
    return (method === 'OPTIONS' && ahead) || this.#covers([learning], url)
  }

  #covers(pools: readonly PoolLearning[], url: string): boolean {
    return pools.some(({ learners }) =>
      learners.some(({ source }) => source.learns?.response?.covers(url)),
    )
  }

  #watch(way: LoginWay | undefined, seen: Seen): Passage {
    return { way, watch: (reply) => new Tap(reply, (answer) => this.#learn(seen, answer)) }
  }

  #learn(seen: Seen, { status, headers, body }: Answer): void {
    const { target } = seen
    if (target) {
      const glance = target.judge.judge(status, headers)
      const verdict = glance === 'peek' ? target.judge.judgeBody(status, headers, body) : glance
      if (verdict !== 'ok') return
    }
    const document = body && parseBody(body, headerValue(headers, 'content-encoding'))?.value
    if (document !== undefined) this.#learnFromAnswer(seen, document)
    this.#learnFromRequest(seen)
  }

  #learnFromAnswer({ url, asked, target }: Seen, document: unknown): void {
    const now = this.#clock.now()
    const own = target?.learning
    for (const learning of own ? [own] : this.#pools) {
      const response = learning.learners
        .map(({ source }) => source.learns?.response)
        .find((each) => each?.covers(url))
      const found = response?.read(document)
      if (found) attempt(learning, () => learning.offer(readFoundToken(found, asked, now)))
    }
    if (!asked) return
    attempt(own, () => {
      const token = readTokenAnswer(asked, document, now)
      if (!token) return
      this.#keep(token)
      void own?.offer(token, asked.presented)
    })
  }

  #learnFromRequest({ bearer, target }: Seen): void {
    const learning = target?.learning
    if (!learning || bearer === undefined) return
    if (!learning.learners.some(({ source }) => source.learns?.authorization)) return
    attempt(learning, () => {
      const receivedAt = this.#clock.now()
      void learning.offer(this.#kept.find(new Secret(bearer)) ?? readToken(bearer, { receivedAt }))
    })
  }

  /** Until a request shows which pool it is good for. */
  #keep(token: TokenSet): void {
    this.#kept.add(token)
    this.#pools[0]?.keep?.(token)
  }
}

/** A request that passed, as far as something may be learned from it. */
interface Seen {
  readonly url: string
  readonly asked: SeenTokenRequest | undefined
  readonly target: LearningPool | undefined
  readonly bearer: string | undefined
}

interface Answer {
  readonly status: number
  readonly headers: RawHeaders
  /** Undefined for one that is no JSON, or too long. */
  readonly body: Buffer | undefined
}

/** Passes everything on and keeps a short JSON body; when the answer has gone out well, it is handed over. */
class Tap implements ProxyReply {
  readonly #reply: ProxyReply
  readonly #done: (answer: Answer) => void
  #status = 0
  #headers: RawHeaders = []
  #chunks: Buffer[] | undefined
  #length = 0

  constructor(reply: ProxyReply, done: (answer: Answer) => void) {
    this.#reply = reply
    this.#done = done
  }

  informational(status: number, reason: string, headers: RawHeaders): void {
    this.#reply.informational(status, reason, headers)
  }

  head(status: number, reason: string, headers: RawHeaders): void {
    this.#status = status
    this.#headers = headers
    const type = headerValue(headers, 'content-type') ?? ''
    if (/[/+]json\b/i.test(type)) this.#chunks = []
    this.#reply.head(status, reason, headers)
  }

  upgrade(...how: Parameters<ProxyReply['upgrade']>): ReturnType<ProxyReply['upgrade']> {
    return this.#reply.upgrade(...how)
  }

  write(chunk: Buffer): boolean {
    this.#collect(chunk)
    return this.#reply.write(chunk)
  }

  onDrain(resume: () => void): void {
    this.#reply.onDrain(resume)
  }

  flush(): void {
    this.#reply.flush()
  }

  end(lastChunk: Buffer | undefined, trailers: RawHeaders): void {
    if (lastChunk) this.#collect(lastChunk)
    this.#reply.end(lastChunk, trailers)
    const body = this.#chunks && Buffer.concat(this.#chunks)
    this.#chunks = undefined
    if (this.#status < 200 || this.#status > 399) return
    this.#done({ status: this.#status, headers: this.#headers, body })
  }

  abort(error: UpstreamError): void {
    this.#chunks = undefined
    this.#reply.abort(error)
  }

  fail(...how: Parameters<ProxyReply['fail']>): void {
    this.#chunks = undefined
    this.#reply.fail(...how)
  }

  #collect(chunk: Buffer): void {
    if (!this.#chunks) return
    this.#length += chunk.length
    if (this.#length > PEEK_BYTES) this.#chunks = undefined
    else this.#chunks.push(chunk)
  }
}

/** What cannot be learned must not trouble what passes. */
function attempt(learning: PoolLearning | undefined, learn: () => unknown): void {
  try {
    learn()
  } catch (error) {
    learning?.refuse(error instanceof SourceError ? error.message : 'it could not be read')
  }
}

function ownBearer(headers: readonly string[]): string | undefined {
  return /^bearer +(\S+) *$/i.exec(headerValue(headers, 'authorization') ?? '')?.[1]
}
