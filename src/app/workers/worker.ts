import type { Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import { authorityOf } from '../../ca/authority.ts'
import { LeafCache } from '../../ca/leaf.ts'
import { Egresses } from '../../egress/egress.ts'
import { Events } from '../../events.ts'
import { systemClock } from '../../lib/clock.ts'
import { createLineLog, type Logger, whereFrom } from '../../lib/log.ts'
import { ClientAuth } from '../../proxy/client-auth.ts'
import { OwnAddresses } from '../../proxy/own-addresses.ts'
import type { PassthroughPolicy } from '../../route/passthrough.ts'
import {
  exchangeRuntimeOf,
  httpsTargets,
  MAX_THROTTLED_ADDRESSES,
  passthroughOf,
} from '../derive.ts'
import { OwnServing, type Terms } from '../serving.ts'
import { Channel } from './channel.ts'
import { HeldElsewhere } from './held-elsewhere.ts'
import type { FromWorker, ToWorker } from './messages.ts'
import { RecordFeed } from './record-feed.ts'
import { RemoteLearning } from './remote-learning.ts'
import { type RemotePool, RemotePools } from './remote-pools.ts'
import { type Setup, unpackSetup } from './setup.ts'
import { SharedThrottle } from './shared-throttle.ts'

const clock = systemClock

/**
 * One worker: serves the connections that it is handed, with the pools of the primary. Without the primary it
 * has no pools and no reason to be: it ends with the pipe.
 */
export class Worker {
  readonly #channel: Channel<FromWorker, ToWorker>
  readonly #events = new Events()
  readonly #feed: RecordFeed
  readonly #own = new OwnAddresses()
  readonly #throttle: SharedThrottle
  readonly #remote: RemotePools
  /** All that there ever were: exchanges that run keep theirs. */
  #pools = new Map<string, RemotePool>()
  #setup!: Setup
  #log!: Logger
  #held!: HeldElsewhere
  #passthrough!: PassthroughPolicy
  #egresses!: Egresses
  #serving!: OwnServing
  #gone = 0

  /** `ended` is called once there is nothing left to do: `code` is the process's. */
  constructor(pipe: Duplex, ended: (code: number) => void) {
    const send = (message: FromWorker) => this.#channel.send(message)
    this.#channel = new Channel(
      pipe,
      (message) => this.#receive(message, ended),
      () => ended(1),
    )
    this.#remote = new RemotePools(this.#channel)
    this.#feed = new RecordFeed(this.#events, this.#channel)
    this.#throttle = new SharedThrottle(clock, { maxEntries: MAX_THROTTLED_ADDRESSES, tell: send })
    this.#events.on('egress', ({ egress, up, reason }) => send(['egress', egress, up, reason]))
  }

  /** A connection that the primary has accepted; undefined for one that closed on its way. */
  take(socket: Socket | undefined): void {
    this.#channel.send(['taken'])
    if (!socket) {
      this.#closed()
      return
    }
    socket.once('close', () => this.#closed())
    // As on any server's sockets: a client may end its side and wait for the answer.
    socket.allowHalfOpen = true
    socket.setNoDelay(true)
    this.#serving.take(socket)
  }

  /** Tells the primary what went wrong; resolves when that has been said. */
  async broken(error: unknown): Promise<void> {
    const { error: name, at } = whereFrom(error)
    this.#channel.send(['broken', `${name} ${at.slice(0, 8).join(' ')}`])
    await this.#channel.flushed()
  }

  #receive(message: ToWorker, ended: (code: number) => void): void {
    if (this.#remote.receive(message)) return
    switch (message[0]) {
      case 'start':
        this.#start(unpackSetup(message[1]))
        break
      case 'apply':
        void this.#apply(unpackSetup(message[1]))
        break
      case 'held':
        this.#held.tell(message[1])
        break
      case 'egress':
        this.#egresses.report(message[1], message[2], message[3])
        break
      case 'learning': {
        const pool = this.#pools.get(message[1])
        if (pool) pool.learning.state = message[2]
        break
      }
      case 'failed':
      case 'succeeded':
        this.#throttle.hear(message)
        break
      case 'sync':
        this.#remote.report()
        this.#channel.send(['synced'])
        break
      case 'drain':
        void this.#drain(ended)
        break
    }
  }

  #start(setup: Setup): void {
    const { config } = setup
    this.#setup = setup
    this.#passthrough = passthroughOf(config)
    this.#log = createLineLog(config.log.level, (line) => this.#channel.send(['log', line]))
    for (const address of setup.own) this.#own.add(address)
    this.#egresses = new Egresses({
      egress: config.egress,
      upstream: config.upstream,
      forbidden: (address, port) => this.#own.includes(address, port),
      passthrough: (authority, address) => this.#passthrough.permits(authority, address),
      events: this.#events,
      clock,
      probes: (judged) => {
        this.#held = new HeldElsewhere(setup.held, judged)
        return this.#held
      },
    })
    this.#serving = new OwnServing({
      terms: this.#terms(setup),
      own: this.#own,
      egresses: this.#egresses,
      events: this.#events,
      clock,
      log: this.#log,
    })
    this.#channel.send(['ready'])
  }

  async #apply(setup: Setup): Promise<void> {
    const { egress, upstream } = setup.config
    // An egress goes last, after those who use it.
    this.#egresses.apply({ ...this.#setup.config.egress, ...egress }, upstream)
    this.#setup = setup
    this.#passthrough = passthroughOf(setup.config)
    this.#held.tell(setup.held)
    await this.#serving.apply(this.#terms(setup))
    this.#egresses.retain(egress)
    this.#channel.send(['applied', setup.generation])
  }

  #terms({ config, ca, leafKey, learning }: Setup): Terms {
    const send = (message: FromWorker) => this.#channel.send(message)
    const pools = new Map<string, RemotePool>()
    for (const [name, pool] of Object.entries(config.pools)) {
      const learner = new RemoteLearning(name, pool, send)
      const state = learning[name]
      if (state) learner.state = state
      pools.set(name, this.#remote.pool(name, learner, pool))
    }
    this.#pools = pools
    const authority = authorityOf(ca, httpsTargets(config))
    return {
      config,
      runtime: exchangeRuntimeOf(config, pools, clock),
      passthrough: this.#passthrough,
      auth: new ClientAuth(config.clients, this.#throttle),
      authority,
      leaves: new LeafCache(authority, { clock, key: leafKey }),
    }
  }

  async #drain(ended: (code: number) => void): Promise<void> {
    await this.#serving.drain()
    this.#remote.report()
    this.#feed.close()
    await this.#egresses.close()
    this.#channel.send(['drained'])
    await this.#channel.flushed()
    ended(0)
  }

  #closed(): void {
    this.#gone += 1
    if (this.#gone === 1) setImmediate(() => this.#tellGone())
  }

  #tellGone(): void {
    this.#channel.send(['gone', this.#gone])
    this.#gone = 0
  }
}
