import type { EventMap, Events } from '../events.ts'

/** Kept for those who come later. */
const KEPT = 500

/** One thing that happened, as the event stream and the feed tell it: no request, and no secret. */
export interface ActivityEntry {
  /** Ascending from 1. */
  readonly seq: number
  readonly event: 'credential' | 'egress' | 'config'
  readonly data: Readonly<Record<string, unknown>> & { readonly time: string }
}

/** What was last heard about an egress. */
export interface EgressNews {
  /** ms since the epoch. */
  readonly time: number
  readonly reason: string | undefined
}

/** Remembers the latest events of credentials, egresses and the configuration, and passes each on. */
export class Activity {
  readonly #events: Events
  readonly #kept: ActivityEntry[] = []
  readonly #listeners = new Set<(entry: ActivityEntry) => void>()
  readonly #drifts = new Map<string, { time: number; from: string; to: string }>()
  readonly #reasons = new Map<string, EgressNews>()
  #seq = 0

  constructor(events: Events) {
    this.#events = events
    events.on('credential', this.#onCredential)
    events.on('refresh', this.#onRefresh)
    events.on('egress', this.#onEgress)
    events.on('address', this.#onAddress)
    events.on('config', this.#onConfig)
  }

  /** The latest, newest first. */
  latest(limit = KEPT): ActivityEntry[] {
    return this.#kept.slice(-limit).reverse()
  }

  /** When the visible address of an egress last changed, if it ever did. */
  drift(egress: string) {
    return this.#drifts.get(egress)
  }

  /** Why an egress is in the state it is in, as last told. */
  reason(egress: string): EgressNews | undefined {
    return this.#reasons.get(egress)
  }

  /** Returns the end of the subscription. */
  subscribe(listener: (entry: ActivityEntry) => void): () => void {
    this.#listeners.add(listener)
    return () => {
      this.#listeners.delete(listener)
    }
  }

  close(): void {
    this.#events.off('credential', this.#onCredential)
    this.#events.off('refresh', this.#onRefresh)
    this.#events.off('egress', this.#onEgress)
    this.#events.off('address', this.#onAddress)
    this.#events.off('config', this.#onConfig)
    this.#listeners.clear()
  }

  readonly #onCredential = (change: EventMap['credential'][0]): void => {
    const { time, pool, credential, from, to, reason } = change
    this.#add('credential', time, { pool, credential, from, to, reason })
  }

  readonly #onRefresh = (outcome: EventMap['refresh'][0]): void => {
    const { time, pool, credential, cause, result, generation, ms, reason } = outcome
    const refresh = { cause, result, generation, ms, reason: reason ?? null }
    this.#add('credential', time, { pool, credential, refresh })
  }

  readonly #onEgress = ({ time, egress, up, reason }: EventMap['egress'][0]): void => {
    this.#reasons.set(egress, { time, reason })
    this.#add('egress', time, { egress, up, reason })
  }

  readonly #onAddress = (news: EventMap['address'][0]): void => {
    const { time, egress, address, previous, reason } = news
    if (reason !== undefined) this.#reasons.set(egress, { time, reason })
    if (address !== undefined && previous !== undefined && address !== previous) {
      this.#drifts.set(egress, { time, from: previous, to: address })
    }
    this.#add('egress', time, {
      egress,
      address: address ?? null,
      previous: previous ?? null,
      reason: reason ?? null,
    })
  }

  readonly #onConfig = ({ time, applied, problems }: EventMap['config'][0]): void => {
    this.#add('config', time, { applied, problems })
  }

  #add(event: ActivityEntry['event'], time: number, facts: Record<string, unknown>): void {
    this.#seq += 1
    const data = { time: new Date(time).toISOString(), ...facts }
    const entry: ActivityEntry = { seq: this.#seq, event, data }
    this.#kept.push(entry)
    // Cut seldom: shifting at each event would move them all each time.
    if (this.#kept.length >= KEPT * 2) this.#kept.splice(0, this.#kept.length - KEPT)
    for (const listener of this.#listeners) listener(entry)
  }
}
