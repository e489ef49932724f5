import { createInterface, type Interface } from 'node:readline/promises'
import { Writable } from 'node:stream'
import { CommandError, EXIT, print } from './command.ts'
import type { Question } from './init-sources.ts'

/** Asks the person at the terminal. What is typed as a secret is neither shown nor kept for later. */
export class Dialogue {
  readonly #interface: Interface
  readonly #ended = new AbortController()
  #hidden = false

  constructor() {
    const output = new Writable({
      write: (chunk, _encoding, done) => {
        if (this.#hidden) done()
        else process.stdout.write(chunk, () => done())
      },
    })
    this.#interface = createInterface({
      input: process.stdin,
      output,
      terminal: true,
      historySize: 0,
    })
    this.#interface.on('close', () => this.#ended.abort())
  }

  /** One answer; undefined for an optional question that was left empty. Asks again until it is a good one. */
  async ask(question: Question): Promise<string | undefined> {
    for (;;) {
      const shown = question.default ? ` [${question.default}]` : ''
      const typed = await this.#read(`${question.text}${shown}: `, question.secret ?? false)
      const answer = typed.trim() || question.default
      if (answer === undefined || answer === '') {
        if (question.optional) return undefined
        print('  an answer is needed')
        continue
      }
      const wrong = question.wrong?.(answer)
      if (wrong === undefined) return answer
      print(`  ${wrong}`)
    }
  }

  /** The number of one of several, counted from 0. */
  async choose(text: string, choices: readonly string[]): Promise<number> {
    print(text)
    for (const [index, choice] of choices.entries())
      print(`  ${String(index + 1).padStart(2)}  ${choice}`)
    const wrong = (answer: string) =>
      choices[Number(answer) - 1] === undefined
        ? `expected a number from 1 to ${choices.length}`
        : undefined
    const answer = await this.ask({ name: 'choice', text: 'Number', default: '1', wrong })
    return Number(answer) - 1
  }

  close(): void {
    this.#interface.close()
    process.stdin.pause()
  }

  async #read(prompt: string, secret: boolean): Promise<string> {
    const stopped = () => new CommandError(EXIT.failed, 'stopped; no configuration was written')
    if (this.#ended.signal.aborted) throw stopped()
    try {
      if (secret) process.stdout.write(prompt)
      this.#hidden = secret
      return await this.#interface.question(secret ? '' : prompt, { signal: this.#ended.signal })
    } catch (error) {
      if (this.#ended.signal.aborted) throw stopped()
      throw error
    } finally {
      if (this.#hidden) process.stdout.write('\n')
      this.#hidden = false
    }
  }
}
