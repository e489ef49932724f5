import { execFile } from 'node:child_process'
import { mkdir } from 'node:fs/promises'
import { promisify } from 'node:util'
import { cupbearer } from '../cli/command-line.ts'
import { Folder } from '../config/folder.ts'
import { startApp } from '../support/app.ts'
import { trusting } from '../support/protected-origin.ts'
import { Accounts } from './accounts.ts'
import { createGitServer, type GitServer } from './git-server.ts'
import { startGrpcService } from './grpc-service.ts'
import type { Client } from './matrix.ts'
import { type Arrival, startMatrixOrigin } from './origin.ts'
import { openRelay, type Relay } from './relay.ts'

const execute = promisify(execFile)

export interface SeenArrival extends Arrival {
  /** How many connections the client had opened to the proxy by then. */
  readonly connections: number
}

/** What one client said and what was seen of it. */
export interface Performance {
  readonly code: number | null
  readonly errors: string
  readonly said: readonly { step: string; status?: number; sha256?: string; version?: string }[]
  readonly arrivals: readonly SeenArrival[]
}

/** An origin, the proxy before it with a pool for each client, and a place for the clients to run. */
export interface Stage extends AsyncDisposable {
  readonly git: GitServer | undefined
  perform(client: Client): Promise<Performance>
}

const hostOf = ({ id }: Client) => `${id}.test`

export async function openStage(clients: readonly Client[]): Promise<Stage> {
  const resources: AsyncDisposable[] = []
  const keep = <Resource extends AsyncDisposable>(resource: Resource): Resource => {
    resources.unshift(resource)
    return resource
  }
  const folder = keep(await Folder.create())
  const accounts = new Accounts()
  const arrivals: SeenArrival[] = []
  const relays = new Map<string, Relay>()
  const onArrival = (arrival: Arrival) => {
    const connections = relays.get(arrival.host)?.connections ?? 0
    arrivals.push({ ...arrival, connections })
  }

  const wantsGit = clients.some(({ id }) => id === 'git')
  await mkdir(folder.at('repositories'))
  const git = wantsGit ? await createGitServer(folder.at('repositories')) : undefined
  const hosts = clients.map(hostOf)
  const origin = keep(await startMatrixOrigin({ hosts, accounts, git, onArrival }))
  const caller = clients.find((client) => client.grpc)
  const grpc = caller && keep(await startGrpcService({ host: hostOf(caller), accounts, onArrival }))

  const authorityOf = (client: Client) =>
    `${hostOf(client)}:${client.grpc ? grpc?.port : origin.port}`
  const pools = clients.map((client) => [
    client.id,
    poolOf(client, authorityOf(client), origin.port),
  ])
  const app = keep(
    await startApp({
      pools: Object.fromEntries(pools),
      upstream: trusting([...hosts, 'token.test']),
    }),
  )

  return {
    git,
    async perform(client) {
      const home = folder.at(client.id)
      await using relay = await openRelay(app.app.proxyUrl)
      relays.set(hostOf(client), relay)
      await mkdir(`${home}/data`, { recursive: true })
      const inHome = (name: string, content: object) =>
        folder.write(`${client.id}/${name}`, content)
      await inHome('config.json', { ca: { dir: `${app.dir}/certs` } })
      const { adminUrl: admin, caPath: ca } = app.app
      await inHome('data/running.json', { pid: process.pid, proxy: relay.url, admin, ca })
      const env = { PATH: process.env.PATH, HOME: home, LANG: 'C.UTF-8' }
      for (const [file, ...args] of client.prepare?.(home, ca) ?? []) {
        await execute(file as string, args, { cwd: home, env })
      }
      const command = client.command(`https://${authorityOf(client)}`, home)
      const { code, out, err } = await cupbearer(['run', '--', ...command], { cwd: home, env })
      return {
        code,
        errors: err,
        said: out
          .split('\n')
          .filter((line) => line.startsWith('{'))
          .map((line) => JSON.parse(line)),
        arrivals: arrivals.filter(({ host }) => host === hostOf(client)),
      }
    },
    async [Symbol.asyncDispose]() {
      for (const resource of resources) await resource[Symbol.asyncDispose]()
    },
  }
}

function poolOf(client: Client, target: string, originPort: number): object {
  return {
    targets: [target],
    // gRPC says it in a header of an answer that has no body, with status 200.
    ...(client.grpc && { expired: [{ status: 401 }, { header: { 'grpc-status': '^16$' } }] }),
    credentials: [
      {
        id: 'account',
        source: {
          type: 'oauth2',
          grant: 'client_credentials',
          tokenUrl: `https://token.test:${originPort}/token/${hostOf(client)}`,
          clientId: 'matrix',
          clientSecret: 'secret',
        },
      },
    ],
  }
}
