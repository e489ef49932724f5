import type { Clock } from '../lib/clock.ts'
import type { Answer, Ask } from '../store/shared.ts'

/** What shared limits need of the pool. */
export interface LimitsBoard {
  readonly clock: Clock
  /** The store answers. */
  readonly up: () => boolean
  /** How many instances share. */
  readonly instances: () => number
  readonly ask: (id: string, ask: Ask) => Promise<Answer>
  /** How many requests places are being asked for, over all credentials. */
  asked: number
}

/** What shared limits need of their credential. */
export interface LimitsOwner {
  readonly id: string
  readonly generation: number
}
