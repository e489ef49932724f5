import { randomBytes } from 'node:crypto'
import { chmod, link, mkdir, open, readdir, rename, stat, unlink } from 'node:fs/promises'
import { basename, dirname, join } from 'node:path'

/** Files that others may read at any moment: whole or absent, with the same mode under any umask. */

/** What a folder may hold and still be counted as this CA's own. */
const OWN_ENTRY = /^(\.?ca[-.].*|README\.md|\.gitignore|\.gitkeep)$/

/** Replaces a file at once; it is durable when this resolves. */
export async function replaceFile(file: string, data: string | Buffer, mode: number) {
  await place(file, data, mode, rename)
}

/** Creates a file at once unless there is one; tells whether it did. */
export async function createFile(file: string, data: string | Buffer, mode: number) {
  try {
    await place(file, data, mode, async (from, to) => {
      await link(from, to)
      await unlink(from)
    })
    return true
  } catch (error) {
    if (errorCode(error) === 'EEXIST') return false
    throw error
  }
}

async function place(
  file: string,
  data: string | Buffer,
  mode: number,
  move: (from: string, to: string) => Promise<void>,
) {
  const temporary = join(
    dirname(file),
    `.${basename(file)}.${process.pid}.${randomBytes(6).toString('hex')}.tmp`,
  )
  const handle = await open(temporary, 'wx', 0o600)
  try {
    try {
      // The mode given to open() passes through the umask; this one does not.
      await handle.chmod(mode)
      await handle.writeFile(data)
      await handle.sync()
    } finally {
      await handle.close()
    }
    await move(temporary, file)
  } catch (error) {
    await unlink(temporary).catch(() => {})
    throw error
  }
  await syncFolder(dirname(file))
}

/** Makes a rename durable; platforms that cannot open a folder do it by themselves. */
export async function syncFolder(folder: string) {
  const handle = await open(folder, 'r').catch(() => undefined)
  try {
    await handle?.sync().catch(() => {})
  } finally {
    await handle?.close()
  }
}

/**
 * Makes a folder that only its owner enters. One that exists is narrowed, unless it holds files of others,
 * who may need it as it is.
 */
export async function privateFolder(folder: string) {
  if (await makeFolder(folder)) return
  const { mode } = await stat(folder)
  if ((mode & 0o077) === 0) return
  const entries = await readdir(folder)
  if (entries.every((entry) => OWN_ENTRY.test(entry))) await chmod(folder, 0o700)
}

async function makeFolder(folder: string): Promise<boolean> {
  try {
    await mkdir(folder, 0o700)
  } catch (error) {
    if (errorCode(error) === 'EEXIST') return false
    if (errorCode(error) !== 'ENOENT' || dirname(folder) === folder) throw error
    await makeFolder(dirname(folder))
    return makeFolder(folder)
  }
  await chmod(folder, 0o700)
  return true
}

/** The `code` of a system error. */
export function errorCode(error: unknown): string | undefined {
  return error instanceof Error && 'code' in error ? String(error.code) : undefined
}
