import { z } from 'zod'
import { object } from './values.ts'

/** As curl's `--pinnedpubkey` takes it. */
const pin = z
  .string()
  .regex(/^sha256\/\/[A-Za-z0-9+/]{43}=$/, 'expected sha256//BASE64, as curl --pinnedpubkey has it')

export const upstreamHosts = z
  .record(
    z.string(),
    object({
      insecure: z
        .boolean()
        .default(false)
        .describe('verify nothing of its certificate but a pin: whoever poses as it gets tokens'),
      pin: z.array(pin).default([]).describe('keys it may have (SPKI), as sha256//BASE64'),
    }),
  )
  .default({})
  .describe('host or host:port → what holds in TLS with it alone')

/** What to warn of wherever the configuration is looked at: hosts whose certificate nobody verifies. */
export function insecureNotices(upstream: { hosts: z.output<typeof upstreamHosts> }): string[] {
  return Object.entries(upstream.hosts)
    .filter(([, { insecure }]) => insecure)
    .map(([host, { pin }]) =>
      pin.length > 0
        ? `INSECURE: the certificate of ${host} is not verified, only its pinned key`
        : `INSECURE: the certificate of ${host} is not verified: whoever poses as it gets tokens`,
    )
}
