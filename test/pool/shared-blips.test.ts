import { connect, createServer, type Socket } from 'node:net'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import * as scripts from '../../src/store/redis-scripts.ts'
import { Listener } from '../support/listener.ts'
import { credential, poolConfig } from '../support/pool.ts'
import { RedisServer } from '../support/redis.ts'
import { RotatingEndpoint, SharedInstance } from '../support/shared-pool.ts'
import { until } from '../support/until.ts'

/** The way to a store, cut once when a certain script passes: before it arrives, or before its answer does. */
class Wire implements AsyncDisposable {
  cut: { readonly digest: string; readonly arrives: boolean } | undefined
  /** Whether it was cut. */
  wasCut = false
  readonly #lifecycle: Listener
  readonly #sockets = new Set<Socket>()
  readonly #port: number

  private constructor(port: number, lifecycle: Listener) {
    this.#port = port
    this.#lifecycle = lifecycle
  }

  static async open(port: number): Promise<Wire & { url: string }> {
    const server = createServer({ noDelay: true })
    const wire = new Wire(port, new Listener(server))
    server.on('connection', (near) => wire.#relay(near))
    const url = `redis://127.0.0.1:${await wire.#lifecycle.listen('127.0.0.1')}`
    return Object.assign(wire, { url })
  }

  #relay(near: Socket): void {
    const far = connect({ port: this.#port, host: '127.0.0.1', noDelay: true })
    this.#lifecycle.track(far)
    this.#sockets.add(near)
    let mute = false
    for (const socket of [near, far]) socket.on('error', () => {})
    near.on('close', () => {
      this.#sockets.delete(near)
      far.end()
    })
    far.on('close', () => near.destroy())
    far.on('data', (answer) => {
      if (mute) this.#reset()
      else near.write(answer)
    })
    near.on('data', (asked) => {
      const { cut } = this
      if (cut && asked.includes(cut.digest)) {
        this.cut = undefined
        this.wasCut = true
        mute = cut.arrives
        if (!mute) return this.#reset()
      }
      far.write(asked)
    })
  }

  #reset(): void {
    for (const socket of this.#sockets) socket.resetAndDestroy()
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.#lifecycle.close()
  }
}

let redis: RedisServer
beforeAll(async () => {
  redis = await RedisServer.start()
})
afterAll(() => redis[Symbol.asyncDispose]())

const SCRIPTS = {
  claim: scripts.CLAIM.digest,
  intent: scripts.INTEND.digest,
  record: scripts.SAVE.digest,
  end: scripts.UNCLAIM.digest,
  look: scripts.LOOK.digest,
}
const CASES = (Object.keys(SCRIPTS) as (keyof typeof SCRIPTS)[]).flatMap((name) => [
  [name, 'question', false] as const,
  [name, 'answer', true] as const,
])

describe.concurrent('a connection that breaks while a token is renewed', {
  timeout: 60_000,
}, () => {
  test.each(CASES)(
    '%s, its %s lost: all who wait get the new token, by one refresh',
    async (name, what, arrives) => {
      const prefix = `${name}-${what}`
      const endpoint = new RotatingEndpoint()
      await using wireOfLeader = await Wire.open(redis.port)
      await using wireOfOther = await Wire.open(redis.port)
      const config = poolConfig([credential('a')])
      const start = ({ url }: { url: string }) =>
        SharedInstance.open(`${url}?prefix=${prefix}`, config, endpoint)
      await using leader = await start(wireOfLeader)
      await using other = await start(wireOfOther)
      const leases = [await leader.send(), await leader.send(), await other.send()] as const
      while ((await redis.command('EXISTS', `{${prefix}:api}:claim:a`)) !== 0);

      // Whoever follows never claims, intends or saves: it looks.
      const broken = name === 'look' ? wireOfOther : wireOfLeader
      broken.cut = { digest: SCRIPTS[name], arrives }
      let joined = () => {}
      const join = new Promise<void>((resolve) => {
        joined = resolve
      })
      endpoint.script = () => join
      const led = [leader.pool.recover(leases[0]), leader.pool.recover(leases[1])]
      await until(() => broken.wasCut || endpoint.asked === 2)
      const followed = other.pool.recover(leases[2])
      joined()
      const results = (await Promise.all([...led, followed])).map(({ result }) => result)
      expect(results).toEqual(['renewed', 'renewed', 'renewed'])
      await until(() => leader.credential().generation === 2 && other.credential().generation === 2)
      await until(() => broken.wasCut)
      expect(endpoint).toMatchObject({ asked: 2, reused: 0 })
      for (const each of [leader, other]) expect((await each.send()).token.reveal()).toBe('token-2')
    },
  )
})
