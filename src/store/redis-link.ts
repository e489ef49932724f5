import { CupbearerError } from '../errors.ts'
import { type Connection, connectRedis } from './redis-connect.ts'
import type { Script } from './redis-scripts.ts'
import type { RedisTarget } from './redis-url.ts'

/**
 * An answer that so many looks have not found is late: a command is over within a second. Looks are counted, not
 * ms: a machine that stood still has looked once, and the server had no more time than this process.
 */
const LATE_LOOKS = 4
const CHECK_MS = 200
/** The longest that connecting may take in all, and how long a start tries again. */
const CONNECT_MS = 3000
const OPEN_MS = 5000
const RECONNECT_MS = 100
const MAX_RECONNECT_MS = 1000

/** A command that waits for its answer. */
interface Pending {
  /** How many looks there had been before. */
  readonly since: number
  readonly reject: (error: Error) => void
}

/** What a link asks of whoever uses it. */
export interface LinkUser {
  /** Called after each connecting, before anyone else may use it; a rejection is a failed connection. */
  ready(): Promise<void>
  /** The link is usable, or no longer. */
  reached(up: boolean): void
}

/**
 * The way to the shared store. A failure of any kind, be it a broken connection, silence or a refusal, takes the
 * whole link down: calls fail at once, and it is connected afresh until that works again.
 */
export class RedisLink {
  readonly #target: RedisTarget
  readonly #users = new Set<LinkUser>()
  readonly #channels = new Map<string, (message: string) => void>()
  readonly #pending = new Set<Pending>()
  #connection: Connection | undefined
  #up = false
  #trouble: string | undefined = 'not connected yet'
  #failures = 0
  #timer: NodeJS.Timeout | undefined
  #watch: NodeJS.Timeout | undefined
  #looks = 0
  #connecting: Promise<void> | undefined
  #closed = false

  constructor(target: RedisTarget) {
    this.#target = target
  }

  /** Why the store cannot be used; undefined while it can. */
  get trouble(): string | undefined {
    return this.#trouble
  }

  /** Connects for the first time. Rejects with `STORE_FAILED`. */
  async open(): Promise<void> {
    const end = performance.now() + OPEN_MS
    await this.#connect()
    // It may be starting too.
    while (this.#trouble !== undefined && performance.now() < end) {
      await new Promise((resolve) => setTimeout(resolve, RECONNECT_MS))
      await this.#connect()
    }
    if (this.#trouble === undefined) return
    const trouble = this.#trouble
    await this.close()
    throw new CupbearerError('STORE_FAILED', `${this.#target.label}: ${trouble}`)
  }

  /** Takes part in the link's ups and downs; `ready` runs now if it is up. */
  async use(user: LinkUser): Promise<void> {
    this.#users.add(user)
    if (this.#connection) await user.ready()
  }

  forget(user: LinkUser): void {
    this.#users.delete(user)
  }

  async listen(channel: string, listener: (message: string) => void): Promise<void> {
    this.#channels.set(channel, listener)
    const connection = this.#connection
    if (connection) await this.#answered(connection.subscribe(channel, listener))
  }

  async unlisten(channel: string): Promise<void> {
    this.#channels.delete(channel)
    const connection = this.#connection
    if (connection) await this.#answered(connection.unsubscribe(channel)).catch(() => {})
  }

  send(key: string, command: readonly string[]): Promise<unknown> {
    const connection = this.#connection
    if (!connection) return Promise.reject(this.#away())
    return this.#answered(connection.send(key, command))
  }

  async run(
    script: Script,
    keys: readonly string[],
    values: readonly (string | number)[],
  ): Promise<unknown> {
    const rest = [String(keys.length), ...keys, ...values.map(String)]
    const key = keys[0] as string
    try {
      return await this.send(key, ['EVALSHA', script.digest, ...rest])
    } catch (error) {
      if (!(error instanceof Error && /NOSCRIPT/.test(causeOf(error)))) throw error
      return this.send(key, ['EVAL', script.text, ...rest])
    }
  }

  async close(): Promise<void> {
    this.#closed = true
    clearTimeout(this.#timer)
    clearInterval(this.#watch)
    this.#drop(new Error('the store is closed'))
    await this.#connecting
  }

  /** Resolves when it has worked or has failed. */
  #connect(): Promise<void> {
    this.#connecting ??= this.#tryConnect().finally(() => {
      this.#connecting = undefined
    })
    return this.#connecting
  }

  async #tryConnect(): Promise<void> {
    let connection: Connection | undefined
    let ended: Error | undefined
    const abort = new AbortController()
    const timer = setTimeout(() => abort.abort(new Error('no connection in time')), CONNECT_MS)
    try {
      connection = await connectRedis(this.#target, abort.signal, (error) => {
        ended ??= error
        if (connection && this.#connection === connection) this.#fail(error)
      })
      if (this.#closed) throw new Error('the store is closed')
      if (ended) throw ended
      this.#connection = connection
      this.#watch = setInterval(() => this.#check(), CHECK_MS).unref()
      for (const [channel, listener] of this.#channels) {
        await this.#answered(connection.subscribe(channel, listener))
      }
      for (const user of this.#users) await user.ready()
      if (this.#connection !== connection) throw ended ?? new Error('the connection has ended')
      this.#up = true
      this.#trouble = undefined
      this.#failures = 0
      for (const user of this.#users) user.reached(true)
    } catch (error) {
      if (this.#connection && this.#connection === connection) this.#drop(error as Error)
      connection?.destroy()
      this.#trouble = describe(error)
      this.#again()
    } finally {
      clearTimeout(timer)
    }
  }

  #again(): void {
    if (this.#closed) return
    clearTimeout(this.#timer)
    const delay = Math.min(MAX_RECONNECT_MS, RECONNECT_MS * 2 ** Math.min(this.#failures, 10))
    this.#failures += 1
    this.#timer = setTimeout(() => void this.#connect(), delay).unref()
  }

  #fail(error: Error): void {
    if (!this.#connection) return
    this.#drop(error)
    // One that is still being made ready fails by itself and plans the next.
    if (!this.#connecting) this.#again()
  }

  #drop(error: Error): void {
    clearInterval(this.#watch)
    const connection = this.#connection
    this.#connection = undefined
    this.#trouble = describe(error)
    connection?.destroy()
    const failure = this.#away(error)
    for (const pending of this.#pending) pending.reject(failure)
    this.#pending.clear()
    if (!this.#up) return
    this.#up = false
    for (const user of this.#users) user.reached(false)
  }

  /** The oldest command tells whether the server still answers. */
  #check(): void {
    this.#looks += 1
    const isLate = () => {
      const [first] = this.#pending
      return first !== undefined && this.#looks - first.since >= LATE_LOOKS
    }
    if (!isLate()) return
    // This process may have been held up itself: what has arrived meanwhile is read first.
    setImmediate(() => {
      if (isLate()) this.#fail(new Error('no answer in time'))
    })
  }

  #answered<Result>(answer: Promise<Result>): Promise<Result> {
    return new Promise((resolve, reject) => {
      const pending = { since: this.#looks, reject }
      this.#pending.add(pending)
      answer.then(
        (value) => {
          this.#pending.delete(pending)
          resolve(value)
        },
        (error: Error) => {
          this.#pending.delete(pending)
          reject(this.#away(error))
          // A server that refuses is as good as none: a replica, one that is loading, full or out of its cluster.
          if (!/^NOSCRIPT/.test(error.message)) this.#fail(error)
        },
      )
    })
  }

  #away(cause?: Error): CupbearerError {
    const why = cause ? describe(cause) : (this.#trouble ?? 'it is gone')
    return new CupbearerError('STORE_FAILED', `the shared store is away (${why})`, { cause })
  }
}

function causeOf(error: Error): string {
  return error.cause instanceof Error ? error.cause.message : ''
}

/** What went wrong, without what a server or library may have quoted. */
function describe(error: unknown): string {
  if (error instanceof CupbearerError) return error.message
  if (!(error instanceof Error)) return 'unknown error'
  const code = 'code' in error && typeof error.code === 'string' ? error.code : undefined
  if (code) return code
  // The first word of a server's refusal is its code (redis.io/docs/reference/protocol-spec, simple errors).
  const refusal = /^([A-Z]{3,})\b/.exec(error.message)?.[1]
  if (refusal) return `the server refuses (${refusal})`
  if (error.constructor === Error) return error.message
  return error.name === 'Error' ? error.constructor.name : error.name
}
