import type { Socket } from 'node:net'
import type { Duplex } from 'node:stream'

/**
 * Joins two byte streams as a blind pipe with backpressure until both are done, one breaks, or both have been
 * silent for `idleMs`. Resolves with the bytes that the client sent and got; neither side is left open.
 */
export function joinSockets(
  client: Duplex,
  upstream: Duplex,
  idleMs: number,
): Promise<{ in: number; out: number }> {
  return new Promise((resolve) => {
    const bytes = { in: 0, out: 0 }
    let open = 2
    let movedAt = performance.now()
    let timer: NodeJS.Timeout | undefined
    const cut = () => {
      client.destroy()
      upstream.destroy()
    }
    const watch = (delay: number) => {
      timer = setTimeout(() => {
        const silent = performance.now() - movedAt
        if (silent >= idleMs) cut()
        else watch(idleMs - silent)
      }, delay)
    }
    const join = (stream: Duplex, other: Duplex, way: 'in' | 'out') => {
      stream.on('data', (chunk: Buffer) => {
        bytes[way] += chunk.length
        movedAt = performance.now()
      })
      // Bytes that the other side has taken count as a sign of life, too.
      stream.on('drain', () => {
        movedAt = performance.now()
      })
      stream.once('error', cut)
      const closed = () => {
        open -= 1
        // What is still to be written to the other side goes out first.
        if (open > 0) return endSoon(other)
        clearTimeout(timer)
        resolve(bytes)
      }
      if (stream.closed) return closed()
      stream.once('close', closed)
      stream.pipe(other)
    }
    watch(idleMs)
    join(client, upstream, 'in')
    join(upstream, client, 'out')
    if (client.destroyed || upstream.destroyed) cut()
  })
}

/** Ends both ways once everything is written. */
function endSoon(stream: Duplex): void {
  if (!stream.writableEnded) stream.end()
  if (stream.writableFinished) stream.destroy()
  else stream.once('finish', () => stream.destroy())
}

/** Does a job for a client and gives it up when the client goes. */
export async function whileOpen<Value>(
  client: Socket,
  job: (signal: AbortSignal) => Promise<Value>,
): Promise<Value> {
  const gone = new AbortController()
  const close = () => gone.abort()
  client.once('close', close).on('error', close)
  try {
    return await job(gone.signal)
  } finally {
    client.off('close', close)
  }
}
