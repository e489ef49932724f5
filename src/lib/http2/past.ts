/** How a stream ended: on both sides, by the proxy's reset, or by the client's. */
export type StreamEnd = 'ended' | 'reset' | 'left'

const KEPT = 256
const ENDS: readonly StreamEnd[] = ['ended', 'reset', 'left']

/** Remembers how the last streams of a connection ended: what still comes for them is judged by it (RFC 9113 §5.1). */
export class Past {
  #ids: Uint32Array | undefined
  #ends: Uint8Array | undefined
  #next = 0

  /** The first note of a stream counts. */
  note(id: number, end: StreamEnd): void {
    this.#ids ??= new Uint32Array(KEPT)
    this.#ends ??= new Uint8Array(KEPT)
    if (this.#ids[(this.#next + KEPT - 1) % KEPT] === id) return
    this.#ids[this.#next] = id
    this.#ends[this.#next] = ENDS.indexOf(end)
    this.#next = (this.#next + 1) % KEPT
  }

  /** The client has ended its side, too. */
  finish(id: number): void {
    const at = this.#ids?.indexOf(id) ?? -1
    if (this.#ends && at >= 0) this.#ends[at] = ENDS.indexOf('ended')
  }

  /** Undefined for one that ended long ago, or never began. */
  endOf(id: number): StreamEnd | undefined {
    const at = this.#ids?.indexOf(id) ?? -1
    return at < 0 ? undefined : ENDS[this.#ends?.[at] as number]
  }
}
