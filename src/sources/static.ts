import type { StaticSourceConfig } from '../config/schema.ts'
import { readToken } from '../token/jwt.ts'
import type { Source } from './source.ts'

/** A token written in the configuration. */
export function staticSource(config: StaticSourceConfig): Source {
  return {
    renewable: false,
    async obtain(_previous, context) {
      return readToken(config.token.reveal(), {
        receivedAt: context.clock.now(),
        expiresAt: config.expiresAt === undefined ? undefined : Date.parse(config.expiresAt),
      })
    },
  }
}
