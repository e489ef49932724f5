import { createHash } from 'node:crypto'
import type { PoolConfig } from '../../config/schema.ts'
import type { PoolLearning } from '../../exchange/learn.ts'
import type { Secret } from '../../lib/secret.ts'
import type { Learning, LoginWay } from '../../pool/learning.ts'
import { captureSource } from '../../sources/capture.ts'
import type { TokenSet } from '../../token/token.ts'
import { type FromWorker, type LearningState, pack } from './messages.ts'

const SILENT: LearningState = { awaited: false, wayIn: null, anyWay: null, holders: {} }

/** A pool's learning as a worker sees it: what the primary told last, and a way to hand over what comes by. */
export class RemoteLearning implements PoolLearning {
  readonly #pool: string
  readonly #learners: PoolLearning['learners']
  readonly #send: (message: FromWorker) => void
  #state: LearningState = SILENT

  constructor(pool: string, config: PoolConfig, send: (message: FromWorker) => void) {
    this.#pool = pool
    this.#send = send
    this.#learners = config.credentials.flatMap(({ source }) =>
      source.type === 'capture' ? [{ source: captureSource(source) }] : [],
    )
  }

  /** The primary has told anew. */
  set state(state: LearningState) {
    this.#state = state
  }

  get learners(): PoolLearning['learners'] {
    return this.#learners
  }

  get isAwaited(): boolean {
    return this.#state.awaited
  }

  wayIn(): LoginWay | undefined {
    return this.#state.wayIn ?? undefined
  }

  wayOfTokenRequest(presented: Secret | undefined): LoginWay | undefined {
    const { holders, anyWay } = this.#state
    const held = presented && holders[digest(presented)]
    return held ?? anyWay ?? undefined
  }

  offer(token: TokenSet, presented?: Secret): void {
    this.#send(['offer', this.#pool, pack(token), presented?.reveal() ?? null])
  }

  keep(token: TokenSet): void {
    this.#send(['keep', pack(token)])
  }

  refuse(reason: string): void {
    this.#send(['refuse', this.#pool, reason])
  }
}

/** What a pool's learning says now; undefined for a pool that learns nothing. */
export function learningState(learning: Learning): LearningState | undefined {
  const { learners } = learning
  if (learners.length === 0) return undefined
  const holders: Record<string, LoginWay> = {}
  for (const { token } of learners) {
    const held = token?.refreshToken
    const way = held && learning.wayOfTokenRequest(held)
    if (way) holders[digest(held)] = way
  }
  return {
    awaited: learning.isAwaited,
    wayIn: learning.wayIn() ?? null,
    anyWay: learning.wayOfTokenRequest(undefined) ?? null,
    holders,
  }
}

function digest(secret: Secret): string {
  return createHash('sha256').update(secret.reveal()).digest('base64')
}
