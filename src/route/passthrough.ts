import { BlockList, isIP } from 'node:net'
import type { PassthroughConfig } from '../config/schema.ts'
import { type Authority, coversHost, parseTarget, type Target } from '../lib/authority.ts'

/** Link-local and cloud metadata addresses, multicast and broadcast: never a destination of unmapped traffic. */
const ALWAYS_DENIED = [
  '169.254.0.0/16',
  'fe80::/10',
  'fd00:ec2::254/128',
  '100.100.100.200/32',
  '168.63.129.16/32',
  '192.0.0.192/32',
  '224.0.0.0/4',
  '255.255.255.255/32',
  'ff00::/8',
]

/** Denied where the proxy serves other machines, unless allowed by name or address. */
const PRIVATE = [
  '0.0.0.0/8',
  '10.0.0.0/8',
  '100.64.0.0/10',
  '127.0.0.0/8',
  '172.16.0.0/12',
  '192.168.0.0/16',
  '198.18.0.0/15',
  '240.0.0.0/4',
  '::/128',
  '::1/128',
  'fc00::/7',
  'fec0::/10',
]

interface Rule {
  readonly allow: boolean
  readonly target: Target | undefined
  readonly range: { readonly list: BlockList; readonly prefix: number } | undefined
}

/** Whether an address is link-local, or of a cloud's metadata service; a name that is resolved elsewhere is not. */
export function isAlwaysDenied(address: string): boolean {
  if (isIP(address) === 0) return false
  return [address, ...embeddedIPv4(address)].some((each) => inRanges(alwaysDenied, each))
}

/** Who unmapped traffic may go to: a pure judgement on the name asked for and the address that is dialled. */
export class PassthroughPolicy {
  readonly #rules: readonly Rule[]
  readonly #allowByDefault: boolean
  readonly #privateDenied: boolean

  constructor(config: PassthroughConfig, options: { readonly privateDenied: boolean }) {
    this.#rules = [
      ...config.allow.map((text) => compileRule(text, true)),
      ...config.deny.map((text) => compileRule(text, false)),
    ]
    this.#allowByDefault = config.action === 'tunnel'
    this.#privateDenied = options.privateDenied
  }

  /**
   * Whether the name alone is refused already, so that nothing has to be resolved.
   * Only an address rule can still let in what is denied by default.
   */
  refusesName(authority: Authority): boolean {
    if (isIP(authority.host)) return !this.permits(authority, authority.host)
    const byName = this.#byName(authority)
    if (byName !== undefined) return !byName
    return !this.#allowByDefault && !this.#rules.some((rule) => rule.allow && rule.range)
  }

  /**
   * Whether this address may be dialled for that name; asked of the very address that is connected to.
   * A proxy that resolves the name itself is handed the name instead: no address rule can let that in.
   */
  permits(authority: Authority, address: string): boolean {
    if (isIP(address) === 0) return this.#byName(authority) ?? this.#allowByDefault
    if (isAlwaysDenied(address)) return false
    const embedded = embeddedIPv4(address)
    const addresses = [address, ...embedded]
    const byAddress = addresses.map((each) => this.#byAddress(each))
    if (byAddress.includes(false)) return false
    const byName = this.#byName(authority)
    if (byName !== undefined) return byName
    // Of several addresses that it may lead to, each has to be allowed.
    const [itself, ...led] = byAddress
    if (itself || (led.length > 0 && !led.includes(undefined))) return true
    if (this.#privateDenied && addresses.some((each) => inRanges(privateRanges, each))) return false
    return this.#allowByDefault
  }

  /** The most specific name rule; deny where two are alike. */
  #byName({ host, port }: Authority): boolean | undefined {
    let best: { allow: boolean; rank: number } | undefined
    for (const { allow, target } of this.#rules) {
      if (!target || !coversHost(target, host)) continue
      if (target.portWritten && target.port !== port) continue
      const rank =
        (target.wildcard ? 0 : 1e6) + target.host.length * 2 + (target.portWritten ? 1 : 0)
      if (!best || rank > best.rank || (rank === best.rank && !allow)) best = { allow, rank }
    }
    return best?.allow
  }

  /** The longest prefix; deny where two are alike. */
  #byAddress(address: string): boolean | undefined {
    let best: { allow: boolean; prefix: number } | undefined
    for (const { allow, range } of this.#rules) {
      if (!range?.list.check(address, family(address))) continue
      if (!best || range.prefix > best.prefix || (range.prefix === best.prefix && !allow)) {
        best = { allow, prefix: range.prefix }
      }
    }
    return best?.allow
  }
}

/** What is wrong with a passthrough rule, or undefined. */
export function passthroughRuleProblem(text: string): string | undefined {
  if (parseRange(text)) return undefined
  const target = parseTarget(text)
  if (typeof target === 'string') return `${target}, or a CIDR`
  // A tunnel's paths are not seen; and `10.0.0.0/33` is a slip, not a host with a path.
  return target.path === undefined ? undefined : 'expected no path, or a CIDR'
}

function compileRule(text: string, allow: boolean): Rule {
  const range = parseRange(text)
  if (range) return { allow, range, target: undefined }
  const target = parseTarget(text)
  if (typeof target === 'string') throw new Error(`unreadable passthrough rule ${text}: ${target}`)
  return { allow, target, range: undefined }
}

function parseRange(text: string): { list: BlockList; prefix: number } | undefined {
  const match = /^([0-9a-fA-F.:]+)(?:\/(\d{1,3}))?$/.exec(text)
  const version = match ? isIP(match[1] as string) : 0
  if (!match || version === 0) return undefined
  const width = version === 4 ? 32 : 128
  const prefix = match[2] === undefined ? width : Number(match[2])
  if (prefix > width) return undefined
  const list = new BlockList()
  list.addSubnet(match[1] as string, prefix, version === 4 ? 'ipv4' : 'ipv6')
  return { list, prefix: version === 4 ? prefix + 96 : prefix }
}

function ranges(texts: readonly string[]): BlockList[] {
  return texts.map((text) => (parseRange(text) as { list: BlockList }).list)
}

const alwaysDenied = ranges(ALWAYS_DENIED)
const privateRanges = ranges(PRIVATE)

function inRanges(lists: readonly BlockList[], address: string): boolean {
  return lists.some((list) => list.check(address, family(address)))
}

function family(address: string): 'ipv4' | 'ipv6' {
  return address.includes(':') ? 'ipv6' : 'ipv4'
}

/**
 * IPv4 addresses that an IPv6 one may lead to: mapped and compatible (RFC 4291), translated (RFC 2765), NAT64
 * (RFC 6052, RFC 8215), 6to4 (RFC 3056), Teredo's server and client (RFC 4380), ISATAP (RFC 5214).
 */
function embeddedIPv4(address: string): string[] {
  if (!address.includes(':')) return []
  const groups = expand(address)
  if (!groups) return []
  const quad = (high: number, low: number) => `${high >> 8}.${high & 255}.${low >> 8}.${low & 255}`
  const zeros = (count: number) => groups.slice(0, count).every((group) => group === 0)
  const last = quad(groups[6] as number, groups[7] as number)
  if (zeros(5) && groups[5] === 0xffff) return [last]
  if (zeros(6) && (groups[6] !== 0 || (groups[7] as number) > 1)) return [last]
  if (zeros(4) && groups[4] === 0xffff && groups[5] === 0) return [last]
  const [g0, g1, g2, g3, g4, g5, g6, g7] = groups as [
    number,
    number,
    number,
    number,
    number,
    number,
    number,
    number,
  ]
  if (g0 === 0x64 && g1 === 0xff9b) {
    if (g2 !== 1 || (g3 === 0 && g4 === 0 && g5 === 0)) return [last]
    // The local prefix may be of any length, and the address stands around the octet of zeros then (RFC 6052 §2.2).
    return [
      last,
      quad(g3, ((g4 & 255) << 8) | (g5 >> 8)),
      quad(((g3 & 255) << 8) | (g4 & 255), g5),
      quad(((g4 & 255) << 8) | (g5 >> 8), ((g5 & 255) << 8) | (g6 >> 8)),
    ]
  }
  if (g0 === 0x2002) return [quad(g1, g2)]
  if (g0 === 0x2001 && g1 === 0) return [quad(g2, g3), quad(~g6 & 0xffff, ~g7 & 0xffff)]
  if ((g4 & 0xfdff) === 0 && g5 === 0x5efe) return [last]
  return []
}

function expand(address: string): number[] | undefined {
  const text = (address.split('%', 1)[0] as string).replace(
    /(\d+)\.(\d+)\.(\d+)\.(\d+)$/,
    (_, a, b, c, d) =>
      `${((Number(a) << 8) | Number(b)).toString(16)}:${((Number(c) << 8) | Number(d)).toString(16)}`,
  )
  const [head = '', tail] = text.split('::')
  const left = head === '' ? [] : head.split(':')
  const right = tail === undefined || tail === '' ? [] : tail.split(':')
  const fill = tail === undefined ? 0 : 8 - left.length - right.length
  const groups = [...left, ...Array(Math.max(0, fill)).fill('0'), ...right].map((group) =>
    Number.parseInt(group, 16),
  )
  return groups.length === 8 ? groups : undefined
}
