import { join } from 'node:path'
import { afterAll, expect, test } from 'vitest'
import { StoreFolder } from '../support/store-folder.ts'
import { CompiledStore } from '../support/store-process.ts'
import { straced } from '../support/strace.ts'
import { expectOnPage, type Row } from './table.ts'

/** Every system call by which a store, its key and its log change on the disk. */
const CALLS = ['pwrite64', 'fsync', 'fdatasync', 'ftruncate', 'rename', 'unlink']
const SCRIPT = join(import.meta.dirname, '../support/store-child.mjs')
/** A new store; then a first commit, a second, a use, and one more after whatever went wrong. */
const JOB = 'save 1\nsave 2\nuse 2\nsave 3\n'

const compiled = new CompiledStore()
afterAll(() => compiled[Symbol.asyncDispose]())

interface Fault {
  readonly call: string
  readonly at: number
  /** As strace spells it; undefined kills. */
  readonly error?: string
}

interface Outcome {
  /** The last generation that the process called saved. */
  readonly said: number
  /** The generation that a new process finds. */
  readonly found: number
  readonly failed: number
  readonly refused: boolean
}

async function run({ call, at, error }: Fault): Promise<Outcome> {
  await using folder = new StoreFolder()
  const what = error === undefined ? 'signal=KILL' : `error=${error}`
  const args = [SCRIPT, compiled.source, folder.url, 'serve']
  const { lines } = await straced(args, JOB, CALLS, `${call}:${what}:when=${at}`)
  const told = lines.filter((line) => /^(refused|failed)/.test(line))
  for (const line of told) expect(line).toMatch(/^(refused|failed) STORE_FAILED /)
  const refused = lines.some((line) => line.startsWith('refused'))
  const answers = lines.filter((line) => /^(done|failed)/.test(line))
  // Answers come in the order of the commands; the third is a use.
  const generations = [1, 2, 0, 3]
  const saved = generations.filter((_, index) => answers[index] === 'done')
  const said = Math.max(0, ...saved)
  const store = await folder.open()
  const record = await store.read('pool', 'a')
  const found = record?.generation ?? 0
  expect(found, `after ${call} ${at} ${what}: ${lines}`).toBeGreaterThanOrEqual(said)
  if (record) expect(record.refreshToken?.reveal()).toBe(`refresh-${found}`)
  await store.save('pool', 'a', { ...(record ?? blank()), generation: 4 })
  const failed = answers.filter((answer) => answer !== 'done').length
  // One failed call fails one write at most: what comes after it is stored.
  expect(failed).toBeLessThanOrEqual(1)
  return { said, found, failed, refused }
}

function blank() {
  return { fingerprint: 'f', egress: 'direct', token: undefined, refreshToken: undefined }
}

/** Two at a time: one for each core. */
async function all(faults: readonly Fault[]): Promise<Outcome[]> {
  const left = [...faults.entries()]
  const outcomes: Outcome[] = []
  const lane = async () => {
    for (let next = left.shift(); next; next = left.shift()) outcomes[next[0]] = await run(next[1])
  }
  await Promise.all([lane(), lane()])
  return outcomes
}

async function points(): Promise<Fault[]> {
  await using folder = new StoreFolder()
  const args = [SCRIPT, compiled.source, folder.url, 'serve']
  const { lines, calls } = await straced(args, JOB, CALLS)
  expect(lines).toEqual(['open', 'done', 'done', 'done', 'done'])
  const each = ([call, count]: [string, number]) =>
    Array.from({ length: count }, (_, index) => ({ call, at: index + 1 }))
  return [...calls].flatMap(each)
}

test('a store that is killed or refused at any system call of its life loses nothing that it called saved', async () => {
  const at = await points()
  expect(at.length).toBeGreaterThan(50)
  const on = (call: RegExp, error: string) =>
    at.filter((fault) => call.test(fault.call)).map((fault) => ({ ...fault, error }))
  const cases: [string, Fault[]][] = [
    ['`kill -9` at each system call, from making the file to closing it', at],
    ['the disk is full (`ENOSPC`), at each write', on(/pwrite/, 'ENOSPC')],
    ['the disk fails (`EIO`), at each sync', on(/sync/, 'EIO')],
  ]
  const rows: Row[] = []
  for (const [name, faults] of cases) {
    const outcomes = await all(faults)
    expect(outcomes.some(({ said }) => said > 0)).toBe(true)
    const stopped = name.startsWith('`kill')
    if (!stopped) {
      expect(outcomes.some(({ failed }) => failed > 0)).toBe(true)
      expect(outcomes.some(({ refused }) => refused)).toBe(true)
    }
    const seen = stopped
      ? 'every record that was called saved is there, with its refresh token'
      : 'start is refused, or that save fails with `STORE_FAILED`; the next save is stored'
    rows.push([name, seen, 'opens and works'])
  }
  expectOnPage('store calls', ['fault', 'what is seen', 'the store afterwards'], rows)
}, 300_000)
