import { request, Unauthorized } from './session.ts'

/** Three heartbeats. */
const SILENCE_MS = 45_000
const FIRST_DELAY_MS = 1000
const LONGEST_DELAY_MS = 30_000
/** More than that a page cannot show; the server counts what it leaves out. */
const TRACES_PER_SECOND = 1000

export interface StreamListener {
  /** The stream is open: time to read what it does not tell. */
  connected(): Promise<void>
  /** It broke off; the next try is at this time, or sooner when `retry` is called. */
  waiting(reason: string, retryAt: number, retry: () => void): void
  /** `id` is the number of what is in the activity, too. */
  event(name: string, data: unknown, id: number | undefined): void
}

/**
 * Follows the event stream until the signal, and rejects with `Unauthorized` only. It reconnects after a break or a
 * long silence, waiting twice as long each time. EventSource can send no Authorization field, so it is read by hand.
 */
export async function follow(listener: StreamListener, signal: AbortSignal): Promise<void> {
  for (let tries = 0; !signal.aborted; tries++) {
    let reason = 'the stream has ended'
    try {
      await read(
        {
          ...listener,
          async connected() {
            await listener.connected()
            tries = 0
          },
        },
        signal,
      )
    } catch (error) {
      if (error instanceof Unauthorized) throw error
      reason = (error as Error).name === 'TypeError' ? 'no answer' : (error as Error).message
    }
    if (signal.aborted) return
    const delay = Math.min(FIRST_DELAY_MS * 2 ** tries, LONGEST_DELAY_MS)
    // A quarter of it is chance: several pages must not come back in step.
    await pause(delay * (0.75 + Math.random() / 4), signal, (retryAt, retry) =>
      listener.waiting(reason, retryAt, retry),
    )
  }
}

function pause(
  ms: number,
  signal: AbortSignal,
  tell: (until: number, retry: () => void) => void,
): Promise<void> {
  return new Promise((resolve) => {
    const done = () => {
      clearTimeout(timer)
      removeEventListener('online', done)
      signal.removeEventListener('abort', done)
      resolve()
    }
    const timer = setTimeout(done, ms)
    addEventListener('online', done)
    signal.addEventListener('abort', done)
    tell(Date.now() + ms, done)
  })
}

async function read(listener: StreamListener, signal: AbortSignal): Promise<void> {
  const silence = new AbortController()
  const response = await request(`/api/events?traces=${TRACES_PER_SECOND}`, {
    signal: AbortSignal.any([signal, silence.signal]),
  })
  const body = response.body
  if (!body) return
  let timer: ReturnType<typeof setTimeout> | undefined
  try {
    await listener.connected()
    const reader = body.pipeThrough(new TextDecoderStream()).getReader()
    for (let pending = ''; ; ) {
      clearTimeout(timer)
      timer = setTimeout(() => silence.abort(new Error('silence')), SILENCE_MS)
      const { value, done } = await reader.read()
      if (done) return
      const frames = (pending + value).split('\n\n')
      pending = frames.pop() ?? ''
      for (const frame of frames) dispatch(frame, listener)
    }
  } finally {
    clearTimeout(timer)
    silence.abort()
  }
}

function dispatch(frame: string, listener: StreamListener): void {
  const name = /^event: (.*)$/m.exec(frame)?.[1]
  const data = /^data: (.*)$/m.exec(frame)?.[1]
  const id = /^id: (\d+)$/m.exec(frame)?.[1]
  if (name === undefined || data === undefined) return
  listener.event(name, JSON.parse(data), id === undefined ? undefined : Number(id))
}
