import type { EgressProbes } from '../../egress/probes.ts'
import type { Objections } from './messages.ts'

/** A worker's stand-in for probes: the primary makes them, and tells what they object to. */
export class HeldElsewhere implements EgressProbes {
  readonly #judged: (egress: string) => void
  #objections: Objections

  constructor(objections: Objections, judged: (egress: string) => void) {
    this.#objections = objections
    this.#judged = judged
  }

  /** The primary has told anew. */
  tell(objections: Objections): void {
    const before = this.#objections
    this.#objections = objections
    for (const name of new Set([...Object.keys(before), ...Object.keys(objections)])) {
      if (before[name] !== objections[name]) this.#judged(name)
    }
  }

  objection(egress: string): string | undefined {
    return Object.hasOwn(this.#objections, egress) ? this.#objections[egress] : undefined
  }

  address(): undefined {}
  apply(): void {}
  retain(): void {}
  wentDown(): void {}
  cameBack(): void {}
  async settled(): Promise<void> {}
  close(): void {}
}
