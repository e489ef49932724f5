import { expect, test } from 'vitest'
import { plainStart } from '../../src/cli/start.ts'
import { Folder } from '../config/folder.ts'
import { begin, cupbearer, said } from './command-line.ts'

test.each([
  ['start', { config: 'config.json', json: false }],
  ['start --json', { config: 'config.json', json: true }],
  ['start --json --json', { config: 'config.json', json: true }],
  ['start -c other.json', { config: 'other.json', json: false }],
  ['start --json --config a/b.json', { config: 'a/b.json', json: true }],
  ['start --workers 4 --json', { config: 'config.json', json: true, workers: 4 }],
  ['start -c a.json --workers 0', { config: 'a.json', json: false, workers: 0 }],
])('%s is read without the parser of the command line', (line, options) => {
  expect(plainStart(line.split(' '))).toEqual(options)
})

test.each([
  '',
  'check',
  '--json start',
  '-c other.json start',
  'start --help',
  'start --version',
  'start more',
  'start --no-json',
  'start --json=false',
  'start --json false',
  'start --config=other.json',
  'start -cother.json',
  'start -c',
  'start -c --json',
  'start -c a.json -c b.json',
  'start -c a.json --config b.json',
  'start --workers',
  'start --workers many',
  'start --workers -1',
  'start --workers 2 --workers 3',
  'start --',
])('the parser is left to read: %s', (line) => {
  expect(plainStart(line.split(' '))).toBeUndefined()
})

test('an empty name of the configuration is left to the parser', () => {
  expect(plainStart(['start', '-c', ''])).toBeUndefined()
})

test('both ways start the same', async () => {
  await using folder = await Folder.create()
  await folder.write('other.json', {
    listen: '127.0.0.1:0',
    admin: { listen: '127.0.0.1:0' },
    store: 'memory:',
  })
  for (const args of [
    ['start', '--json', '-c', 'other.json'],
    ['start', '--json=true', '--config=other.json'],
  ]) {
    const child = begin(args, { cwd: folder.path })
    expect(JSON.parse(await said(child.stdout, /\n/))).toMatchObject({ pid: child.pid })
    child.kill('SIGTERM')
    await said(child.stderr, /finishing/)
  }
})

test('both ways name the configuration that is missing, and exit with 2', async () => {
  for (const args of [
    ['start', '-c', 'none.json'],
    ['start', '--config=none.json'],
  ]) {
    const { code, out, err } = await cupbearer(args, { cwd: '/' })
    expect({ code, out }).toEqual({ code: 2, out: '' })
    expect(err).toContain('none.json')
  }
})
