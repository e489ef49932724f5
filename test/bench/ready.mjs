/** Tells the runner, in one line, that this process listens; it ends when the runner does. */
export function ready(message) {
  process.stdin.on('end', () => process.exit(0)).resume()
  process.stdout.write(`${JSON.stringify({ ...message, pid: process.pid })}\n`)
}
