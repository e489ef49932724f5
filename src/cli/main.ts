#!/usr/bin/env node
import './signals.ts'
import { reportError } from './command.ts'
import { plainStart, runStart } from './start.ts'

process.on('uncaughtException', (error) => process.exit(reportError(error)))
// A reader that has seen enough, as in `cupbearer trace | head`, is no failure.
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code !== 'EPIPE') throw error
})

const plain = plainStart(process.argv.slice(2))
if (plain) await runStart(plain)
else {
  const { runCommandLine } = await import('./command-line.ts')
  await runCommandLine()
}
