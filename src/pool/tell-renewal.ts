import type { Events, RenewalCall } from '../events.ts'
import type { Clock } from '../lib/clock.ts'
import { nextTraceId } from '../lib/trace-id.ts'
import type { Credential } from './credential.ts'
import type { RefreshCause } from './refresher.ts'

/** Tells observers of a try to get a token; gives the trace id of its record, where it has one. */
export function tellRenewal(
  { clock, events, pool }: { clock: Clock; events: Events; pool: string },
  credential: Credential,
  cause: RefreshCause,
  result: 'ok' | 'failed' | 'revoked',
  started: number,
  reason: string | undefined,
  calls: readonly RenewalCall[],
): string | undefined {
  // Nobody was asked for a token that stands in the configuration: there is no story to tell.
  const given = !credential.source.renewable && result === 'ok'
  const id = given ? undefined : nextTraceId()
  events.emit('refresh', {
    time: clock.now(),
    pool,
    credential: credential.id,
    cause,
    result,
    generation: credential.generation,
    ms: clock.monotonic() - started,
    reason,
    id,
    egress: credential.settings.lane.name,
    calls,
  })
  return id
}
