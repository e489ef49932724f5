import { mkdir, symlink } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { MAIN } from '../cli/command-line.ts'

const ROOT = fileURLToPath(new URL('../..', import.meta.url))

/** Puts the built package into a folder's `node_modules`, and what else a program there imports. */
export async function linkPackage(folder: string, others: readonly string[] = []): Promise<void> {
  const modules = join(folder, 'node_modules')
  await mkdir(join(modules, 'cupbearer'), { recursive: true })
  await symlink(join(ROOT, 'package.json'), join(modules, 'cupbearer/package.json'))
  await symlink(dirname(dirname(MAIN)), join(modules, 'cupbearer/dist'))
  for (const name of others) {
    await mkdir(dirname(join(modules, name)), { recursive: true })
    await symlink(join(ROOT, 'node_modules', name), join(modules, name))
  }
}
