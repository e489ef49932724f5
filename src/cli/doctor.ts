import { ConfigError } from '../errors.ts'
import { type Command, EXIT, print } from './command.ts'
import type { Finding, Severity } from './doctor/finding.ts'
import { plain } from './table.ts'

/** `doctor`: looks at everything that has to be right, and says how to mend what is not. */
export const doctor: Command = (cli) =>
  cli.command(
    'doctor',
    'look at everything that has to be right, and say how to mend what is not',
    (command) =>
      command
        .option('json', { type: 'boolean', default: false, describe: 'answer in JSON' })
        .epilogue(
          'Looks at Node.js, configuration, CA, files, ports, the running proxy, each egress, each source, the clock, ' +
            'NO_PROXY and the clients on PATH. It logs in nowhere and spends no refresh token: hosts are reached by ' +
            'HEAD, and by the egress that is theirs. Exits with 1 when something fails, with 2 when the ' +
            'configuration is invalid.',
        )
        .example('$0 doctor', 'a line for each finding')
        .example(
          '$0 doctor --json',
          '{"ok": …, "findings": [{"check", "status", "message", "mend"}]}',
        ),
    async ({ config: file, json }) => {
      const { checkRuntime } = await import('./doctor/runtime.ts')
      const found = [checkRuntime(process.version, Date.now())]
      let invalid = false
      try {
        const { loadConfig } = await import('../config/load.ts')
        const config = await loadConfig(file)
        found.push({ check: 'config', status: 'ok', message: `${file} is valid` })
        const { examine } = await import('./doctor/report.ts')
        found.push(...(await examine(config, process.env)))
      } catch (error) {
        if (!(error instanceof ConfigError)) throw error
        invalid = true
        found.push(...error.issues.map(fromIssue))
      }
      const failed = found.some(({ status }) => status === 'fail')
      if (json) print(JSON.stringify({ ok: !failed, findings: found }))
      else show(found)
      if (failed) process.exitCode = invalid ? EXIT.usage : EXIT.failed
    },
  )

const fromIssue = ({ path, message }: ConfigError['issues'][number]): Finding => ({
  check: 'config',
  status: 'fail',
  message: `${path || '(file)'}: ${message}`,
  mend: 'docs/configuration.md explains every key',
})

const MARKS: Readonly<Record<Severity, string>> = { ok: 'ok  ', warn: 'warn', fail: 'FAIL' }

function show(found: readonly Finding[]): void {
  const width = Math.max(...found.map(({ check }) => check.length))
  for (const { check, status, message, mend } of found) {
    print(`${MARKS[status]}  ${check.padEnd(width)}  ${plain(message)}`)
    if (mend) print(`${' '.repeat(8 + width)}→ ${plain(mend)}`)
  }
  const count = (status: Severity) => found.filter((each) => each.status === status).length
  print(`\n${count('ok')} fine, ${count('warn')} to look at, ${count('fail')} failed`)
}
