import { setTimeout as delay } from 'node:timers/promises'
import { type Command, CommandError, EXIT, print } from './command.ts'
import { requireCurl } from './demo/curl.ts'
import type { Stage } from './demo/stage.ts'
import type { Say } from './demo/story.ts'
import type { Issue } from './demo/token-book.ts'

/** `demo`: the main job on this machine alone, judged by what the API and the token endpoint counted. */
export const demo: Command = (cli) =>
  cli.command(
    'demo',
    'show the main job with nothing external, in about 40 seconds',
    (command) =>
      command
        .option('stay', {
          type: 'boolean',
          default: false,
          describe: 'leave it running, with the dashboard to look at, until Ctrl-C',
        })
        .option('json', {
          type: 'boolean',
          default: false,
          describe: 'print one object at the end and nothing else',
        })
        .check(({ stay, json }) => {
          if (stay && json)
            throw new CommandError(EXIT.usage, '--stay and --json exclude each other')
          return true
        })
        .epilogue(
          'It starts an HTTPS API whose tokens live 15 seconds, two egress proxies on 127.0.0.2 and 127.0.0.3, ' +
            'and Cupbearer between them and curl. Everything is in a temporary folder that goes at the end.',
        )
        .example('$0 demo', 'exits with 0 when all of it worked, else with 1')
        .example('$0 demo --stay', 'then leaves the dashboard open to look at'),
    async (options) => {
      const stop = new AbortController()
      const onSignal = () => stop.abort()
      process.on('SIGINT', onSignal).on('SIGTERM', onSignal)
      try {
        process.exitCode = await run(options, stop.signal)
      } catch (error) {
        if (!stop.signal.aborted) throw error
        throw new CommandError(EXIT.failed, 'the demo was stopped before its end')
      } finally {
        process.off('SIGINT', onSignal).off('SIGTERM', onSignal)
      }
    },
  )

async function run(
  { stay, json }: { stay: boolean; json: boolean },
  signal: AbortSignal,
): Promise<number> {
  // Loaded when it is needed: `--help` answers without the proxy.
  const { buildStage } = await import('./demo/stage.ts')
  const { play } = await import('./demo/story.ts')
  const { judge, summarize } = await import('./demo/report.ts')
  await requireCurl(signal)

  const started = performance.now()
  const say: Say = json
    ? () => {}
    : (what) => print(`${((performance.now() - started) / 1000).toFixed(1).padStart(6)} s  ${what}`)
  const issues: Issue[] = []
  let observe = (issue: Issue) => void issues.push(issue)
  await using stage = await buildStage((issue) => observe(issue))
  if (!json) introduce(stage)
  for (const issue of issues) say(tell(issue))
  observe = (issue) => {
    issues.push(issue)
    say(tell(issue))
  }
  const facts = await play(stage, issues, say, signal)
  observe = () => {}
  const checks = judge(facts)
  const summary = summarize(facts, checks)
  if (json) print(JSON.stringify(summary))
  else {
    print('\nWhat happened, as the API, the token endpoint and the clients counted it:')
    for (const { ok, text } of checks) print(`  ${ok ? 'ok    ' : 'FAILED'}  ${text}`)
    print(summary.ok ? '\nAll of it worked.' : '\nNot all of it worked.')
  }
  if (stay) await linger(stage, signal)
  return summary.ok ? EXIT.fine : EXIT.failed
}

function tell({ account, occasion, leftMs, from }: Issue): string {
  const left = `${(leftMs / 1000).toFixed(1)} s`
  switch (occasion) {
    case 'first':
      return `${account} gets a first token, asked for from ${from}`
    case 'ahead':
      return `${account}'s token renewed ${left} before its end`
    case 'after-revocation':
      return `${account}'s token renewed after the 401`
    case 'late':
      return `${account}'s token renewed too late`
  }
}

function introduce({ app, apiUrl, book }: Stage): void {
  const accounts = book.accounts.map(({ id, egress, address }) => `${id} by ${egress} (${address})`)
  print(
    [
      'Cupbearer demo: about 40 seconds, all of it on this machine.',
      `  API        ${apiUrl}, its tokens live ${book.lifetimeMs / 1000} s`,
      `  accounts   ${accounts.join(', ')}`,
      `  proxy      ${app.proxyUrl}`,
      `  dashboard  ${app.adminUrl}`,
      '',
      `$ ${byHand(app.proxyUrl, app.caPath, apiUrl)}    # 8 times a second`,
      '',
    ].join('\n'),
  )
}

/** Keeps a little traffic going for the dashboard until Ctrl-C. */
async function linger(stage: Stage, signal: AbortSignal): Promise<void> {
  const { Clients } = await import('./demo/story.ts')
  const { app, apiUrl } = stage
  print(
    [
      '',
      'It goes on with a request a second until Ctrl-C.',
      `  dashboard  ${await stage.loginLink()}`,
      `  by hand    ${byHand(app.proxyUrl, app.caPath, apiUrl)}`,
    ].join('\n'),
  )
  const clients = new Clients(stage, signal)
  try {
    for (;;) {
      await delay(1000, undefined, { signal })
      await clients.fetchOrder()
    }
  } catch (error) {
    if (!signal.aborted) throw error
  }
}

const byHand = (proxy: string, ca: string, api: string): string =>
  `curl --proxy ${proxy} --cacert ${ca} ${api}/orders/1`
