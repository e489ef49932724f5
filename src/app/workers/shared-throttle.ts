import { AuthThrottle } from '../../lib/throttle.ts'

type News = readonly ['failed' | 'succeeded', address: string]

/**
 * Counts failed authentications together with the other processes of this proxy: each counts its own at once
 * and the others' as soon as it hears of them.
 */
export class SharedThrottle extends AuthThrottle {
  readonly #tell: (news: News) => void

  constructor(
    clock: ConstructorParameters<typeof AuthThrottle>[0],
    options: { maxEntries: number; tell: (news: News) => void },
  ) {
    super(clock, options)
    this.#tell = options.tell
  }

  override failed(address: string): void {
    super.failed(address)
    this.#tell(['failed', address])
  }

  override succeeded(address: string): void {
    // Nothing is known of most addresses, and nobody needs to hear of them.
    if (!this.knows(address)) return
    super.succeeded(address)
    this.#tell(['succeeded', address])
  }

  /** Another process has told. */
  hear([kind, address]: News): void {
    super[kind](address)
  }
}
