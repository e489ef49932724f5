import { EventEmitter, once } from 'node:events'
import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { mkdir, rename, rm, symlink, writeFile } from 'node:fs/promises'
import { expect, test } from 'vitest'
import { watchConfig } from '../../src/config/watch.ts'
import { type Clock, systemClock } from '../../src/lib/clock.ts'
import { Folder } from './folder.ts'

/** Counts the calls of a watch and lets a test wait for the next one. */
function watched(file: string) {
  const calls = new EventEmitter()
  let count = 0
  const close = watchConfig(
    file,
    () => {
      count++
      calls.emit('change')
    },
    { settleMs: 15 },
  )
  return {
    next: () => once(calls, 'change'),
    get count() {
      return count
    },
    close,
    [Symbol.dispose]: close,
  }
}

/** How many folders the process watches. */
function inotifyWatches(): number {
  return readdirSync('/proc/self/fd')
    .map((fd) => (existsSync(`/proc/self/fdinfo/${fd}`) ? `/proc/self/fdinfo/${fd}` : ''))
    .map((info) => (info ? readFileSync(info, 'utf8').split('inotify wd:').length - 1 : 0))
    .reduce((sum, count) => sum + count, 0)
}

test('tells of a file written in place, and then of one put in its place', async () => {
  await using folder = await Folder.create()
  const file = await folder.write('config.json', '{}')
  using watch = watched(file)
  const written = watch.next()
  writeFileSync(file, '{ }')
  await written
  const replaced = watch.next()
  await writeFile(folder.at('new'), '{  }')
  await rename(folder.at('new'), file)
  await replaced
  expect(watch.count).toBe(2)
})

test('tells of a file whose symbolic link is swapped, as a mounted ConfigMap does', async () => {
  await using folder = await Folder.create()
  await mkdir(folder.at('v1'))
  await mkdir(folder.at('v2'))
  await folder.write('v1/config.json', '{}')
  await folder.write('v2/config.json', '{ }')
  await symlink('v1', folder.at('..data'))
  await symlink('..data/config.json', folder.at('config.json'))
  using watch = watched(folder.at('config.json'))
  const changed = watch.next()
  await symlink('v2', folder.at('..next'))
  await rename(folder.at('..next'), folder.at('..data'))
  await changed
  expect(watch.count).toBe(1)
})

test('says nothing of other files, nor of a file that is gone until it is back', async () => {
  await using folder = await Folder.create()
  const file = await folder.write('config.json', '{}')
  using watch = watched(file)
  await folder.write('other.json', '{}')
  await rm(file)
  const back = watch.next()
  await folder.write('other.json', '{ }')
  await folder.write('config.json', '{ "listen": "0" }')
  await back
  expect(watch.count).toBe(1)
})

test('takes many writes in a row for one', async () => {
  await using folder = await Folder.create()
  const file = await folder.write('config.json', '{}')
  using watch = watched(file)
  const changed = watch.next()
  for (let i = 0; i < 20; i++) writeFileSync(file, ' '.repeat(i))
  await changed
  expect(watch.count).toBe(1)
})

test('waits until the file holds still', async () => {
  await using folder = await Folder.create()
  const file = await folder.write('config.json', '{}')
  const timers = new EventEmitter<{ set: [() => void] }>()
  let told = 0
  const clock: Clock = {
    ...systemClock,
    schedule(_delayMs, callback) {
      timers.emit('set', callback)
      return () => {}
    },
  }
  const close = watchConfig(file, () => told++, { clock })
  const nextTimer = async () => (await once(timers, 'set'))[0] as () => void
  const first = nextTimer()
  await writeFile(file, '{ "half')
  const second = nextTimer()
  const firstLook = await first
  firstLook()
  writeFileSync(file, '{ "half": "whole" }')
  const third = nextTimer()
  const secondLook = await second
  secondLook()
  expect(told).toBe(0)
  const thirdLook = await third
  thirdLook()
  expect(told).toBe(1)
  close()
})

test('holds nothing after its end', async () => {
  await using folder = await Folder.create()
  const file = await folder.write('config.json', '{}')
  const before = inotifyWatches()
  const open = watchConfig(file, () => {})
  expect(inotifyWatches()).toBe(before + 1)
  open()
  for (let i = 0; i < 20; i++) {
    const close = watchConfig(file, () => expect.unreachable())
    await writeFile(file, `${i}`)
    close()
  }
  expect(inotifyWatches()).toBe(before)
})

test('fails at once for a folder that is not there', () => {
  expect(() => watchConfig('/nowhere/config.json', () => {})).toThrow(/ENOENT/)
})
