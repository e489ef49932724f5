const STORAGE_KEY = 'cupbearer-session'

/** The session is not (or no longer) right. */
export class Unauthorized extends Error {}

/** Whether this tab holds a session. */
export const signedIn = (): boolean => sessionStorage.getItem(STORAGE_KEY) !== null

/**
 * Takes what a link brings after its `#`, wipes it from the address, and changes it for a session. Undefined when
 * the address brings nothing.
 */
export async function signInByLink(): Promise<'done' | string | undefined> {
  const given = new URLSearchParams(location.hash.slice(1))
  const code = given.get('code')
  const token = given.get('token')
  if (!code && !token) return undefined
  history.replaceState(null, '', location.pathname)
  return token ? signInByToken(token) : signIn(JSON.stringify({ code }))
}

/** Changes the admin token for a session, so that the token itself is kept nowhere. */
export const signInByToken = (token: string): Promise<'done' | string> => signIn(undefined, token)

export function signOut(): void {
  sessionStorage.removeItem(STORAGE_KEY)
}

async function signIn(body: string | undefined, token?: string): Promise<'done' | string> {
  try {
    const response = await fetch('/api/sessions', {
      method: 'POST',
      headers: token === undefined ? {} : { authorization: `Bearer ${token}` },
      ...(body !== undefined && { body }),
    })
    if (!response.ok) return (await problem(response)).message
    const { session } = (await response.json()) as { session: string }
    sessionStorage.setItem(STORAGE_KEY, session)
    return 'done'
  } catch {
    return 'Cupbearer does not answer.'
  }
}

/** Asks the API; anything but success rejects with what it says. */
export async function request(path: string, init: RequestInit = {}): Promise<Response> {
  const session = sessionStorage.getItem(STORAGE_KEY)
  if (session === null) throw new Unauthorized('You are signed out.')
  const response = await fetch(path, { ...init, headers: { authorization: `Bearer ${session}` } })
  if (response.ok) return response
  throw await problem(response)
}

export async function get<T>(path: string, signal?: AbortSignal): Promise<T> {
  return (await request(path, signal ? { signal } : {})).json() as Promise<T>
}

export async function post<T>(path: string): Promise<T> {
  return (await request(path, { method: 'POST' })).json() as Promise<T>
}

async function problem(response: Response): Promise<Error> {
  const body = (await response.json().catch(() => undefined)) as
    | { error?: { message?: string } }
    | undefined
  const message = body?.error?.message ?? `answer ${response.status}`
  return response.status === 401 ? new Unauthorized(message) : new Error(message)
}
