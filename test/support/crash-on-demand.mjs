// Loaded before the program by `node --import`: stands in for a library that fails and quotes a secret.
const { QUOTED_SECRET: secret, REPORT_FILE: file } = process.env
delete process.env.QUOTED_SECRET
const at = process.env.CRASH_SIGNAL ?? 'SIGUSR2'
process.on(at, () => {
  const error = new TypeError(`cannot read the answer: Authorization: Bearer ${secret}`)
  error.headers = { authorization: `Bearer ${secret}` }
  throw error
})
process.on('SIGPWR', () => {
  process.report.writeReport(file)
})
