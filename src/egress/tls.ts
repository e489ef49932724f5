import { createHash, X509Certificate } from 'node:crypto'
import { isIP, type Socket } from 'node:net'
import {
  checkServerIdentity,
  connect,
  createSecureContext,
  type PeerCertificate,
  rootCertificates,
  type SecureContext,
  type TLSSocket,
} from 'node:tls'
import type { UpstreamConfig } from '../config/schema.ts'
import type { ConfigIssue } from '../errors.ts'
import { formatAuthority, normalizeHost } from '../lib/authority.ts'

/** What holds for one host alone: `upstream.hosts`. */
export type HostRule = UpstreamConfig['hosts'][string]

/**
 * What may wait to be sent: with Node's own 16 KiB each record of a long body would stop its sender and start it
 * again. Node's types do not know the option, its documentation does.
 */
const HIGH_WATER = { highWaterMark: 128 * 1024 }

/** TLS sessions to resume, by `host:port`; one cache belongs to one credential on one egress. */
export class SessionCache {
  static readonly #MAX = 32
  readonly #sessions = new Map<string, Buffer>()

  get(authority: string): Buffer | undefined {
    return this.#sessions.get(authority)
  }

  set(authority: string, session: Buffer): void {
    this.#sessions.delete(authority)
    if (this.#sessions.size >= SessionCache.#MAX) {
      for (const oldest of this.#sessions.keys()) {
        this.#sessions.delete(oldest)
        break
      }
    }
    this.#sessions.set(authority, session)
  }
}

export interface HandshakeOptions {
  readonly signal: AbortSignal
  readonly sessions?: SessionCache | undefined
  /** Key into `sessions`. */
  readonly authority: string
  /** ALPN, in the order of preference; HTTP/1.1 alone by default. */
  readonly protocols?: readonly string[] | undefined
}

/** What tunnels, upgrades and the way to a proxy need. */
const HTTP1_ONLY = ['http/1.1']

/**
 * The client side of TLS for all that is dialled: TLS 1.2 or newer at security level 2, trust in the default
 * roots and the given ones, identity from the subject alternative names only (RFC 9525 §6.1).
 */
export class TlsClient {
  readonly #ca: readonly string[]
  readonly #hosts: ReadonlyMap<string, HostRule>
  /** Made once, by the first handshake: reading the roots takes 26 ms. */
  #context: SecureContext | undefined

  /** `ca`: further roots as PEM; `hosts`: by host or `host:port`. */
  constructor(ca: readonly string[], hosts: ReadonlyMap<string, HostRule> = new Map()) {
    this.#ca = ca
    this.#hosts = hosts
  }

  /** Speaks TLS over a connected socket, which it destroys on failure. Rejects with what TLS said. */
  handshake(socket: Socket, host: string, options: HandshakeOptions): Promise<TLSSocket> {
    const { signal, sessions, authority } = options
    if (signal.aborted) {
      socket.destroy()
      return Promise.reject(signal.reason)
    }
    return new Promise((resolve, reject) => {
      const session = sessions?.get(authority)
      const rule = this.#hosts.get(authority) ?? this.#hosts.get(host)
      const secured = connect({
        socket,
        host,
        // An address is no server name (RFC 6066 §3); it is verified all the same.
        ...(isIP(host) === 0 ? { servername: host } : {}),
        ...(session === undefined ? {} : { session }),
        secureContext: this.#secureContext(),
        ALPNProtocols: [...(options.protocols ?? HTTP1_ONLY)],
        rejectUnauthorized: !rule?.insecure,
        ...HIGH_WATER,
        checkServerIdentity: (_name, certificate) => checkIdentity(host, certificate),
      })
      const fail = (error: unknown) => {
        settle()
        secured.on('error', ignore).destroy()
        socket.destroy()
        reject(error)
      }
      const abort = () => fail(signal.reason)
      const closed = () => fail(new Error('the connection was closed within the handshake'))
      const settle = () => {
        signal.removeEventListener('abort', abort)
        secured.off('error', fail).off('close', closed).off('secureConnect', done)
      }
      // With TLS 1.2 the session comes before the peer has been verified: it is kept only after that.
      let offered: Buffer | undefined
      let verified = false
      const done = () => {
        // A session that is resumed was kept after its peer had shown the key.
        if (rule && !secured.isSessionReused() && !hasPinnedKey(rule, secured)) {
          const code = 'ERR_TLS_KEY_NOT_PINNED'
          return fail(Object.assign(new Error('its key is none of those pinned'), { code }))
        }
        verified = true
        settle()
        secured.on('error', ignore)
        if (offered) sessions?.set(authority, offered)
        resolve(secured)
      }
      if (sessions) {
        secured.on('session', (ticket: Buffer) => {
          if (verified) sessions.set(authority, ticket)
          else offered = ticket
        })
      }
      signal.addEventListener('abort', abort, { once: true })
      secured.on('error', fail).on('close', closed).on('secureConnect', done)
    })
  }

  #secureContext(): SecureContext {
    this.#context ??= createSecureContext({
      minVersion: 'TLSv1.2',
      ciphers: 'DEFAULT@SECLEVEL=2',
      // Without own roots, Node shares one store among all contexts.
      ...(this.#ca.length === 0 ? {} : { ca: [...rootCertificates, ...this.#ca] }),
    })
    return this.#context
  }
}

function ignore(): void {}

/** Whether the peer's key (its SPKI, RFC 7469 §2.4) is one of those pinned, where some are. */
function hasPinnedKey({ pin }: HostRule, socket: TLSSocket): boolean {
  if (pin.length === 0) return true
  const key = socket.getPeerX509Certificate()?.publicKey.export({ type: 'spki', format: 'der' })
  return (
    key !== undefined &&
    pin.includes(`sha256//${createHash('sha256').update(key).digest('base64')}`)
  )
}

/** `upstream.hosts` by normalised host, or `host:port`. */
export function readHostRules(
  hosts: UpstreamConfig['hosts'],
  issues: ConfigIssue[],
): Map<string, HostRule> {
  const rules = new Map<string, HostRule>()
  for (const [text, rule] of Object.entries(hosts)) {
    const [, hostText = '', port] = /^(\[.*\]|.*?)(?::(\d{1,5}))?$/.exec(text) ?? []
    const host = normalizeHost(hostText)
    if (host === undefined) {
      issues.push({
        path: `upstream.hosts.${text}`,
        message: 'expected a host or HOST:PORT, no pattern',
      })
      continue
    }
    rules.set(port === undefined ? host : formatAuthority({ host, port: Number(port) }), rule)
  }
  return rules
}

/** An alternative name with a wildcard that is not the whole first label. */
const ODD_WILDCARD = /^DNS:(?!\*\.[^*]*$).*\*/

/**
 * Node's own check without its fall-back to the common name (RFC 9525 §2, §6.1), and without wildcards for a part
 * of a label (§6.3).
 */
function checkIdentity(host: string, certificate: PeerCertificate): Error | undefined {
  const names = certificate.subjectaltname ?? ''
  return checkServerIdentity(host, {
    ...certificate,
    subjectaltname: names
      .split(', ')
      .filter((name) => !ODD_WILDCARD.test(name))
      .join(', '),
    subject: { ...certificate.subject, CN: '' },
  })
}

/** The certificates of a PEM bundle, each checked; throws when there is none or one is broken. */
export function readBundle(pem: string): string[] {
  const blocks = pem.match(/-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----/g) ?? []
  if (blocks.length === 0) throw new Error('no certificate')
  for (const block of blocks) new X509Certificate(block)
  return blocks
}
