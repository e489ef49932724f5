import { randomUUID } from 'node:crypto'
import { CupbearerError } from '../errors.ts'
import { ASK } from './redis-limits-script.ts'
import type { LinkUser, RedisLink } from './redis-link.ts'
import * as scripts from './redis-scripts.ts'
import type { Answer, Ask, Claim, SharedListener, SharedPool, Sight } from './shared.ts'
import type { CredentialRecord } from './store.ts'

const BEAT_MS = 500
/** An instance that was not heard for so long is gone: its slots and its share go to the others. */
const ALIVE_MS = 5000
/** After the store has lost all it knew, the instances have so long to write back what they hold. */
const GRACE_MS = 2000
/** A claim that is not kept for so long is over; it is kept three times as often. */
const CLAIM_MS = 5000
/** After a reconnection nothing is claimed: whoever held a claim takes it up again first. */
const SETTLE_MS = 1000
const SESSION_MS = 86_400_000
const LOOK_AT_ONCE = 250
/** Stands where a record was taken away, so that this is told from a store that lost it. */
const REMOVED = '-'

interface RedisPoolOptions {
  readonly link: RedisLink
  readonly pool: string
  readonly prefix: string
  readonly database: number
  readonly instance: string
  readonly canary: { sealed: string; check: (sealed: string) => Promise<void> }
  readonly open: (id: string, sealed: string) => Promise<CredentialRecord>
  /** The server's time, ms since the epoch, as it was at about the time of the call. */
  readonly tellTime: (serverNow: number) => void
}

/** What the instances share of one pool. All its keys have one hash tag: they live on one node of a cluster. */
export class RedisPool implements SharedPool, LinkUser {
  readonly channel: string
  readonly #options: RedisPoolOptions
  readonly #link: RedisLink
  readonly #joined: Promise<void>
  #listener: SharedListener | undefined
  #epoch = ''
  #seen = 0
  #emptied = false
  #everUp = false
  #settledAt = 0
  #instances = 1
  #beating: Promise<void> | undefined
  #timer: NodeJS.Timeout | undefined
  #left = false

  constructor(options: RedisPoolOptions, listener: SharedListener | undefined) {
    this.#options = options
    this.#link = options.link
    this.#listener = listener
    this.channel = `${this.key('events')}:${options.database}`
    this.#joined = this.#join()
    this.#joined.catch(() => {})
  }

  get trouble(): string | undefined {
    const { trouble } = this.#link
    return trouble === undefined ? undefined : `the shared store is away (${trouble})`
  }
  get instances(): number {
    return this.#instances
  }

  /** Resolves once this instance is known to the others. */
  get joined(): Promise<void> {
    return this.#joined
  }

  key(name: string): string {
    return `{${this.#options.prefix}:${this.#options.pool}}:${name}`
  }

  /** Whether this instance has left the pool. */
  get left(): boolean {
    return this.#left
  }

  /** A use that is going on is taken over by whoever listens now. */
  listen(listener: SharedListener): void {
    this.#listener = listener
  }

  async #join(): Promise<void> {
    await this.#link.listen(this.channel, (message) => this.#hear(message))
    await this.#link.use(this)
    this.#everUp = true
    this.#plan()
  }

  async ready(): Promise<void> {
    await this.#beat()
    if (this.#everUp) this.#settledAt = performance.now() + SETTLE_MS
  }

  reached(up: boolean): void {
    if (this.#left) return
    this.#listener?.reached(up, this.#emptied)
    if (!up) return
    this.#emptied = false
    this.#listener?.changed(undefined)
  }

  async look(keys: readonly string[]): Promise<Map<string, Sight>> {
    const found = new Map<string, Sight>()
    for (let at = 0; at < keys.length; at += LOOK_AT_ONCE) {
      const some = keys.slice(at, at + LOOK_AT_ONCE)
      const reply = (await this.#run(scripts.LOOK, ['records', 'rests'], some)) as (
        | string
        | number
      )[]
      await Promise.all(
        some.map(async (key, index) => {
          const sealed = reply[2 * index] as string
          const removed = sealed === REMOVED
          const record =
            sealed === '' || removed ? undefined : await this.#options.open(key, sealed)
          found.set(key, { record, removed, restMs: Number(reply[2 * index + 1]) })
        }),
      )
    }
    return found
  }

  async ask(id: string, ask: Ask): Promise<Answer> {
    const reply = (await this.#run(
      ASK,
      ['meta', 'instances', `log:${id}`, `slots:${id}`, `line:${id}`],
      [
        this.channel,
        id,
        this.#options.instance,
        this.#epoch,
        ALIVE_MS,
        ask.want,
        ask.goodForMs,
        ask.concurrency,
        ask.slots,
        ask.idle,
        ask.uses,
        ask.generation,
        ask.rates.length,
        ask.made.length,
        ask.returned.length,
        ...ask.rates.flatMap(({ count, windowMs }) => [count, windowMs]),
        ...ask.made.flatMap(([age, count, ofToken]) => [Math.floor(age), count, ofToken ? 1 : 0]),
        ...ask.returned.flat(),
      ],
    )) as number[]
    const [granted, stamp, slots, retryMs, contended, share, usesLeft, slotsLeft, ...left] =
      reply as [number, number, number, number, number, number, number, number, ...number[]]
    if (granted < 0) {
      void this.#beat().catch(() => {})
      throw new CupbearerError('STORE_FAILED', 'the shared store has lost what it knew')
    }
    return {
      granted,
      stamp,
      slots,
      retryMs,
      contended: contended === 1,
      share,
      left,
      usesLeft,
      slotsLeft,
    }
  }

  async rest(key: string, ms: number): Promise<void> {
    const { instance } = this.#options
    const values = [this.channel, instance, key, Math.ceil(ms)]
    await this.#run(scripts.REST, ['meta', 'rests', 'changes'], values)
  }

  async claim(id: string, generation: number, force: boolean): Promise<Claim> {
    const settling = this.#settledAt - performance.now()
    if (settling > 0) return { kind: 'held', ms: settling }
    const [kind, value, reason] = (await this.#run(
      scripts.CLAIM,
      ['meta', 'versions', `claim:${id}`],
      [this.#options.instance, this.#epoch, CLAIM_MS, id, generation, force ? 1 : 0],
    )) as [Claim['kind'], number, string | undefined]
    switch (kind) {
      case 'mine':
        return { kind, fence: value }
      case 'newer':
        return { kind }
      case 'doubt':
        return { kind, ageMs: value }
      case 'resting':
        return { kind, ms: value, reason: reason ?? '' }
      default:
        return { kind, ms: value }
    }
  }

  async keepClaim(id: string, fence: number, intent: number | undefined): Promise<boolean> {
    const values = [this.#options.instance, fence, CLAIM_MS, intent ?? '']
    return (await this.#run(scripts.KEEP_CLAIM, [`claim:${id}`], values)) === 1
  }

  async intend(id: string, fence: number, generation: number): Promise<boolean> {
    const values = [this.#options.instance, fence, generation]
    return (await this.#run(scripts.INTEND, [`claim:${id}`], values)) === 1
  }

  async unclaim(
    id: string,
    fence: number,
    failure?: { ms: number; reason: string },
  ): Promise<void> {
    const { instance } = this.#options
    const rest = Math.ceil(failure?.ms ?? 0)
    const values = [this.channel, id, instance, fence, rest, failure?.reason ?? '']
    await this.#run(scripts.UNCLAIM, [`claim:${id}`], values)
  }

  async session(name: string): Promise<string | undefined> {
    const key = this.key(`session:${name}`)
    const id = await this.#link.send(key, ['GETEX', key, 'PX', String(SESSION_MS)])
    return typeof id === 'string' ? id : undefined
  }

  async bindSession(name: string, id: string): Promise<void> {
    const key = this.key(`session:${name}`)
    await this.#link.send(key, ['SET', key, id, 'PX', String(SESSION_MS)])
  }

  async leave(): Promise<void> {
    if (this.#left) return
    this.#left = true
    clearTimeout(this.#timer)
    this.#link.forget(this)
    await this.#beating?.catch(() => {})
    await this.#link.unlisten(this.channel)
    const key = this.key('instances')
    await this.#link.send(key, ['ZREM', key, this.#options.instance]).catch(() => {})
  }

  /** Runs a script on keys of this pool. */
  run(
    script: scripts.Script,
    names: readonly string[],
    values: readonly (string | number)[],
  ): Promise<unknown> {
    return this.#run(script, names, values)
  }

  #run(
    script: scripts.Script,
    names: readonly string[],
    values: readonly (string | number)[],
  ): Promise<unknown> {
    return this.#link.run(
      script,
      names.map((name) => this.key(name)),
      values,
    )
  }

  /** Lives on, and looks for what was missed: a message may be lost. */
  #plan(): void {
    if (this.#left) return
    this.#timer = setTimeout(() => {
      const beat = this.trouble === undefined ? this.#beat() : Promise.resolve()
      void beat.catch(() => {}).then(() => this.#plan())
    }, BEAT_MS).unref()
  }

  #beat(): Promise<void> {
    this.#beating ??= this.#beatOnce().finally(() => {
      this.#beating = undefined
    })
    return this.#beating
  }

  async #beatOnce(): Promise<void> {
    const { instance, canary, tellTime } = this.#options
    const known = this.#epoch
    const reply = (await this.#run(
      scripts.BEAT,
      ['meta', 'instances', 'changes'],
      [instance, known, randomUUID(), ALIVE_MS, GRACE_MS, this.#seen, canary.sealed],
    )) as [string, string, number, number, string, ...string[]]
    const [epoch, serverNow, instances, seq, sealed, ...ids] = reply
    tellTime(Number(serverNow))
    if (sealed !== canary.sealed && epoch !== known) await canary.check(sealed)
    this.#instances = Math.max(1, instances)
    // A counter that went back is a replica that took over without the last writes.
    const lost = known !== '' && (epoch !== known || seq < this.#seen)
    this.#epoch = epoch
    this.#seen = seq
    if (lost && this.trouble !== undefined) this.#emptied ||= epoch !== known
    else if (lost) {
      this.#listener?.reached(true, epoch !== known)
      this.#listener?.changed(undefined)
    } else if (ids.length > 0) this.#listener?.changed(new Set(ids))
  }

  #hear(message: string): void {
    const parts = /^(\w) (\S+) (?:(\d+) )?([\s\S]*)$/
    const kind = message[0]
    const match = (kind === 'w' ? parts : /^(\w) (\S+) ()([\s\S]*)$/).exec(message)
    if (!match || this.#left) return
    const [, , from, share, id] = match as unknown as [string, string, string, string, string]
    if (from === this.#options.instance) return
    if (kind === 'r') this.#listener?.changed(new Set([id]))
    else if (kind === 'f') this.#listener?.freed(id)
    else if (kind === 'w') this.#listener?.wanted(id, Number(share))
    else if (kind === 'u') this.#listener?.unclaimed(id)
  }
}
