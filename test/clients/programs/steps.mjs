// What the Node programs share: what they ask, and how they tell what came.
import { createHash } from 'node:crypto'

export const base = process.argv[2]
export const PAYLOAD = 'x'.repeat(100_000)

export const STEPS = [
  ['get', 'GET', '/get'],
  ['post', 'POST', '/echo'],
  ['big', 'GET', '/big'],
  ['keep-1', 'GET', '/keep/1'],
  ['keep-2', 'GET', '/keep/2'],
  ['healed', 'GET', '/healed'],
]

export function say(step, status, body) {
  const sha256 = createHash('sha256').update(body).digest('hex')
  console.log(JSON.stringify({ step, status, sha256 }))
}

/** Goes through the steps with `ask(method, url, body)`, which gives `[status, body]`. */
export async function go(ask) {
  for (const [step, method, path] of STEPS) {
    const [status, body] = await ask(method, base + path, method === 'POST' ? PAYLOAD : undefined)
    say(step, status, Buffer.from(body))
  }
}
