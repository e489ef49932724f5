import type { CredentialRecord } from './store.ts'

/** One rate: so many uses within any window of so many ms. */
export interface SharedRate {
  readonly count: number
  readonly windowMs: number
}

/** What an instance asks for one credential, tells of it and gives back, in one round trip. */
export interface Ask {
  /** How many more requests want to be sent; 0 only tells. */
  readonly want: number
  readonly rates: readonly SharedRate[]
  /** How long granted places stay good, ms. */
  readonly goodForMs: number
  /** Most requests in flight, over all instances; 0 is no limit. */
  readonly concurrency: number
  /** Slots that this instance holds now, and how many of them no request uses. */
  readonly slots: number
  readonly idle: number
  /** Most uses of the token of this generation; 0 is no limit. */
  readonly uses: number
  readonly generation: number
  /** Uses made without a place, by their age: counted whatever the limits say. */
  readonly made: readonly (readonly [ageMs: number, count: number, ofToken: boolean])[]
  /** Places that will not be used. */
  readonly returned: readonly (readonly [stamp: number, count: number])[]
}

/** What came of it. */
export interface Answer {
  /** So many requests may be sent, each within `goodForMs`. */
  readonly granted: number
  /** Names these places when they are given back. */
  readonly stamp: number
  /** Slots held from now on. */
  readonly slots: number
  /** When to ask again, where fewer were granted than wanted; ms from now. */
  readonly retryMs: number
  /** Whether others wait for slots; then this instance should hold no more than `share`. */
  readonly contended: boolean
  readonly share: number
  /** Places that are left in each window, of the token's uses, and of the slots. */
  readonly left: readonly number[]
  readonly usesLeft: number
  readonly slotsLeft: number
}

/** How an instance stands to the renewal of one credential. */
export type Claim =
  | { readonly kind: 'mine'; readonly fence: number }
  /** The store holds a newer generation. */
  | { readonly kind: 'newer' }
  | { readonly kind: 'held'; readonly ms: number }
  /** A try of another instance has failed just now. */
  | { readonly kind: 'resting'; readonly ms: number; readonly reason: string }
  /** Somebody vanished after a refresh token may have been sent: nobody knows whether it was used. */
  | { readonly kind: 'doubt'; readonly ageMs: number }

/** What the store tells of one credential. */
export interface Sight {
  readonly record: CredentialRecord | undefined
  /** Whether somebody has taken its record away. */
  readonly removed: boolean
  /** How long upstream wants it left alone, from now. */
  readonly restMs: number
}

/** What happens to a pool elsewhere; told in order, never from within a call. */
export interface SharedListener {
  /** Look at these anew; undefined is at all of them. */
  changed(keys: ReadonlySet<string> | undefined): void
  /** Somebody's slot of this credential came free. */
  freed(id: string): void
  /** Others wait for slots of this credential: hold no more than so many. */
  wanted(id: string, share: number): void
  /** The claim to renew it was given up. */
  unclaimed(id: string): void
  /** The store answers again, or no longer. `emptied` when it has lost what it knew. */
  reached(up: boolean, emptied: boolean): void
}

/** What the instances share of one pool. Calls reject with `STORE_FAILED` while the store does not answer. */
export interface SharedPool {
  /** Why the store cannot be used; undefined while it answers. */
  readonly trouble: string | undefined
  /** How many instances were alive when the store was last heard, this one included. */
  readonly instances: number
  look(keys: readonly string[]): Promise<Map<string, Sight>>
  ask(id: string, ask: Ask): Promise<Answer>
  /** Tells all instances to leave a credential, or the key of an egress, alone for a while. */
  rest(key: string, ms: number): Promise<void>
  /** Claims the renewal of a credential; `force` ends doubts and rests. */
  claim(id: string, generation: number, force: boolean): Promise<Claim>
  /** Keeps a claim; false when somebody else has it. `intent` tells that a refresh token may have been sent. */
  keepClaim(id: string, fence: number, intent: number | undefined): Promise<boolean>
  /** Notes that a refresh token of this generation is about to be sent; false when the claim is lost. */
  intend(id: string, fence: number, generation: number): Promise<boolean>
  /** Gives a claim up; a failure keeps the others from trying for a while. */
  unclaim(id: string, fence: number, failure?: { ms: number; reason: string }): Promise<void>
  /** The credential that a session sticks to. */
  session(name: string): Promise<string | undefined>
  bindSession(name: string, id: string): Promise<void>
  /** Leaves: slots and share go to the others at once. */
  leave(): Promise<void>
}

/** A store that several instances share. */
export interface SharedStore {
  join(pool: string, listener: SharedListener): SharedPool
}
