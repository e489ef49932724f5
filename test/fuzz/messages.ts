import { METHODS } from 'node:http'
import fc from 'fast-check'
import { expect } from 'vitest'
import { type RawOrigin, startRawOrigin, until } from '../egress/raw-origin.ts'
import { someRequests, someResponse, someSizes } from '../lib/http1/messages.ts'
import { nodeRequests, nodeResponse } from '../lib/http1/node.ts'
import { type Found, latin1, readRequests, readResponse } from '../lib/http1/support.ts'
import { Stage, statuses } from '../security/stage.ts'
import { startApp, type TestApp } from '../support/app.ts'
import { Http2Client } from '../support/http2-client.ts'
import { trusting } from '../support/protected-origin.ts'
import type { FuzzTarget } from './target.ts'

/** Trailers that our parser drops are no difference. */
const comparable = ({ start, headers, body }: Found) => ({ start, headers, body })

/** Node knows a list of methods, and behind an upgrade it waits for what becomes of that. */
function known(reading: ReturnType<typeof readRequests>): Found[] {
  const { messages, heads } = reading
  const end = messages.findIndex(
    ({ start }, i) =>
      heads[i]?.upgrade !== undefined || !METHODS.includes(start.split(' ')[0] ?? ''),
  )
  return end === -1 ? messages : messages.slice(0, end)
}

/** What our parser takes for requests, whatever pieces they come in, llhttp takes for the same requests. */
export const requestParser: FuzzTarget = {
  name: 'http1 requests',
  runs: 500,
  property: () =>
    fc.asyncProperty(someRequests, someSizes, async (text, sizes) => {
      const bytes = latin1(text)
      const reading = readRequests(bytes, sizes)
      expect(readRequests(bytes).messages).toEqual(reading.messages)
      const ours = known(reading).map(comparable)
      if (ours.length === 0) return
      const theirs = (await nodeRequests(bytes, sizes)).map(comparable)
      expect(theirs.slice(0, ours.length)).toEqual(ours)
    }),
}

/** The same of responses. */
export const responseParser: FuzzTarget = {
  name: 'http1 responses',
  runs: 500,
  property: () =>
    fc.asyncProperty(someResponse, someSizes, async (text, sizes) => {
      const bytes = latin1(text)
      const found = readResponse(bytes, sizes)
      expect(readResponse(bytes).messages).toEqual(found.messages)
      const [ours] = found.messages
      if (!ours || found.heads.some(({ upgrade }) => upgrade !== undefined)) return
      const theirs = await nodeResponse(bytes, sizes)
      expect(theirs && comparable(theirs)).toEqual(comparable(ours))
    }),
}

let stage: Stage

/**
 * Bytes through the real proxy: what arrives at the origin is the beginning of what llhttp reads in what the client
 * sent, and never more requests than that.
 */
export const wire: FuzzTarget = {
  name: 'wire',
  runs: 100,
  async open() {
    stage = await Stage.start()
  },
  async close() {
    try {
      if (stage.heard(true).length === 0) throw new Error('nothing of it was a request')
    } finally {
      await stage[Symbol.asyncDispose]()
    }
  },
  property: () =>
    fc.asyncProperty(someRequests, someSizes, async (text, sizes) => {
      const bytes = latin1(text.replaceAll('Host: a\r\n', `Host: ${stage.authority}\r\n`))
      const before = stage.origin.requests.length
      const reading = readRequests(bytes)
      // Node, as the origin, would refuse what is a method to everybody else.
      const methods = reading.heads.map((head) => ('method' in head ? head.method : ''))
      if (!methods.every((method) => METHODS.includes(method))) return
      const client = await stage.client()
      client.socket.write(bytes)
      // As many answers as there are requests, and one more for what is wrong; then it leaves.
      const answers =
        reading.messages.length + (reading.fault && reading.fault !== 'incomplete' ? 1 : 0)
      const final = () => statuses(client.heard).filter((status) => status >= 200).length
      await client.until(() => client.closed || final() >= answers)
      client.socket.destroy()
      await until(() => client.closed)
      const arrived = stage.origin.requests.slice(before)
      expect(arrived.length).toBeLessThanOrEqual(reading.messages.length)
      const meant = await nodeRequests(bytes, sizes)
      // Refused for their authority: an absolute form that names another host.
      const passed = meant.filter(({ start }) => !start.includes('://'))
      const lines = arrived.map(({ method, target, body }) => [`${method} ${target}`, body])
      const theirs = passed.map(({ start, body }) => [start.replace(/ 1\.[01]$/, ''), body])
      let at = 0
      for (const line of lines) {
        while (at < theirs.length && String(theirs[at]) !== String(line)) at += 1
        expect(at, `${JSON.stringify(line)} is nothing that the client sent`).toBeLessThan(
          theirs.length,
        )
        at += 1
      }
    }),
}

let said = ''
let passed = 0
let answering: { origin: RawOrigin; app: TestApp; byHttp2: Http2Client; url: string }

/**
 * Whatever an origin answers, its client hears what llhttp reads in it, by HTTP/1 and by HTTP/2, or a code of the
 * proxy's own, or an answer that is visibly cut.
 */
export const answers: FuzzTarget = {
  name: 'answers',
  runs: 100,
  async open() {
    const origin = await startRawOrigin(
      (peer) => {
        if (!peer.take()) return
        peer.write(said)
        peer.socket.end()
      },
      { tls: true },
    )
    const app = await startApp({
      upstream: trusting(),
      pools: {
        api: {
          targets: [new URL(origin.url).host],
          credentials: [{ id: 'a', source: { type: 'static', token: 'token-of-a' } }],
        },
      },
    })
    const byHttp2 = await Http2Client.connect(app, new URL(origin.url).host, { servername: '' })
    answering = { origin, app, byHttp2, url: `${origin.url}/` }
  },
  async close() {
    if (passed === 0) throw new Error('nothing of it was an answer')
    for (const each of [answering.byHttp2, answering.app, answering.origin]) {
      await each[Symbol.asyncDispose]()
    }
  },
  property: () =>
    fc.asyncProperty(someResponse, async (text) => {
      said = text
      const bytes = latin1(text)
      const meant = await nodeResponse(bytes, [])
      const client = answering.app.client({ keepAlive: false })
      const heard = await Promise.all([
        client.request(answering.url).then(
          ({ status, rawHeaders, body }) => ({ status, headers: rawHeaders, body }),
          () => undefined,
        ),
        answering.byHttp2.get('/').catch(() => undefined),
      ])
      await client[Symbol.asyncDispose]()
      for (const answer of heard) {
        if (!answer || answer.headers.some((name) => /^proxy-status$/i.test(name))) continue
        passed += 1
        expect(meant?.start.split(' ')[1]).toBe(String(answer.status))
        expect(answer.body.toString('latin1')).toBe(meant?.body)
      }
    }),
}
