import { request as httpRequest, type IncomingMessage, Server } from 'node:http'
import { type Found, pieces, Wire } from './support.ts'

async function bodyOf(message: IncomingMessage): Promise<string> {
  let body = ''
  for await (const chunk of message) body += (chunk as Buffer).toString('latin1')
  return body
}

/** The requests that Node finds, up to the first that it finds wrong. */
export async function nodeRequests(bytes: Buffer, sizes: readonly number[]): Promise<Found[]> {
  const found: Promise<Found | undefined>[] = []
  const server = new Server({ maxHeaderSize: 16 * 1024 }, (message, response) => {
    const { method, url, httpVersion, rawHeaders } = message
    const start = `${method} ${url} ${httpVersion}`
    found.push(
      bodyOf(message).then(
        (body) => {
          response.end()
          return { start, headers: rawHeaders, body, trailers: message.rawTrailers }
        },
        () => undefined,
      ),
    )
  })
  // The peer's end is no reason to drop what it asked before.
  Object.assign(server, { httpAllowHalfOpen: true })
  server.on('checkContinue', (message, response) => server.emit('request', message, response))
  server.on('checkExpectation', (message, response) => server.emit('request', message, response))
  // Messages that came whole before the fault are read first.
  server.on('clientError', (_, socket) => setImmediate(() => setImmediate(() => socket.destroy())))
  const wire = new Wire(pieces(bytes, sizes))
  server.emit('connection', wire)
  // Everything happens in this process: once nothing more is read, a few turns are enough.
  for (let turns = 0, before = -1; turns < 20 && !wire.destroyed; turns++) {
    await new Promise(setImmediate)
    if (wire.reads !== before) turns = 0
    before = wire.reads
  }
  wire.destroy()
  const all = await Promise.all(found)
  const end = all.indexOf(undefined)
  return (end === -1 ? all : all.slice(0, end)) as Found[]
}

/** The response that Node finds, if it finds one that is whole. */
export async function nodeResponse(
  bytes: Buffer,
  sizes: readonly number[],
): Promise<Found | undefined> {
  const wire = new Wire(pieces(bytes, sizes))
  try {
    const message = await new Promise<IncomingMessage>((resolve, reject) => {
      const asked = httpRequest({ createConnection: () => wire as never })
      asked
        .once('response', resolve)
        .once('error', reject)
        .on('error', () => {})
      asked.once('upgrade', () => reject(new Error('upgrade')))
      asked.end()
    })
    const body = await bodyOf(message)
    const { httpVersion, statusCode, statusMessage, rawHeaders, rawTrailers } = message
    const start = `${httpVersion} ${statusCode} ${statusMessage}`
    return { start, headers: rawHeaders, body, trailers: rawTrailers }
  } catch {
    return undefined
  } finally {
    wire.destroy()
  }
}
