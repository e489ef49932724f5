import type { Trace, TraceAttempt } from './trace.ts'

/** A request from its arrival to its end in plain words: what came of it first, then a sentence for each thing that happened. */
export function storyOf(trace: Trace): string[] {
  if (trace.kind === 'refresh') return refreshStory(trace)
  const lines = [`${trace.method} ${trace.url}`, outcome(trace), `  ${arrival(trace)}`]
  const waited = waiting(trace)
  if (waited) lines.push(`  ${waited}`)
  const { attempts, refresh } = trace
  // The renewal came after the attempt that was refused.
  const refused = attempts.findIndex((attempt) => attempt.verdict === 'expired')
  for (const [index, attempt] of attempts.entries()) {
    lines.push(`  ${attemptStory(trace, attempt, index)}`)
    if (refresh && index === Math.max(0, refused)) lines.push(`  ${renewal(refresh)}`)
  }
  if (refresh && attempts.length === 0) lines.push(`  ${renewal(refresh)}`)
  if (trace.replay && !trace.replay.done)
    lines.push(`  It was not sent again: ${trace.replay.why}.`)
  if (trace.error) lines.push(`  It ended with ${trace.error.code}: ${trace.error.message}.`)
  lines.push(
    `  ${bytes(trace.bytes.in)} came from the client, ${bytes(trace.bytes.out)} went back.`,
  )
  return lines
}

const ENDINGS: Readonly<Record<string, string>> = {
  ok: 'all went well',
  expired: 'upstream refused the token, and nothing could heal that',
  limited: 'upstream limits the account',
  denied: 'the token lacks a scope',
  upstream: 'upstream answered for itself',
  aborted: 'the client left before the end',
  tunnel: 'a tunnel that nobody looked into',
  unreported: 'nobody told what came of it',
}

function outcome({ status, verdict, durationMs, kind }: Trace): string {
  const answer = status === null ? 'no answer' : String(status)
  const how = kind === 'websocket' && verdict === 'ok' ? 'a WebSocket' : ENDINGS[verdict]
  return `${answer} after ${duration(durationMs)}: ${how ?? verdict}`
}

function arrival({ time, client, protocol, pool, id }: Trace): string {
  const who = client.name ? `${client.name} at ${client.address}` : client.address || 'the proxy'
  const spoken = protocol === 'h2' ? ' by HTTP/2' : ''
  return `At ${time} it came from ${who}${spoken}${pool ? ` for pool ${pool}` : ''}; trace ${id}.`
}

function waiting({ waitMs, skipped, skippedMore }: Trace): string | undefined {
  const more = skippedMore ? `, and ${skippedMore} more` : ''
  const names = skipped.map(({ credential, why }) => `${credential} (${why})`).join(', ')
  const whom = names === '' ? '' : `${names}${more} could not be had`
  if (waitMs > 0) return `It waited ${duration(waitMs)} for a token${whom && `: ${whom}`}.`
  return whom ? `${whom}.` : undefined
}

function attemptStory(trace: Trace, attempt: TraceAttempt, index: number): string {
  const { credential, generation, egress, egressAddress, address, reused, protocol } = attempt
  const token = credential
    ? `with the token of ${credential} (generation ${generation ?? '?'})`
    : 'without a token'
  const seen = egressAddress ? ` (seen as ${egressAddress})` : ''
  const why = index > 0 && trace.replay?.done ? ` (${trace.replay.why})` : ''
  const begin = index === 0 ? 'It went out' : `It was sent again${why}`
  const where = address ? ` to ${address}` : ''
  const way = reused ? ' over a kept connection' : ''
  const spoken = protocol === 'h2' ? ' by HTTP/2' : ''
  const phases = [
    phase('DNS', attempt.dnsMs),
    phase('connect', attempt.connectMs),
    phase('TLS', attempt.tlsMs),
    phase('first byte after', attempt.firstByteMs),
    phase('all', attempt.totalMs),
  ].filter((each) => each !== undefined)
  return `${begin} ${token} by egress ${egress}${seen}${where}${way}${spoken}: ${answered(attempt)} (${phases.join(', ')}).`
}

function answered({ status, verdict, fault }: TraceAttempt): string {
  const words =
    verdict === 'ok' && (status ?? 0) < 400 ? '' : `, ${ENDING_OF_TRY[verdict] ?? verdict}`
  const blame = fault && verdict !== 'ok' ? `; to blame: the ${fault}` : ''
  return `${status ?? 'no answer'}${words}${blame}`
}

const ENDING_OF_TRY: Readonly<Record<string, string>> = {
  ok: 'which is for the client to judge',
  expired: 'the token has expired',
  limited: 'a limit is reached',
  denied: 'a scope is missing',
  upstream: 'upstream failed',
  nonce: 'upstream wants a nonce in the proof',
}

function renewal({ role, ms, result, trace, calls }: NonNullable<Trace['refresh']>): string {
  const asked = calls?.map(callStory).join(', then ')
  const which = trace ? `; trace ${trace}` : ''
  const began = role === 'led' ? 'Its token was renewed for it' : 'It joined a renewal under way'
  const wording: Readonly<Record<string, string>> = {
    renewed: 'a new token was there',
    failed: 'no new token was to be had',
    stale: 'a newer token was there already',
  }
  return `${began}: ${wording[result] ?? result} after ${duration(ms)}${asked ? ` (${asked})` : ''}${which}.`
}

function callStory(call: { method: string; url: string; status: number | undefined; ms: number }) {
  return `${call.method} ${call.url} answered ${call.status ?? 'nothing'} in ${duration(call.ms)}`
}

function refreshStory(trace: Trace): string[] {
  const [first] = trace.attempts
  const lines = [
    `Renewal of ${trace.pool}/${first?.credential ?? '?'} by egress ${first?.egress || '?'}`,
    `${trace.refresh?.result ?? trace.verdict} after ${duration(trace.durationMs)}`,
    `  At ${trace.time}; trace ${trace.id}.`,
  ]
  for (const { call, status, totalMs } of trace.attempts) {
    if (call) lines.push(`  ${callStory({ ...call, status: status ?? undefined, ms: totalMs })}.`)
  }
  if (trace.error) lines.push(`  ${trace.error.code}: ${trace.error.message}.`)
  return lines
}

const phase = (name: string, ms: number | null | undefined): string | undefined =>
  ms === null || ms === undefined ? undefined : `${name} ${duration(ms)}`

function duration(ms: number): string {
  if (ms >= 10_000) return `${(ms / 1000).toFixed(1)} s`
  return `${ms < 10 ? ms.toFixed(1) : Math.round(ms)} ms`
}

function bytes(count: number): string {
  if (count < 10_000) return `${count} bytes`
  return count < 1_000_000
    ? `${(count / 1000).toFixed(1)} kB`
    : `${(count / 1_000_000).toFixed(1)} MB`
}
