import { rm } from 'node:fs/promises'
import { join } from 'node:path'
import { replaceFile } from '../lib/files.ts'

/** Tells the commands where the proxy of this data folder is; returns the end of that. */
export async function tellRunning(
  dataDir: string,
  where: { readonly proxy: string; readonly admin: string; readonly ca: string },
): Promise<() => Promise<void>> {
  const file = join(dataDir, 'running.json')
  await replaceFile(file, `${JSON.stringify({ pid: process.pid, ...where })}\n`, 0o600)
  return () => rm(file, { force: true })
}
