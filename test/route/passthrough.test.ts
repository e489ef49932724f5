import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { PassthroughPolicy, passthroughRuleProblem } from '../../src/route/passthrough.ts'

interface Rules {
  action?: 'tunnel' | 'deny'
  allow?: string[]
  deny?: string[]
  privateDenied?: boolean
}

function policy({ action = 'tunnel', allow = [], deny = [], privateDenied = false }: Rules = {}) {
  return new PassthroughPolicy({ action, egress: 'direct', allow, deny }, { privateDenied })
}

const PUBLIC = '203.0.113.7'
const at = (host: string, port = 443) => ({ host, port })
const octet = fc.integer({ min: 0, max: 255 })
const ipv4 = fc.tuple(octet, octet, octet, octet).map((parts) => parts.join('.'))

/** Every way to write an IPv4 address as an IPv6 one that leads to it. */
function spellings(address: string): string[] {
  const [a, b, c, d] = address.split('.').map(Number) as [number, number, number, number]
  const high = ((a << 8) | b).toString(16)
  const low = ((c << 8) | d).toString(16)
  return [
    `::ffff:${address}`,
    `::ffff:${high}:${low}`,
    `0:0:0:0:0:ffff:${high}:${low}`,
    `::FFFF:${high}:${low}`,
    `64:ff9b::${address}`,
    `64:ff9b::${high}:${low}`,
    `64:ff9b:1::${high}:${low}`,
    `2002:${high}:${low}::`,
    `2002:${high}:${low}::1`,
  ]
}

describe('link-local and metadata addresses', () => {
  const ALWAYS = ['169.254.169.254', '169.254.0.1', '100.100.100.200', '168.63.129.16']

  test.each(ALWAYS)('%s is denied in every spelling, whatever is allowed', (address) => {
    const open = policy({ allow: ['0.0.0.0/0', '::/0', address, 'meta.test'] })
    for (const spelling of [address, ...spellings(address)]) {
      expect([spelling, open.permits(at('meta.test'), spelling)]).toEqual([spelling, false])
      expect(open.refusesName(at(spelling))).toBe(true)
    }
  })

  test.each(['fe80::1', 'febf::1', 'fd00:ec2::254', 'fe80::1%lo'])('%s is denied', (address) => {
    expect(policy({ allow: ['::/0'] }).permits(at('meta.test'), address)).toBe(false)
  })
})

describe('private ranges', () => {
  const RANGES = ['10.1.2.3', '127.0.0.1', '172.16.9.9', '192.168.1.1', '100.64.0.1', '0.0.0.0']

  test.each([...RANGES, '::1', '::', 'fd12::1'])(
    '%s is denied only where others are served',
    (address) => {
      expect(policy().permits(at('inside.test'), address)).toBe(true)
      expect(policy({ privateDenied: true }).permits(at('inside.test'), address)).toBe(false)
    },
  )

  test('are denied in every spelling', () => {
    const guarded = policy({ privateDenied: true })
    for (const spelling of RANGES.flatMap(spellings)) {
      expect([spelling, guarded.permits(at('inside.test'), spelling)]).toEqual([spelling, false])
    }
  })

  test('can be allowed by name or by address', () => {
    const guarded = policy({ privateDenied: true, allow: ['inside.test', '10.0.0.0/8'] })
    expect(guarded.permits(at('inside.test'), '192.168.0.1')).toBe(true)
    expect(guarded.permits(at('other.test'), '10.9.9.9')).toBe(true)
    expect(guarded.permits(at('other.test'), '192.168.0.1')).toBe(false)
  })
})

describe('names', () => {
  test('are judged by the most specific rule, and deny wins where two are alike', () => {
    const rules = policy({
      allow: ['*.example.com', 'both.test', 'exact.b.example.com', 'port.test:8443'],
      deny: ['*.b.example.com', 'both.test', 'port.test'],
    })
    expect(rules.permits(at('a.example.com'), PUBLIC)).toBe(true)
    expect(rules.permits(at('x.b.example.com'), PUBLIC)).toBe(false)
    expect(rules.permits(at('exact.b.example.com'), PUBLIC)).toBe(true)
    expect(rules.permits(at('both.test'), PUBLIC)).toBe(false)
    expect(rules.permits(at('port.test'), PUBLIC)).toBe(false)
    expect(rules.permits(at('port.test', 8443), PUBLIC)).toBe(true)
  })

  test('a wildcard covers any depth below, and not the apex', () => {
    const rules = policy({ action: 'deny', allow: ['*.example.com'] })
    expect(rules.permits(at('deep.er.example.com'), PUBLIC)).toBe(true)
    expect(rules.permits(at('example.com'), PUBLIC)).toBe(false)
    expect(rules.permits(at('notexample.com'), PUBLIC)).toBe(false)
  })

  test('a rule without port holds for every port, one with a port for that one', () => {
    const rules = policy({ action: 'deny', allow: ['any.test', 'one.test:22'] })
    expect(rules.permits(at('any.test', 8080), PUBLIC)).toBe(true)
    expect(rules.permits(at('one.test', 22), PUBLIC)).toBe(true)
    expect(rules.permits(at('one.test', 443), PUBLIC)).toBe(false)
  })
})

describe('addresses', () => {
  test('a denied address beats an allowed name', () => {
    const rules = policy({ allow: ['good.test'], deny: ['203.0.113.0/24'] })
    expect(rules.permits(at('good.test'), PUBLIC)).toBe(false)
    expect(rules.permits(at('good.test'), '198.51.100.1')).toBe(true)
    for (const spelling of spellings(PUBLIC)) {
      expect(rules.permits(at('good.test'), spelling)).toBe(false)
    }
  })

  test('of two ranges the narrower decides, and deny where they are alike', () => {
    const rules = policy({
      action: 'deny',
      allow: ['203.0.113.0/24', '203.0.113.9', '198.51.100.0/24', '2001:db8::/32'],
      deny: ['203.0.113.8/29', '198.51.100.0/24', '2001:db8:1::/48'],
    })
    expect(rules.permits(at('x.test'), PUBLIC)).toBe(true)
    expect(rules.permits(at('x.test'), '203.0.113.10')).toBe(false)
    expect(rules.permits(at('x.test'), '203.0.113.9')).toBe(true)
    expect(rules.permits(at('x.test'), '198.51.100.1')).toBe(false)
    expect(rules.permits(at('x.test'), '2001:db8:2::1')).toBe(true)
    expect(rules.permits(at('x.test'), '2001:db8:1::1')).toBe(false)
  })

  test('a denied name is not let in by its address', () => {
    const rules = policy({ allow: ['203.0.113.0/24'], deny: ['bad.test'] })
    expect(rules.permits(at('bad.test'), PUBLIC)).toBe(false)
    expect(rules.permits(at('else.test'), PUBLIC)).toBe(true)
  })

  test('a name is only refused unseen when no address could let it in', () => {
    expect(policy({ action: 'deny' }).refusesName(at('x.test'))).toBe(true)
    expect(policy({ action: 'deny', allow: ['10.0.0.0/8'] }).refusesName(at('x.test'))).toBe(false)
    expect(policy({ deny: ['x.test'] }).refusesName(at('x.test'))).toBe(true)
    expect(policy({ deny: ['10.0.0.0/8'] }).refusesName(at('x.test'))).toBe(false)
    expect(policy({ deny: ['10.0.0.0/8'] }).refusesName(at('10.2.3.4'))).toBe(true)
  })
})

describe('for any address', () => {
  test('no spelling reaches what its plain one does not', () => {
    const prefix = fc.integer({ min: 0, max: 32 })
    const range = fc.tuple(ipv4, prefix).map(([address, bits]) => `${address}/${bits}`)
    fc.assert(
      fc.property(
        ipv4,
        fc.array(range, { maxLength: 3 }),
        fc.array(range, { maxLength: 3 }),
        fc.boolean(),
        fc.constantFrom<'tunnel' | 'deny'>('tunnel', 'deny'),
        (address, allow, deny, privateDenied, action) => {
          const rules = policy({ action, allow, deny, privateDenied })
          if (rules.permits(at('x.test'), address)) return
          for (const spelling of spellings(address)) {
            expect([spelling, rules.permits(at('x.test'), spelling)]).toEqual([spelling, false])
          }
        },
      ),
    )
  })

  test('the longest prefix that holds it decides', () => {
    const prefix = fc.integer({ min: 0, max: 32 })
    const number = (text: string) =>
      text.split('.').reduce((sum, part) => sum * 256 + Number(part), 0)
    const holds = (rule: string, address: string) => {
      const [base = '', bits] = rule.split('/')
      const size = 2 ** (32 - Number(bits))
      return Math.floor(number(base) / size) === Math.floor(number(address) / size)
    }
    const rule = (near: string) =>
      fc.tuple(fc.oneof(fc.constant(near), ipv4), prefix).map(([base, bits]) => `${base}/${bits}`)
    fc.assert(
      fc.property(
        ipv4
          .filter(
            (address) =>
              !/^(2[23]\d\.|255\.255\.255\.255$|169\.254|168\.63\.129\.16$|100\.100\.100\.200$|192\.0\.0\.192$)/.test(
                address,
              ),
          )
          .chain((address) =>
            fc.tuple(
              fc.constant(address),
              fc.array(rule(address), { maxLength: 4 }),
              fc.array(rule(address), { maxLength: 4 }),
            ),
          ),
        ([address, allow, deny]) => {
          const longest = (list: string[]) =>
            Math.max(
              -1,
              ...list
                .filter((each) => holds(each, address))
                .map((each) => Number(each.split('/')[1])),
            )
          const denied = longest(deny)
          const allowed = longest(allow)
          const expected = denied === -1 && allowed === -1 ? true : allowed > denied
          expect(policy({ allow, deny }).permits(at('x.test'), address)).toBe(expected)
        },
      ),
    )
  })
})

test('says what is wrong with a rule, and takes ranges and patterns', () => {
  for (const fine of ['10.0.0.0/8', '::1', 'fd00::/8', '*.example.com', 'host.test:8443']) {
    expect([fine, passthroughRuleProblem(fine)]).toEqual([fine, undefined])
  }
  for (const wrong of ['10.0.0.0/33', 'a b', '*.10.0.0.1', 'x.*.test', '']) {
    expect([wrong, typeof passthroughRuleProblem(wrong)]).toEqual([wrong, 'string'])
  }
})
