import type { Events } from '../events.ts'
import type { Logger } from '../lib/log.ts'

/** Writes into the log what an operator wants to read there; requests are told by the traces. */
export function logEvents(events: Events, log: Logger): void {
  events.on('credential', ({ pool, credential, from, to, reason }) => {
    const level = to === 'revoked' ? 'error' : to === 'quarantined' ? 'warn' : 'debug'
    log[level]({ pool, credential, from, to, reason }, `credential is ${to}`)
  })
  events.on('refresh', ({ pool, credential, cause, result, generation, ms, reason }) => {
    const level = result === 'ok' ? 'info' : 'warn'
    log[level](
      { pool, credential, cause, generation, ms: Math.round(ms), reason },
      `refresh ${result}`,
    )
  })
  events.on('egress', ({ egress, up, reason }) => {
    log[up ? 'info' : 'warn']({ egress, reason }, `egress is ${up ? 'up' : 'down'}`)
  })
  events.on('address', ({ egress, address, previous, reason }) => {
    const drifted = address !== undefined && previous !== undefined
    const what = drifted ? 'has changed' : address ? 'was learned' : 'could not be learned'
    const level = address === undefined || drifted || reason ? 'warn' : 'info'
    log[level]({ egress, address, previous, reason }, `visible address of egress ${what}`)
  })
}
