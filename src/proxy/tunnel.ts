import type { Socket } from 'node:net'

/**
 * Joins two sockets as a blind pipe with backpressure until both are done, one breaks, or both have been
 * silent for `idleMs`. Resolves with the bytes that went each way; neither socket is left open.
 */
export function joinSockets(
  client: Socket,
  upstream: Socket,
  idleMs: number,
): Promise<{ in: number; out: number }> {
  return new Promise((resolve) => {
    let open = 2
    const cut = () => {
      client.destroy()
      upstream.destroy()
    }
    const join = (socket: Socket, other: Socket) => {
      // Whatever passes wakes both sockets, so one time-out means silence both ways.
      socket.setTimeout(idleMs, cut)
      socket.once('error', cut)
      socket.once('close', () => {
        open -= 1
        // What is still to be written to the other side goes out first.
        if (open > 0) other.destroySoon()
        else resolve({ in: upstream.bytesWritten, out: upstream.bytesRead })
      })
      socket.pipe(other)
    }
    join(client, upstream)
    join(upstream, client)
    if (client.destroyed || upstream.destroyed) cut()
  })
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
