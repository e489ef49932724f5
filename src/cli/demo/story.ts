import { setTimeout as delay } from 'node:timers/promises'
import { callAdmin } from '../running.ts'
import type { PoolView } from '../status.ts'
import { type Answer, curl } from './curl.ts'
import type { Facts } from './report.ts'
import type { Stage } from './stage.ts'
import type { Issue } from './token-book.ts'

const DURATION_MS = 36_000
/** Two curls take turns, so that this rate holds on a slow machine too. */
const LANES = 2
const INTERVAL_MS = 125
const PROGRESS_MS = 10_000
/** When the token of one account is revoked, what its state must be then, and who is hit by it. */
const REVOKE_AFTER_MS = 16_000
const REVOKED = 'alice'
const SETTLED_MS = 2000
const POLL_MS = 100
const BURST = 6

/** Tells the time since the demo began, and what happened. */
export type Say = (what: string) => void

/** The client side of the demo: curl after curl, and what each of them got. */
export class Clients {
  readonly #stage: Stage
  readonly #signal: AbortSignal
  #next = 1
  readonly got = { sent: 0, ok: 0, unauthorized: 0, other: 0 }

  constructor(stage: Stage, signal: AbortSignal) {
    this.#stage = stage
    this.#signal = signal
  }

  /** One order, fetched by one curl. */
  async fetchOrder(headers: readonly string[] = []): Promise<Answer> {
    const { app, apiUrl } = this.#stage
    const answer = await curl(`${apiUrl}/orders/${this.#next++}`, {
      proxy: app.proxyUrl,
      caPath: app.caPath,
      headers,
      signal: this.#signal,
    })
    this.got.sent += 1
    if (answer.status === 200) this.got.ok += 1
    else if (answer.status === 401) this.got.unauthorized += 1
    else this.got.other += 1
    return answer
  }
}

/** Plays the demo to its end and gives what the servers counted. */
export async function play(
  stage: Stage,
  issues: readonly Issue[],
  say: Say,
  signal: AbortSignal,
): Promise<Facts> {
  const started = performance.now()
  const clients = new Clients(stage, signal)
  const first = JSON.parse((await clients.fetchOrder()).body || '{}') as Record<string, unknown>
  say(`first answer: ${JSON.stringify(first)}, and curl knew of no token`)
  const [revocation] = await Promise.all([
    revoke(stage, clients, issues, say, started, signal),
    report(clients, say, started, signal),
    ...Array.from({ length: LANES }, (_, lane) => loop(clients, lane, started, signal)),
  ])
  const { pools } = await callAdmin<{ pools: PoolView[] }>(stage.config, 'GET', '/api/pools')
  const { book, servers } = stage
  return {
    seconds: (performance.now() - started) / 1000,
    clients: clients.got,
    api: servers.count,
    endpoint: { calls: book.calls, issued: book.issued, reused: book.reused },
    issues,
    revocation,
    accounts: book.accounts.map(({ id, egress, address }) => ({
      id,
      egress,
      address,
      seenFrom: book.seenFrom(id),
    })),
    authOverhead: pools[0]?.authOverhead ?? Number.NaN,
  }
}

/** A steady pace: a lane that was held up catches up. */
async function loop(clients: Clients, lane: number, started: number, signal: AbortSignal) {
  for (let turn = lane; turn * INTERVAL_MS < DURATION_MS; turn += LANES) {
    await delay(Math.max(0, started + turn * INTERVAL_MS - performance.now()), undefined, {
      signal,
    })
    await clients.fetchOrder()
  }
}

async function report(clients: Clients, say: Say, started: number, signal: AbortSignal) {
  for (let at = PROGRESS_MS; at < DURATION_MS; at += PROGRESS_MS) {
    await delay(Math.max(0, started + at - performance.now()), undefined, { signal })
    const { sent, ok } = clients.got
    say(`${sent} requests so far, ${ok === sent ? 'all' : ok} answered 200`)
  }
}

/** The API drops a token that nobody could know to be dead, and several clients run into it at once. */
async function revoke(
  stage: Stage,
  clients: Clients,
  issues: readonly Issue[],
  say: Say,
  started: number,
  signal: AbortSignal,
): Promise<Facts['revocation']> {
  const { book, servers } = stage
  await delay(Math.max(0, started + REVOKE_AFTER_MS - performance.now()), undefined, { signal })
  // Far from a renewal of its own, so that what follows comes of the 401 alone.
  for (;;) {
    const { ageMs, leftMs } = book.current(REVOKED) ?? { ageMs: 0, leftMs: 0 }
    if (ageMs > SETTLED_MS && leftMs > book.lifetimeMs / 2) break
    await delay(POLL_MS, undefined, { signal })
  }
  const { refused, healed } = servers.count
  const before = { refused: refused.revoked, healed, issues: issues.length }
  book.revoke(REVOKED)
  say(`the API revokes ${REVOKED}'s token; ${BURST} requests want it at once`)
  const only = [`Cupbearer-Credential: ${REVOKED}`]
  const answers = await Promise.all(Array.from({ length: BURST }, () => clients.fetchOrder(only)))
  const counted = {
    refused: refused.revoked - before.refused,
    healed: servers.count.healed - before.healed,
    renewals: issues.slice(before.issues).filter(({ account }) => account === REVOKED).length,
    clients: answers.length,
    clientsOk: answers.filter(({ status }) => status === 200).length,
  }
  say(
    `${counted.refused} × 401 at the API, ${counted.renewals} renewal, ${counted.healed} replayed: ` +
      `${counted.clientsOk} × 200 at the clients`,
  )
  return counted
}
