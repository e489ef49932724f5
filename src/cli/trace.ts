import type { Trace } from '../trace/recorder.ts'
import { type Command, CommandError, EXIT, print, withConfig } from './command.ts'
import { callAdmin } from './running.ts'
import { milliseconds, plain, table } from './table.ts'

/** `trace`: the latest requests, or the story of one. */
export const trace: Command = (cli) =>
  cli.command(
    'trace [id]',
    'show the latest requests, or the story of one',
    (command) =>
      command
        .positional('id', {
          type: 'string',
          describe: 'the Cupbearer-Trace of a response; without it: a list',
        })
        .option('pool', { type: 'string', requiresArg: true, describe: 'only of this pool' })
        .option('status', {
          type: 'number',
          requiresArg: true,
          describe: 'only with this HTTP status',
        })
        .option('credential', {
          type: 'string',
          requiresArg: true,
          describe: 'only those that tried this credential',
        })
        .option('limit', { type: 'number', requiresArg: true, default: 20, describe: 'how many' })
        .option('json', { type: 'boolean', default: false, describe: 'answer in JSON' })
        .check(({ status, limit }) => {
          if (Number.isNaN(status)) throw new CommandError(EXIT.usage, '--status takes a number')
          if (!(limit >= 1)) throw new CommandError(EXIT.usage, '--limit takes a number from 1')
          return true
        })
        .example('$0 trace --pool supplier --status 401', 'the 401s that reached a client')
        .example('$0 trace hfwsy000002', 'what happened to that request'),
    async ({ config: file, id, pool, status, credential, limit, json }) => {
      await withConfig(file, async (config) => {
        if (id !== undefined) {
          const path = `/api/traces/${encodeURIComponent(id)}`
          const story = await callAdmin<Trace>(config, 'GET', path)
          print(json ? JSON.stringify(story) : renderStory(story))
          return
        }
        const query = new URLSearchParams({ limit: String(limit) })
        if (pool !== undefined) query.set('pool', pool)
        if (status !== undefined) query.set('status', String(status))
        if (credential !== undefined) query.set('credential', credential)
        const answer = await callAdmin<{ traces: Trace[] }>(config, 'GET', `/api/traces?${query}`)
        print(json ? JSON.stringify(answer) : renderList(answer.traces))
      })
    },
  )

function renderList(traces: readonly Trace[]): string {
  if (traces.length === 0) return 'There is no such request.'
  return table(
    ['time', 'id', 'pool', 'credential', 'status', 'took', 'verdict', 'request'],
    traces.map((each) => [
      each.time.slice(11, 23),
      each.id,
      each.pool ?? '—',
      each.attempts.at(-1)?.credential ?? '—',
      String(each.status ?? '—'),
      milliseconds(each.durationMs),
      each.verdict,
      `${each.method} ${each.url}`,
    ]),
  )
}

/** One request from its arrival to its end, a line for each thing that happened. */
export function renderStory(story: Trace): string {
  const from = story.client.name
    ? `${story.client.name} at ${story.client.address}`
    : story.client.address
  const lines = [
    `${story.method} ${story.url}`,
    `${story.status ?? 'no answer'}, ${story.verdict}, in ${milliseconds(story.durationMs)}`,
    `  ${story.time}  from ${from}${story.pool ? `, pool ${story.pool}` : ''}, trace ${story.id}`,
  ]
  for (const { credential, why } of story.skipped) lines.push(`  passed over ${credential}: ${why}`)
  if (story.waitMs > 0) lines.push(`  waited ${milliseconds(story.waitMs)} for a token`)
  for (const [index, attempt] of story.attempts.entries()) {
    lines.push(`  attempt ${index + 1}: ${renderAttempt(attempt)}`)
  }
  if (story.refresh) {
    const { role, ms, result } = story.refresh
    lines.push(`  ${role} a refresh: ${result} after ${milliseconds(ms)}`)
  }
  if (story.replay) {
    lines.push(`  ${story.replay.done ? 'replayed' : 'not replayed'}: ${story.replay.why}`)
  }
  if (story.error) lines.push(`  ${story.error.code}: ${story.error.message}`)
  lines.push(`  ${story.bytes.in} bytes in, ${story.bytes.out} bytes out`)
  return lines.map(plain).join('\n')
}

function renderAttempt(attempt: Trace['attempts'][number]): string {
  const { credential, generation, egress, address, status, verdict } = attempt
  const phases = [
    attempt.reused ? 'kept connection' : undefined,
    phase('connect', attempt.connectMs),
    phase('TLS', attempt.tlsMs),
    phase('first byte', attempt.firstByteMs),
    phase('all', attempt.totalMs),
  ].filter(Boolean)
  const who = credential ? `${credential} #${generation ?? '?'}` : 'no token'
  const answer = status ? `${status} ${verdict}` : verdict
  return `${who} by ${egress}${address ? ` to ${address}` : ''}: ${answer} (${phases.join(', ')})`
}

const phase = (name: string, ms: number | null): string | undefined =>
  ms === null ? undefined : `${name} ${milliseconds(ms)}`
