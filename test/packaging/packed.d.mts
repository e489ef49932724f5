export interface Packed {
  readonly command: string
  readonly modules: string
  /** Paths within the package. */
  readonly files: readonly string[]
  /** Of the tarball. */
  readonly bytes: number
}
export function installPacked(folder: string): Packed
export function installNode(major: string, folder: string): string
export function kilobytes(folder: string): number
