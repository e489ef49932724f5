/** What a worker process runs: see `member.ts`, which starts it. */
import { Socket } from 'node:net'
import { PIPE_FD } from './member.ts'
import { Worker } from './worker.ts'

// A handler in the place of Node's own, which opens the inspector.
process.on('SIGUSR1', () => {})
// These reach every process of a terminal or a service; the primary says what becomes of them.
for (const signal of ['SIGTERM', 'SIGINT', 'SIGHUP'] as const) process.on(signal, () => {})

const pipe = new Socket({ fd: PIPE_FD, readable: true, writable: true })
const worker = new Worker(pipe, (code) => process.exit(code))

process.on('message', (_message, socket) => worker.take(socket as Socket | undefined))
process.once('disconnect', () => process.exit(1))
const broken = async (error: unknown) => {
  await worker.broken(error)
  process.exit(1)
}
process.once('uncaughtException', broken)
process.once('unhandledRejection', broken)
