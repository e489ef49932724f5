import { once } from 'node:events'
import { request } from 'node:http'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { CupbearerError } from '../../src/errors.ts'
import { ADMIN_TOKEN, TestAdmin } from '../support/admin.ts'

let admin: TestAdmin
beforeEach(async () => {
  admin = await TestAdmin.start()
})
afterEach(() => admin[Symbol.asyncDispose]())

const ask = (pool = 'supplier', options: Parameters<TestAdmin['ask']>[1] = {}) =>
  admin.ask(`/api/pools/${pool}/capture`, { method: 'POST', ...options })
const lines = (text: string) =>
  text
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line))

describe('a capture', () => {
  test('tells where to log in, what was seen, and what was learned', async () => {
    const { capture } = admin
    admin.capture = (note, signal) => {
      note('nothing of use')
      return capture(note, signal)
    }
    const { status, text } = await ask()
    expect(status).toBe(200)
    expect(lines(text)).toMatchObject([
      { step: 'note', message: 'nothing of use' },
      { step: 'begun', proxy: 'http://127.0.0.1:8080', leafKeyHash: 'aGFzaA==' },
      { step: 'learned', renews: true, credential: { id: 'alice', state: 'active' } },
    ])
  })

  test('that cannot be says why before anybody is told to log in', async () => {
    admin.capture = async () => {
      throw new CupbearerError('SOURCE_FAILED', 'nothing learns here')
    }
    const told = lines((await ask()).text)
    expect(told).toEqual([
      { step: 'failed', error: { code: 'SOURCE_FAILED', message: 'nothing learns here' } },
    ])
  })

  test('is given up when nobody listens any more', async () => {
    let begun = (_signal: AbortSignal) => {}
    const running = new Promise<AbortSignal>((resolve) => {
      begun = resolve
    })
    admin.capture = (_note, signal) => {
      begun(signal)
      return new Promise((_, reject) => signal.addEventListener('abort', reject))
    }
    const url = new URL('/api/pools/supplier/capture', admin.server.url)
    const headers = { authorization: `Bearer ${ADMIN_TOKEN}` }
    const outgoing = request(url, { method: 'POST', headers, agent: false }).on('error', () => {})
    outgoing.end()
    const signal = await running
    const aborted = once(signal, 'abort')
    outgoing.destroy()
    if (!signal.aborted) await aborted
  })

  test('needs the admin token, a page of our own, and a pool', async () => {
    expect((await ask('supplier', { token: null })).status).toBe(401)
    expect((await ask('supplier', { headers: { origin: 'https://evil.test' } })).status).toBe(403)
    expect((await ask('other')).status).toBe(404)
  })
})
