import type { Clock } from '../lib/clock.ts'
import { Alarm } from './alarm.ts'
import type { Credential } from './credential.ts'
import { Heap, type Heaped } from './heap.ts'
import type { Turns } from './turns.ts'

interface ScheduleOptions {
  readonly clock: Clock
  readonly turns: Turns
  /** How many may run at a time. */
  readonly parallel: () => number
  /** Renews one; its turn is given back when this ends. */
  readonly start: (credential: Credential) => Promise<unknown>
}

/** Credentials that ask the same host, by due time. */
interface Line extends Heaped {
  readonly host: string | undefined
  readonly due: Heap<Credential>
  /** Lets it start again, once its host may have a turn. */
  readonly reopen: () => void
}

/**
 * What is renewed when. One timer serves all credentials, and what is due starts in order as places become
 * free: neither a cold start nor a jump of the clock makes a herd. A host without a free turn holds up only
 * those who ask it; credentials of an egress that is down wait until it is tried again.
 */
export class Schedule {
  readonly #options: ScheduleOptions
  readonly #alarm: Alarm
  readonly #lines = new Map<string | undefined, Line>()
  /** Lines that may start, by their first credential. */
  readonly #open = new Heap<Line>(0, (a, b) => dueAt(a) < dueAt(b))
  #running = 0
  #closed = false

  constructor(options: ScheduleOptions) {
    this.#options = options
    this.#alarm = new Alarm(options.clock, () => this.#start())
  }

  /** Plans a credential, anew if it is planned already; never is `Infinity`. */
  plan(credential: Credential, due: number): void {
    if (due === Number.POSITIVE_INFINITY || this.#closed) {
      this.drop(credential)
      return
    }
    const line = this.#line(credential.settings.host)
    if (due === credential.dueAt && line.due.has(credential)) return
    credential.dueAt = due
    line.due.put(credential)
    this.#open.put(line)
    if (this.#running < this.#options.parallel()) this.#alarm.by(due)
  }

  drop(credential: Credential): void {
    const line = this.#lines.get(credential.settings.host)
    if (!line?.due.has(credential)) return
    line.due.delete(credential)
    this.#replace(line)
  }

  /** Starts nothing more. */
  close(): void {
    this.#closed = true
    this.#alarm.stop()
    for (const line of this.#lines.values()) line.due.clear()
    this.#open.clear()
    this.#lines.clear()
  }

  #start(): void {
    const { clock, parallel, turns } = this.#options
    const now = clock.monotonic()
    while (!this.#closed && this.#running < parallel()) {
      const line = this.#open.top
      const next = line?.due.top
      if (!line || !next) return
      if (next.dueAt > now) {
        this.#alarm.by(next.dueAt)
        return
      }
      const rest = next.settings.lane.restsUntil(now)
      if (rest > now) {
        this.plan(next, rest)
        continue
      }
      const { host } = line
      if (host !== undefined && !turns.tryTake(host)) {
        this.#open.delete(line)
        turns.whenFree(host, line.reopen)
        continue
      }
      line.due.delete(next)
      this.#replace(line)
      this.#running += 1
      void this.#options.start(next).finally(() => {
        this.#running -= 1
        if (host !== undefined) turns.give(host)
        this.#start()
      })
    }
  }

  /** Puts a line where its first credential belongs; an empty one goes. */
  #replace(line: Line): void {
    if (line.due.size > 0) this.#open.put(line)
    else {
      this.#open.delete(line)
      if (this.#lines.get(line.host) === line) this.#lines.delete(line.host)
    }
  }

  #line(host: string | undefined): Line {
    const known = this.#lines.get(host)
    if (known) return known
    const line: Line = {
      slots: [-1],
      host,
      due: new Heap(2, (a, b) => a.dueAt < b.dueAt),
      reopen: () => {
        if (this.#closed) return
        this.#replace(line)
        this.#start()
      },
    }
    this.#lines.set(host, line)
    return line
  }
}

function dueAt(line: Line): number {
  return line.due.top?.dueAt ?? Number.POSITIVE_INFINITY
}
