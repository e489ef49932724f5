import { X509Certificate } from 'node:crypto'
import { readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { AuthorityOptions } from '../ca/authority.ts'
import { MappedNames } from '../ca/names.ts'
import type { Config } from '../config/schema.ts'
import { parseTarget } from '../lib/authority.ts'
import { systemClock } from '../lib/clock.ts'
import { type Command, CommandError, EXIT, print, withConfig } from './command.ts'
import { findRunning } from './running.ts'

const ACTIONS = ['path', 'show', 'rotate', 'export'] as const
const FORMATS = ['pem', 'der', 'bundle'] as const

/** `ca`: the private CA that clients have to trust. */
export const ca: Command = (cli) =>
  cli.command(
    'ca <action>',
    'the CA that clients have to trust',
    (command) =>
      command
        .positional('action', {
          choices: ACTIONS,
          demandOption: true,
          describe:
            'path: of its certificate; show: what it is and may sign; rotate: make a new one; ' +
            'export: print its certificate',
        })
        .option('format', {
          choices: FORMATS,
          default: 'pem' as const,
          describe: 'for export; bundle: the system’s roots and the CA',
        })
        .option('out', { type: 'string', requiresArg: true, describe: 'for export: file to write' })
        .example('$0 ca export --out cupbearer.pem', 'the certificate, to install elsewhere')
        .example('$0 ca show', 'its names, its fingerprint and when it ends'),
    async ({ config: file, action, format, out }) => {
      await withConfig(file, async (config) => {
        if (action === 'rotate') return rotate(config)
        const certificate = await readCertificate(config)
        if (action === 'path') print(join(config.ca.dir, 'ca.pem'))
        else if (action === 'show') show(config, certificate)
        else await exportAs(certificate, format, out)
      })
    },
  )

function optionsFor(config: Config): AuthorityOptions {
  const targets = Object.values(config.pools)
    .flatMap((pool) => pool.targets)
    .map(parseTarget)
    .filter((target) => typeof target !== 'string')
  const { dir, nameConstraints } = config.ca
  return { dir, nameConstraints, targets, clock: systemClock }
}

/** The certificate as it lies there. Only where there is none yet it is made: a running proxy keeps its own. */
async function readCertificate(config: Config): Promise<X509Certificate> {
  const file = join(config.ca.dir, 'ca.pem')
  let pem: string
  try {
    pem = await readFile(file, 'utf8')
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error
    const { openAuthority } = await import('../ca/authority.ts')
    pem = (await openAuthority(optionsFor(config))).certificatePem
  }
  try {
    return new X509Certificate(pem)
  } catch (cause) {
    const hint = '`cupbearer ca rotate` makes a new CA'
    throw new CommandError(EXIT.failed, `${file} holds no certificate`, hint, { cause })
  }
}

function show(config: Config, certificate: X509Certificate): void {
  const { dns, addresses } = new MappedNames(optionsFor(config).targets).permitted
  const names = [...dns.map((name) => `${name} and beneath`), ...addresses]
  print(`subject      ${certificate.subject.replaceAll('\n', ', ')}`)
  print(`certificate  ${join(config.ca.dir, 'ca.pem')}`)
  print(`valid        ${certificate.validFrom} to ${certificate.validTo}`)
  print(`SHA-256      ${certificate.fingerprint256}`)
  print(
    `may sign for ${config.ca.nameConstraints ? names.join(', ') || 'nothing yet' : 'any name: ca.nameConstraints is off'}`,
  )
}

async function rotate(config: Config): Promise<void> {
  const { rotateAuthority } = await import('../ca/authority.ts')
  const authority = await rotateAuthority(optionsFor(config))
  print(`A new CA is in ${authority.certificatePath}`)
  print(`SHA-256 ${authority.fingerprint256}`)
  print('Install it wherever the old one was installed; `cupbearer run` does so by itself.')
  const running = await findRunning(config).catch(() => undefined)
  if (running) print('The running proxy keeps the old one until it is restarted.')
}

async function exportAs(
  certificate: X509Certificate,
  format: (typeof FORMATS)[number],
  out: string | undefined,
): Promise<void> {
  const { systemRoots } = await import('../ca/trust.ts')
  const pem = certificate.toString()
  const content =
    format === 'der'
      ? certificate.raw
      : Buffer.from(format === 'bundle' ? `${systemRoots()}${pem}` : pem)
  if (out === undefined) process.stdout.write(content)
  else await writeFile(out, content)
}
