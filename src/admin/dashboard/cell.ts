import { useEffect, useState } from 'preact/hooks'

const waiting = new Set<() => void>()
let scheduled = false

/** Runs it with the next frame, once, however often it is asked for before. */
function withNextFrame(run: () => void): void {
  waiting.add(run)
  if (scheduled) return
  scheduled = true
  requestAnimationFrame(() => {
    scheduled = false
    const all = [...waiting]
    waiting.clear()
    for (const each of all) each()
  })
}

/** A value that components show; whoever shows it is drawn anew with the next frame after it has changed. */
export class Cell<T> {
  readonly #listeners = new Set<() => void>()
  #value: T

  constructor(value: T) {
    this.#value = value
  }

  get value(): T {
    return this.#value
  }

  set(value: T): void {
    if (Object.is(value, this.#value)) return
    this.#value = value
    withNextFrame(this.#tell)
  }

  subscribe(listener: () => void): () => void {
    this.#listeners.add(listener)
    return () => {
      this.#listeners.delete(listener)
    }
  }

  readonly #tell = (): void => {
    for (const listener of this.#listeners) listener()
  }
}

/** The cell's value; draws the component anew when it changes. */
export function useCell<T>(cell: Cell<T>): T {
  const [, draw] = useState(0)
  useEffect(() => {
    const seen = cell.value
    const changed = () => draw((count) => count + 1)
    const end = cell.subscribe(changed)
    // It may have changed between the drawing and this.
    if (!Object.is(seen, cell.value)) changed()
    return end
  }, [cell])
  return cell.value
}

const now = new Cell(Date.now())
let watchers = 0
let ticking: ReturnType<typeof setInterval> | undefined

/** The time, each second anew while somebody shows it. */
export function useNow(): number {
  useEffect(() => {
    watchers += 1
    ticking ??= setInterval(() => now.set(Date.now()), 1000)
    return () => {
      watchers -= 1
      if (watchers > 0) return
      clearInterval(ticking)
      ticking = undefined
    }
  }, [])
  return useCell(now)
}

/** Whether a media query holds. */
export function useMedia(query: string): boolean {
  const [matches, setMatches] = useState(() => matchMedia(query).matches)
  useEffect(() => {
    const list = matchMedia(query)
    const changed = () => setMatches(list.matches)
    changed()
    list.addEventListener('change', changed)
    return () => list.removeEventListener('change', changed)
  }, [query])
  return matches
}

export const PHONE = '(max-width: 719px)'
