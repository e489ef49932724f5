/** As many as other proxies allow for each DATA frame: of the largest size, a client may take it in small pieces. */
const PER_DATA = 20
const PER_REQUEST = 4
/** Of what was not made use of. */
const MOST = 2000

/**
 * PING and WINDOW_UPDATE that clients send as they take an answer: some measure the path by a PING for each piece of
 * one (gRPC in Go), all of them make room for more. Others have no cause.
 */
export class Feedback {
  #due = 0
  /** DATA frames that have been counted. */
  #counted = 0

  /** A request has begun. */
  begun(): void {
    this.#due += PER_REQUEST
  }

  /** One has come, when so many DATA frames had gone out in all; false where it had no cause. */
  accepts(dataFrames: number): boolean {
    this.#due = Math.min(this.#due + (dataFrames - this.#counted) * PER_DATA, MOST)
    this.#counted = dataFrames
    if (this.#due === 0) return false
    this.#due -= 1
    return true
  }
}
