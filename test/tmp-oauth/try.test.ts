import { test } from 'vitest'
import { startLoginServer } from '../support/login-server.ts'
test('x', async () => {
  await using s = await startLoginServer()
  const r = await fetch(s.issuer + '/device/auth', { method: 'POST', body: new URLSearchParams({ client_id: s.publicClientId, scope: 'openid offline_access api:read' }) })
  const d = await r.json()
  console.log(r.status, d)
  console.log(await (await fetch(d.verification_uri_complete)).text())
  console.log(await s.browse(d.verification_uri_complete))
  const t = await fetch(s.tokenUrl, { method: 'POST', body: new URLSearchParams({ client_id: s.publicClientId, grant_type: 'urn:ietf:params:oauth:grant-type:device_code', device_code: d.device_code }) })
  console.log(t.status, await t.json())
  const p = await fetch(s.tokenUrl, { method: 'POST', body: new URLSearchParams({ client_id: s.publicClientId, grant_type: 'password', username: 'alice', password: 'correct horse' }) })
  console.log(p.status, await p.json())
  console.log(await (await fetch(s.issuer+'/.well-known/openid-configuration')).json())
})
