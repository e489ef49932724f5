import { join } from 'node:path'
import { inspect } from 'node:util'
import { describe, expect, test } from 'vitest'
import { loadConfig } from '../../src/config/load.ts'
import { ConfigError } from '../../src/errors.ts'
import { Folder } from './folder.ts'

const browser = (more: object = {}) => ({
  type: 'browser',
  url: 'https://login.test/?as={user}',
  capture: { request: { url: 'https://api.test/*' } },
  ...more,
})

async function load(source: object, env: NodeJS.ProcessEnv = {}) {
  await using folder = await Folder.create()
  const credentials = [{ id: 'a', vars: { user: 'ann' }, source }]
  const file = await folder.write('config.json', {
    pools: { api: { targets: ['api.test'], credentials } },
  })
  const config = await loadConfig(file, env)
  return { folder: folder.path, source: config.pools.api?.credentials[0]?.source }
}

async function problems(source: object): Promise<string[]> {
  const error = await load(source).then(
    () => undefined,
    (reason: unknown) => reason,
  )
  if (error === undefined) return []
  expect(error).toBeInstanceOf(ConfigError)
  return (error as ConfigError).issues.map(({ path, message }) =>
    `${path}: ${message}`.replace('pools.api.credentials[0].source', ''),
  )
}

describe('a browser login', () => {
  test('is read with its defaults, its folders and its secrets hidden', async () => {
    const steps = [
      { fill: '#password', value: '${env:PASSWORD}' },
      { otp: '#otp', command: ['./otp'], env: { WHO: '{user}' } },
      { wait: { time: '2s' } },
    ]
    const { folder, source } = await load(browser({ steps, executable: './chromium' }), {
      PASSWORD: 'hunter{2}{user}',
    })
    expect(source).toMatchObject({
      headless: true,
      executable: join(folder, 'chromium'),
      capture: { request: { header: 'authorization' } },
      steps: [{}, { cwd: folder }, { wait: { time: 2000 } }],
    })
    expect(inspect(source, { depth: null })).not.toContain('hunter')
  })

  test.each<[string, object, string]>([
    [
      'two actions',
      { steps: [{ click: 'a', fill: 'b', value: 'c' }] },
      '.steps[0]: expected one of goto, fill, select, click, press, wait, otp, found fill and click',
    ],
    [
      'no action',
      { steps: [{ value: 'c' }] },
      '.steps[0]: expected one of goto, fill, select, click, press, wait, otp',
    ],
    [
      'a field without a value',
      { steps: [{ fill: 'b' }] },
      '.steps[0].value: required beside fill',
    ],
    [
      'a key of another action',
      { steps: [{ click: 'b', value: 'c' }] },
      '.steps[0].value: not used with click',
    ],
    [
      'a password that nothing prints',
      { steps: [{ otp: 'b' }] },
      '.steps[0].command: required beside otp',
    ],
    [
      'a wait for two things',
      { steps: [{ wait: { time: '1s', selector: 'a' } }] },
      '.steps[0].wait: expected exactly one of selector, url, time',
    ],
    [
      'nothing to capture',
      { capture: {} },
      '.capture: expected exactly one of request, response, localStorage, sessionStorage, cookie',
    ],
    [
      'an unknown name',
      { steps: [{ fill: 'b', value: '{who}' }] },
      '.steps[0].value: expected in braces the name of one of vars (user); {{TEXT}} stands for {TEXT} itself',
    ],
    [
      'a host that is filled in',
      { url: 'https://{user}.test/' },
      '.url: expected an http:// or https:// URL without user name; values in braces stand after the host',
    ],
  ])('is refused for %s', async (_what, more, problem) => {
    expect(await problems(browser(more))).toEqual([problem])
  })
})
