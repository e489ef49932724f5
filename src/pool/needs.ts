import { readPointer } from '../sources/pointer.ts'
import type { TokenSet } from '../token/token.ts'
import type { LeaseRequest } from './lease.ts'

type Needs = Pick<LeaseRequest, 'scopes' | 'claims'>

/** Whether a request asks for anything of the token itself. */
export function needsAnything({ scopes, claims }: Needs): boolean {
  return (scopes?.length ?? 0) > 0 || (claims?.length ?? 0) > 0
}

/** Whether a token holds all that is needed; `maybe` where it does not tell, or there is none yet. */
export function holds(token: TokenSet | undefined, needs: Needs): 'yes' | 'maybe' | 'no' {
  let answer: 'yes' | 'maybe' = 'yes'
  const { scopes, claims } = needs
  if (scopes && scopes.length > 0) {
    if (!token?.scopes) answer = 'maybe'
    else for (const scope of scopes) if (!token.scopes.includes(scope)) return 'no'
  }
  if (claims && claims.length > 0) {
    const held = token?.claims
    if (!held) answer = 'maybe'
    else for (const [name, value] of claims) if (!has(claimOf(held, name), value)) return 'no'
  }
  return answer
}

/** In words, what none of the tokens holds; where each part is held by one, that no one has them all. */
export function missing(tokens: readonly (TokenSet | undefined)[], needs: Needs): string {
  const lacks = (part: Needs) => tokens.every((token) => holds(token, part) === 'no')
  const scopes = needs.scopes?.filter((scope) => lacks({ scopes: [scope] })) ?? []
  const claims = needs.claims?.filter((claim) => lacks({ claims: [claim] })) ?? []
  const scattered = scopes.length + claims.length === 0
  const parts = [
    named('scope', scattered ? (needs.scopes ?? []) : scopes),
    named(
      'claim',
      (scattered ? (needs.claims ?? []) : claims).map(([name]) => name),
    ),
  ]
  return `${scattered ? 'all at once ' : ''}${parts.filter(Boolean).join(' and ')}`
}

function named(kind: string, names: readonly string[]): string {
  if (names.length === 0) return ''
  const unique = [...new Set(names)]
  return `the ${kind}${unique.length > 1 ? 's' : ''} ${unique.join(', ')}`
}

/** A name that begins with a slash is a JSON pointer: `/realm_access/roles`. */
function claimOf(claims: Readonly<Record<string, unknown>>, name: string): unknown {
  if (name.startsWith('/')) return readPointer(claims, name)
  return Object.hasOwn(claims, name) ? claims[name] : undefined
}

function has(claim: unknown, value: string | number | boolean): boolean {
  return Array.isArray(claim) ? claim.includes(value) : claim === value
}
