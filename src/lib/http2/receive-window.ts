import { ConnectionError, ERROR, INITIAL_WINDOW } from './protocol.ts'

/**
 * What a client may still send on the connection as a whole. What has come is granted anew whoever takes it: bodies
 * that nobody takes must not hold up the others.
 */
export class ReceiveWindow {
  readonly #grantAt: number
  readonly #grant: (size: number) => void
  #left: number
  /** Has come, and is not granted anew yet. */
  #taken = 0

  constructor(size: number, grant: (size: number) => void) {
    this.#grantAt = size / 2
    this.#grant = grant
    this.#left = size
    grant(size - INITIAL_WINDOW)
  }

  /** So much has come. Throws `ConnectionError` where it is more than was granted (RFC 9113 §6.9.1). */
  take(size: number): void {
    this.#left -= size
    if (this.#left < 0) {
      throw new ConnectionError(ERROR.flowControlError, 'more than the window allows')
    }
    this.#taken += size
    if (this.#taken < this.#grantAt) return
    this.#left += this.#taken
    this.#grant(this.#taken)
    this.#taken = 0
  }
}
