import { request } from 'node:http'
import { afterEach, expect, test } from 'vitest'
import { startApp, type TestApp } from '../support/app.ts'

let app: TestApp | undefined
afterEach(async () => {
  await app?.[Symbol.asyncDispose]()
})

const status = (host: string): Promise<number | undefined> =>
  new Promise((resolve, reject) => {
    const { port } = new URL((app as TestApp).app.adminUrl)
    request({ host: '127.0.0.1', port, path: '/healthz', headers: { host } }, (response) => {
      response.resume()
      resolve(response.statusCode)
    })
      .on('error', reject)
      .end()
  })

test('names in admin.hosts are the listener’s own, each with its port', async () => {
  const hosts = ['cupbearer', 'Gateway.example:9081']
  app = await startApp({ admin: { listen: '127.0.0.1:0', token: 't-0123456789abcdef', hosts } })
  const { port } = new URL(app.app.adminUrl)
  expect(await status(`cupbearer:${port}`)).toBe(200)
  expect(await status('gateway.example:9081')).toBe(200)
  expect(await status(`gateway.example:${port}`)).toBe(421)
  expect(await status('cupbearer:9081')).toBe(421)
  expect(await status(`cupbearer.rebound.example:${port}`)).toBe(421)
})
