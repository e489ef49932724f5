// What a command for the source `exec` looks like: it prints one JSON object and ends with 0.
// This one signs its tokens itself; a real one would ask a vault, a cloud's own tool or a hardware key.
import { createHmac } from 'node:crypto'

const { ACCOUNT, ACCOUNT_KEY, CUPBEARER_REFRESH_TOKEN } = process.env
if (!ACCOUNT || !ACCOUNT_KEY) {
  process.stderr.write('ACCOUNT and ACCOUNT_KEY are needed\n')
  process.exit(1)
}
const round = Number(CUPBEARER_REFRESH_TOKEN ?? 0) + 1
const text = `${ACCOUNT}.${round}`
const signature = createHmac('sha256', ACCOUNT_KEY).update(text).digest('base64url')
process.stdout.write(
  JSON.stringify({ token: `${text}.${signature}`, refresh_token: `${round}`, expires_in: 900 }),
)
