import { startApp } from '../support/app.ts'
import { startHttpProxy } from '../support/http-proxy.ts'
import { type Origin, startOrigin } from '../support/origin.ts'
import { PatientClock } from '../support/patient-clock.ts'
import { trusting } from '../support/protected-origin.ts'
import { json, startScriptedEndpoint } from '../support/scripted-endpoint.ts'
import { type Poison, startToxicProxy, type Toxic } from '../support/toxic-proxy.ts'

/** Of every limit that ends silence; otherwise so long that no slow machine meets it. */
export const SHORT_MS = 1500
const LONG_MS = 30_000
/** Beyond it a client that hears nothing goes by itself. */
const PATIENCE_MS = 4000

export const TOKEN = 'canary-of-the-token-3f9a17c2'
/** The client's own, which is replaced. */
const OWN = 'canary-of-the-client-77d0e1b4'
const BODY = Buffer.alloc(32_768, 'b')
const ANSWER = Buffer.alloc(65_536, 'a')

export type LegName = 'client' | 'egress' | 'target' | 'token endpoint'

export interface Phase {
  readonly leg: LegName
  readonly name: string
  /** To a target of that scheme. */
  readonly scheme: 'http' | 'https'
  readonly way: 'up' | 'down'
  readonly after: number
}

/** Where the bytes of each phase lie; a handshake is shorter than 8 KiB, a TLS record than 17, a head than 400 bytes. */
export const PHASES: readonly Phase[] = [
  { leg: 'client', name: 'CONNECT', scheme: 'https', way: 'up', after: 0 },
  { leg: 'client', name: 'TLS', scheme: 'https', way: 'down', after: 60 },
  { leg: 'client', name: 'request body', scheme: 'https', way: 'up', after: 16_384 },
  { leg: 'client', name: 'response body', scheme: 'https', way: 'down', after: 49_152 },
  { leg: 'egress', name: 'CONNECT', scheme: 'https', way: 'down', after: 0 },
  { leg: 'egress', name: 'TLS', scheme: 'https', way: 'down', after: 60 },
  { leg: 'egress', name: 'response head', scheme: 'http', way: 'down', after: 60 },
  { leg: 'egress', name: 'response body', scheme: 'https', way: 'down', after: 49_152 },
  { leg: 'target', name: 'TLS', scheme: 'https', way: 'down', after: 0 },
  { leg: 'target', name: 'request body', scheme: 'http', way: 'up', after: 16_384 },
  { leg: 'target', name: 'response head', scheme: 'http', way: 'down', after: 20 },
  { leg: 'target', name: 'response body', scheme: 'https', way: 'down', after: 49_152 },
  { leg: 'token endpoint', name: 'response head', scheme: 'http', way: 'down', after: 20 },
  { leg: 'token endpoint', name: 'response body', scheme: 'http', way: 'down', after: 600 },
]

export interface Seen {
  /** In the words of the page. */
  readonly outcome: string
  /** Where a secret stood that should not; requests that came twice, or by another way. */
  readonly leaks: readonly string[]
  readonly elapsedMs: number
  /** After the fault has gone. */
  readonly recovered: boolean
}

/** One request under one fault, and another after it. */
export async function observe(phase: Phase, toxic: Toxic): Promise<Seen> {
  await using target = await startOrigin({
    tls: phase.scheme === 'https',
    handler: async (request, response) => {
      try {
        for await (const _ of request);
      } catch {
        return
      }
      response.end(ANSWER)
    },
  })
  await using endpoint = await startScriptedEndpoint((response) =>
    json(response, 200, { access_token: TOKEN, expires_in: 3600, padding: 'p'.repeat(2000) }),
  )
  await using egress = await startHttpProxy({ host: '127.0.0.2' })
  const behind = { client: undefined, egress, target, 'token endpoint': portOf(endpoint.url) }
  await using relay = await startToxicProxy(behind[phase.leg] ?? { host: '127.0.0.1', port: 0 })
  const at = (name: LegName, port: number) => (phase.leg === name ? relay.port : port)
  const silence = toxic.kind === 'black-hole' ? SHORT_MS : LONG_MS
  const authority = `api.test:${at('target', target.port)}`
  const benign = ['latency', 'bandwidth', 'slice'].includes(toxic.kind)
  const limit = `${silence}ms`
  const timeouts = { connectTimeout: limit, headersTimeout: limit, bodyTimeout: limit }
  const poison: Poison = { way: phase.way, after: phase.after, toxic }
  // Before the proxy starts: it gets its first token at once.
  if (phase.leg === 'token endpoint') relay.poison(poison)
  const config = {
    upstream: { ...trusting(['api.test']), ...timeouts },
    server: { headersTimeout: limit, idleTimeout: limit },
    egress: {
      pinned: `http://${phase.leg === 'egress' ? relay.host : egress.host}:${at('egress', egress.port)}`,
    },
    pools: {
      api: {
        targets: [`${phase.scheme}://${authority}`],
        queue: { wait: `${benign ? LONG_MS : SHORT_MS}ms` },
        refresh: { timeout: `${Math.min(silence, 5000)}ms` },
        credentials: [
          {
            id: 'a',
            ...(phase.leg === 'egress' && { egress: 'pinned' }),
            source:
              phase.leg === 'token endpoint'
                ? {
                    type: 'oauth2',
                    grant: 'client_credentials',
                    tokenUrl: `http://127.0.0.1:${relay.port}/token`,
                    clientId: 'c',
                    clientSecret: 's',
                  }
                : { type: 'static', token: TOKEN },
          },
        ],
      },
    },
  }
  await using app = await startApp(config, undefined, new PatientClock())
  await using front = await startToxicProxy(portOf(app.app.proxyUrl))
  if (phase.leg === 'client') front.poison(poison)
  else relay.poison(poison)
  const client = app.client({ proxyUrl: `http://127.0.0.1:${front.port}`, keepAlive: false })
  const url = `${phase.scheme}://${authority}`
  const ask = async (path: string) => {
    let status: number | undefined
    let text = ''
    try {
      const response = await client.open(`${url}${path}`, {
        method: 'POST',
        headers: { authorization: `Bearer ${OWN}` },
        body: BODY,
        signal: AbortSignal.timeout(silence === SHORT_MS ? PATIENCE_MS : LONG_MS),
      })
      status = response.statusCode
      text = JSON.stringify(response.rawHeaders)
      for await (const chunk of response) text += chunk
      const code = /"code":"([A-Z_]+)"/.exec(text)?.[1]
      return { text, outcome: code === undefined ? `${status}` : `${status} \`${code}\`` }
    } catch (error) {
      const { name, status: refused, head } = error as Error & { status?: number; head?: string }
      const gone = name === 'AbortError' || name === 'TimeoutError'
      const code = /details="?([A-Z_]+)/.exec(head ?? '')?.[1]
      const why = gone ? 'silence, the client goes' : 'a broken connection'
      if (refused)
        return { text: `${head}`, outcome: `${refused}${code ? ` \`${code}\`` : ''} to CONNECT` }
      return { text: `${text}${error}`, outcome: status ? `${status}, then ${why}` : why }
    }
  }
  const started = performance.now()
  const { text, outcome } = await ask('/first')
  const elapsedMs = performance.now() - started
  relay.poison(undefined)
  front.poison(undefined)
  let recovered = false
  for (const end = performance.now() + 12_000; !recovered && performance.now() < end; )
    recovered = (await ask('/next')).outcome === '200'
  return { outcome, elapsedMs, recovered, leaks: leaksOf(phase, text, target) }
}

function leaksOf(phase: Phase, received: string, target: Origin): string[] {
  const leaks: string[] = []
  if (received.includes(TOKEN)) leaks.push('the client got the token')
  const came = (path: string) => target.requests.filter(({ url }) => url === path)
  if (came('/first').length > 1) leaks.push('a POST was sent twice')
  for (const { headers, remoteAddress } of target.requests) {
    if (headers.join().includes(OWN)) leaks.push("the client's own credential went upstream")
    const wanted = phase.leg === 'egress' ? '127.0.0.2' : '127.0.0.1'
    // Empty where the connection had gone before the request was looked at.
    if (remoteAddress !== '' && remoteAddress !== wanted)
      leaks.push(`a request came from ${remoteAddress}`)
  }
  return leaks
}

function portOf(url: string): { host: string; port: number } {
  const { hostname, port } = new URL(url)
  return { host: hostname, port: Number(port) }
}
