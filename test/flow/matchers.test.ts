import { readdirSync, readFileSync } from 'node:fs'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { startApp, type TestApp } from '../support/app.ts'
import { type KeyIssuer, makeKey, startKeyIssuer } from '../support/key-issuer.ts'
import { type Origin, startOrigin } from '../support/origin.ts'

interface Example {
  readonly api: string
  readonly pool: Record<string, unknown>
  readonly answers: readonly {
    readonly means: 'expired' | 'limited' | 'denied' | 'ok'
    readonly what: string
    readonly status: number
    readonly headers: Record<string, string>
    readonly body: unknown
    readonly restSeconds?: number
  }[]
}

const folder = new URL('../../examples/matchers/', import.meta.url)
const page = readFileSync(new URL('../../docs/matchers.md', import.meta.url), 'utf8')
const examples = readdirSync(folder).map((file) => ({
  name: file.replace('.json', ''),
  file,
  example: JSON.parse(readFileSync(new URL(file, folder), 'utf8')) as Example,
}))
const cases = examples.flatMap(({ name, example }) =>
  example.answers.map((answer, index) => ({ key: `${name}-${index}`, name, example, answer })),
)

let issuer: KeyIssuer
let origin: Origin
let app: TestApp
/** The token that an API answers by its example; any other gets a 200. */
const refused = new Map<string, string>()

beforeAll(async () => {
  issuer = await startKeyIssuer(await makeKey('k'))
  origin = await startOrigin({
    handler: (request, response) => {
      request.resume()
      const url = new URL(request.url ?? '', 'http://origin')
      const key = url.pathname.split('/')[1] as string
      const token =
        url.searchParams.get('access_token') ??
        request.headers['x-shopify-access-token'] ??
        request.headers.authorization
      const { answer } = cases.find((each) => each.key === key) as (typeof cases)[number]
      if (!refused.has(key)) refused.set(key, String(token))
      if (refused.get(key) !== String(token)) {
        response.end('{"data":"good"}')
        return
      }
      for (const [name, value] of Object.entries(answer.headers)) {
        const epoch = Math.round(Date.now() / 1000) + (answer.restSeconds ?? 0)
        response.setHeader(name, value.replace('{epoch}', String(epoch)))
      }
      response.writeHead(answer.status).end(JSON.stringify(answer.body))
    },
  })
  const credential = (id: string) => ({
    id,
    source: {
      type: 'oauth2',
      grant: 'client_credentials',
      tokenUrl: issuer.tokenUrl,
      clientId: id,
      clientSecret: 'secret',
    },
  })
  let jti = 0
  issuer.claims = () => ({ jti: String(++jti) })
  app = await startApp({
    pools: Object.fromEntries(
      cases.map(({ key, example }) => [
        key,
        {
          targets: [`http://127.0.0.1:${origin.port}/${key}/*`],
          select: 'fill-first',
          credentials: [credential('a'), credential('b')],
          ...example.pool,
        },
      ]),
    ),
  })
})

afterAll(async () => {
  await app?.[Symbol.asyncDispose]()
  await origin?.[Symbol.asyncDispose]()
  await issuer?.[Symbol.asyncDispose]()
})

describe.each(examples)('$example.api', ({ name, file, example }) => {
  test('has its settings in docs/matchers.md', () => {
    expect(page).toContain(`(../examples/matchers/${file})`)
    expect(page).toContain(`\n### ${example.api}\n`)
    const blocks = [...page.matchAll(/```json\n(\{\n[^`]*)```/g)].map(([, text]) => text as string)
    expect(blocks.map((text) => JSON.parse(text) as unknown)).toContainEqual(example.pool)
    for (const { what } of example.answers) expect(page).toContain(what)
  })

  test.each(cases.filter((each) => each.name === name))(
    '$answer.status $answer.means: $answer.what',
    async ({ key, answer }) => {
      const sent = Date.now()
      const response = await app.client().request(`http://127.0.0.1:${origin.port}/${key}/x`)
      const { attempts, refresh } = await app.admin(
        `/api/traces/${response.headers['cupbearer-trace']}`,
      )
      const verdicts = attempts.map((each: { verdict: string }) => each.verdict)
      const credentials = attempts.map((each: { credential: string }) => each.credential)
      const pool = await app.admin(`/api/pools/${key}`)
      if (answer.means === 'ok') {
        expect(response.status).toBe(answer.status)
        expect(response.json()).toEqual(answer.body)
        expect(verdicts).toEqual(['ok'])
        return
      }
      expect([response.status, response.body.toString()]).toEqual([200, '{"data":"good"}'])
      expect(verdicts).toEqual([answer.means, 'ok'])
      expect(attempts[0].fault).toBe('token')
      if (answer.means === 'expired') {
        expect(credentials).toEqual(['a', 'a'])
        expect(refresh).toMatchObject({ role: 'led', result: 'renewed' })
        return
      }
      expect(credentials).toEqual(['a', 'b'])
      expect(refresh).toBeUndefined()
      const [first] = pool.credentials
      expect(first.generation).toBe(1)
      expect(first.state).toBe(answer.means === 'limited' ? 'cooling' : 'active')
      if (answer.restSeconds === undefined) return
      const until = Date.parse(first.cooldownUntil)
      const rests = (at: number) => (until - at) / 1000
      // From some time in between; a header may tell it in whole seconds.
      expect(rests(sent)).toBeGreaterThan(answer.restSeconds - 2)
      expect(rests(Date.now())).toBeLessThan(answer.restSeconds + 2)
    },
  )
})
