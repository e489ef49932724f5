import { errors } from 'undici'
import { expect, test } from 'vitest'
import { toUpstreamError } from '../../src/egress/egress.ts'
import { UpstreamError } from '../../src/errors.ts'

const SECRET = 'eyJ-secret'

function coded(code: string): Error {
  return Object.assign(new Error(`${code} ${SECRET}`), { code })
}

const CODES: [Error, string][] = [
  [new errors.HeadersTimeoutError(), 'UPSTREAM_TIMEOUT'],
  [new errors.BodyTimeoutError(), 'UPSTREAM_TIMEOUT'],
  [new errors.ConnectTimeoutError(), 'UPSTREAM_TIMEOUT'],
  [coded('ETIMEDOUT'), 'UPSTREAM_TIMEOUT'],
  [coded('ECONNREFUSED'), 'UPSTREAM_UNREACHABLE'],
  [coded('ENOTFOUND'), 'UPSTREAM_UNREACHABLE'],
  [new errors.SocketError('other side closed'), 'UPSTREAM_RESET'],
  [coded('HPE_INVALID_CONSTANT'), 'UPSTREAM_RESET'],
  [new errors.HeadersOverflowError(), 'UPSTREAM_RESET'],
  [new errors.ResponseContentLengthMismatchError(), 'UPSTREAM_RESET'],
  [coded('ECONNRESET'), 'UPSTREAM_RESET'],
  [coded('EPIPE'), 'UPSTREAM_RESET'],
  [coded('ERR_SSL_TLSV13_ALERT_CERTIFICATE_REQUIRED'), 'UPSTREAM_TLS'],
  [new errors.InvalidArgumentError('invalid path'), 'BAD_REQUEST'],
  [new errors.RequestContentLengthMismatchError(), 'BAD_REQUEST'],
  [new Error(SECRET), 'INTERNAL'],
]

for (const [error, code] of CODES) {
  test(`maps ${error.name} ${'code' in error ? error.code : ''} to ${code}, without its text`, () => {
    for (const sent of [true, false]) {
      const failure = toUpstreamError(error, sent)
      expect(failure).toMatchObject({ code, sent, cause: error })
      expect(failure.message).not.toContain(SECRET)
      const wrapped = toUpstreamError(new TypeError('fetch failed', { cause: error }), sent)
      expect(wrapped).toMatchObject({ code, sent })
    }
  })
}

test('leaves an UpstreamError as it is', () => {
  const error = new UpstreamError('EGRESS_DOWN', 'down', { sent: false })
  expect(toUpstreamError(error, true)).toBe(error)
})
