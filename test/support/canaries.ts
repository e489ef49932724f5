import { randomBytes } from 'node:crypto'

/** Long enough that it stands nowhere by chance. */
const TELLING = 12

/**
 * A secret to look for: letters and digits at both ends, so that a part of it is found in any spelling, and what
 * URLs, JSON and shells spell otherwise in between.
 */
export function canary(name: string, odd = '+/=~'): string {
  const random = () => randomBytes(8).toString('hex')
  return `${name}${random()}${odd}${random()}${name}`
}

/** Every way in which a secret may show: whole and in parts, encoded, escaped or turned round. */
export function spellings(secret: string): string[] {
  const turned = [...secret].reverse().join('')
  const whole = [
    secret,
    encodeURIComponent(secret),
    encodeURIComponent(secret).toLowerCase(),
    new URLSearchParams({ s: secret }).toString().slice(2),
    JSON.stringify(secret).slice(1, -1),
    Buffer.from(secret).toString('hex'),
    turned,
    secret.slice(0, TELLING),
    secret.slice(-TELLING),
    turned.slice(0, TELLING),
    turned.slice(-TELLING),
  ]
  return [...new Set([...whole, ...within64(secret)])]
}

/** What a text leaves of itself in base64, at whichever of the three offsets it begins; url-safe, too. */
function within64(text: string): string[] {
  return [0, 1, 2].flatMap((offset) => {
    const bytes = Buffer.concat([Buffer.alloc(offset), Buffer.from(text)])
    const encoded = bytes.toString('base64').replace(/=+$/, '')
    // The outermost characters depend on what stands beside it.
    const inner = encoded.slice(offset === 0 ? 0 : offset + 1, -1)
    const urlSafe = inner.replaceAll('+', '-').replaceAll('/', '_')
    return [inner, urlSafe, inner.slice(0, 16), urlSafe.slice(0, 16)]
  })
}

export interface Finding {
  readonly secret: string
  readonly spelling: string
  readonly where: string
  readonly context: string
}

/** Looks for secrets by their names in what was written somewhere. */
export function findSecrets(
  secrets: Readonly<Record<string, string>>,
  where: string,
  written: Buffer | string,
): Finding[] {
  const text = Buffer.isBuffer(written) ? written.toString('latin1') : written
  return Object.entries(secrets).flatMap(([secret, value]) =>
    spellings(value).flatMap((spelling) => {
      const at = text.indexOf(spelling)
      if (at === -1) return []
      return [{ secret, spelling, where, context: text.slice(Math.max(0, at - 80), at + 80) }]
    }),
  )
}
