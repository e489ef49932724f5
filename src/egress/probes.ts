import type { Config } from '../config/schema.ts'
import type { Clock } from '../lib/clock.ts'
import { Probe, type ProbeNews } from './probe.ts'

interface ProbesOptions {
  readonly fetch: (egress: string, url: string, init: RequestInit) => Promise<Response>
  readonly clock: Clock
  readonly random: () => number
  /** Whether something may leave by an egress has changed. */
  readonly judged: (egress: string) => void
  readonly news: (egress: string, news: ProbeNews) => void
}

/** What egresses ask of their probes. */
export type EgressProbes = Pick<
  Probes,
  'apply' | 'retain' | 'address' | 'objection' | 'wentDown' | 'cameBack' | 'settled' | 'close'
>

/** The probes of those egresses that have one. */
export class Probes {
  readonly #options: ProbesOptions
  readonly #probes = new Map<
    string,
    { probe: Probe; settings: string; expect: string | undefined }
  >()

  constructor(options: ProbesOptions) {
    this.#options = options
  }

  /** Takes over a configuration: what is probed as before goes on, and its address stays known. */
  apply(egress: Config['egress']): void {
    this.retain(egress)
    for (const [name, { url, probe, expect, every }] of Object.entries(egress)) {
      if (probe === undefined) continue
      const settings = JSON.stringify([url.reveal(), probe, every])
      const running = this.#probes.get(name)
      if (running?.settings !== settings) {
        running?.probe.close()
        this.#probes.set(name, {
          probe: this.#start(name, { url: probe, expect, every }),
          settings,
          expect,
        })
      } else if (running.expect !== expect) {
        running.expect = expect
        running.probe.expectInstead(expect)
      }
    }
  }

  /** Gives up the probes of all other egresses. */
  retain(egress: Config['egress']): void {
    for (const [name, { probe }] of this.#probes) {
      if (Object.hasOwn(egress, name) && egress[name]?.probe !== undefined) continue
      probe.close()
      this.#probes.delete(name)
    }
  }

  /** The address as last seen behind an egress. */
  address(egress: string): string | undefined {
    return this.#probes.get(egress)?.probe.address
  }

  /** Why nothing may leave by an egress; undefined when something may. */
  objection(egress: string): string | undefined {
    return this.#probes.get(egress)?.probe.objection
  }

  /** The egress failed. */
  wentDown(egress: string): void {
    this.#probes.get(egress)?.probe.wentDown()
  }

  /** The egress works again: it may have come back with another address. */
  cameBack(egress: string): void {
    this.#probes.get(egress)?.probe.now()
  }

  /** Ends when no probe is under way that somebody waits for, or after `ms`. */
  async settled(ms: number): Promise<void> {
    const open = [...this.#probes.values()]
      .filter(({ probe }) => probe.objection !== undefined)
      .map(({ probe }) => probe.settled)
    if (open.length === 0) return
    let cancel = () => {}
    const late = new Promise<void>((resolve) => {
      cancel = this.#options.clock.schedule(ms, resolve)
    })
    await Promise.race([Promise.all(open), late])
    cancel()
  }

  close(): void {
    for (const { probe } of this.#probes.values()) probe.close()
    this.#probes.clear()
  }

  #start(
    egress: string,
    settings: { url: string; expect: string | undefined; every: number },
  ): Probe {
    const { fetch, clock, random, judged, news } = this.#options
    return new Probe({
      ...settings,
      fetch: (url, init) => fetch(egress, url, init),
      clock,
      random,
      judged: () => judged(egress),
      news: (each) => news(egress, each),
    })
  }
}
