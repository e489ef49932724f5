import { execFile } from 'node:child_process'
import { X509Certificate } from 'node:crypto'
import { mkdtemp, rm } from 'node:fs/promises'
import { type AddressInfo, createServer, isIP, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { connect, type SecureContext, TLSSocket } from 'node:tls'
import type { AuthorityOptions } from '../../src/ca/authority.ts'
import { parseTarget, type Target } from '../../src/lib/authority.ts'
import type { Clock } from '../../src/lib/clock.ts'

export const DAY = 24 * 3_600_000

/** A folder of its own for one test. */
export async function temporaryFolder() {
  const path = await mkdtemp(join(tmpdir(), 'cupbearer-ca-'))
  return {
    path,
    [Symbol.asyncDispose]: () => rm(path, { recursive: true, force: true }),
  }
}

/** A clock that starts at the machine's time and moves by hand. */
export function handClock() {
  let time = Date.now()
  const clock: Clock = { now: () => time, monotonic: () => time, schedule: () => () => {} }
  return {
    ...clock,
    advance: (ms: number) => {
      time += ms
    },
  }
}

export function targets(...texts: string[]): Target[] {
  return texts.map((text) => {
    const target = parseTarget(text)
    if (typeof target === 'string') throw new Error(`${text}: ${target}`)
    return target
  })
}

export function options(dir: string, ...texts: string[]): AuthorityOptions {
  return { dir, nameConstraints: true, targets: targets(...texts), clock: handClock() }
}

/** A TLS server on loopback that answers every request with `ok`, by the context asked for at each handshake. */
export async function serve(context: () => SecureContext) {
  const sockets = new Set<Socket>()
  const server = createServer((socket) => {
    sockets.add(socket)
    socket.on('close', () => sockets.delete(socket))
    const secure = new TLSSocket(socket, { isServer: true, secureContext: context() })
    secure.on('error', () => socket.destroy())
    secure.once('data', () => {
      secure.end('HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok')
    })
  })
  await new Promise<void>((done) => server.listen(0, '127.0.0.1', done))
  return {
    port: (server.address() as AddressInfo).port,
    [Symbol.asyncDispose]: async () => {
      for (const socket of sockets) socket.destroy()
      await new Promise((done) => server.close(done))
    },
  }
}

/** Completes one handshake as a client that trusts only `ca`; rejects as the client does. */
export function handshake(
  port: number,
  host: string,
  ca: string,
  extra: { minVersion?: 'TLSv1'; maxVersion?: 'TLSv1.1'; ciphers?: string } = {},
): Promise<X509Certificate> {
  return new Promise((resolve, reject) => {
    const socket = connect({
      host: '127.0.0.1',
      port,
      ca,
      ...extra,
      ...(isIP(host) === 0 ? { servername: host } : {}),
      // Node compares with the address that it dialled where there is no SNI: the host meant is told apart here.
      checkServerIdentity: (_, certificate) =>
        matches(new X509Certificate(certificate.raw), host) ? undefined : new Error('wrong name'),
    })
    socket.once('secureConnect', () => {
      const certificate = new X509Certificate(socket.getPeerCertificate(true).raw)
      socket.destroy()
      resolve(certificate)
    })
    socket.once('error', (error) => {
      socket.destroy()
      reject(error)
    })
  })
}

/** The certificate that a server shows, whether or not it is valid at this time. */
export function peek(port: number): Promise<X509Certificate> {
  return new Promise((resolve, reject) => {
    const socket = connect({ host: '127.0.0.1', port, rejectUnauthorized: false })
    socket.once('secureConnect', () => {
      const certificate = new X509Certificate(socket.getPeerCertificate(true).raw)
      socket.destroy()
      resolve(certificate)
    })
    socket.once('error', reject)
  })
}

function matches(certificate: X509Certificate, host: string): boolean {
  const match = isIP(host) === 0 ? certificate.checkHost(host) : certificate.checkIP(host)
  return match !== undefined
}

/** Runs a program to its end. */
export function run(
  command: string,
  args: readonly string[],
  env: Record<string, string> = {},
): Promise<{ code: number; output: string }> {
  return new Promise((resolve) => {
    execFile(
      command,
      args,
      { env: { PATH: process.env.PATH ?? '', ...env } },
      (error, stdout, stderr) => {
        const code = error === null ? 0 : typeof error.code === 'number' ? error.code : -1
        resolve({ code, output: `${stdout}${stderr}` })
      },
    )
  })
}

/** curl's exit code and output for a host that is served on a loopback port. */
export function curl(
  host: string,
  port: number,
  args: readonly string[],
  env: Record<string, string> = {},
) {
  const name = host.includes(':') ? `[${host}]` : host
  const to = ['--connect-to', `::127.0.0.1:${port}`, `https://${name}:${port}/`]
  return run('curl', ['-sS', '--noproxy', '*', '--max-time', '10', ...args, ...to], env)
}
