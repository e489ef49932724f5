import { inspect } from 'node:util'
import { describe, expect, test } from 'vitest'
import { loadConfig } from '../../src/config/load.ts'
import { ConfigError } from '../../src/errors.ts'
import { Folder } from './folder.ts'

const STEP = { url: 'https://login.test/', extract: { T: { json: '/t' } } }
const login = (more: object = {}) => ({ type: 'login', steps: [STEP], token: '{T}', ...more })

const content = (source: object, vars: Record<string, string> = { user: 'alice' }) => ({
  pools: { api: { targets: ['api.test'], credentials: [{ id: 'a', vars, source }] } },
})

async function load(source: object, env: NodeJS.ProcessEnv = {}) {
  await using folder = await Folder.create()
  const file = await folder.write('config.json', content(source))
  const config = await loadConfig(file, env)
  return { folder: folder.path, source: config.pools.api?.credentials[0]?.source }
}

async function problems(source: object, env: NodeJS.ProcessEnv = {}): Promise<string[]> {
  const error = await load(source, env).then(
    () => undefined,
    (reason: unknown) => reason,
  )
  if (error === undefined) return []
  expect(error).toBeInstanceOf(ConfigError)
  return (error as ConfigError).issues.map(({ path, message }) => `${path}: ${message}`)
}

describe('a login', () => {
  test('knows the names of vars and of earlier steps', async () => {
    const steps = [
      { url: 'https://login.test/{user}', extract: { A: { header: 'x' } } },
      { url: 'https://login.test/{A}', json: { a: ['{A}'] }, extract: { T: { json: '/t' } } },
    ]
    expect(await problems(login({ steps }))).toEqual([])
  })

  test.each<[string, object, RegExp]>([
    ['a url', { steps: [{ ...STEP, url: 'https://a.test/{A}' }] }, /steps\[0\]\.url: expected in/],
    ['a field', { steps: [{ ...STEP, form: { p: 'x{A}' } }] }, /steps\[0\]\.form\.p: expected in/],
    [
      'a nested value',
      { steps: [{ ...STEP, json: { a: [{ b: '{A}' }] } }] },
      /steps\[0\]\.json\.a\[0\]\.b: expected in braces a name that is known here \(user\)/,
    ],
    ['what the same step finds', { steps: [{ ...STEP, body: '{T}' }] }, /steps\[0\]\.body/],
    ['the token', { token: '{TOKEN}' }, /source\.token: expected in braces .*\(user, T\)/],
    [
      'what only a refresh knows',
      { steps: [{ ...STEP, body: '{refreshToken}' }] },
      /steps\[0\]\.body/,
    ],
  ])('is told which name %s cannot ask for', async (_where, more, message) => {
    const found = await problems(login(more))
    expect(found).toHaveLength(1)
    expect(found[0]).toMatch(message)
  })

  test('is told about braces without quoting what may be a password', async () => {
    const steps = [{ ...STEP, form: { p: 'pa{hunter2}' } }]
    expect((await problems(login({ steps }))).join()).not.toContain('hunter2')
  })

  test.each<[string, object, RegExp]>([
    ['a body with GET', { steps: [{ ...STEP, method: 'get', json: {} }] }, /json: not used with/],
    ['two bodies', { steps: [{ ...STEP, form: {}, json: {} }] }, /one body, found form and json/],
    ['no step', { steps: [] }, /steps: expected at least one step/],
    ['another scheme', { steps: [{ ...STEP, url: 'ftp://a.test/' }] }, /url: expected an http/],
    ['a host of a step', { steps: [{ ...STEP, url: '{T}/x' }] }, /url: expected an http/],
    [
      'userinfo',
      { steps: [{ ...STEP, url: 'https://hunter2@a.test/' }] },
      /url: expected an http.* without user name/,
    ],
    [
      'a bad name',
      { steps: [{ ...STEP, extract: { 'a b': { json: '/t' }, T: { json: '/t' } } }] },
      /a b.*expected a name/,
    ],
    [
      'two places',
      { steps: [{ ...STEP, extract: { T: { json: '/t', header: 'x' } } }] },
      /extract\.T/,
    ],
    ['a bad regex', { steps: [{ ...STEP, extract: { T: { regex: '(' } } }] }, /regular expression/],
    ['a bad expectation', { steps: [{ ...STEP, expect: 'ok' }] }, /expect: expected a status/],
    [
      'a refresh without its token',
      { refresh: { steps: [{ url: 'https://a.test/{refreshToken}' }] } },
      /refreshToken: required/,
    ],
    [
      'a refresh that gives the old token',
      { refresh: { steps: [{ url: 'https://a.test/' }], token: '{token}' } },
      /refresh\.token: expected in braces/,
    ],
    [
      'a refresh that finds no token',
      { refresh: { steps: [{ url: 'https://a.test/' }] } },
      /refresh\.token: required/,
    ],
  ])('with %s is refused', async (_what, more, message) => {
    expect((await problems(login(more))).join('\n')).toMatch(message)
  })

  test('takes a reference as text, braces and all', async () => {
    const steps = [{ ...STEP, form: { p: '${env:PASSWORD}' } }]
    const env = { PASSWORD: '{hunter2}{{user}}{user' }
    expect(await problems(login({ steps }), env)).toEqual([])
    const { source } = await load(login({ steps }), env)
    expect(inspect(source, { depth: 9 })).not.toContain('hunter2')
    const form = source?.type === 'login' ? source.steps[0]?.form : undefined
    expect(form?.p?.reveal()).toBe('{{hunter2}}{{{{user}}}}{user')
  })
})

describe('exec', () => {
  test('runs in the folder of the file', async () => {
    const { folder, source } = await load({ type: 'exec', command: ['./get-token'] })
    expect(source).toMatchObject({ command: ['./get-token'], cwd: folder })
  })

  test.each<[string, object, RegExp]>([
    ['no program', { command: [] }, /command: expected a program/],
    ['an unknown name', { command: ['x'], env: { A: '{b}' } }, /env\.A: expected in braces .*user/],
    ['a string', { command: 'x' }, /command: expected a list/],
  ])('with %s is refused', async (_what, more, message) => {
    expect((await problems({ type: 'exec', ...more })).join('\n')).toMatch(message)
  })
})
