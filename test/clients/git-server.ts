import { type SpawnSyncReturns, spawn, spawnSync } from 'node:child_process'
import { mkdir, writeFile } from 'node:fs/promises'
import type { IncomingMessage, ServerResponse } from 'node:http'
import { join } from 'node:path'
import { BIG, BODIES } from './steps.ts'

/** A repository over smart HTTP, as `git http-backend` serves it. */
export interface GitServer {
  /** The commit that a clone gets. */
  readonly head: string
  /** `path` is that beneath the root of the repositories. */
  serve(request: IncomingMessage, response: ServerResponse, path: string): void
}

/** Makes `repository.git` in a folder, with a README and 5 MiB. */
export async function createGitServer(folder: string): Promise<GitServer> {
  const work = join(folder, 'work')
  await mkdir(work)
  await writeFile(join(work, 'README'), BODIES.post as Buffer)
  await writeFile(join(work, 'big'), BIG)
  git(work, 'init', '-q', '-b', 'main')
  git(work, 'add', '.')
  git(work, '-c', 'user.name=t', '-c', 'user.email=t@example.test', 'commit', '-q', '-m', 'first')
  git(folder, 'clone', '-q', '--bare', work, join(folder, 'repository.git'))
  const head = git(work, 'rev-parse', 'HEAD').stdout.trim()
  return { head, serve: (...exchange) => runBackend(folder, ...exchange) }
}

function git(cwd: string, ...args: string[]): SpawnSyncReturns<string> {
  const env = { PATH: process.env.PATH, HOME: cwd }
  const result = spawnSync('git', args, { cwd, encoding: 'utf8', env })
  if (result.status !== 0) throw new Error(`git ${args[0]}: ${result.stderr}`)
  return result
}

/** One request as CGI (RFC 3875). */
function runBackend(
  folder: string,
  request: IncomingMessage,
  response: ServerResponse,
  path: string,
): void {
  const [pathInfo, query = ''] = path.split('?')
  const { headers } = request
  const child = spawn('git', ['http-backend'], {
    stdio: ['pipe', 'pipe', 'ignore'],
    env: {
      PATH: process.env.PATH,
      GIT_PROJECT_ROOT: folder,
      GIT_HTTP_EXPORT_ALL: '1',
      REQUEST_METHOD: request.method,
      PATH_INFO: pathInfo,
      QUERY_STRING: query,
      CONTENT_TYPE: headers['content-type'] ?? '',
      HTTP_CONTENT_ENCODING: headers['content-encoding'] ?? '',
      GIT_PROTOCOL: `${headers['git-protocol'] ?? ''}`,
    },
  })
  child.stdin.on('error', () => {})
  request.pipe(child.stdin)
  let head = Buffer.alloc(0)
  child.stdout.on('data', (chunk: Buffer) => {
    if (response.headersSent) return void response.write(chunk)
    head = Buffer.concat([head, chunk])
    const end = head.indexOf('\r\n\r\n')
    if (end < 0) return
    const fields = head
      .subarray(0, end)
      .toString('latin1')
      .split('\r\n')
      .map((line) => line.split(': ', 2) as [string, string])
    const status = fields.find(([name]) => name === 'Status')?.[1] ?? '200'
    response.writeHead(
      Number.parseInt(status, 10),
      Object.fromEntries(fields.filter(([name]) => name !== 'Status')),
    )
    response.write(head.subarray(end + 4))
  })
  child.stdout.on('end', () => response.end())
}
