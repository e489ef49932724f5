import { randomBytes } from 'node:crypto'
import {
  chmodSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  statSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import Database from 'libsql'
import { expect, test } from 'vitest'
import { systemClock } from '../../src/lib/clock.ts'
import { Secret } from '../../src/lib/secret.ts'
import { openStore } from '../../src/store/open.ts'
import { credentialRecord, StoreFolder } from '../support/store-folder.ts'

const mode = (path: string) => statSync(path).mode & 0o777
const newKey = () => new Secret(randomBytes(32).toString('base64'))

/** Changes a closed store file with plain SQL. */
function edit(file: string, sql: string): void {
  const database = new Database(file)
  database.exec(sql)
  database.close()
}

/** Takes the files of an open store as a killed process would leave them: the log not yet in the file. */
async function crashed(from: StoreFolder): Promise<StoreFolder> {
  const folder = new StoreFolder()
  const store = await from.open()
  await store.save('pool', 'late', credentialRecord(7))
  for (const suffix of ['', '-wal', '.key']) {
    copyFileSync(`${from.file}${suffix}`, `${folder.file}${suffix}`)
  }
  await store.close()
  expect(statSync(`${folder.file}-wal`).size).toBeGreaterThan(0)
  return folder
}

async function filled(): Promise<StoreFolder> {
  const folder = new StoreFolder()
  const store = await folder.open()
  for (let n = 0; n < 40; n++) void store.save('pool', `id-${n}`, credentialRecord(n))
  await store.close()
  return folder
}

async function refusal(
  folder: StoreFolder,
  key?: Secret,
): Promise<{ code: string; message: string }> {
  const before = folder.contents()
  const error = await folder.open(key).then(
    () => undefined,
    (reason: unknown) => reason,
  )
  const after = folder.contents()
  // The lock's empty file is the only one that may come.
  before.set('cupbearer.db.lock', '')
  expect([...after.keys()]).toEqual([...before.keys()].sort())
  for (const [name, bytes] of before) expect(after.get(name) === bytes, name).toBe(true)
  expect(error).toBeInstanceOf(Error)
  return error as { code: string; message: string }
}

test('keeps credentials and usage over a restart', async () => {
  await using folder = new StoreFolder()
  const first = await folder.open()
  await first.save('pool', 'a', credentialRecord(3))
  first.saveUsage('pool', 'a', { windows: { '5/60000': [[1, 2]] }, uses: 4, generation: 3 })
  await first.close()
  const entry = (await (await folder.open()).load('pool')).get('a')
  expect(entry?.record.refreshToken?.reveal()).toBe('refresh-3')
  expect(entry?.usage).toStrictEqual({ windows: { '5/60000': [[1, 2]] }, uses: 4, generation: 3 })
})

test('finishes saves under way before it closes', async () => {
  await using folder = new StoreFolder()
  const store = await folder.open()
  const saves = Array.from({ length: 600 }, (_, n) =>
    store.save('pool', `id-${n}`, credentialRecord(n)),
  )
  await store.close()
  await Promise.all(saves)
  expect((await (await folder.open()).load('pool')).size).toBe(600)
})

test.each([0, 0o777])('is private to its owner under umask %i', async (umask) => {
  await using folder = new StoreFolder()
  const before = process.umask(umask)
  const file = join(folder.path, 'made', 'data', 'store.db')
  try {
    const store = await openStore(`file:${file}`, { key: undefined, clock: systemClock })
    await store.save('pool', 'a', credentialRecord(1))
    expect(mode(join(folder.path, 'made'))).toBe(0o700)
    expect(mode(join(folder.path, 'made', 'data'))).toBe(0o700)
    const names = readdirSync(join(folder.path, 'made', 'data')).sort()
    expect(names).toEqual(['store.db', 'store.db-wal', 'store.db.key', 'store.db.lock'])
    for (const name of names) expect(mode(join(folder.path, 'made', 'data', name))).toBe(0o600)
    await store.close()
  } finally {
    process.umask(before)
  }
})

test('takes back what others may read of an older store', async () => {
  await using folder = await filled()
  chmodSync(folder.file, 0o644)
  await folder.open()
  expect(mode(folder.file)).toBe(0o600)
})

test('writes no secret in the clear', async () => {
  await using folder = new StoreFolder()
  const canary = 'canary-7f3a9c'
  const store = await folder.open()
  const secret = new Secret(canary)
  const record = credentialRecord(1, {
    token: secret,
    refreshToken: secret,
    subject: canary,
    scopes: [canary],
    quarantine: { until: 1, failures: 1, reason: canary },
    revoked: { at: 1, reason: canary },
  })
  for (let n = 0; n < 20; n++) await store.save('pool', `id-${n}`, record)
  const open = [...folder.contents()]
  await store.close()
  const encoded = Buffer.from(canary).toString('base64url').slice(0, 16)
  for (const [name, bytes] of [...open, ...folder.contents()]) {
    expect(bytes.includes(canary), name).toBe(false)
    expect(bytes.includes(encoded), name).toBe(false)
  }
  // The search is worth something only where the other columns are found.
  expect(folder.contents().get('cupbearer.db')).toContain('id-19')
})

test('makes a key of its own for each store and uses it again', async () => {
  await using one = await filled()
  await using two = await filled()
  const [first, second] = [one, two].map(({ file }) => readFileSync(`${file}.key`, 'latin1'))
  expect(Buffer.from(first as string, 'base64')).toHaveLength(32)
  expect(first).not.toBe(second)
  expect((await (await one.open()).load('pool')).size).toBe(40)
})

test('takes a configured key and then makes no key file', async () => {
  await using folder = new StoreFolder()
  const key = newKey()
  const store = await folder.open(key)
  await store.save('pool', 'a', credentialRecord(1))
  await store.close()
  expect(existsSync(`${folder.file}.key`)).toBe(false)
  const again = await folder.open(new Secret(` ${key.reveal().replace('=', '')}\n`))
  expect((await again.read('pool', 'a'))?.generation).toBe(1)
})

test('refuses a configured key that is not 32 bytes, without showing it', async () => {
  await using folder = new StoreFolder()
  for (const bytes of [0, 16, 31, 33, 64]) {
    const text = `${randomBytes(bytes).toString('base64')}`
    const error = await refusal(folder, new Secret(text))
    expect(error.code).toBe('CONFIG_INVALID')
    expect(error.message).toContain('storeKey: expected 32 bytes in base64')
    if (text !== '') expect(error.message).not.toContain(text)
  }
})

test('refuses a key file that others may read', async () => {
  await using folder = await filled()
  for (const bits of [0o640, 0o604, 0o620]) {
    chmodSync(`${folder.file}.key`, bits)
    const error = await refusal(folder)
    expect(error.code).toBe('CONFIG_INVALID')
    expect(error.message).toContain(`${folder.file}.key is open to other users`)
    expect(error.message).toContain(`run chmod 600 '${folder.file}.key'`)
  }
})

test('refuses another key and changes nothing', async () => {
  await using folder = await filled()
  const error = await refusal(folder, newKey())
  expect(error.code).toBe('STORE_KEY_WRONG')
  expect(error.message).toContain(folder.file)
})

test('refuses a store whose key file is gone or damaged, and makes no new one', async () => {
  await using folder = await filled()
  writeFileSync(`${folder.file}.key`, 'half a key')
  expect((await refusal(folder)).code).toBe('STORE_KEY_WRONG')
  rmSync(`${folder.file}.key`)
  const error = await refusal(folder)
  expect(error.code).toBe('STORE_KEY_WRONG')
  expect(error.message).toContain(`${folder.file}.key is missing`)
})

test('recovers what a crash left in the log', async () => {
  await using folder = await filled()
  await using copy = await crashed(folder)
  const store = await copy.open()
  expect((await store.read('pool', 'late'))?.generation).toBe(7)
  expect((await store.load('pool')).size).toBe(41)
})

test('refuses another key after a crash without touching file or log', async () => {
  await using folder = await filled()
  await using copy = await crashed(folder)
  expect((await refusal(copy, newKey())).code).toBe('STORE_KEY_WRONG')
  expect((await (await copy.open()).read('pool', 'late'))?.generation).toBe(7)
})

const damages: [string, (file: string) => void][] = [
  ['text', (file) => writeFileSync(file, 'not a database\n'.repeat(500))],
  ['nothing', (file) => truncateSync(file, 0)],
  ['ten bytes', (file) => truncateSync(file, 10)],
  ['half of itself', (file) => truncateSync(file, 4096 * 4 + 100)],
  ['all but the last page', (file) => truncateSync(file, statSync(file).size - 4096)],
  ['overwritten pages', (file) => overwrite(file, 4096 * 3, randomBytes(4096 * 4))],
  ['an overwritten header', (file) => overwrite(file, 0, randomBytes(200))],
  ["another program's database", (file) => edit(file, 'PRAGMA application_id = 0')],
  ['no canary', (file) => edit(file, 'DELETE FROM canary')],
  ['a damaged canary', (file) => edit(file, "UPDATE canary SET sealed = sealed || 'A'")],
]

function overwrite(file: string, offset: number, bytes: Buffer): void {
  const whole = readFileSync(file)
  bytes.copy(whole, offset)
  writeFileSync(file, whole)
}

test.each(damages)('refuses a file that holds %s and changes nothing', async (_name, damage) => {
  await using folder = await filled()
  damage(folder.file)
  const error = await refusal(folder)
  expect(error.code).toBe('STORE_CORRUPT')
  expect(error.message).toContain(folder.file)
})

test('refuses a damaged file after a crash without touching file or log', async () => {
  await using folder = await filled()
  await using copy = await crashed(folder)
  writeFileSync(copy.file, randomBytes(20_000))
  expect((await refusal(copy)).code).toBe('STORE_CORRUPT')
})

test('refuses to start afresh beside the log of a store that is gone', async () => {
  await using folder = await filled()
  await using copy = await crashed(folder)
  rmSync(copy.file)
  expect((await refusal(copy)).code).toBe('STORE_CORRUPT')
})

test('refuses a store of a newer version', async () => {
  await using folder = await filled()
  edit(folder.file, 'PRAGMA user_version = 99')
  const error = await refusal(folder)
  expect(error.code).toBe('STORE_FAILED')
  expect(error.message).toContain('newer version of Cupbearer (schema 99')
})

test('refuses a sealed value that was moved to another row', async () => {
  await using folder = await filled()
  edit(
    folder.file,
    "UPDATE credentials SET sealed = (SELECT sealed FROM credentials WHERE id = 'id-1') WHERE id = 'id-2'",
  )
  const store = await folder.open()
  await expect(store.read('pool', 'id-2')).rejects.toMatchObject({ code: 'STORE_CORRUPT' })
  await expect(store.load('pool')).rejects.toMatchObject({ code: 'STORE_CORRUPT' })
  expect((await store.read('pool', 'id-1'))?.generation).toBe(1)
})

test('clears away what crashes left of a creation and of a check', async () => {
  await using folder = new StoreFolder()
  for (const name of ['.new', '.new-wal', '.key.new']) writeFileSync(folder.file + name, 'rest')
  await (await folder.open()).close()
  mkdirSync(`${folder.file}.check-abc`)
  await (await folder.open()).close()
  expect([...folder.contents().keys()]).toEqual([
    'cupbearer.db',
    'cupbearer.db.key',
    'cupbearer.db.lock',
  ])
})

test('refuses a second opening until the first is closed, under any name', async () => {
  await using folder = new StoreFolder()
  const link = join(folder.path, 'link.db')
  const first = await folder.open()
  symlinkSync(folder.file, link)
  for (const url of [folder.url, `file:${link}`]) {
    const opening = openStore(url, { key: undefined, clock: systemClock })
    await expect(opening).rejects.toMatchObject({
      code: 'STORE_IN_USE',
      message: expect.stringContaining(folder.file),
    })
  }
  await first.save('pool', 'a', credentialRecord(1))
  await first.close()
  expect((await (await folder.open()).read('pool', 'a'))?.generation).toBe(1)
})

test('names what it cannot open', async () => {
  await using folder = new StoreFolder()
  writeFileSync(join(folder.path, 'plain'), '')
  for (const path of [join(folder.path, 'plain', 'store.db'), folder.path]) {
    await expect(
      openStore(`file:${path}`, { key: undefined, clock: systemClock }),
    ).rejects.toMatchObject({ code: 'STORE_FAILED', message: expect.stringContaining(path) })
  }
  expect(existsSync(`${folder.path}.lock`)).toBe(false)
})

test('holds no file once closed or refused', async () => {
  await using folder = await filled()
  await using copy = await crashed(folder)
  await refusal(copy, newKey())
  await refusal(folder, newKey())
  await using broken = await filled()
  truncateSync(broken.file, 4096 * 4 + 100)
  await refusal(broken)
  const held = readdirSync('/proc/self/fd').map((descriptor) => {
    try {
      return readlinkSync(`/proc/self/fd/${descriptor}`)
    } catch {
      return ''
    }
  })
  expect(held.filter((path) => path.includes('cupbearer-store-'))).toEqual([])
})
