import { access, constants, stat } from 'node:fs/promises'
import { delimiter, join, sep } from 'node:path'

/** The path of a program as a shell finds it on PATH. */
export async function findProgram(name: string): Promise<string | undefined> {
  const folders = (process.env.PATH ?? '').split(delimiter).filter((folder) => folder !== '')
  const paths = name.includes(sep) ? [name] : folders.map((folder) => join(folder, name))
  for (const path of paths) {
    try {
      await access(path, constants.X_OK)
      if ((await stat(path)).isFile()) return path
    } catch {
      // Not there; the next folder is tried.
    }
  }
  return undefined
}
