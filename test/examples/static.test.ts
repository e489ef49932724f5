import { readFile } from 'node:fs/promises'
import { afterEach, expect, test, vi } from 'vitest'
import { startApp } from '../support/app.ts'
import { startOrigin } from '../support/origin.ts'
import { trusting } from '../support/protected-origin.ts'

afterEach(() => vi.unstubAllEnvs())

test('examples/static.json puts the token of the environment into the requests to its target', async () => {
  vi.stubEnv('API_TOKEN', 'from-the-environment')
  await using origin = await startOrigin({ tls: true, names: ['api.example.com'] })
  const example = (await readFile('examples/static.json', 'utf8')).replace(
    'api.example.com',
    `api.example.com:${origin.port}`,
  )
  await using app = await startApp({
    upstream: trusting(['api.example.com']),
    ...JSON.parse(example),
  })
  const answer = await app.client().request(`https://api.example.com:${origin.port}/`)
  expect(answer.json().authorization).toBe('Bearer from-the-environment')
})
