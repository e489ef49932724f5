import type { Config } from '../config/schema.ts'
import type { ToldTrace, Trace } from '../trace/recorder.ts'
import { storyOf } from '../trace/story.ts'
import { type Colours, coloursFor } from './colour.ts'
import { type Command, CommandError, EXIT, print, withConfig } from './command.ts'
import { eventsOf } from './events.ts'
import { hintOf } from './hints.ts'
import { callAdmin, openAdmin } from './running.ts'
import { milliseconds, plain, table } from './table.ts'
import { matcherOf, queryOf, type TraceOptions, withFilters } from './trace-filter.ts'

/** `trace`: the latest requests, those that come, or the story of one. */
export const trace: Command = (cli) =>
  cli.command(
    'trace [id]',
    'show the latest requests, or the story of one',
    (command) =>
      withFilters(command)
        .positional('id', {
          type: 'string',
          describe: 'the Cupbearer-Trace of a response; without it: a list',
        })
        .option('limit', { type: 'number', requiresArg: true, default: 20, describe: 'how many' })
        .option('follow', {
          alias: 'f',
          type: 'boolean',
          default: false,
          describe: 'go on with those that come, until Ctrl-C',
        })
        .option('curl', {
          type: 'boolean',
          default: false,
          describe: 'print the command that sends it again through the proxy; it holds no secret',
        })
        .option('json', {
          type: 'boolean',
          default: false,
          describe: 'answer in JSON; with --follow one document a line',
        })
        .check(({ limit, follow, curl, id }) => {
          if (!(limit >= 1)) throw new CommandError(EXIT.usage, '--limit takes a number from 1')
          if (follow && id !== undefined) {
            throw new CommandError(EXIT.usage, '--follow shows all requests, not one')
          }
          if (curl && id === undefined) throw new CommandError(EXIT.usage, '--curl takes an ID')
          return true
        })
        .example('$0 trace --pool supplier --status 401', 'the 401s that reached a client')
        .example('$0 trace hfwsy000002', 'what happened to that request')
        .example('$0 trace --follow --since 5m', 'the last five minutes, and what comes'),
    async ({ id, limit, follow, curl, json, ...options }) => {
      await withConfig(options.config, async (config) => {
        if (id !== undefined) return tell(config, id, { curl, json })
        if (follow) return followTraces(config, options, json)
        const query = queryOf(options, limit)
        const answer = await callAdmin<{ traces: Trace[] }>(config, 'GET', `/api/traces?${query}`)
        print(json ? JSON.stringify(answer) : renderList(answer.traces))
      })
    },
  )

async function tell(
  config: Config,
  id: string,
  { curl, json }: { curl: boolean; json: boolean },
): Promise<void> {
  const trace = await callAdmin<ToldTrace>(config, 'GET', `/api/traces/${encodeURIComponent(id)}`)
  if (!curl) {
    print(json ? JSON.stringify(trace) : storyOf(trace).map(plain).join('\n'))
    const hint = trace.error && hintOf(trace.error.code)
    if (hint && !json) print(`  hint: ${hint}`)
    return
  }
  if (!trace.curl) throw new CommandError(EXIT.failed, 'this was no request that curl could send')
  print(plain(trace.curl))
}

async function followTraces(config: Config, options: TraceOptions, json: boolean): Promise<void> {
  const matches = matcherOf(options)
  const colours = coloursFor(process.stdout)
  const show = (trace: Trace) => print(json ? JSON.stringify(trace) : renderLine(trace, colours))
  const abort = new AbortController()
  process.once('SIGINT', () => abort.abort())
  try {
    const stream = await openAdmin(config, '/api/events', abort.signal)
    // The stream has begun: what ends meanwhile stands in both, and is shown once.
    const shown = new Set<string>()
    if (options.since !== undefined) {
      const path = `/api/traces?${queryOf(options, 1_000_000)}`
      const { traces } = await callAdmin<{ traces: Trace[] }>(config, 'GET', path)
      for (const trace of traces.reverse()) {
        show(trace)
        shown.add(trace.id)
      }
    }
    for await (const trace of eventsOf<Trace>(stream, 'trace')) {
      if (!shown.delete(trace.id) && matches(trace)) show(trace)
    }
  } catch (error) {
    if (abort.signal.aborted) return
    if (error instanceof CommandError) throw error
    // What is left is the connection's: it broke off.
  }
  if (!abort.signal.aborted) throw new CommandError(EXIT.failed, 'the proxy has ended the stream')
}

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

/** One request in one line, for a list that grows: columns of a fixed width. */
function renderLine(trace: Trace, { good, bad, odd, faint, strong }: Colours): string {
  const { status, verdict, attempts } = trace
  const colour =
    verdict === 'ok' && (status ?? 0) < 400
      ? good
      : trace.kind === 'tunnel' || verdict === 'ok'
        ? odd
        : bad
  const who = [trace.pool, attempts.at(-1)?.credential].filter(Boolean).join('/') || '—'
  const again = attempts.length > 1 && trace.kind !== 'refresh' ? ` ×${attempts.length}` : ''
  return [
    faint(trace.time.slice(11, 23)),
    faint(trace.id),
    colour(String(status ?? '—').padEnd(3)),
    milliseconds(trace.durationMs).padStart(8),
    strong(plain(who).padEnd(24)),
    `${plain(trace.method)} ${plain(trace.url)}`,
    colour(`${plain(verdict)}${again}`),
  ].join('  ')
}
