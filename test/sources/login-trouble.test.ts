import type { ServerResponse } from 'node:http'
import { inspect } from 'node:util'
import { describe, expect, it } from 'vitest'
import { SourceError } from '../../src/errors.ts'
import { passwordLogin, sourceOf } from '../support/login-source.ts'
import { json, startScriptedEndpoint } from '../support/scripted-endpoint.ts'
import { sourceContext } from '../support/source-context.ts'

const ALICE = { user: 'hidden-alice', password: 'hidden-password' }
const PAGE = '<!DOCTYPE html><html>hidden</html>'
type Answer = (response: ServerResponse) => void

const page =
  (status: number): Answer =>
  (response) =>
    response.writeHead(status, { 'content-type': 'text/html' }).end(PAGE)
const text =
  (status: number): Answer =>
  (response) =>
    response.writeHead(status, { 'content-type': 'text/plain' }).end('hidden text')
const told =
  (status: number, body: unknown = { message: 'hidden' }): Answer =>
  (response) =>
    json(response, status, body)

async function failures(answer: Answer, tries: number, step: object = {}): Promise<SourceError[]> {
  await using site = await startScriptedEndpoint(answer)
  const source = sourceOf(passwordLogin(`${site.url}/login?key={password}`, {}, step), ALICE)
  const errors: SourceError[] = []
  for (let i = 0; i < tries; i++) {
    const error = await source.obtain(undefined, sourceContext()).then(
      () => undefined,
      (reason: unknown) => reason,
    )
    expect(error).toBeInstanceOf(SourceError)
    expect(inspect(error, { depth: 20, showHidden: true })).not.toMatch(/hidden/)
    errors.push(error as SourceError)
  }
  return errors
}

const kinds = (errors: SourceError[]) => errors.map(({ kind }) => kind)

describe('a wrong password', () => {
  it.each<[string, Answer]>([
    ['401', told(401)],
    ['401 with a page, as Basic often has', page(401)],
    ['400 in JSON', told(400, { error: 'invalid_credentials' })],
    ['403 in JSON', told(403)],
    ['422 in JSON', told(422)],
    ['400 in text', text(400)],
  ])('told by %s is terminal at the first try', async (_how, answer) => {
    const [error] = await failures(answer, 1)
    expect(error).toMatchObject({ kind: 'revoked', code: 'SOURCE_REVOKED' })
    expect(error?.message).toMatch(/^login refused: login step 1 \(POST 127.0.0.1:\d+\) answered 4/)
    expect(error?.message).toMatch(/check the user name and password/)
  })

  it('is terminal where the configuration says what it looks like', async () => {
    const wrong = told(200, { ok: false, error: 'wrong_password' })
    const denied = { json: { '/error': '/^wrong/' } }
    expect(kinds(await failures(wrong, 1, { denied }))).toEqual(['revoked'])
    const [error] = await failures(wrong, 1, { denied: { status: 200, body: '"wrong_' } })
    expect(error?.message).toMatch(/login refused: .* answered 200 \(wrong_password\)/)
  })

  it('is nothing else than what the configuration says', async () => {
    const denied = { status: [418], header: { 'x-denied': 'yes' } }
    const errors = await failures(told(401), 5, { denied })
    expect(kinds(errors)).toEqual(Array(5).fill('transient'))
  })

  it.each<[string, Answer, object]>([
    [
      'a failure in a 200',
      told(200, { ok: false, token: 'hidden' }),
      { expect: { json: { '/ok': true } } },
    ],
    ['an answer without the token', told(200, { error: 'nope' }), {}],
    ['the login page again', page(200), { extract: { TOKEN: { regex: 'token=(\\w+)' } } }],
    ['403 in text', text(403), {}],
  ])('that %s may mean is tried three times, with rests', async (_how, answer, step) => {
    const errors = await failures(answer, 3, step)
    expect(kinds(errors)).toEqual(['transient', 'transient', 'revoked'])
    expect(errors.map(({ retryAfterMs }) => retryAfterMs)).toEqual([5000, 60_000, undefined])
    expect(errors[2]?.message).toMatch(/given up after 3 failures in a row/)
  })

  it('of before is forgotten when a login succeeds', async () => {
    let right = false
    await using site = await startScriptedEndpoint((response) =>
      json(response, 200, right ? { token: 't' } : {}),
    )
    const source = sourceOf(passwordLogin(site.url), ALICE)
    for (let i = 0; i < 6; i++) {
      right = i % 3 === 2
      const result = source.obtain(undefined, sourceContext())
      if (right) await result
      else await expect(result).rejects.toMatchObject({ kind: 'transient' })
    }
  })

  it('is not what a step before the password can mean', async () => {
    await using site = await startScriptedEndpoint(told(401))
    const source = sourceOf({ type: 'login', steps: [{ url: site.url }], token: '{user}' }, ALICE)
    for (let i = 0; i < 5; i++) {
      await expect(source.obtain(undefined, sourceContext())).rejects.toMatchObject({
        kind: 'transient',
      })
    }
  })
})

describe('trouble of the server is worth another try', () => {
  it.each<[string, Answer, RegExp]>([
    ['a block page', page(403), /answered 403 with a web page$/],
    ['a page in place of JSON', page(200), /answered 200 with a web page, without TOKEN$/],
    ['400 with a page', page(400), /answered 400 with a web page$/],
    ['429', told(429), /answered 429$/],
    ['500', told(500), /answered 500$/],
    ['503', page(503), /answered 503/],
    ['404', told(404), /answered 404$/],
    ['a redirect to nowhere', (response) => response.writeHead(302).end(), /redirect \(302\)/],
    ['10 MB', (response) => response.end(Buffer.alloc(10_000_000, 0x20)), /more than 1 MiB$/],
    ['a broken connection', (response) => response.destroy(), /failed \(/],
  ])('%s', async (_what, answer, message) => {
    const errors = await failures(answer, 4)
    expect(kinds(errors)).toEqual(Array(4).fill('transient'))
    for (const error of errors) expect(error.message).toMatch(message)
  })

  it('with its Retry-After', async () => {
    for (const status of [429, 503]) {
      const [error] = await failures(
        (response) => response.writeHead(status, { 'retry-after': '7' }).end(),
        1,
      )
      expect(error?.retryAfterMs).toBe(7000)
    }
  })

  it.each<[string, Answer]>([
    ['never answers', () => {}],
    ['stops within its answer', (response) => void response.writeHead(200).write('{')],
  ])('which %s holds a login no longer than the signal lets it', async (_what, answer) => {
    const abort = new AbortController()
    await using site = await startScriptedEndpoint((response) => {
      answer(response)
      setImmediate(() => abort.abort())
    })
    await expect(
      sourceOf(passwordLogin(site.url), ALICE).obtain(
        undefined,
        sourceContext({ signal: abort.signal }),
      ),
    ).rejects.toMatchObject({ kind: 'transient', message: expect.stringMatching(/in time/) })
    await expect.poll(() => site.open).toBe(0)
  })
})

describe('a token that cannot be used', () => {
  it.each([
    ['a line break', 'hidden\r\nx: y'],
    ['NUL', 'hidden\0'],
    ['nothing', ''],
    ['a list', ['hidden']],
  ])('for it holds %s', async (_what, token) => {
    const [error] = await failures(told(200, { token }), 1)
    expect(error?.kind).toBe('transient')
    expect(error?.message).toMatch(/header field|without TOKEN/)
  })
})
