import { type ChildProcess, fork } from 'node:child_process'
import type { Socket } from 'node:net'
import { type Duplex, PassThrough } from 'node:stream'
import { fileURLToPath } from 'node:url'
import type { Lease } from '../../pool/lease.ts'
import { Channel } from './channel.ts'
import { type PrimaryPool, WorkerLeases } from './leases.ts'
import type { FromWorker, ToWorker } from './messages.ts'
import { RecordDecoder } from './record-code.ts'

/** Beside this module. Where that runs from its source, as in tests, the workers run the build. */
const MAIN = fileURLToPath(
  new URL(
    import.meta.url.endsWith('.ts') ? '../../../dist/app/workers/main.js' : './main.js',
    import.meta.url,
  ),
)

/** The end of the pipe in the worker; 0 to 2 are the usual ones, 3 hands over connections. */
export const PIPE_FD = 4

/** What a worker's runtime may take from the environment: no secret of a configuration's `${env:…}` is among it. */
const ENVIRONMENT = [
  'PATH',
  'HOME',
  'TMPDIR',
  'TZ',
  'LANG',
  'LC_ALL',
  'NODE_OPTIONS',
  'NODE_EXTRA_CA_CERTS',
  'NODE_V8_COVERAGE',
  'UV_THREADPOOL_SIZE',
]

export interface MemberOptions {
  readonly pool: (name: string) => PrimaryPool | undefined
  /** A token that the worker may use without asking did not do well. */
  readonly spoilt: (pool: string) => void
  /** Hears what is not about this worker's own leases and connections. */
  readonly heard: (message: FromWorker, from: Member) => void
}

/** One worker process as the primary has it. */
export class Member {
  /** Resolves when it serves; rejects when it ends before. */
  readonly ready: Promise<void>
  /** Resolves when it has ended and all that it held is given back. */
  readonly ended: Promise<{ code: number | null; signal: NodeJS.Signals | null }>
  readonly startedAt = performance.now()
  readonly records = new RecordDecoder()
  readonly #child: ChildProcess
  readonly #channel: Channel<ToWorker, FromWorker>
  readonly #leases: WorkerLeases
  readonly #heard: MemberOptions['heard']
  /** Connections on their way to it. */
  readonly #handed = new Set<Socket>()
  #serves = false
  #done = false
  #left = false
  #held = 0
  #taken = 0
  #drained: (() => void) | undefined
  #markReady!: () => void
  #settled: (() => void) | undefined
  readonly #syncs: (() => void)[] = []
  /** Who waits until the configuration of that number is in force. */
  readonly #applying = new Map<number, () => void>()

  constructor(options: MemberOptions) {
    this.#heard = options.heard
    const env = Object.fromEntries(
      ENVIRONMENT.flatMap((name) => {
        const value = process.env[name]
        return value === undefined ? [] : [[name, value]]
      }),
    )
    this.#child = fork(MAIN, [], {
      env,
      execArgv: process.execArgv.filter((argument) => !argument.startsWith('--inspect')),
      // Standard output belongs to the primary.
      stdio: ['ignore', 'ignore', 'inherit', 'ipc', 'pipe'],
    })
    const send = (message: ToWorker) => this.#channel.send(message)
    this.#leases = new WorkerLeases(options.pool, send, options.spoilt)
    this.#channel = new Channel(
      pipeTo(this.#child),
      (message) => this.#receive(message),
      // A worker that does not hear us any more is of no use.
      () => {
        if (!this.#done) this.kill()
      },
    )
    this.ended = new Promise((resolve) => {
      const end = (code: number | null, signal: NodeJS.Signals | null) => {
        this.#leave()
        resolve({ code, signal })
      }
      this.#child.once('exit', end)
      this.#child.once('error', () => end(null, null))
    })
    this.ready = Promise.race([
      new Promise<void>((resolve) => {
        this.#markReady = resolve
      }),
      this.ended.then(() => {
        throw new Error('the worker has ended')
      }),
    ])
    this.ready.catch(() => {})
  }

  get pid(): number | undefined {
    return this.#child.pid
  }

  /** Whether it takes connections. */
  get serves(): boolean {
    return this.#serves && !this.#left
  }

  /** Connections that it holds. */
  get connections(): number {
    return this.#held
  }

  /** Connections that it was ever given. */
  get taken(): number {
    return this.#taken
  }

  send(message: ToWorker): void {
    this.#channel.send(message)
  }

  /** Says which tokens of a pool it may use without asking: those that these ended leases were for. */
  setFree(pool: PrimaryPool, leases: readonly Lease[]): void {
    this.#leases.setFree(pool, leases)
  }

  /** Hands a connection over that nothing was read from. */
  take(socket: Socket): void {
    this.#held += 1
    this.#taken += 1
    this.#handed.add(socket)
    this.#child.send('connection', socket, {}, (error) => {
      if (error) socket.destroy()
    })
  }

  /** Resolves when the configuration of that number is in force, or the worker has ended. */
  async apply(generation: number, setup: string): Promise<void> {
    const applied = new Promise<void>((resolve) => this.#applying.set(generation, resolve))
    this.send(['apply', setup])
    await Promise.race([applied, this.ended])
    this.#applying.delete(generation)
  }

  /** Resolves when all that it has done so far is known here, or it has ended. */
  sync(): Promise<unknown> {
    const synced = new Promise<void>((resolve) => this.#syncs.push(resolve))
    this.send(['sync'])
    return Promise.race([synced, this.ended])
  }

  /** Lets it end what runs, and end; resolves when it has. */
  async drain(): Promise<void> {
    this.#serves = false
    // Not before it has what was handed to it: that goes another way, and what comes late would be refused.
    if (this.#handed.size > 0) {
      const settled = new Promise<void>((resolve) => {
        this.#settled = resolve
      })
      await Promise.race([settled, this.ended])
    }
    const drained = new Promise<void>((resolve) => {
      this.#drained = resolve
    })
    this.send(['drain'])
    await Promise.race([drained, this.ended])
    // It ends by itself now.
    this.#done = true
    await this.ended
  }

  kill(): void {
    this.#child.kill('SIGKILL')
  }

  #receive(message: FromWorker): void {
    if (this.#leases.receive(message)) return
    switch (message[0]) {
      case 'ready':
        this.#serves = true
        this.#markReady()
        break
      case 'applied':
        this.#applying.get(message[1])?.()
        break
      case 'taken': {
        const [first] = this.#handed
        if (first) this.#handed.delete(first)
        if (this.#handed.size === 0) this.#settled?.()
        break
      }
      case 'gone':
        this.#held -= message[1]
        break
      case 'synced':
        this.#syncs.shift()?.()
        break
      case 'drained':
        this.#drained?.()
        break
      default:
        this.#heard(message, this)
    }
  }

  #leave(): void {
    if (this.#left) return
    this.#left = true
    this.#channel.close()
    this.#leases.close()
    for (const socket of this.#handed) socket.destroy()
    this.#handed.clear()
    this.#held = 0
  }
}

/** Where no process could be made for want of file descriptors, there is no pipe either. */
function pipeTo({ stdio }: ChildProcess): Duplex {
  const pipe = (stdio as typeof stdio | undefined)?.[PIPE_FD] as unknown as
    | Duplex
    | null
    | undefined
  return pipe ?? new PassThrough().destroy()
}
