import {
  authorizationCodeGrant,
  buildAuthorizationUrl,
  calculatePKCECodeChallenge,
  genericGrantRequest,
  initiateDeviceAuthorization,
  randomPKCECodeVerifier,
  randomState,
  type TokenEndpointResponse,
} from 'openid-client'
import { SourceError } from '../errors.ts'
import type { Clock } from '../lib/clock.ts'
import { ownError } from './endpoint.ts'
import type { TokenRequest } from './oauth2-client.ts'
import type { ServerMetadata } from './oauth2-discovery.ts'
import type { LoginDialogue } from './source.ts'

/** A grant that takes a person. */
export type AskPerson = (
  request: TokenRequest,
  dialogue: LoginDialogue,
) => Promise<TokenEndpointResponse>

const DEVICE_GRANT = 'urn:ietf:params:oauth:grant-type:device_code'
/** RFC 8628 §3.5: where the server doesn't say, and by how much `slow_down` slows. */
const POLL_SECONDS = 5
const MAX_POLL_SECONDS = 60
const MAX_DEVICE_SECONDS = 1800
/** A network may be away for a moment while a person looks for their phone. */
const MAX_POLL_FAILURES = 5
const CODE_SECONDS = 600
const MAX_ANSWER_LENGTH = 16 * 1024
/** What is shown on a terminal, and opened in a browser. */
const PRINTABLE = /^[\x20-\x7e\xa0-\u{10ffff}]{1,2048}$/u

/** Device authorization (RFC 8628): the person enters a code anywhere, and the token endpoint is polled meanwhile. */
export const deviceLogin: AskPerson = async (request, dialogue) => {
  const { client, server, parameters, options, context } = request
  if (server.device_authorization_endpoint === undefined) {
    throw new SourceError('transient', 'the issuer names no device authorization endpoint')
  }
  const begun = await initiateDeviceAuthorization(client, new URLSearchParams(parameters))
  const complete = begun.verification_uri_complete
  const expiresInSeconds = Math.min(begun.expires_in, MAX_DEVICE_SECONDS)
  dialogue.tell({
    step: 'device',
    userCode: printable(begun.user_code, 'code'),
    verificationUri: webAddress(begun.verification_uri),
    verificationUriComplete: complete === undefined ? undefined : webAddress(complete),
    expiresInSeconds,
  })
  const end = context.clock.monotonic() + expiresInSeconds * 1000
  let seconds = Math.min(Math.max(begun.interval ?? POLL_SECONDS, 1), MAX_POLL_SECONDS)
  let trouble: unknown
  for (let failures = 0; ; ) {
    await pause(seconds * 1000, context.clock, context.signal)
    if (context.clock.monotonic() >= end) throw trouble ?? unconfirmed()
    try {
      const poll = new URLSearchParams({ device_code: begun.device_code })
      return await genericGrantRequest(client, DEVICE_GRANT, poll, options)
    } catch (error) {
      if (ownError(error)) {
        trouble = error
        failures += 1
        if (context.signal.aborted || failures > MAX_POLL_FAILURES) throw error
        seconds = Math.min(seconds * 2, MAX_POLL_SECONDS)
        continue
      }
      failures = 0
      trouble = undefined
      const word = (error as { error?: unknown }).error
      if (word === 'expired_token') throw unconfirmed()
      if (word === 'access_denied') throw refused(word)
      if (word === 'slow_down') seconds = Math.min(seconds + POLL_SECONDS, MAX_POLL_SECONDS)
      else if (word !== 'authorization_pending') throw error
    }
  }
}

/**
 * Authorization code (RFC 6749 §4.1) with PKCE (RFC 7636): the person's browser is sent away and comes back
 * with a code, to a listener of the command line or, where that cannot be reached, by copy and paste.
 */
export const codeLogin: AskPerson = async (request, dialogue) => {
  const { config, client, server, parameters, options, context } = request
  if (server.authorization_endpoint === undefined) {
    throw new SourceError('transient', 'the issuer names no authorization endpoint')
  }
  const redirectUri = redirectFor(config.redirectUri, dialogue.redirectUri)
  const verifier = randomPKCECodeVerifier()
  const state = randomState()
  const asked = new URLSearchParams(parameters)
  asked.set('redirect_uri', redirectUri)
  asked.set('state', state)
  asked.set('code_challenge', await calculatePKCECodeChallenge(verifier))
  asked.set('code_challenge_method', 'S256')
  // RFC 9449 §10: a stolen code is of no use without the key.
  if (options.DPoP) asked.set('dpop_jkt', await options.DPoP.calculateThumbprint())
  const url = webAddress(buildAuthorizationUrl(client, asked).href)
  dialogue.tell({ step: 'open', url, redirectUri, expiresInSeconds: CODE_SECONDS })

  const late = new AbortController()
  const cancel = context.clock.schedule(CODE_SECONDS * 1000, () => late.abort(unconfirmed()))
  const ended = endOf(AbortSignal.any([late.signal, context.signal]))
  try {
    for (;;) {
      const given = await Promise.race([dialogue.answer(), ended])
      const answer = readAnswer(given, state, server, config.issuer !== undefined)
      if (typeof answer === 'string') {
        dialogue.tell({ step: 'note', message: answer })
        continue
      }
      const current = new URL(redirectUri)
      current.search = answer.toString()
      // The scope was asked for before; here it would be unknown (RFC 6749 §4.1.3).
      const more = new URLSearchParams(parameters)
      more.delete('scope')
      const checks = { expectedState: state, pkceCodeVerifier: verifier }
      return await authorizationCodeGrant(client, current, checks, more, options)
    }
  } finally {
    cancel()
  }
}

/** Where the browser is sent back to: as registered; on the loopback any port will do (RFC 8252 §7.3). */
function redirectFor(registered: string | undefined, listener: string | undefined): string {
  const chosen = registered ?? listener
  if (chosen === undefined) {
    throw new SourceError('transient', 'there is no redirect URI; set redirectUri')
  }
  const url = new URL(chosen)
  if (listener !== undefined && url.port === '' && url.protocol === 'http:' && isLoopback(url)) {
    url.port = new URL(listener).port
  }
  return url.href
}

function isLoopback({ hostname }: URL): boolean {
  return hostname === 'localhost' || hostname === '[::1]' || hostname.startsWith('127.')
}

/**
 * What the person handed over, as an authorization response: the address that the browser ended at, or the code
 * alone. Text says why it is none of this login's; throws when it is a refusal.
 */
function readAnswer(
  given: string,
  state: string,
  server: ServerMetadata,
  issuerKnown: boolean,
): URLSearchParams | string {
  const text = given.trim()
  if (text === '' || text.length > MAX_ANSWER_LENGTH) return 'that is neither an address nor a code'
  const parameters = parametersOf(text)
  if (!parameters) {
    if (!/^[\x21-\x7e]+$/.test(text)) return 'that is neither an address nor a code'
    // Typed in by the person: PKCE still ties the code to this login.
    const typed = new URLSearchParams({ code: text, state })
    if (server.authorization_response_iss_parameter_supported) typed.set('iss', server.issuer)
    return typed
  }
  if (parameters.get('state') !== state) {
    return 'that address belongs to another login: open the link of this one'
  }
  // Without discovery the issuer has no name to compare with.
  if (!issuerKnown) parameters.delete('iss')
  else if (isMixedUp(parameters.get('iss'), server)) {
    throw new SourceError('transient', 'the answer came from another issuer than the one asked')
  }
  if (parameters.has('error')) throw refused(parameters.get('error'))
  return parameters
}

/** RFC 9207 §2.4. */
function isMixedUp(iss: string | null, server: ServerMetadata): boolean {
  if (iss === null) return server.authorization_response_iss_parameter_supported === true
  return iss !== server.issuer
}

function parametersOf(text: string): URLSearchParams | undefined {
  const query = URL.canParse(text) ? new URL(text).search : text
  const parameters = new URLSearchParams(query)
  return parameters.has('code') || parameters.has('error') ? parameters : undefined
}

function unconfirmed(): SourceError {
  return new SourceError('transient', 'nobody confirmed the login in time; start it again')
}

function refused(word: string | null): SourceError {
  const plain = word !== null && /^[a-z_]{1,40}$/.test(word) ? ` (${word})` : ''
  return new SourceError('transient', `the authorization server refused the login${plain}`)
}

function printable(text: string, what: string): string {
  if (PRINTABLE.test(text)) return text
  throw new SourceError('transient', `the authorization server gave no readable ${what}`)
}

function webAddress(text: string): string {
  if (URL.canParse(text) && /^https?:$/.test(new URL(text).protocol)) {
    return printable(new URL(text).href, 'address')
  }
  throw new SourceError('transient', 'the authorization server gave no address to open')
}

/** Waits; ends at once with the signal's reason. */
function pause(ms: number, clock: Clock, signal: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const stop = () => {
      cancel()
      reject(signal.reason)
    }
    const cancel = clock.schedule(ms, () => {
      signal.removeEventListener('abort', stop)
      resolve()
    })
    if (signal.aborted) stop()
    else signal.addEventListener('abort', stop, { once: true })
  })
}

/** Rejects with the signal's reason. */
function endOf(signal: AbortSignal): Promise<never> {
  return new Promise((_, reject) => {
    if (signal.aborted) reject(signal.reason)
    else signal.addEventListener('abort', () => reject(signal.reason), { once: true })
  })
}
