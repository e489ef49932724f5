import { execFileSync } from 'node:child_process'
import { afterAll, expect, test } from 'vitest'
import { credentialRecord, StoreFolder } from '../support/store-folder.ts'
import { CompiledStore } from '../support/store-process.ts'

const compiled = new CompiledStore()
afterAll(() => compiled[Symbol.asyncDispose]())

test('refuses a file that another process holds, until that process is killed', async () => {
  await using folder = new StoreFolder()
  await using holder = compiled.start(folder.url, 'serve')
  expect(await holder.line()).toBe('open')
  await expect(folder.open()).rejects.toMatchObject({ code: 'STORE_IN_USE' })
  await using second = compiled.start(folder.url, 'serve')
  expect(await second.line()).toMatch(/^refused STORE_IN_USE .*cupbearer\.db/)
  expect(await holder.ask('save 1')).toBe('done')
  await holder.kill()
  expect((await (await folder.open()).read('pool', 'a'))?.generation).toBe(1)
})

test('keeps other processes out after a refused second opening in its own', async () => {
  await using folder = new StoreFolder()
  const store = await folder.open()
  await store.save('pool', 'a', credentialRecord(1))
  // POSIX locks end when any descriptor of the file is closed: a refused opening must not read it.
  await expect(folder.open()).rejects.toMatchObject({ code: 'STORE_IN_USE' })
  await using other = compiled.start(folder.url, 'serve')
  expect(await other.line()).toMatch(/^refused STORE_IN_USE /)
})

test('says that a write failed and works again once the disk does', async () => {
  await using folder = new StoreFolder()
  await using child = compiled.start(folder.url, 'serve')
  expect(await child.line()).toBe('open')
  expect(await child.ask('save 1')).toBe('done')
  // No file may grow: what a full disk does, for one process.
  const limit = (size: string) =>
    execFileSync('prlimit', ['--pid', `${child.pid}`, `--fsize=${size}:`])
  limit('1')
  const failed =
    /^failed STORE_FAILED .*cupbearer\.db cannot be read or written \(SQLITE_[A-Z_]+\)$/
  expect(await child.ask('save 2')).toMatch(failed)
  expect(await child.ask('use 2')).toMatch(failed)
  limit('unlimited')
  expect(await child.ask('use 3')).toBe('done')
  expect(await child.ask('save 3')).toBe('done')
  await child.kill()
  const entry = (await (await folder.open()).load('pool')).get('a')
  expect(entry).toMatchObject({ record: { generation: 3 }, usage: { uses: 3 } })
})

test('loses nothing that it called saved in 32 kills at random points', async () => {
  await using folder = new StoreFolder()
  let saved = 0
  let used = 0
  for (let kill = 0; kill < 32; kill++) {
    await using child = compiled.start(folder.url, 'rotate')
    const lines: string[] = []
    // From the midst of opening to some sixty rotations in.
    const until = Math.floor(Math.random() * 120) * (kill % 8 === 0 ? 0 : 1)
    while (lines.length < until) {
      const line = await child.line()
      if (line === undefined) break
      lines.push(line)
    }
    if (until === 0) await new Promise((done) => setTimeout(done, Math.random() * 250))
    lines.push(...(await child.kill()))
    expect(lines.filter((line) => /^(refused|failed)/.test(line))).toEqual([])
    for (const line of lines) {
      const [verb, number] = line.split(' ')
      if (verb === 'saved') saved = Math.max(saved, Number(number))
      if (verb === 'used') used = Math.max(used, Number(number))
    }
    const store = await folder.open()
    const entry = (await store.load('pool')).get('a')
    await store.close()
    const generation = entry?.record.generation ?? 0
    expect(generation).toBeGreaterThanOrEqual(saved)
    if (entry) {
      expect(entry.record.refreshToken?.reveal()).toBe(`refresh-${generation}`)
      expect(entry.usage?.uses).toBeGreaterThanOrEqual(used)
    }
  }
  expect(saved).toBeGreaterThan(100)
}, 120_000)
