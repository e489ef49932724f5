import type { ServerResponse } from 'node:http'
import { describe, expect, it } from 'vitest'
import { passwordLogin, sourceOf } from '../support/login-source.ts'
import { json, startScriptedEndpoint } from '../support/scripted-endpoint.ts'
import { sourceContext } from '../support/source-context.ts'

const ALICE = { user: 'alice', password: 'secret' }
const SECRETS = { headers: { 'x-key': '{password}', authorization: 'Basic {password}' } }

const redirect = (response: ServerResponse, status: number, location: string) =>
  void response.writeHead(status, { location, 'set-cookie': 'session=s; Path=/' }).end()

const obtain = (url: string, step: object = {}) =>
  sourceOf(passwordLogin(url, {}, step), ALICE).obtain(undefined, sourceContext())

describe('a redirect', () => {
  it.each([301, 302, 303])('of status %i is followed by GET, with its cookies', async (status) => {
    await using site = await startScriptedEndpoint((response, { url }) => {
      if (url === '/') redirect(response, status, '/home?x=1')
      else json(response, 200, { token: 't' })
    })
    await obtain(site.url, SECRETS)
    expect(site.requests[1]).toMatchObject({ method: 'GET', url: '/home?x=1', body: '' })
    expect(site.requests[1]?.headers).toMatchObject({ cookie: 'session=s', 'x-key': 'secret' })
    expect(site.requests[1]?.headers['content-type']).toBeUndefined()
  })

  it.each([307, 308])(
    'of status %i is followed with the body, on the same site',
    async (status) => {
      await using site = await startScriptedEndpoint((response, { url }) => {
        if (url === '/') redirect(response, status, '/again')
        else json(response, 200, { token: 't' })
      })
      await obtain(site.url)
      expect(site.requests[1]).toMatchObject({ method: 'POST', body: site.requests[0]?.body })
    },
  )

  it('to another origin carries nothing of the step', async () => {
    await using other = await startScriptedEndpoint((response) =>
      json(response, 200, { token: 't' }),
    )
    await using site = await startScriptedEndpoint((response) => redirect(response, 302, other.url))
    await obtain(site.url, { headers: { ...SECRETS.headers, cookie: 'own={password}' } })
    expect(other.requests).toHaveLength(1)
    expect(JSON.stringify(other.requests[0])).not.toMatch(/secret|alice/)
  })

  it.each([307, 308])('of status %i to another origin is refused with a body', async (status) => {
    await using other = await startScriptedEndpoint((response) => json(response, 200, {}))
    await using site = await startScriptedEndpoint((response) =>
      redirect(response, status, other.url),
    )
    await expect(obtain(site.url)).rejects.toThrow(/redirects what it was sent to another site/)
    expect(other.requests).toHaveLength(0)
  })

  it('without end is given up', async () => {
    await using site = await startScriptedEndpoint((response, { url }) =>
      redirect(response, 302, `${url}a`),
    )
    await expect(obtain(site.url)).rejects.toMatchObject({
      kind: 'transient',
      message: expect.stringMatching(/redirects more than 10 times$/),
    })
    expect(site.requests).toHaveLength(11)
  })

  it.each(['file:///etc/passwd', 'http://u:p@127.0.0.1/', 'http://'])(
    'to %s is refused',
    async (location) => {
      await using site = await startScriptedEndpoint((response) =>
        redirect(response, 302, location),
      )
      await expect(obtain(site.url)).rejects.toThrow(/redirects to no web address/)
    },
  )

  it('from https to http is refused', async () => {
    const headers = { location: 'http://login.test/' }
    const fetch = async () => new Response(null, { status: 302, headers })
    await expect(
      sourceOf(passwordLogin('https://login.test/'), ALICE).obtain(
        undefined,
        sourceContext({ fetch }),
      ),
    ).rejects.toThrow(/redirects to plain http$/)
  })

  it('that the step expects is its answer', async () => {
    await using site = await startScriptedEndpoint((response) =>
      redirect(response, 302, 'https://app.test/#access_token=in-fragment&x=1'),
    )
    const token = await obtain(site.url, {
      expect: 302,
      extract: { TOKEN: { header: 'location', regex: 'access_token=([^&]+)' } },
    })
    expect(token.token.reveal()).toBe('in-fragment')
    expect(site.requests).toHaveLength(1)
  })
})
