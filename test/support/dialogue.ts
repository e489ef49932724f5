import type { LoginDialogue, LoginStep } from '../../src/sources/source.ts'

/** A person who logs in, as the test plays them. */
export class TestDialogue implements LoginDialogue {
  readonly redirectUri: string | undefined
  readonly steps: LoginStep[] = []
  readonly #answers: string[] = []
  #wanted: ((answer: string) => void) | undefined
  #told: (() => void) | undefined

  constructor(redirectUri: string | undefined = 'http://127.0.0.1:4711/callback') {
    this.redirectUri = redirectUri
  }

  tell(step: LoginStep): void {
    this.steps.push(step)
    this.#told?.()
  }

  answer(): Promise<string> {
    const answer = this.#answers.shift()
    if (answer !== undefined) return Promise.resolve(answer)
    return new Promise((resolve) => {
      this.#wanted = resolve
    })
  }

  /** Hands something over. */
  give(answer: string): void {
    const wanted = this.#wanted
    this.#wanted = undefined
    if (wanted) wanted(answer)
    else this.#answers.push(answer)
  }

  /** The first step of a kind, as soon as it has been told; `count` asks for a later one. */
  async step<Kind extends LoginStep['step']>(
    kind: Kind,
    count = 1,
  ): Promise<Extract<LoginStep, { step: Kind }>> {
    for (;;) {
      const found = this.steps.filter(({ step }) => step === kind)[count - 1]
      if (found) return found as Extract<LoginStep, { step: Kind }>
      await new Promise<void>((resolve) => {
        this.#told = resolve
      })
    }
  }
}
