import type { Page } from 'playwright-core'
import type { BrowserSourceConfig } from '../config/browser.ts'
import { SourceError } from '../errors.ts'
import { Capture, type Captured } from './browser-capture.ts'
import { open, perform, type Stage } from './browser-steps.ts'
import type { SourceContext, SourceVars } from './source.ts'

/** For a picture of what went wrong, and to end the browser, before the try itself is ended. */
const REST_MS = 4000

/** Without any other bound. */
const LOGIN_MS = 60_000

/** The timer below speaks first: it knows what the login was at. */
const GRACE_MS = 5000

/** A login takes a handful; more is a loop. */
const MAX_NAVIGATIONS = 50

/** Things that the page itself waits for: what a picture or a font was answered tells nothing. */
const TELLING = new Set(['document', 'xhr', 'fetch'])

/** One login on its way: its time, what it is at, and what has ended it. */
export class BrowserLogin {
  readonly host: string
  /** What has been typed: it must not be seen in a picture. */
  readonly typed: string[] = []
  readonly #config: BrowserSourceConfig
  readonly #vars: SourceVars
  readonly #context: SourceContext
  readonly #ended = new AbortController()
  readonly #endsAt: number
  readonly #cancel: () => void
  readonly #giveUp = () => this.end(failed('it was given up'))
  #doing: string | undefined = 'the start of the browser'
  #capture: Capture | undefined
  #submitted = false
  #denied = false
  #badStatus: number | undefined
  /** The one of before the step that is under way. */
  #lastStatus: number | undefined

  constructor(config: BrowserSourceConfig, vars: SourceVars, context: SourceContext) {
    const { clock, signal, deadline } = context
    this.#config = config
    this.#vars = vars
    this.#context = context
    this.host = new URL(config.url.reveal()).host
    const now = clock.monotonic()
    const whole = deadline === undefined ? LOGIN_MS : deadline - now
    const bound = whole - Math.min(REST_MS, whole / 4)
    const limit = Math.max(1, Math.min(config.timeout ?? bound, bound))
    this.#endsAt = now + limit
    this.#cancel = clock.schedule(limit, () => this.#timeOut())
    signal.addEventListener('abort', this.#giveUp, { once: true })
    if (signal.aborted) this.#giveUp()
  }

  /** Aborted as soon as it is ended. */
  get signal(): AbortSignal {
    return this.#ended.signal
  }

  /** What has ended it before its time. */
  get failure(): SourceError | undefined {
    return this.#ended.signal.aborted ? this.#ended.signal.reason : undefined
  }

  /** Whether the page has shown that the user name or password is refused. */
  get denied(): boolean {
    return this.#denied
  }

  /** The latest error that the page was answered since it was last told to do something. */
  get badStatus(): number | undefined {
    return this.#badStatus ?? this.#lastStatus
  }

  /** Whether a failure may mean a wrong password: something was sent off, and the server has not failed. */
  get mayBeRefused(): boolean {
    const status = this.badStatus ?? 0
    return this.#submitted && status !== 429 && status < 500 && !this.#context.signal.aborted
  }

  /** What is left of its time, ms. */
  remaining(): number {
    return Math.max(1, this.#endsAt - this.#context.clock.monotonic())
  }

  /** Ends it; the first reason counts. */
  end(reason: SourceError): void {
    this.#ended.abort(reason)
  }

  /** Does the steps and takes what the page gives then; rejects as soon as it is ended. */
  async run(page: Page, problem: () => string | undefined): Promise<Captured> {
    const { signal } = this.#ended
    signal.throwIfAborted()
    const ended = new Promise<never>((_, reject) => {
      signal.addEventListener('abort', () => reject(signal.reason), { once: true })
    })
    const capture = new Capture(page, this.#config.capture)
    this.#capture = capture
    this.#watch(page)
    const done = this.#perform(
      {
        page,
        vars: this.#vars,
        context: { ...this.#context, signal },
        sleep: (ms) => this.#sleep(ms),
        remaining: () => this.remaining() + GRACE_MS,
        typed: this.typed,
        problem,
      },
      capture,
    )
    return Promise.race([done, ended])
  }

  /** Lets go of what it waits for. */
  close(): void {
    this.#cancel()
    this.#context.signal.removeEventListener('abort', this.#giveUp)
    this.end(failed('it is over'))
  }

  async #perform(stage: Stage, capture: Capture): Promise<Captured> {
    this.#doing = 'the first page'
    await open(stage, this.#config.url, this.#doing)
    for (const [index, step] of this.#config.steps.entries()) {
      const label = `step ${index + 1}`
      this.#doing = label
      if (step.goto || step.click || step.press) {
        this.#lastStatus = this.#badStatus
        this.#badStatus = undefined
      }
      if (step.click || step.press) this.#submitted ||= this.typed.length > 0
      await perform(stage, step, label)
      this.#lastStatus = undefined
    }
    this.#doing = undefined
    return capture.take(stage.sleep)
  }

  #watch(page: Page): void {
    let navigations = 0
    page.on('framenavigated', (frame) => {
      if (frame !== page.mainFrame() || ++navigations <= MAX_NAVIGATIONS) return
      this.end(failed(`the page has moved on more than ${MAX_NAVIGATIONS} times`))
    })
    page.on('response', (response) => {
      if (response.status() < 400 || !TELLING.has(response.request().resourceType())) return
      this.#badStatus = response.status()
    })
    page.once('crash', () => this.end(failed('the page has crashed, perhaps for lack of memory')))
    page.once('close', () => this.end(failed('the browser has ended')))
    const { denied } = this.#config
    if (denied === undefined) return
    const shown = () => {
      this.#denied = true
      this.end(failed('the page shows what denied names'))
    }
    const element = page.locator(denied).first()
    // It rejects when the browser is closed.
    element.waitFor({ state: 'visible', timeout: 0 }).then(shown, () => {})
  }

  #timeOut(): void {
    this.end(
      failed(
        this.#doing === undefined
          ? `no token in time: ${this.#capture?.near}`
          : `${this.#doing} did not come to its end in time`,
      ),
    )
  }

  #sleep(ms: number): Promise<void> {
    const { signal } = this.#ended
    return new Promise((resolve, reject) => {
      const stop = () => {
        cancel()
        reject(signal.reason)
      }
      const cancel = this.#context.clock.schedule(ms, () => {
        signal.removeEventListener('abort', stop)
        resolve()
      })
      signal.addEventListener('abort', stop, { once: true })
      if (signal.aborted) stop()
    })
  }
}

function failed(message: string): SourceError {
  return new SourceError('transient', message)
}
