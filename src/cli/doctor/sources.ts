import { dirname, resolve } from 'node:path'
import type { Config, CredentialConfig, SourceConfig } from '../../config/schema.ts'
import { CupbearerError } from '../../errors.ts'
import { readText } from '../../sources/file.ts'
import { readToken } from '../../token/jwt.ts'
import { egressesOf } from './egresses.ts'
import { type Finding, findings } from './finding.ts'
import { findProgram } from './programs.ts'
import type { Reach } from './reach.ts'

const { ok, fail } = findings('source')

/** So many are named one by one. */
const MOST_NAMED = 20
const FILE_TIMEOUT_MS = 5000

interface Trouble {
  readonly message: string
  readonly mend: string
}

/**
 * Whether tokens could be had. Dry: no login is made and no refresh token is spent; a token endpoint is only reached,
 * by the egress of its credential.
 */
export async function checkSources(config: Config, reach: Reach, now: number): Promise<Finding[]> {
  const found: Finding[] = []
  for (const [name, pool] of Object.entries(config.pools)) {
    const troubles: Finding[] = []
    for (const credential of pool.credentials) {
      const egresses = egressesOf(pool, credential)
      const trouble = await look(config, credential, reach, egresses, now)
      if (trouble) troubles.push(fail(`${name}/${credential.id}: ${trouble.message}`, trouble.mend))
    }
    const fine = pool.credentials.length - troubles.length
    if (fine > 0) found.push(ok(`${name}: ${fine} of ${pool.credentials.length} could get a token`))
    found.push(...troubles.slice(0, MOST_NAMED))
    const more = troubles.length - MOST_NAMED
    if (more > 0) found.push(fail(`${name}: ${more} more could not`, 'mend those above first'))
  }
  return found
}

async function look(
  config: Config,
  { source }: CredentialConfig,
  reach: Reach,
  egresses: readonly string[],
  now: number,
): Promise<Trouble | undefined> {
  switch (source.type) {
    case 'static':
      return lookAtToken(source.token.reveal(), source.expiresAt, now)
    case 'file':
      return lookAtFile(source, now)
    case 'exec': {
      const program = source.command[0] ?? ''
      const folder = source.cwd ?? dirname(config.file)
      if (await findProgram(program.includes('/') ? resolve(folder, program) : program)) return
      return { message: `${program} cannot be run`, mend: 'install it, or give its whole path' }
    }
    default: {
      const url = endpointOf(source)
      if (url === undefined) return undefined
      for (const egress of egresses) {
        const outcome = await reach.head(egress, url)
        if (!outcome.reached) {
          return {
            message: `${new URL(url).host} cannot be reached by ${egress}: ${outcome.why}`,
            mend: 'see docs/errors.md; a private CA belongs into upstream.ca',
          }
        }
      }
      return undefined
    }
  }
}

/** Where it asks first; undefined where that is a template, or where it asks nobody. */
function endpointOf(source: SourceConfig): string | undefined {
  switch (source.type) {
    case 'oauth2':
      return source.tokenUrl ?? source.issuer
    case 'browser':
      return source.url.reveal()
    case 'login': {
      const url = source.steps[0]?.url.reveal()
      return url?.startsWith('{') ? undefined : url
    }
    default:
      return undefined
  }
}

function lookAtToken(token: string, end: string | undefined, now: number): Trouble | undefined {
  const expiresAt =
    end === undefined ? readToken(token, { receivedAt: now }).expiresAt : Date.parse(end)
  if (expiresAt === undefined || expiresAt > now) return undefined
  return {
    message: `its token ended at ${new Date(expiresAt).toISOString()}`,
    mend: 'put a new one in its place, or use a source that renews',
  }
}

async function lookAtFile(
  { path, pointer }: Extract<SourceConfig, { type: 'file' }>,
  now: number,
): Promise<Trouble | undefined> {
  try {
    const text = await readText(path, AbortSignal.timeout(FILE_TIMEOUT_MS))
    // Of a JSON file it is known to be readable; what stands in it is the source's to judge.
    return pointer === undefined ? lookAtToken(text, undefined, now) : undefined
  } catch (error) {
    if (!(error instanceof CupbearerError)) throw error
    return {
      message: error.message,
      mend: 'see that the file is there, readable and holds a token',
    }
  }
}
