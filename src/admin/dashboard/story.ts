import { bytes, milliseconds } from './format.ts'
import type { Attempt, Trace } from './model.ts'

const REASONS: Readonly<Record<string, string>> = {
  expired: 'the token was refused as expired',
  limited: 'upstream limits this token',
  denied: 'the token lacks a scope',
  upstream: 'upstream failed',
  nonce: 'a new proof of possession was asked for',
  EGRESS_DOWN: 'the egress could not be reached, nothing was sent',
  UPSTREAM_UNREACHABLE: 'upstream could not be reached',
  UPSTREAM_TLS: 'TLS with upstream failed',
  UPSTREAM_RESET: 'upstream broke the connection off',
  UPSTREAM_TIMEOUT: 'upstream took too long',
}

/** What happened to one request, a sentence each, in order. */
export function storyOf(trace: Trace): string[] {
  if (trace.kind === 'refresh') return refreshStory(trace)
  const sentences = [begin(trace)]
  for (const { credential, why } of trace.skipped) {
    sentences.push(`${credential} was passed over: ${why}.`)
  }
  if (trace.skippedMore) sentences.push(`So were ${trace.skippedMore} more.`)
  if (trace.waitMs > 0) sentences.push(`It waited ${milliseconds(trace.waitMs)} for a token.`)
  const { refresh, replay } = trace
  let told = refresh === undefined
  for (const [index, attempt] of trace.attempts.entries()) {
    sentences.push(attemptSentence(attempt, index))
    if (refresh && !told && attempt.verdict === 'expired') {
      told = true
      sentences.push(refreshSentence(refresh))
    }
  }
  if (refresh && !told) sentences.push(refreshSentence(refresh))
  if (replay)
    sentences.push(`${replay.done ? 'It was replayed' : 'It was not replayed'}: ${replay.why}.`)
  if (trace.error) sentences.push(`${trace.error.code}: ${trace.error.message}.`)
  sentences.push(finish(trace))
  return sentences
}

function begin({ client, method, url, kind }: Trace): string {
  const who = client.name ? `${client.name} (${client.address})` : client.address
  const host = hostOf(url)
  if (kind === 'tunnel') return `${who} opened a tunnel to ${host}; it was passed on unread.`
  if (kind === 'denied') return `${who} asked for ${method} on ${host}, and was refused.`
  if (kind === 'lease') return `${who} took a token to use by itself for ${host}.`
  if (kind === 'websocket') return `${who} opened a WebSocket to ${host}.`
  return `${who} asked for ${method} on ${host}.`
}

function attemptSentence(attempt: Attempt, index: number): string {
  const { credential, generation, egress, status, verdict, totalMs } = attempt
  const again = index === 0 ? '' : 'again '
  const token = credential
    ? `with the token of ${credential} (generation ${generation ?? '?'})`
    : 'without a token'
  const answer = status === null ? 'got no answer' : `got ${status}`
  const why = verdict === 'ok' ? '' : `: ${REASONS[verdict] ?? verdict}`
  return `It went out ${again}${token} by ${egress} and ${answer} after ${milliseconds(totalMs)}${why}.`
}

function refreshSentence({ role, ms, result }: NonNullable<Trace['refresh']>): string {
  const what =
    role === 'led' ? 'It had the token renewed' : 'It joined a renewal that was under way'
  return `${what}: ${result} after ${milliseconds(ms)}.`
}

function finish({ status, verdict, durationMs, bytes: size }: Trace): string {
  if (verdict === 'aborted') return `The client left after ${milliseconds(durationMs)}.`
  const got = status === null ? 'no answer' : `${status} with ${bytes(size.out)}`
  return `The client got ${got}, ${milliseconds(durationMs)} after it had asked.`
}

function refreshStory({ attempts, verdict, durationMs, error }: Trace): string[] {
  const calls = attempts.map(
    ({ status, totalMs, egress }) =>
      `The issuer was asked by ${egress} and answered ${status ?? 'nothing'} after ${milliseconds(totalMs)}.`,
  )
  const why = error ? ` (${error.message})` : ''
  return [...calls, `The renewal ended with ${verdict}${why}, after ${milliseconds(durationMs)}.`]
}

function hostOf(url: string): string {
  return /^[a-z]+:\/\/([^/?#]+)/i.exec(url)?.[1] ?? url
}
