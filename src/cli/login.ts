import { spawn } from 'node:child_process'
import { createInterface, type Interface } from 'node:readline'
import type { LoginLine } from '../admin/login-routes.ts'
import type { Config } from '../config/schema.ts'
import { type Command, CommandError, EXIT, print, withConfig } from './command.ts'
import { RedirectListener } from './redirect-listener.ts'
import { callAdmin, followAdmin } from './running.ts'
import { duration, plain } from './table.ts'

/** `login`: gets a credential's token afresh, with the help of whoever sits here. */
export const login: Command = (cli) =>
  cli.command(
    'login <credential>',
    'log in to an account, or get its token afresh',
    (command) =>
      command
        .positional('credential', { type: 'string', demandOption: true, describe: 'POOL/ID' })
        .option('open', {
          type: 'boolean',
          default: true,
          describe: 'open a browser where there is a display; --no-open only prints the address',
        })
        .example('$0 login supplier/acme-de', 'shows what to open, and waits for the login')
        .epilog(
          'The proxy must be running: it gets the token, by the egress of the credential. Over SSH, ' +
            'paste the address at which the browser ends. Ctrl-C gives the login up.',
        ),
    async ({ config: file, credential, open }) => {
      const [pool, id, ...rest] = credential.split('/')
      if (!pool || !id || rest.length > 0) {
        throw new CommandError(
          EXIT.usage,
          'which credential? It is named POOL/ID',
          '`cupbearer token list` shows them',
        )
      }
      await withConfig(file, (config) => new Login(config, pool, id, open).run())
    },
  )

/** One login: what the proxy tells is shown, what the person brings back is passed on. */
class Login {
  readonly #config: Config
  readonly #pool: string
  readonly #id: string
  readonly #mayOpen: boolean
  readonly #listener = new RedirectListener((url) => this.#handOver(url))
  readonly #abort = new AbortController()
  #login: string | undefined
  #input: Interface | undefined

  constructor(config: Config, pool: string, id: string, mayOpen: boolean) {
    this.#config = config
    this.#pool = pool
    this.#id = id
    this.#mayOpen = mayOpen
  }

  async run(): Promise<void> {
    const name = `${this.#pool}/${this.#id}`
    const path = `/api/pools/${encodeURIComponent(this.#pool)}/credentials/${encodeURIComponent(this.#id)}/login`
    const body = { redirectUri: await this.#listener.listen() }
    try {
      for await (const line of followAdmin<LoginLine>(
        this.#config,
        path,
        body,
        this.#abort.signal,
      )) {
        if (line.step === 'done') return print(`${name} is ${line.credential.state}`)
        if (line.step === 'failed') throw new CommandError(EXIT.failed, plain(line.error.message))
        await this.#show(line)
      }
      throw new CommandError(EXIT.failed, 'the proxy ended the login', '`cupbearer status`')
    } finally {
      this.#abort.abort()
      this.#input?.close()
      process.stdin.pause()
      await this.#listener.close()
    }
  }

  async #show(line: Exclude<LoginLine, { step: 'done' | 'failed' }>): Promise<void> {
    if (line.step === 'begun') this.#login = line.login
    else if (line.step === 'note') process.stderr.write(`${plain(line.message)}\n`)
    else if (line.step === 'device') {
      print(`Open ${plain(line.verificationUri)}`)
      print(`and enter the code: ${plain(line.userCode)}`)
      if (line.verificationUriComplete) print(`or open ${plain(line.verificationUriComplete)}`)
      print(`Waiting for ${duration(line.expiresInSeconds)} at most …`)
      this.#open(line.verificationUriComplete ?? line.verificationUri)
    } else {
      const here = await this.#listener.serve(line.redirectUri)
      print(`Open ${plain(line.url)}`)
      print(
        here
          ? 'and log in. If the browser runs on another machine, paste the address at which it ends:'
          : 'and log in. Then paste the address at which the browser ends, or the code:',
      )
      this.#readAnswers()
      this.#open(line.url)
    }
  }

  #readAnswers(): void {
    this.#input = createInterface({ input: process.stdin })
    this.#input.on('line', (line) => {
      if (line.trim() !== '') this.#handOver(line.trim())
    })
  }

  #handOver(redirected: string): void {
    const path = `/api/logins/${this.#login}`
    callAdmin(this.#config, 'POST', path, { redirected }).catch((error: Error) => {
      // The login's own end says more than that an answer came too late for it.
      if (!this.#abort.signal.aborted) process.stderr.write(`${plain(error.message)}\n`)
    })
  }

  /** Only where somebody can see it: not over SSH, not without a display. */
  #open(url: string): void {
    const { DISPLAY, WAYLAND_DISPLAY, SSH_CONNECTION } = process.env
    if (!this.#mayOpen || SSH_CONNECTION || !/^https?:/.test(url)) return
    const mac = process.platform === 'darwin'
    if (!mac && !DISPLAY && !WAYLAND_DISPLAY) return
    const opener = spawn(mac ? 'open' : 'xdg-open', [url], { detached: true, stdio: 'ignore' })
    // The address is on the screen already.
    opener.on('error', () => {})
    opener.unref()
  }
}
