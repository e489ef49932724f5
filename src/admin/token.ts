import { randomBytes } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { replaceFile } from '../lib/files.ts'
import { Secret } from '../lib/secret.ts'

/**
 * The configured admin token, else the one in the data folder, made at first start. It is written there (0600)
 * in both cases, since that is where the commands find it.
 */
export async function adminToken(dataDir: string, configured: Secret | undefined): Promise<Secret> {
  const file = join(dataDir, 'admin-token')
  const known = configured?.reveal() ?? (await readFile(file, 'utf8').catch(() => '')).trim()
  const token = known || randomBytes(32).toString('base64url')
  await replaceFile(file, `${token}\n`, 0o600)
  return new Secret(token)
}
