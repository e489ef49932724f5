import type { PoolConfig } from '../config/schema.ts'
import type { Credential } from './credential.ts'
import type { LeaseRequest } from './lease.ts'
import { holds, needsAnything } from './needs.ts'

type Before = (a: Credential, b: Credential) => boolean

const byTurn: Before = (a, b) =>
  a.lastGrant !== b.lastGrant ? a.lastGrant < b.lastGrant : a.settings.index < b.settings.index

const byUse: Before = (a, b) =>
  a.limits.load !== b.limits.load ? a.limits.load < b.limits.load : byTurn(a, b)

/** Which of two ready credentials is taken first; `sticky` goes by use where a request has no session. */
export const STRATEGIES: Readonly<Record<PoolConfig['select'], Before>> = {
  'least-used': byUse,
  'round-robin': byTurn,
  'fill-first': (a, b) => a.settings.index < b.settings.index,
  sticky: byUse,
}

/** What a request needs, resolved: `only` is the credential that it is bound to. */
export interface Want {
  readonly request: LeaseRequest
  readonly only: Credential | undefined
}

/** Whether a credential may serve a request, its readiness aside. */
export function suits(want: Want, credential: Credential): boolean {
  const { request, only } = want
  return (
    (only === undefined || only === credential) &&
    !request.exclude?.has(credential.id) &&
    holds(credential.token, request) !== 'no'
  )
}

/** Whether any ready credential will do: the common case. */
export function isPlain(want: Want): boolean {
  const { request, only } = want
  return only === undefined && !request.exclude?.size && !needsAnything(request)
}

/** Most sessions that are remembered. */
const SESSIONS = 10_000

/** Which credential a session sticks to; the session that was idle longest is forgotten first. */
export class Sessions {
  readonly #bound = new Map<string, string>()

  get(session: string): string | undefined {
    const id = this.#bound.get(session)
    if (id !== undefined) this.set(session, id)
    return id
  }

  set(session: string, id: string): void {
    this.#bound.delete(session)
    this.#bound.set(session, id)
    if (this.#bound.size > SESSIONS) {
      this.#bound.delete(this.#bound.keys().next().value as string)
    }
  }
}
