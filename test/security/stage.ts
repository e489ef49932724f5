import { Server as HttpServer, type IncomingMessage } from 'node:http'
import { createServer as createTlsServer, type TLSSocket } from 'node:tls'
import { until } from '../egress/raw-origin.ts'
import { RawClient } from '../proxy/raw-client.ts'
import { startApp, type TestApp } from '../support/app.ts'
import { testAuthority } from '../support/certificates.ts'
import { Listener } from '../support/listener.ts'
import { trusting } from '../support/protected-origin.ts'
import { type Meaning, readStrictly } from './strict-reader.ts'

export const TOKEN = 'token-of-the-stage-0123456789'
/** Names on this machine; the origin has a certificate for all but the last of them. */
const NAMES = ['api.test', 'other.test', 'xn--bcher-kva.test', 'nameless.test']

/** An HTTPS server that keeps every byte it gets, and what Node's own parser (llhttp) makes of them. */
export interface RecordingOrigin extends AsyncDisposable {
  readonly port: number
  /** The bytes of each connection, as latin1. */
  readonly connections: { sent: string; closed: boolean }[]
  /** Requests that came whole, as llhttp reads them. */
  readonly requests: Meaning[]
  /** How often llhttp found no request. */
  readonly faults: string[]
  /** Begins anew, once what was cut within a request is closed: no late byte of it counts for what comes next. */
  forget(): Promise<void>
}

export async function startRecordingOrigin(): Promise<RecordingOrigin> {
  const connections: RecordingOrigin['connections'] = []
  const requests: Meaning[] = []
  const faults: string[] = []
  const http = new HttpServer((message, response) => {
    let body = ''
    message.on('data', (chunk: Buffer) => {
      body += chunk.toString('latin1')
    })
    message.on('end', () => {
      requests.push(meaning(message, body))
      response.setHeader('x-requests', String(requests.length))
      response.end(`${message.method} ${message.url} ${body.length}`)
    })
    // A request that breaks off is none.
    message.on('error', () => {})
  })
  http.on('clientError', (error: NodeJS.ErrnoException, socket) => {
    if (error.code?.startsWith('HPE_') && error.code !== 'HPE_INVALID_EOF_STATE')
      faults.push(error.code)
    socket.destroy()
  })
  const server = createTlsServer(
    { ...testAuthority().issue(['127.0.0.1', ...NAMES.slice(0, 3)]), ALPNProtocols: ['http/1.1'] },
    (socket: TLSSocket) => {
      const connection = { sent: '', closed: false }
      connections.push(connection)
      socket.once('close', () => {
        connection.closed = true
      })
      http.emit('connection', socket)
      // After the parser, or that would read past every listener.
      socket.on('data', (chunk: Buffer) => {
        connection.sent += chunk.toString('latin1')
      })
    },
  )
  const listener = new Listener(server)
  const port = await listener.listen('127.0.0.1')
  return {
    port,
    connections,
    requests,
    faults,
    async forget() {
      await until(() => connections.every(({ sent, closed }) => closed || isWhole(sent)))
      requests.length = 0
      faults.length = 0
      for (const each of connections) each.sent = ''
    },
    async [Symbol.asyncDispose]() {
      http.closeAllConnections()
      await listener.close()
    },
  }
}

function isWhole(sent: string): boolean {
  try {
    readStrictly(sent)
    return true
  } catch {
    return false
  }
}

function meaning({ method = '', url = '', rawHeaders }: IncomingMessage, body: string): Meaning {
  return { method, target: url, headers: rawHeaders, body }
}

/** The real proxy before a recording origin, which it maps as `api.test`. */
export class Stage implements AsyncDisposable {
  readonly origin: RecordingOrigin
  readonly app: TestApp
  readonly authority: string

  private constructor(origin: RecordingOrigin, app: TestApp, authority: string) {
    this.origin = origin
    this.app = app
    this.authority = authority
  }

  static async start(more: (port: number) => object = () => ({})): Promise<Stage> {
    const origin = await startRecordingOrigin()
    const authority = `api.test:${origin.port}`
    const app = await startApp({
      upstream: { ...trusting(NAMES), http2: false },
      pools: {
        api: {
          targets: [authority],
          credentials: [{ id: 'a', source: { type: 'static', token: TOKEN } }],
        },
      },
      ...more(origin.port),
    })
    return new Stage(origin, app, authority)
  }

  /** A client inside a CONNECT, in TLS as it believes with the origin. */
  async client(authority = this.authority): Promise<RawClient> {
    return new RawClient(await this.app.client().connect(authority))
  }

  /** A client that has said nothing yet. */
  atListener(): Promise<RawClient> {
    return RawClient.atListener(this.app)
  }

  /** What of all that the origin got it was to get; throws unless both readers find the same in every byte. */
  heard(open = false): Meaning[] {
    const { connections, requests, faults } = this.origin
    if (faults.length > 0) throw new Error(`llhttp found ${faults}`)
    const strictly = connections.flatMap(({ sent }) => readStrictly(sent, open))
    const sorted = (all: readonly Meaning[]) =>
      all.map((each) => JSON.stringify([each.method, each.target, each.headers, each.body])).sort()
    const [ours, theirs] = [sorted(strictly), sorted(requests)]
    if (ours.join('\n') !== theirs.join('\n')) {
      throw new Error(`read in two ways:\n${ours.join('\n')}\n${theirs.join('\n')}`)
    }
    return strictly
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.app[Symbol.asyncDispose]()
    await this.origin[Symbol.asyncDispose]()
  }
}

/** The statuses of all answers that a client has heard, interim ones too; a reader for answers whose bodies hold none. */
export function statuses(heard: string): number[] {
  return [...heard.matchAll(/HTTP\/1\.[01] (\d{3}) [^\r\n]*\r\n/g)].map((match) => Number(match[1]))
}
