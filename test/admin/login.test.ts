import { once } from 'node:events'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { SourceError } from '../../src/errors.ts'
import { ADMIN_TOKEN, TestAdmin } from '../support/admin.ts'
import { LoginStream } from '../support/login-stream.ts'

let admin: TestAdmin
beforeEach(async () => {
  admin = await TestAdmin.start()
})
afterEach(() => admin[Symbol.asyncDispose]())

const follow = () => new LoginStream(admin.server.url, 'supplier/alice', { token: ADMIN_TOKEN })
const path = '/api/pools/supplier/credentials/alice/login'
const ask = (body?: string, to = path) =>
  admin.ask(to, { method: 'POST', ...(body !== undefined && { body }) })

describe('a login', () => {
  test('is told line by line, and hands over what the person brings', async () => {
    const answers: string[] = []
    admin.login = async (tell, answer) => {
      tell({ step: 'note', message: 'first' })
      answers.push(await answer(), await answer())
    }
    const login = follow()
    const { login: id } = await login.next('begun')
    expect(id).toMatch(/^[\w-]{22}$/)
    expect(await login.next('note')).toEqual({ step: 'note', message: 'first' })
    expect(await login.hand(id, 'one')).toBe(200)
    expect(await login.hand(id, 'two')).toBe(200)
    expect((await login.next('done')).credential).toMatchObject({ id: 'alice', state: 'active' })
    await login.next('end')
    expect(answers).toEqual(['one', 'two'])
    expect(await login.hand(id, 'three')).toBe(404)
  })

  test('that fails says why, and nothing that is not ours', async () => {
    admin.login = () => Promise.reject(new SourceError('transient', 'nobody came'))
    const told = follow()
    await told.next('begun')
    expect((await told.next('failed')).error).toEqual({
      code: 'SOURCE_FAILED',
      message: 'nobody came',
    })
    admin.login = () => Promise.reject(new Error('a hidden detail'))
    const untold = follow()
    await untold.next('begun')
    expect((await untold.next('failed')).error).toEqual({
      code: 'INTERNAL',
      message: 'an internal error; the log has more',
    })
  })

  test('is given up when nobody listens any more, and when the listener closes', async () => {
    for (const end of ['the client leaves', 'the listener closes']) {
      let begun = (_signal: AbortSignal) => {}
      const running = new Promise<AbortSignal>((resolve) => {
        begun = resolve
      })
      admin.login = (_tell, _answer, signal) => {
        begun(signal)
        return new Promise((_, reject) => signal.addEventListener('abort', reject))
      }
      const login = follow()
      await login.next('begun')
      const signal = await running
      const aborted = once(signal, 'abort')
      if (end === 'the client leaves') login.stop()
      else await admin.server.close()
      if (!signal.aborted) await aborted
    }
  })

  test('takes a redirect URI on the loopback, and no other', async () => {
    const good = await ask('{"redirectUri":"http://127.0.0.1:4711/callback"}')
    expect(good.status).toBe(200)
    for (const uri of [
      'https://evil.test/',
      'http://10.0.0.1:80/',
      'http://127.0.0.1@evil.test/',
      7,
    ]) {
      const bad = await ask(JSON.stringify({ redirectUri: uri }))
      expect(bad.status).toBe(400)
      expect(bad.json()).toMatchObject({ error: { code: 'BAD_REQUEST' } })
    }
  })

  test('needs the admin token, a credential, and a body that can be read', async () => {
    const stranger = await admin.ask(path, { method: 'POST', token: null })
    expect(stranger.status).toBe(401)
    const foreign = await admin.ask(path, {
      method: 'POST',
      headers: { origin: 'https://evil.test' },
    })
    expect(foreign.status).toBe(403)
    expect((await ask('', '/api/pools/supplier/credentials/bob/login')).status).toBe(404)
    expect((await ask('', '/api/pools/other/credentials/alice/login')).status).toBe(404)
    expect((await ask('not JSON')).status).toBe(400)
    expect((await ask('"text"')).status).toBe(400)
    expect((await ask(JSON.stringify({ redirectUri: 'x'.repeat(40_000) }))).status).toBe(413)
    expect((await ask('{"redirected":"x"}', '/api/logins/unknown')).status).toBe(404)
  })

  test('takes only so many answers ahead, and only text', async () => {
    admin.login = () => new Promise(() => {})
    const login = follow()
    const { login: id } = await login.next('begun')
    expect(await login.hand(id, 7)).toBe(400)
    expect(await login.hand(id, '')).toBe(400)
    for (let i = 0; i < 16; i++) expect(await login.hand(id, 'x')).toBe(200)
    expect(await login.hand(id, 'x')).toBe(503)
    login.stop()
  })

  test('is one of a bounded number', async () => {
    admin.login = () => new Promise(() => {})
    const logins = Array.from({ length: 64 }, follow)
    await Promise.all(logins.map((login) => login.next('begun')))
    const refused = await ask()
    expect(refused.status).toBe(503)
    expect(refused.json()).toMatchObject({ error: { code: 'TOO_MANY_STREAMS' } })
    for (const login of logins) login.stop()
  })
})
