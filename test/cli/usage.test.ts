import { readFileSync, statSync } from 'node:fs'
import { describe, expect, test } from 'vitest'
import { Folder } from '../config/folder.ts'
import { cupbearer } from './command-line.ts'

const COMMANDS = 'init start run env check doctor status trace har token ca dashboard demo'.split(
  ' ',
)

describe('help', () => {
  test('of the whole lists every command', async () => {
    const { code, out } = await cupbearer(['--help'], { cwd: '/' })
    expect(code).toBe(0)
    for (const command of COMMANDS) expect(out).toContain(`cupbearer ${command}`)
  })

  test('of each command has an example and the place of the configuration', async () => {
    const all = COMMANDS.map((command) => cupbearer([command, '--help'], { cwd: '/' }))
    for (const { code, out } of await Promise.all(all)) {
      expect(code).toBe(0)
      expect(out).toMatch(/Examples:\n/)
      expect(out).toContain('--config')
    }
  })
})

test.each([
  [[], /cupbearer <command>/],
  [['chek'], /Did you mean check/],
  [['check', '--jsn'], /Unknown argument: jsn/],
  [['check', 'more'], /Unknown argument: more/],
  [['token', 'frobnicate'], /Invalid values/],
  [['status', '--watch', '--json'], /mutually exclusive/],
  [['trace', '--limit', 'many'], /--limit takes a number/],
  [['check', '-c'], /Not enough arguments following: c/],
  [['run'], /The program follows after --/],
])('a wrong use, %j, exits with 2 and says what is wrong', async (args, message) => {
  const { code, out, err } = await cupbearer(args, { cwd: '/' })
  expect({ code, out }).toEqual({ code: 2, out: '' })
  expect(err).toMatch(message)
  expect(err).not.toMatch(/\n\s+at /)
})

describe('init', () => {
  test('writes a configuration that check accepts, and says what comes next', async () => {
    await using folder = await Folder.create()
    const init = await cupbearer(['init', '--yes'], { cwd: folder.path })
    expect(init.code).toBe(0)
    expect(init.out).toContain('cupbearer start')
    expect(init.out).toContain('cupbearer run -- curl https://api.example.com/')
    const check = await cupbearer(['check'], { cwd: folder.path })
    expect(check).toMatchObject({
      code: 0,
      out: 'config.json is valid: 1 pool, 1 credential, 1 egress\n',
    })
  })

  test('takes the target and the file from the command line', async () => {
    await using folder = await Folder.create()
    const args = ['init', '-c', 'staging.json', '--target', '*.supplier.example']
    const { out } = await cupbearer(args, { cwd: folder.path })
    expect(out).toContain('cupbearer start -c staging.json')
    expect(readFileSync(folder.at('staging.json'), 'utf8')).toContain('*.supplier.example')
  })

  test('writes nothing over a file, and nothing for a target that is none', async () => {
    await using folder = await Folder.create()
    await folder.write('config.json', 'mine')
    expect((await cupbearer(['init', '--yes'], { cwd: folder.path })).code).toBe(1)
    expect(readFileSync(folder.at('config.json'), 'utf8')).toBe('mine')
    const args = ['init', '-c', 'new.json', '--target', 'https://']
    expect((await cupbearer(args, { cwd: folder.path })).code).toBe(2)
    expect(statSync(folder.at('new.json'), { throwIfNoEntry: false })).toBeUndefined()
  })
})

describe('check', () => {
  test('reports every error with its place and exits with 2', async () => {
    await using folder = await Folder.create()
    await folder.write('config.json', {
      lisen: 1,
      pools: {
        p: {
          targets: ['a b'],
          credentials: [
            { id: 'a', egress: 'x', source: { type: 'static', token: '${env:NO_SUCH}' } },
          ],
        },
      },
    })
    const { code, err } = await cupbearer(['check'], { cwd: folder.path })
    expect(code).toBe(2)
    expect(err).toContain('4 problems')
    expect(err).toContain('  lisen: unknown key, did you mean "listen"?\n')
    expect(err).toContain('  pools.p.targets[0]: expected')
    expect(err).toContain(
      '  pools.p.credentials[0].egress: expected the name of an egress: direct\n',
    )
    expect(err).toContain('  pools.p.credentials[0].source.token: the environment variable NO_SUCH')
    const { code: again, out } = await cupbearer(['check', '--json'], { cwd: folder.path })
    expect(again).toBe(2)
    const answer = JSON.parse(out) as { valid: boolean; issues: unknown[] }
    expect([answer.valid, answer.issues.length]).toEqual([false, 4])
  })

  test('without a file says which command writes one', async () => {
    const { code, err } = await cupbearer(['check', '-c', 'none.json'], { cwd: '/' })
    expect(code).toBe(2)
    expect(err).toContain('/none.json')
    expect(err).toContain('cupbearer init')
  })
})

describe('ca', () => {
  test('is made when it is first asked for, stays, and is another after rotate', async () => {
    await using folder = await Folder.create()
    await cupbearer(['init', '--yes'], { cwd: folder.path })
    const ca = async (...args: string[]) => {
      const { code, out, err } = await cupbearer(['ca', ...args], { cwd: folder.path })
      expect({ code, err }).toEqual({ code: 0, err: '' })
      return out
    }
    const path = (await ca('path')).trim()
    expect(path).toMatch(/\/certs\/ca\.pem$/)
    const pem = await ca('export')
    expect(pem).toBe(readFileSync(path, 'utf8'))
    expect(await ca('show')).toContain('may sign for api.example.com and beneath')
    expect(await ca('export', '--out', 'copy.der', '--format', 'der')).toBe('')
    expect(readFileSync(folder.at('copy.der'))[0]).toBe(0x30)
    const bundle = await ca('export', '--format', 'bundle')
    expect(bundle).toContain(pem.trim())
    expect(bundle.length).toBeGreaterThan(pem.length * 10)
    expect(await ca('rotate')).toContain('A new CA')
    expect(await ca('export')).not.toBe(pem)
  })
})

test('a command that needs a running proxy says that there is none', async () => {
  await using folder = await Folder.create()
  await cupbearer(['init', '--yes'], { cwd: folder.path })
  for (const args of [['status'], ['token', 'list'], ['trace'], ['dashboard'], ['env']]) {
    const { code, err } = await cupbearer(args, { cwd: folder.path })
    expect(code).toBe(1)
    expect(err).toMatch(/no proxy is running with .*config\.json\n {2}hint: `cupbearer start`/)
  }
})
