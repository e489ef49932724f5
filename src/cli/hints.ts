import type { OperatorCode, WireCode } from '../errors.ts'

/** What to do about each code, in one line; docs/errors.md has more. */
export const HINTS: Readonly<Record<WireCode | OperatorCode, string>> = {
  CLIENT_UNAUTHENTICATED:
    '`cupbearer run --client NAME` gives the proxy a name and password of `clients`',
  DESTINATION_DENIED:
    'add a target, an entry in passthrough.allow, or the pool to clients.NAME.pools',
  AUTHORITY_MISMATCH:
    'send one host in CONNECT, SNI and Host; a Host set by hand is the usual cause',
  BAD_REQUEST: 'mend the client; server.maxHeaderSize bounds the header of a request',
  EXPECTATION_FAILED: 'leave the field Expect out, or send 100-continue',
  POOL_EXHAUSTED: '`cupbearer token list` says what keeps each credential away',
  QUEUE_FULL:
    'send less at a time, add credentials, or raise queue.max; report leases that are done',
  NO_TOKEN_WITH_SCOPE: 'give a credential that scope, or mend `requires`',
  EGRESS_DOWN: '`cupbearer doctor` tries each egress',
  UPSTREAM_UNREACHABLE: '`cupbearer doctor` tries the targets by each egress',
  UPSTREAM_TLS: 'put a private CA into upstream.ca',
  UPSTREAM_RESET: 'the target closed the connection: repeat the request if it may be repeated',
  UPSTREAM_TIMEOUT:
    'raise connectTimeout, headersTimeout or bodyTimeout of upstream if that is right',
  METHOD_REFUSED: 'use another method: TRACE and TRACK would echo the token',
  TOO_MANY_ATTEMPTS: 'find the client with the wrong password, and wait for Retry-After',
  SHUTTING_DOWN: 'repeat it when the proxy is back',
  INTERNAL: 'the log has more, under the trace’s id; please report it',
  CONFIG_INVALID: 'docs/configuration.md explains every key',
  STORE_CORRUPT: 'put a backup back, or move the file away to start afresh with new logins',
  STORE_KEY_WRONG: 'set storeKey, or put back the key file that belongs to this store',
  STORE_IN_USE: 'another Cupbearer runs with this store; `cupbearer status` shows it',
  STORE_FAILED: 'see that its disk has room and that its files may be read and written',
  CA_INVALID: '`cupbearer ca rotate` makes a new CA',
  LISTEN_FAILED: 'choose another address, or port 0 for any free one',
  WORKER_FAILED: 'the log says why; `cupbearer start --workers 1` serves by one process',
  SOURCE_FAILED:
    '`cupbearer token refresh POOL/ID` tries again; `cupbearer doctor` reaches its host',
  SOURCE_REVOKED: '`cupbearer login POOL/ID`, or a new refresh token in the configuration',
}

/** The hint for a code that came over the wire. */
export const hintOf = (code: string): string | undefined =>
  Object.hasOwn(HINTS, code) ? HINTS[code as WireCode | OperatorCode] : undefined
