import type { Duplex } from 'node:stream'
import type { Authority } from '../lib/authority.ts'
import type { Clock } from '../lib/clock.ts'
import type { Secret } from '../lib/secret.ts'
import type { TokenSet } from '../token/token.ts'

/** `fetch` that leaves by the credential's pinned egress; rejects with `SourceError('egress')` when that is down. */
export type PinnedFetch = (url: string | URL, init?: RequestInit) => Promise<Response>

/** A stream to a target by the credential's pinned egress; rejects with an error of ours, or the signal's reason. */
export type PinnedConnect = (target: Authority, signal: AbortSignal) => Promise<Duplex>

/** A credential's values for the templates of its source. */
export type SourceVars = Readonly<Record<string, Secret>>

export interface SourceContext {
  readonly fetch: PinnedFetch
  readonly clock: Clock
  /** Ends the try; sources pass it to whatever they wait for. */
  readonly signal: AbortSignal
  /** `pool/id` of the credential, to name it in a message. */
  readonly name?: string | undefined
  /** Whether the token of before still serves: a renewal that fails costs nothing yet. */
  readonly serving?: boolean | undefined
  /** For what speaks another protocol than `fetch`, or its own HTTP. */
  readonly connect?: PinnedConnect | undefined
  /** Name of the egress. */
  readonly egress?: string | undefined
  /** The header profile of the credential, `[name, value, …]`; `fetch` has it already. */
  readonly headers?: readonly string[] | undefined
  /** When the signal will end the try, monotonic ms. */
  readonly deadline?: number | undefined
  /** Bounds each request of a try that has no bound as a whole, ms. */
  readonly requestTimeoutMs?: number | undefined
}

/** What a person who logs in is shown; holds no secret but the user code. */
export type LoginStep =
  /** Go to an address anywhere and enter the code there (RFC 8628 §3.3). */
  | {
      readonly step: 'device'
      readonly userCode: string
      readonly verificationUri: string
      /** The same with the code in it, for a browser that can be opened. */
      readonly verificationUriComplete: string | undefined
      readonly expiresInSeconds: number
    }
  /** Open the address; the browser is then sent to `redirectUri`, and that is what is wanted back. */
  | {
      readonly step: 'open'
      readonly url: string
      readonly redirectUri: string
      readonly expiresInSeconds: number
    }
  | { readonly step: 'note'; readonly message: string }

/** The person at the other end of a login. */
export interface LoginDialogue {
  /** Where the person's browser can be sent to: a listener on the loopback of their machine, if there is one. */
  readonly redirectUri: string | undefined
  tell(step: LoginStep): void
  /** What the person hands over next: an address or a code. Never resolves when nothing more comes. */
  answer(): Promise<string>
}

/** Where in the traffic a token is found. */
export interface Learns {
  /** Whether the bearer token of a request that went well is taken. */
  readonly authorization: boolean
  /** Answers that hold a token. */
  readonly response?:
    | {
        /** Whether the answer to a request for this URL is one. */
        readonly covers: (url: string) => boolean
        readonly read: (document: unknown) => FoundToken | undefined
      }
    | undefined
}

/** A token as it stood in an answer, not looked into. */
export interface FoundToken {
  readonly token: string
  readonly refreshToken?: string | undefined
  /** As `readExpiry` takes it. */
  readonly expiresIn?: string | undefined
}

/**
 * One way of getting tokens. A source keeps no token: what it gave last comes back as `previous`, read from
 * the store, so that a restart changes nothing.
 */
export interface Source {
  /** Whether asking again can give another token; false for a static one. */
  readonly renewable: boolean
  /** What its tokens are learned from, where they come by in the traffic instead of being asked for. */
  readonly learns?: Learns
  /**
   * Gets a token. Throws `SourceError`; never leaks an endpoint's raw text into the message.
   * `previous.refreshToken` is what must be used, when there is one.
   */
  obtain(previous: TokenSet | undefined, context: SourceContext): Promise<TokenSet>
  /** Gets a token with the help of a person, who need not be fast; only where that is the way. Throws like `obtain`. */
  login?(dialogue: LoginDialogue, context: SourceContext): Promise<TokenSet>
  /** Calls back when a new token can be had (a watched file); returns the end of the watch. */
  watch?(changed: () => void): () => void
}
