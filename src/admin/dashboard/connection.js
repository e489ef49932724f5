const STORAGE_KEY = 'cupbearer-admin-token'
const SILENCE_MS = 45_000
const RECONNECT_MS = 2_000

/** The token is not (or no longer) right. */
export class Unauthorized extends Error {}

/** `#token=…` of a link made on the command line is taken over and wiped from the address. */
export function takeToken() {
  const given = new URLSearchParams(location.hash.slice(1)).get('token')
  if (given) {
    keepToken(given)
    history.replaceState(null, '', location.pathname)
  }
  return sessionStorage.getItem(STORAGE_KEY)
}

export function keepToken(token) {
  sessionStorage.setItem(STORAGE_KEY, token)
}

export function forgetToken() {
  sessionStorage.removeItem(STORAGE_KEY)
}

async function request(path, options = {}) {
  const response = await fetch(path, {
    ...options,
    headers: { authorization: `Bearer ${sessionStorage.getItem(STORAGE_KEY)}` },
  })
  if (response.ok) return response
  const problem = await response.json().catch(() => undefined)
  const message = problem?.error?.message ?? `answer ${response.status}`
  throw response.status === 401 ? new Unauthorized(message) : new Error(message)
}

export async function get(path) {
  return (await request(path)).json()
}

export async function post(path) {
  return (await request(path, { method: 'POST' })).json()
}

/**
 * Follows the event stream for good: reconnects after a break, also after a silence longer than three heartbeats.
 * Rejects with `Unauthorized` only. EventSource can't send an Authorization field, so the stream is read by hand.
 */
export async function follow({ connected, disconnected, event }, signal) {
  while (!signal.aborted) {
    let reason
    try {
      await stream(connected, event, signal)
    } catch (error) {
      if (error instanceof Unauthorized) throw error
      reason = error.message
    }
    if (signal.aborted) return
    disconnected(reason)
    await new Promise((resolve) => setTimeout(resolve, RECONNECT_MS))
  }
}

async function stream(connected, event, signal) {
  const silence = new AbortController()
  const response = await request('/api/events', {
    signal: AbortSignal.any([signal, silence.signal]),
  })
  await connected()
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader()
  let timer
  try {
    for (let pending = ''; ; ) {
      clearTimeout(timer)
      timer = setTimeout(() => silence.abort(), SILENCE_MS)
      const { value, done } = await reader.read()
      if (done) return
      const frames = (pending + value).split('\n\n')
      pending = frames.pop()
      for (const frame of frames) dispatch(frame, event)
    }
  } finally {
    clearTimeout(timer)
    silence.abort()
  }
}

function dispatch(frame, event) {
  const name = /^event: (.*)$/m.exec(frame)?.[1]
  const data = /^data: (.*)$/m.exec(frame)?.[1]
  if (name && data) event(name, JSON.parse(data))
}
