import { type ChildProcess, execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { createInterface } from 'node:readline'

const ROOT = resolve(import.meta.dirname, '../..')

/** The store's sources compiled for plain Node, so that a child process can be killed around them. */
export class CompiledStore implements AsyncDisposable {
  readonly source: string
  readonly #folder: string

  constructor() {
    this.#folder = mkdtempSync(join(tmpdir(), 'cupbearer-compiled-'))
    this.source = join(this.#folder, 'out')
    symlinkSync(join(ROOT, 'node_modules'), join(this.#folder, 'node_modules'))
    writeFileSync(join(this.#folder, 'package.json'), '{"type":"module"}')
    const options = { rootDir: join(ROOT, 'src'), outDir: this.source, noCheck: true }
    const config = {
      extends: join(ROOT, 'tsconfig.json'),
      compilerOptions: { ...options, noEmit: false },
      files: [join(ROOT, 'src/store/open.ts')],
      include: [],
    }
    writeFileSync(join(this.#folder, 'tsconfig.json'), JSON.stringify(config))
    execFileSync(process.execPath, [
      join(ROOT, 'node_modules/typescript/bin/tsc'),
      '-p',
      this.#folder,
    ])
  }

  start(url: string, job: 'rotate' | 'serve'): StoreProcess {
    return new StoreProcess(this.source, url, job)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    rmSync(this.#folder, { recursive: true, force: true })
  }
}

/** One child process with an open store; leaving its scope kills it. */
export class StoreProcess implements AsyncDisposable {
  readonly #child: ChildProcess
  readonly #lines: string[] = []
  readonly #exited: Promise<unknown>
  #wake: (() => void) | undefined
  #ended = false

  constructor(source: string, url: string, job: string) {
    const script = join(import.meta.dirname, 'store-child.mjs')
    this.#child = spawn(process.execPath, [script, source, url, job], {
      stdio: ['pipe', 'pipe', 'inherit'],
    })
    const lines = createInterface({ input: this.#child.stdout as NodeJS.ReadableStream })
    lines.on('line', (line) => {
      this.#lines.push(line)
      this.#wake?.()
    })
    this.#exited = Promise.all([once(this.#child, 'exit'), once(lines, 'close')]).then(() => {
      this.#ended = true
      this.#wake?.()
    })
  }

  get pid(): number {
    return this.#child.pid as number
  }

  /** The next line that it prints; undefined at its end. */
  async line(): Promise<string | undefined> {
    while (this.#lines.length === 0) {
      if (this.#ended) return undefined
      await new Promise<void>((wake) => {
        this.#wake = wake
      })
    }
    return this.#lines.shift()
  }

  /** Sends a command and waits for what comes of it. */
  async ask(command: string): Promise<string | undefined> {
    this.#child.stdin?.write(`${command}\n`)
    return this.line()
  }

  /** Kills it without warning; resolves with the lines that it had printed and nobody had read. */
  async kill(): Promise<string[]> {
    this.#child.kill('SIGKILL')
    await this.#exited
    return this.#lines.splice(0)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.kill()
  }
}
