import { createHash, timingSafeEqual } from 'node:crypto'
import type { Config } from '../config/schema.ts'
import { WireError } from '../errors.ts'
import type { Client } from '../exchange/request.ts'
import type { AuthThrottle } from '../lib/throttle.ts'
import type { LeaseRequest } from '../pool/lease.ts'

export type Hints = Pick<LeaseRequest, 'session' | 'credential' | 'scopes'>

export interface Identified {
  readonly client: Client
  /** From user parameters, `name+session=abc`. */
  readonly hints: Hints
}

export interface Authenticated extends Identified {
  /** Whether it may ask for leases. */
  readonly lease: boolean
}

const NO_HINTS: Hints = {}

/** Who may use the proxy (RFC 7617 over RFC 9110 §11.7); compares in constant time, throttles failures. */
export class ClientAuth {
  readonly #clients: Map<
    string,
    { password: Buffer; pools: ReadonlySet<string> | undefined; lease: boolean }
  >
  readonly #throttle: AuthThrottle

  constructor(clients: Config['clients'], throttle: AuthThrottle) {
    this.#clients = new Map(
      Object.entries(clients).map(([name, { password, pools, lease }]) => [
        name,
        { password: digest(password.reveal()), pools: pools && new Set(pools), lease },
      ]),
    )
    this.#throttle = throttle
  }

  /** Throws CLIENT_UNAUTHENTICATED or TOO_MANY_ATTEMPTS. */
  identify(authorization: string | undefined, address: string): Authenticated {
    if (this.#clients.size === 0) {
      const parameters = authorization === undefined ? undefined : parseBasic(authorization)
      return {
        client: { name: undefined, address, pools: undefined },
        hints: parameters ? parameters.hints : NO_HINTS,
        lease: false,
      }
    }
    const wait = this.#throttle.check(address)
    if (wait !== undefined) {
      throw new WireError(
        'TOO_MANY_ATTEMPTS',
        'too many failed authentications from this address',
        {
          retryAfterMs: wait,
        },
      )
    }
    const given = authorization === undefined ? undefined : parseBasic(authorization)
    const known = given && this.#clients.get(given.name)
    // An unknown name costs the same comparison as a known one.
    const right = timingSafeEqual(digest(given?.password ?? ''), known?.password ?? NOBODY)
    if (!given || !known || !right) {
      // A client without credentials is told to bring some; only a wrong guess counts.
      if (authorization !== undefined) this.#throttle.failed(address)
      throw new WireError('CLIENT_UNAUTHENTICATED', 'proxy credentials are missing or wrong')
    }
    this.#throttle.succeeded(address)
    const { pools, lease } = known
    return { client: { name: given.name, address, pools }, hints: given.hints, lease }
  }
}

const NOBODY = digest('')

function digest(text: string): Buffer {
  return createHash('sha256').update(text).digest()
}

function parseBasic(header: string): { name: string; password: string; hints: Hints } | undefined {
  const match = /^basic\s+([A-Za-z0-9+/=_-]+)\s*$/i.exec(header)
  if (!match) return undefined
  const text = Buffer.from(match[1] as string, 'base64').toString('utf8')
  const colon = text.indexOf(':')
  if (colon === -1) return undefined
  const [name = '', ...parameters] = text.slice(0, colon).split('+')
  const hints: { session?: string; credential?: string; scopes?: string[] } = {}
  // A `+` may belong to the name itself: what is no known parameter is put back.
  let user = name
  for (const parameter of parameters) {
    const [key, ...value] = parameter.split('=')
    const text = value.join('=')
    if (key === 'session' && text) hints.session = text
    else if (key === 'credential' && text) hints.credential = text
    else if (key === 'scope' && text) hints.scopes = text.split(/[\s,]+/)
    else user += `+${parameter}`
  }
  return { name: user, password: text.slice(colon + 1), hints }
}
