import type { Credential } from './credential.ts'
import type { Grant } from './grant.ts'
import { Heap, type Heaped } from './heap.ts'
import { suits, type Want } from './select.ts'

/** A request that waits for a token. */
interface Waiter extends Heaped {
  want: Want
  readonly arrival: number
  readonly deadline: number
  line: Line
  previous: Waiter | undefined
  next: Waiter | undefined
  readonly resolve: (grant: Grant) => void
  readonly reject: (error: unknown) => void
  readonly stopListening: () => void
}

/** Waiters that the same credentials suit, in order of arrival: a linked list, so that any may leave. */
interface Line {
  readonly key: string
  readonly want: Want
  head: Waiter | undefined
  tail: Waiter | undefined
}

/**
 * Fair waiting: requests that the same credentials suit stand in one line and are served in order; between
 * lines a credential goes to whoever came first. A request bound to one credential never blocks others.
 */
export class Queue {
  /** Lines bound to one credential, and those that several suit. */
  readonly #bound = new Map<Credential, Map<string, Line>>()
  readonly #open = new Map<string, Line>()
  readonly #deadlines = new Heap<Waiter>(0, (a, b) => a.deadline < b.deadline)
  #arrivals = 0

  get size(): number {
    return this.#deadlines.size
  }

  get nextDeadline(): number {
    return this.#deadlines.top?.deadline ?? Number.POSITIVE_INFINITY
  }

  join(want: Want, deadline: number, signal: AbortSignal): Promise<Grant> {
    return new Promise((resolve, reject) => {
      const leave = () => {
        this.#remove(waiter)
        reject(signal.reason)
      }
      signal.addEventListener('abort', leave, { once: true })
      const waiter: Waiter = {
        slots: [-1],
        want,
        arrival: this.#arrivals++,
        deadline,
        line: this.#line(want),
        previous: undefined,
        next: undefined,
        resolve,
        reject,
        stopListening: () => signal.removeEventListener('abort', leave),
      }
      this.#deadlines.put(waiter)
      this.#append(waiter)
    })
  }

  /** Serves those who wait for this credential, first come first, while `grant` gives leases. */
  serve(credential: Credential, grant: (want: Want) => Grant | undefined): void {
    for (;;) {
      const first = this.#firstFor(credential)
      const lease = first && grant(first.want)
      if (!lease) return
      this.#end(first).resolve(lease)
    }
  }

  /** Asks anew what becomes of each line: its head is served, or the whole line fails, or it waits on. */
  review(judge: (want: Want) => Grant | undefined): void {
    for (const line of [...this.#lines()]) {
      while (line.head) {
        let lease: Grant | undefined
        try {
          lease = judge(line.head.want)
        } catch (error) {
          while (line.head) this.#end(line.head).reject(error)
          break
        }
        if (!lease) break
        this.#end(line.head).resolve(lease)
      }
    }
  }

  /** Lets those who were bound to a credential look for another one, each in its turn. */
  rebind(credential: Credential, place: (want: Want) => Want): void {
    const lines = this.#bound.get(credential)
    if (!lines) return
    for (const line of [...lines.values()]) {
      for (let waiter = line.head; waiter; ) {
        const { next } = waiter
        let want: Want
        try {
          want = place(waiter.want)
        } catch (error) {
          this.#end(waiter).reject(error)
          waiter = next
          continue
        }
        if (want.only !== credential) {
          this.#unlink(waiter)
          waiter.want = want
          waiter.line = this.#line(want)
          this.#append(waiter)
        }
        waiter = next
      }
    }
  }

  /** Fails those whose time is up; all of one line with the same error. */
  expire(now: number, errorFor: (want: Want) => Error): void {
    const errors = new Map<Line, Error>()
    for (let waiter = this.#deadlines.top; waiter; waiter = this.#deadlines.top) {
      if (waiter.deadline > now) return
      const { line } = waiter
      const error = errors.get(line) ?? errorFor(line.want)
      errors.set(line, error)
      this.#end(waiter).reject(error)
    }
  }

  failAll(error: Error): void {
    for (let waiter = this.#deadlines.top; waiter; waiter = this.#deadlines.top) {
      this.#end(waiter).reject(error)
    }
  }

  *#lines(): Iterable<Line> {
    yield* this.#open.values()
    for (const lines of this.#bound.values()) yield* lines.values()
  }

  #firstFor(credential: Credential): Waiter | undefined {
    let first: Waiter | undefined
    for (const lines of [this.#open, this.#bound.get(credential)]) {
      for (const { want, head } of lines?.values() ?? []) {
        if (!head || (first && first.arrival < head.arrival)) continue
        if (suits(want, credential)) first = head
      }
    }
    return first
  }

  #line(want: Want): Line {
    const { scopes, claims, exclude } = want.request
    const key = JSON.stringify([scopes?.toSorted(), claims, [...(exclude ?? [])].toSorted()])
    let lines = this.#open
    if (want.only) {
      lines = this.#bound.get(want.only) ?? new Map()
      this.#bound.set(want.only, lines)
    }
    let line = lines.get(key)
    if (!line) {
      line = { key, want, head: undefined, tail: undefined }
      lines.set(key, line)
    }
    return line
  }

  /** Behind all who came earlier; that is the end, but for those who come from another line. */
  #append(waiter: Waiter): void {
    const { line } = waiter
    let before = line.tail
    while (before && before.arrival > waiter.arrival) before = before.previous
    waiter.previous = before
    waiter.next = before ? before.next : line.head
    if (waiter.next) waiter.next.previous = waiter
    else line.tail = waiter
    if (before) before.next = waiter
    else line.head = waiter
  }

  #unlink(waiter: Waiter): void {
    const { line, previous, next } = waiter
    if (previous) previous.next = next
    else line.head = next
    if (next) next.previous = previous
    else line.tail = previous
    waiter.previous = undefined
    waiter.next = undefined
    if (line.head) return
    const { only } = line.want
    const lines = only ? this.#bound.get(only) : this.#open
    if (lines?.get(line.key) === line) lines.delete(line.key)
    if (only && lines?.size === 0) this.#bound.delete(only)
  }

  #remove(waiter: Waiter): void {
    this.#unlink(waiter)
    this.#deadlines.delete(waiter)
  }

  #end(waiter: Waiter): Waiter {
    this.#remove(waiter)
    waiter.stopListening()
    return waiter
  }
}
