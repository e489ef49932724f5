import type fc from 'fast-check'

/** Something to fuzz: a property that holds for whatever its generators make up. */
export interface FuzzTarget {
  readonly name: string
  /** Runs that the tests afford. */
  readonly runs: number
  property(): fc.IRawProperty<unknown, boolean>
  /** Before the first run, and after the last one. */
  open?(): Promise<void>
  close?(): Promise<void>
}
