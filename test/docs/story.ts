import { type ChildProcess, execFile } from 'node:child_process'
import { once } from 'node:events'
import { chmod, mkdir, readFile, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { begin, MAIN, said } from '../cli/command-line.ts'
import { Folder } from '../config/folder.ts'
import { linkPackage } from '../library/package.ts'
import { type Origin, startOrigin } from '../support/origin.ts'
import { trusting } from '../support/protected-origin.ts'
import { type SocksProxy, startSocksProxy } from '../support/socks-proxy.ts'
import { type Block, blocksOf, placeOf, readPage } from './pages.ts'

const ROOT = fileURLToPath(new URL('../..', import.meta.url))
const HOST = /(?<![@\w.*-])((?:\*\.)?(?:[a-z0-9-]+\.)+example)(?![\w.:-])/g
const RUN_TIMEOUT_MS = 60_000

/**
 * One page, told from top to bottom in a folder of its own. All hosts of the page are one server on this machine: a
 * token endpoint at paths that end in `token`, else an API that wants a token where its name begins with `api.`.
 */
export class Story implements AsyncDisposable {
  readonly #folder: Folder
  readonly #origin: Origin
  readonly #socks: SocksProxy
  readonly #hosts: readonly string[]
  readonly #env: NodeJS.ProcessEnv
  #proxy: { child: ChildProcess; proxy: string; admin: string } | undefined

  private constructor(parts: {
    folder: Folder
    origin: Origin
    socks: SocksProxy
    hosts: readonly string[]
    env: NodeJS.ProcessEnv
  }) {
    this.#folder = parts.folder
    this.#origin = parts.origin
    this.#socks = parts.socks
    this.#hosts = parts.hosts
    this.#env = parts.env
  }

  static async begin(page: string): Promise<Story> {
    const text = blocksOf(page)
      .map((block) => block.text)
      .join('\n')
    const hosts = [...new Set([...text.matchAll(HOST)].map((match) => match[1] as string))].filter(
      (host) => !host.startsWith('*'),
    )
    const folder = await Folder.create()
    const bin = folder.at('bin')
    await mkdir(bin)
    await writeFile(
      join(bin, 'cupbearer'),
      `#!/bin/sh\nexec "${process.execPath}" "${MAIN}" "$@"\n`,
    )
    await chmod(join(bin, 'cupbearer'), 0o755)
    // A program belongs to no package but its own.
    await folder.write('package.json', {})
    await linkPackage(folder.path, ['undici'])
    const named = [...text.matchAll(/\$(?:\{env:(\w+)\}|([A-Z]+_[A-Z_]+))/g)]
    const origin = await startOrigin({ tls: true, names: hosts, handler: answer })
    const names = Object.fromEntries(hosts.map((host) => [host, '127.0.0.1']))
    return new Story({
      folder,
      origin,
      hosts,
      socks: await startSocksProxy({ names }),
      env: {
        ...Object.fromEntries(named.map(([, one, other]) => [one ?? other, 'stand-in'])),
        HOME: folder.path,
        // The system's own Python has the modules that the tests install.
        PATH: `${bin}:/usr/bin:/bin:${dirname(process.execPath)}`,
      },
    })
  }

  /** Does what the comment above a block says. */
  async tell(block: Block): Promise<void> {
    const [, verb, rest = ''] = /^(file|run|start)(?:: (.+))?$/.exec(block.directive ?? '') ?? []
    if (verb === 'file') await this.#save(rest, block.text)
    else if (verb === 'start') await this.#start(block)
    else if (verb === 'run') await this.#run(block, rest)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#stop()
    await this.#origin.close()
    await this.#socks.close()
    await this.#folder[Symbol.asyncDispose]()
  }

  async #save(name: string, text: string): Promise<void> {
    const file = this.#folder.at(name)
    await mkdir(dirname(file), { recursive: true })
    await writeFile(file, this.#here(text))
    if (name.endsWith('.json')) await this.#adjust(file)
  }

  /** Free ports, and the servers of this machine. */
  async #adjust(file: string): Promise<void> {
    const config = JSON.parse(await readFile(file, 'utf8'))
    const admin = { ...config.admin, listen: '127.0.0.1:0' }
    const upstream = trusting(this.#hosts)
    await writeFile(file, JSON.stringify({ ...config, listen: '127.0.0.1:0', admin, upstream }))
  }

  async #start(block: Block): Promise<void> {
    const [, file = 'config.json'] = /^cupbearer start(?: -c (\S+))?\n$/.exec(block.text) ?? []
    await this.#stop()
    // `init` may have written it.
    await this.#adjust(this.#folder.at(file))
    const options = { cwd: this.#folder.path, env: this.#env }
    const child = begin(['start', '--json', '-c', file], options)
    try {
      const ready = JSON.parse(await said(child.stdout, /\n/)) as { proxy: string; admin: string }
      this.#proxy = { child, ...ready }
    } catch (cause) {
      throw new Error(`${placeOf(block)}: ${await said(child.stderr, /./)}`, { cause })
    }
  }

  async #stop(): Promise<void> {
    const child = this.#proxy?.child
    this.#proxy = undefined
    if (!child || child.exitCode !== null) return
    child.kill('SIGTERM')
    await once(child, 'exit')
  }

  async #run(block: Block, expected: string): Promise<void> {
    const text = this.#here(block.text)
    const options = { cwd: this.#folder.path, env: this.#env, timeout: RUN_TIMEOUT_MS }
    const { out, error } = await new Promise<{ out: string; error: Error | null }>((resolve) => {
      const child = execFile('sh', ['-euc', text], options, (failed, out, err) =>
        resolve({ out: `${out}${err}`, error: failed }),
      )
      child.stdin?.end()
    })
    if (error) throw new Error(`${placeOf(block)} failed:\n${out}`, { cause: error })
    const wanted = /^prints (.+)$/.exec(expected)?.[1]
    if (wanted !== undefined && !new RegExp(wanted).test(out)) {
      throw new Error(`${placeOf(block)} does not print ${wanted}, but:\n${out}`)
    }
  }

  /** The text of a page with the addresses of this machine in it. */
  #here(text: string): string {
    const { proxy, admin } = this.#proxy ?? {}
    const on = (url: string | undefined, written: string) => (url ? new URL(url).host : written)
    return text
      .replace(/socks5:\/\/[\w.:-]+/g, this.#socks.url)
      .replace(HOST, `$1:${this.#origin.port}`)
      .replaceAll('127.0.0.1:8080', on(proxy, '127.0.0.1:8080'))
      .replaceAll('127.0.0.1:8081', on(admin, '127.0.0.1:8081'))
      .replaceAll(' examples/', ` ${ROOT}examples/`)
  }
}

const answer: NonNullable<NonNullable<Parameters<typeof startOrigin>[0]>['handler']> = async (
  request,
  response,
) => {
  for await (const _ of request);
  const { headers, url = '' } = request
  const isTokenEndpoint = /\/token$/.test(url)
  const known = /^Bearer .+/.test(headers.authorization ?? '') || !headers.host?.startsWith('api.')
  response.writeHead(isTokenEndpoint || known ? 200 : 401, { 'content-type': 'application/json' })
  response.end(
    JSON.stringify(
      isTokenEndpoint
        ? { access_token: 'of-the-page', token_type: 'bearer', expires_in: 3600 }
        : { path: url },
    ),
  )
}

/** Whether anything of a page is to be run. */
export const isStory = (page: string): boolean => /^<!-- (run|start)/m.test(readPage(page))
