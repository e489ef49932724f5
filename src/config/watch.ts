import { type FSWatcher, realpathSync, statSync, watch } from 'node:fs'
import { dirname, resolve } from 'node:path'
import { type Clock, systemClock } from '../lib/clock.ts'

export interface WatchOptions {
  readonly clock?: Clock
  /** The file must be the same twice, this far apart, before it counts as saved. Default 100 ms. */
  readonly settleMs?: number
  /** The folder can no longer be watched. */
  readonly onError?: (error: Error) => void
}

/**
 * Calls back each time a file has been saved, by whatever way: written in place, replaced by a rename, or
 * swapped through a symbolic link. Returns the end of the watch.
 *
 * The folder is watched and not the file: a rename leaves a file watch on the old inode.
 */
export function watchConfig(
  file: string,
  onChange: () => void,
  { clock = systemClock, settleMs = 100, onError }: WatchOptions = {},
): () => void {
  const path = resolve(file)
  let inForce = signature(path)
  let seen = inForce
  let cancel: (() => void) | undefined

  // An event only starts the look; the look goes on until the file holds still.
  const look = () => {
    cancel = undefined
    const now = signature(path)
    if (now === undefined || now === inForce) {
      seen = now
      return
    }
    if (now !== seen) {
      seen = now
      cancel = clock.schedule(settleMs, look)
      return
    }
    inForce = now
    onChange()
  }

  const watchers: FSWatcher[] = []
  const close = () => {
    cancel?.()
    cancel = undefined
    for (const watcher of watchers.splice(0)) watcher.close()
  }
  try {
    for (const folder of new Set([dirname(path), dirname(target(path))])) {
      const watcher = watch(folder, { persistent: false }, () => {
        cancel ??= clock.schedule(settleMs, look)
      })
      watcher.on('error', (error) => {
        close()
        onError?.(error)
      })
      watchers.push(watcher)
    }
  } catch (error) {
    close()
    throw error
  }
  return close
}

/** Watches a set of files that changes: those that a configuration is made from. */
export class FileWatch {
  readonly #onChange: () => void
  readonly #options: WatchOptions
  readonly #watches = new Map<string, () => void>()
  #closed = false

  constructor(onChange: () => void, options: WatchOptions = {}) {
    this.#onChange = onChange
    this.#options = options
  }

  /** Watches these files and no others; one that is watched already misses nothing. */
  follow(files: readonly string[]): void {
    if (this.#closed) return
    for (const [file, close] of this.#watches) {
      if (files.includes(file)) continue
      close()
      this.#watches.delete(file)
    }
    for (const file of files) {
      if (this.#watches.has(file)) continue
      try {
        this.#watches.set(file, watchConfig(file, this.#onChange, this.#options))
      } catch (error) {
        this.#options.onError?.(error as Error)
      }
    }
  }

  close(): void {
    this.follow([])
    this.#closed = true
  }
}

/** What changes when a file is saved; undefined while there is none. */
function signature(path: string): string | undefined {
  try {
    const { dev, ino, size, mtimeNs, ctimeNs } = statSync(path, { bigint: true })
    return `${dev} ${ino} ${size} ${mtimeNs} ${ctimeNs}`
  } catch {
    return undefined
  }
}

function target(path: string): string {
  try {
    return realpathSync(path)
  } catch {
    return path
  }
}
