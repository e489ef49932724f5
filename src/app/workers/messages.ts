import { type WireCode, WireError } from '../../errors.ts'
import { Secret } from '../../lib/secret.ts'
import type { LoginWay } from '../../pool/learning.ts'
import type { LeaseRequest, Outcome, PassedOver, Recovery } from '../../pool/lease.ts'

/**
 * What the primary and a worker say to each other. Secrets stand in the clear here and nowhere else outside a
 * process: the pipe has no name, and no other process holds an end of it.
 */
export type FromWorker =
  /** It serves. */
  | readonly ['ready']
  /** The configuration of that number is in force. */
  | readonly ['applied', number]
  /** It cannot go on, and why. */
  | readonly ['broken', string]
  /** A request wants a lease of a pool; the number is the lease's from then on. */
  | readonly ['lease', number, pool: string, want: PackedWant | null]
  /** The request that waits for that lease has gone. */
  | readonly ['give-up', number]
  | readonly ['sent', number]
  | readonly ['settle', number, kind: Outcome['kind'], retryAfterMs?: number]
  /** Uses of a token that is free, by its card: sent since the last report, and gone well. */
  | readonly ['used', card: number, started: number, ended: number]
  /** What came of one such use, where it did not go well; the number is for `recover`. */
  | readonly [
      'outcome',
      number,
      card: number,
      sent: boolean,
      kind: Outcome['kind'],
      retryAfterMs?: number,
    ]
  | readonly ['recover', number]
  | readonly ['cool', pool: string, egress: string, ms: number, reason: string]
  /** Keys of records that follow: see `record-code.ts`. */
  | readonly ['shape', number, keys: readonly string[]]
  | readonly ['record', coded: readonly unknown[]]
  /** How many records were given up, since the primary did not keep up. */
  | readonly ['dropped', number]
  | readonly ['egress', name: string, up: boolean, reason: string]
  | readonly ['log', line: string]
  | readonly ['failed', address: string]
  | readonly ['succeeded', address: string]
  /** A token came by: a packed `TokenSet`, and the refresh token that it was got with. */
  | readonly ['offer', pool: string, token: string, presented: string | null]
  /** A token was given to somebody, and no request has shown yet what it is good for: a packed `TokenSet`. */
  | readonly ['keep', token: string]
  | readonly ['refuse', pool: string, reason: string]
  /** A connection was taken over. */
  | readonly ['taken']
  /** Connections that have closed. */
  | readonly ['gone', number]
  /** All that was to be said when `sync` was heard has been said. */
  | readonly ['synced']
  | readonly ['drained']

export type ToWorker =
  /** A packed `Setup`. */
  | readonly ['start', string]
  | readonly ['apply', string]
  | readonly ['card', Card]
  | readonly ['drop', card: number]
  /** A lease that was asked for has to wait. */
  | readonly ['queued', number]
  | readonly ['grant', number, card: number, passedOver?: PassedOver]
  /** The tokens of a pool that may be used without asking, until another list comes. */
  | readonly ['free', pool: string, cards: readonly number[]]
  | readonly ['refused', number, PackedError]
  | readonly ['recovered', number, Recovery]
  | readonly ['held', Objections]
  | readonly ['egress', name: string, up: boolean, reason: string]
  | readonly ['learning', pool: string, LearningState]
  | readonly ['failed', address: string]
  | readonly ['succeeded', address: string]
  | readonly ['sync']
  | readonly ['drain']

/** What leases of one token have in common, told once: they name it by its number. */
export interface Card {
  readonly number: number
  readonly credential: string
  readonly key: string
  readonly generation: number
  readonly token: string
  readonly expiresAt?: number | undefined
  readonly dpopKey?: string | undefined
  readonly egress: string
  readonly headers: readonly string[]
  /** Whether nobody waits for such a lease to end. */
  readonly calm: boolean
  /** Those that the pool's templates name. */
  readonly claims: Readonly<Record<string, string>>
}

/** Why nothing may leave by an egress, by name. */
export type Objections = Readonly<Record<string, string>>

/** What a pool that learns from traffic would say, until it says otherwise. */
export interface LearningState {
  readonly awaited: boolean
  readonly wayIn: LoginWay | null
  /** For a token request with a refresh token that nobody holds, or without any. */
  readonly anyWay: LoginWay | null
  /** Digest of a refresh token that is held → the way of who holds it. */
  readonly holders: Readonly<Record<string, LoginWay>>
}

export type PackedWant = Omit<LeaseRequest, 'exclude'> & { readonly exclude?: readonly string[] }

export type PackedError = readonly [
  code: WireCode,
  message: string,
  retryAfterMs?: number | undefined,
  passedOver?: PassedOver | undefined,
]

/** Whether a request wants nothing in particular: the common case. */
export function isPlain(want: LeaseRequest): boolean {
  for (const key in want) if (want[key as keyof LeaseRequest] !== undefined) return false
  return true
}

/** Null for a plain request. */
export function packWant(want: LeaseRequest): PackedWant | null {
  if (isPlain(want)) return null
  const { exclude, ...rest } = want
  return exclude ? { ...rest, exclude: [...exclude] } : rest
}

const NOTHING: LeaseRequest = {}

export function unpackWant(packed: PackedWant | null): LeaseRequest {
  if (!packed) return NOTHING
  const { exclude, ...rest } = packed
  return exclude ? { ...rest, exclude: new Set(exclude) } : rest
}

export function packError(error: WireError): PackedError {
  return [error.code, error.message, error.retryAfterMs, error.passedOver]
}

export function unpackError([code, message, retryAfterMs, passedOver]: PackedError): WireError {
  // JSON has written null for what was undefined.
  return new WireError(code, message, {
    retryAfterMs: retryAfterMs ?? undefined,
    passedOver: passedOver ?? undefined,
  })
}

const SECRET = '$secret'

/** JSON in which secrets are told in full: for the pipe alone. */
export function pack(value: unknown): string {
  // `toJSON` has run before a replacer sees a value: the holder still has the secret itself.
  return JSON.stringify(value, function (this: Record<string, unknown>, key, each) {
    const raw = this[key]
    return raw instanceof Secret ? { [SECRET]: raw.reveal() } : each
  })
}

/** What `pack` was given; who asks says what that was. */
export function unpack<T>(text: string): T {
  return JSON.parse(text, (_key, value) => {
    const secret = value?.[SECRET]
    return typeof secret === 'string' ? new Secret(secret) : value
  }) as T
}
