import { readFileSync } from 'node:fs'
import fc from 'fast-check'
import { expect } from 'vitest'
import { readConfig } from '../../src/config/load.ts'
import { ConfigError } from '../../src/errors.ts'
import { harOf } from '../../src/trace/har.ts'
import { formatTrace } from '../../src/trace/trace.ts'
import { sampleExchange } from '../support/admin.ts'
import { harProblems } from '../support/har-schema.ts'
import type { FuzzTarget } from './target.ts'

const EXAMPLE = readFileSync(new URL('../../config.example.json', import.meta.url), 'utf8')
const SECRET = 'a-secret-of-the-fuzzer-7361'
const ENV = Object.fromEntries(
  [...EXAMPLE.matchAll(/\$\{env:([A-Z0-9_]+)\}/g)].map((match) => [match[1] as string, SECRET]),
)

type Json = null | boolean | number | string | Json[] | { [key: string]: Json }
const ODD: Json[] = [
  null,
  true,
  -1,
  1e308,
  0.5,
  '',
  ' ',
  SECRET,
  `${SECRET}\r\n`,
  '${env:MISSING}',
  '${file:/nowhere}',
  '${',
  '1/0s',
  '-1s',
  '9'.repeat(400),
  '/(a+)+$/',
  '[',
  '::',
  'http://[',
  `http://u:${SECRET}@h:99999`,
  '*',
  [],
  {},
  [[]],
  { status: 'x' },
  { __proto__x: 1 },
  ['a', 'a'],
]

/** Changes what stands at the place that `steps` lead to. */
function change(value: Json, steps: readonly number[], odd: Json, key: string | undefined): void {
  let at = value
  for (let i = 0; i < steps.length && typeof at === 'object' && at !== null; i++) {
    const holder = at as { [key: string]: Json }
    const keys = Object.keys(holder)
    if (keys.length === 0) return
    const name = keys[(steps[i] as number) % keys.length] as string
    const inner = holder[name] as Json
    if (i === steps.length - 1 || typeof inner !== 'object' || inner === null) {
      // As JSON would have it: `__proto__` is a name like any other there.
      const place = { value: odd, writable: true, enumerable: true, configurable: true }
      Object.defineProperty(holder, key ?? name, place)
      return
    }
    at = inner
  }
}

/** A configuration is read, or refused with places and words that hold no secret. */
export const config: FuzzTarget = {
  name: 'config',
  runs: 100,
  property: () =>
    fc.asyncProperty(
      fc.array(
        fc.record({
          steps: fc.array(fc.nat({ max: 9 }), { minLength: 1, maxLength: 7 }),
          odd: fc.constantFrom(...ODD),
          key: fc.option(
            fc.constantFrom('__proto__', 'constructor', SECRET, 'targets', 'a.b[0]', ''),
            { nil: undefined, freq: 4 },
          ),
        }),
        { maxLength: 3 },
      ),
      async (changes) => {
        const tree = JSON.parse(EXAMPLE) as Json
        for (const { steps, odd, key } of changes) change(tree, steps, structuredClone(odd), key)
        try {
          await readConfig(tree, '/nowhere/config.json', ENV)
        } catch (error) {
          if (!(error instanceof ConfigError)) throw error
          expect(error.issues.length).toBeGreaterThan(0)
          // A name of a key is told, since nobody could find it else.
          const told = error.issues.map(({ message }) => message).join('\n')
          if (!changes.some(({ key }) => key === SECRET)) expect(told).not.toContain(SECRET)
        }
      },
    ),
}

const text = fc.oneof(
  fc.string({ unit: 'binary', maxLength: 20 }),
  fc.constantFrom('\ud800', '"', '</script>', '\u2028', '\0', '%', 'a=b&c', '?', '#'),
)
/** What a request target may hold. */
const target = fc.string({
  unit: fc.integer({ min: 0x21, max: 0x7e }).map((byte) => String.fromCharCode(byte)),
  maxLength: 20,
})
const pairs = fc
  .array(fc.tuple(fc.constantFrom('cookie', 'Set-Cookie', 'content-type', 'location', 'x'), text), {
    maxLength: 4,
  })
  .map((all) => all.flat())
const body = fc.option(fc.record({ text, size: fc.nat(), cut: fc.boolean() }), { nil: undefined })
const ms = fc.option(fc.double({ min: 0, max: 1e9, noNaN: true }), { nil: undefined })

/** Whatever was asked and answered, the archive of it is JSON that says what HAR 1.2 wants. */
export const har: FuzzTarget = {
  name: 'har',
  runs: 500,
  property: () =>
    fc.property(
      fc.record({
        method: fc.constantFrom('GET', '-', 'POST'),
        kind: fc.constantFrom(
          'exchange' as const,
          'denied' as const,
          'tunnel' as const,
          'websocket' as const,
        ),
        place: fc.oneof(
          target.map((path) => `https://api.test/${path}`),
          target.map((target) => `https://${target}`),
          target,
        ),
        status: fc.constantFrom(undefined, 0, 200, 599, 999),
        request: fc.record({ headers: pairs, body }),
        response: fc.option(fc.record({ reason: text, headers: pairs, body }), { nil: undefined }),
        durationMs: fc.double({ min: 0, max: 1e9, noNaN: true }),
        attempts: fc.array(
          fc
            .record({
              connectMs: ms,
              tlsMs: ms,
              firstByteMs: ms,
              totalMs: fc.double({ min: 0, max: 1e9, noNaN: true }),
              address: fc.option(text, { nil: undefined }),
            })
            // Without a connection of its own there is no handshake.
            .map((each) => (each.connectMs === undefined ? { ...each, tlsMs: undefined } : each)),
          { maxLength: 2 },
        ),
      }),
      ({ place, request, response, attempts, ...record }) => {
        const [sample] = sampleExchange().attempts
        const exchange = sampleExchange({
          ...(record as object),
          url: place,
          messages: { request, response },
          attempts: attempts.map((each) => ({ ...sample, ...each }) as NonNullable<typeof sample>),
        })
        const archive = JSON.parse(JSON.stringify(harOf([formatTrace(exchange)])))
        expect(harProblems(archive)).toEqual([])
      },
    ),
}
