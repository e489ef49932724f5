import { randomBytes } from 'node:crypto'
import { inspect } from 'node:util'
import { compactDecrypt } from 'jose'
import { expect, test } from 'vitest'
import { Sealer } from '../../src/store/seal.ts'

const owner = { pool: 'supplier', id: 'a' }

test('opens what it sealed', async () => {
  const sealer = await Sealer.create(randomBytes(32))
  for (const text of ['', 'secret', 'é🍷', 'x'.repeat(100_000)]) {
    expect(await sealer.open(owner, await sealer.seal(owner, text))).toBe(text)
  }
})

test('seals into a compact JWE that any library opens with the key', async () => {
  const key = randomBytes(32)
  const sealed = await (await Sealer.create(key)).seal(owner, 'secret')
  const { plaintext, protectedHeader } = await compactDecrypt(sealed, key)
  expect(Buffer.from(plaintext).toString()).toBe('secret')
  expect(protectedHeader).toMatchObject({ alg: 'dir', enc: 'A256GCM', ...owner })
})

test('never seals the same text to the same value', async () => {
  const sealer = await Sealer.create(randomBytes(32))
  expect(await sealer.seal(owner, 'secret')).not.toBe(await sealer.seal(owner, 'secret'))
})

test('refuses a value moved to another credential or pool', async () => {
  const sealer = await Sealer.create(randomBytes(32))
  const sealed = await sealer.seal(owner, 'secret')
  for (const other of [
    { pool: 'supplier', id: 'b' },
    { pool: 'other', id: 'a' },
  ]) {
    await expect(sealer.open(other, sealed)).rejects.toMatchObject({ code: 'STORE_CORRUPT' })
  }
})

test('tells another key from a damaged value', async () => {
  const sealer = await Sealer.create(randomBytes(32))
  const sealed = await sealer.seal(owner, 'secret')
  const stranger = await Sealer.create(randomBytes(32))
  await expect(stranger.open(owner, sealed)).rejects.toMatchObject({ code: 'STORE_KEY_WRONG' })
  const damaged = [
    '',
    'garbage',
    sealed.slice(0, -5),
    sealed.replace(/\.([^.]+)\.([^.]+)$/, '.AAAA$1.$2'),
    sealed.replace(/[^.]+$/, 'AAAAAAAAAAAAAAAAAAAAAA'),
  ]
  for (const value of damaged) {
    await expect(sealer.open(owner, value)).rejects.toMatchObject({ code: 'STORE_CORRUPT' })
  }
})

test('shows no key when it is printed', async () => {
  const key = randomBytes(32)
  const sealer = await Sealer.create(key)
  expect(inspect(sealer, { depth: 9, showHidden: true })).not.toContain(key.toString('base64'))
  expect(JSON.stringify(sealer)).toBe('{}')
})
