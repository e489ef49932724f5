import { connect, createServer, type Socket } from 'node:net'
import { Listener } from './listener.ts'

/** What is done to the bytes that go one way. */
export type Toxic =
  | { readonly kind: 'none' }
  /** Each chunk so much later. */
  | { readonly kind: 'latency'; readonly ms: number }
  /** Nothing arrives from then on, and nothing ends. */
  | { readonly kind: 'black-hole' }
  | { readonly kind: 'reset' }
  /** One byte per write, for the first of each chunk. */
  | { readonly kind: 'slice' }
  /** Other bytes than those that were sent, as many, once. */
  | { readonly kind: 'garbage' }
  | { readonly kind: 'bandwidth'; readonly bytesPerSecond: number }
  /** An orderly end of this direction alone. */
  | { readonly kind: 'half-close' }

export type ToxicKind = Toxic['kind']

export interface Poison {
  /** `up` goes to the server behind, `down` comes from it. */
  readonly way: 'up' | 'down'
  /** Bytes of this way that pass unharmed first, on each connection. */
  readonly after?: number
  readonly toxic: Toxic
}

export interface ToxicProxy extends AsyncDisposable {
  readonly host: string
  readonly port: number
  readonly openConnections: number
  /** Most bytes that any connection has passed each way since `poison` was set: where phases begin. */
  readonly passed: { readonly up: number; readonly down: number }
  /** Holds for connections that are made from now on; those that are open are reset. Undefined heals. */
  poison(poison: Poison | undefined): void
}

/** More would only be slow. */
const SLICED = 1000
const GARBAGE = Buffer.from('\x00\xff\x16garbage\r\n\r\n', 'latin1')

/** A TCP relay that spoils the stream after a given number of bytes, to be put in front of any test server. */
export async function startToxicProxy(
  target: { readonly host: string; readonly port: number },
  host = '127.0.0.1',
): Promise<ToxicProxy> {
  let current: Poison | undefined
  let passed = { up: 0, down: 0 }
  const relays = new Set<Socket>()
  const timers = new Set<NodeJS.Timeout>()
  const server = createServer({ allowHalfOpen: true, noDelay: true, pauseOnConnect: true })
  const lifecycle = new Listener(server)

  server.on('connection', (near: Socket) => {
    const poison = current
    const counts = passed
    // With nothing to pass, the connection itself is what is spoilt.
    if (poison?.after === undefined && poison?.toxic.kind === 'reset') {
      near.resetAndDestroy()
      return
    }
    const far = connect({ ...target, allowHalfOpen: true, noDelay: true })
    lifecycle.track(far)
    relays.add(near)
    near.once('close', () => {
      relays.delete(near)
      far.destroy()
    })
    far.once('close', () => near.destroy())
    near.once('error', () => far.resetAndDestroy())
    far.once('error', () => near.resetAndDestroy())
    relay(near, far, 'up')
    relay(far, near, 'down')

    function relay(from: Socket, to: Socket, way: 'up' | 'down'): void {
      const mine = poison?.way === way ? poison : undefined
      const after = mine?.after ?? 0
      let seen = 0
      let spoilt = false
      let deaf = false
      void (async () => {
        try {
          for await (const data of from) {
            const chunk = data as Buffer
            const whole = mine ? Math.max(0, Math.min(chunk.length, after - seen)) : chunk.length
            seen += chunk.length
            counts[way] = Math.max(counts[way], seen)
            if (whole > 0) await write(to, chunk.subarray(0, whole))
            if (!mine || whole === chunk.length || deaf) continue
            deaf = await spoil(mine.toxic, chunk.subarray(whole), to, !spoilt)
            spoilt = true
          }
          if (!deaf) to.end()
        } catch {
          to.destroy()
        }
      })()
    }

    /** True when nothing more passes this way: it is read on, so that its end is noticed. */
    async function spoil(toxic: Toxic, rest: Buffer, to: Socket, first: boolean): Promise<boolean> {
      switch (toxic.kind) {
        case 'latency':
          await pause(toxic.ms)
          await write(to, rest)
          return false
        case 'slice':
          for (const byte of rest.subarray(0, SLICED)) {
            await write(to, Buffer.of(byte))
            await new Promise((resolve) => setImmediate(resolve))
          }
          if (rest.length > SLICED) await write(to, rest.subarray(SLICED))
          return false
        case 'bandwidth': {
          const size = Math.max(1, Math.floor(toxic.bytesPerSecond / 100))
          for (let at = 0; at < rest.length; at += size) {
            await pause(10)
            await write(to, rest.subarray(at, at + size))
          }
          return false
        }
        case 'garbage':
          // As long as what it replaces: a loss would only be silence.
          await write(to, first ? Buffer.alloc(rest.length, GARBAGE) : rest)
          return false
        case 'reset':
          near.resetAndDestroy()
          far.resetAndDestroy()
          return true
        case 'half-close':
          to.end()
          return true
        case 'black-hole':
          return true
        case 'none':
          await write(to, rest)
          return false
      }
    }
  })

  const pause = (ms: number) =>
    new Promise<void>((resolve) => {
      const timer = setTimeout(() => {
        timers.delete(timer)
        resolve()
      }, ms)
      timers.add(timer)
    })
  const port = await lifecycle.listen(host)
  return {
    host,
    port,
    get openConnections() {
      return lifecycle.openSockets
    },
    get passed() {
      return passed
    },
    poison(poison) {
      current = poison
      passed = { up: 0, down: 0 }
      for (const near of relays) near.resetAndDestroy()
    },
    async [Symbol.asyncDispose]() {
      for (const timer of timers) clearTimeout(timer)
      await lifecycle.close()
    },
  }
}

function write(to: Socket, bytes: Buffer): Promise<void> {
  if (to.destroyed || to.writableEnded) return Promise.resolve()
  return new Promise((resolve, reject) => {
    to.write(bytes, (error) => (error ? reject(error) : resolve()))
  })
}
