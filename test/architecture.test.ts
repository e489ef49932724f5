import { readdirSync, readFileSync } from 'node:fs'
import { join, posix } from 'node:path'
import { fileURLToPath } from 'node:url'
import { describe, expect, test } from 'vitest'

const SRC = fileURLToPath(new URL('../src', import.meta.url))
const MAX_LINES = 400

/** Imports go strictly down; places of one rank never import each other. */
const RANKS = [
  ['errors', 'events', 'lib'],
  ['config', 'store', 'token'],
  ['sources', 'route', 'egress', 'ca'],
  ['pool'],
  ['exchange'],
  ['proxy', 'admin', 'trace', 'metrics'],
  ['app'],
  ['cli', 'index'],
]

/** Where each library, and nothing else of ours, is used: a folder, or one file. */
const LIBRARIES: Record<string, string> = {
  '@opentelemetry/api': 'trace',
  '@opentelemetry/exporter-trace-otlp-http': 'trace',
  '@opentelemetry/resources': 'trace',
  '@opentelemetry/sdk-trace-base': 'trace',
  fastify: 'admin',
  'http-mitm-proxy': 'proxy',
  libsql: 'store',
  'node-forge': 'ca',
  'openid-client': 'sources',
  pino: 'lib/log.ts',
  'pino-pretty': 'lib/log.ts',
  'playwright-core': 'sources',
  'prom-client': 'metrics.ts',
  redis: 'store',
  socks: 'egress/socks5.ts',
  undici: 'egress',
  yargs: 'cli',
  zod: 'config',
}
/** What browsers run: bundled by the build, so these are development dependencies of the package. */
const BUNDLED = 'admin/dashboard'
const BUNDLED_LIBRARIES = ['preact', 'uplot']
/** The two that architecture.md gives two places. */
const SHARED: Record<string, readonly string[]> = { jose: ['token', 'store'] }

interface Import {
  readonly from: string
  readonly to: string
  /** Gone after compilation: no part of a cycle at run time, but bound by the ranks all the same. */
  readonly typeOnly: boolean
}

const files = readdirSync(SRC, { recursive: true, encoding: 'utf8' })
  .map((file) => file.replaceAll('\\', '/'))
  .filter((file) => /\.tsx?$/.test(file))
  .sort()

const imports: Import[] = files.flatMap((from) =>
  [...code(from).matchAll(STATEMENTS())].map((match) => ({
    from,
    to: match[2] ?? (match[3] as string),
    typeOnly: match[1] !== undefined,
  })),
)
const inner = imports
  .filter(({ to }) => to.startsWith('.'))
  .map((each) => ({ ...each, to: posix.join(posix.dirname(each.from), each.to) }))
const outer = imports.filter(({ to }) => !to.startsWith('.') && !to.startsWith('node:'))

/** `import … from '…'`, `export … from '…'`, `import '…'` and `import('…')`. */
function STATEMENTS(): RegExp {
  return /(?:^|\n)\s*(?:import|export)(\s+type)?\b[^'";]*?from\s+'([^']+)'|\bimport\s*\(?\s*'([^']+)'/g
}

function code(file: string): string {
  return readFileSync(join(SRC, file), 'utf8').replace(/\/\*[\s\S]*?\*\//g, '')
}

function placeOf(file: string): string {
  return (file.split('/')[0] as string).replace(/\.ts$/, '')
}

function rankOf(file: string): number {
  return RANKS.findIndex((places) => places.includes(placeOf(file)))
}

describe('the tree', () => {
  test('has files, and the imports of each are read', () => {
    expect(files.length).toBeGreaterThan(70)
    const importing = new Set(imports.map(({ from }) => from))
    const silent = files.filter((file) => !importing.has(file))
    for (const file of silent) expect(code(file)).not.toMatch(/^\s*import\b/m)
    expect(inner.filter(({ to }) => !files.includes(to))).toEqual([])
  })

  test('gives every file a rank', () => {
    expect(files.filter((file) => rankOf(file) === -1)).toEqual([])
  })

  test('imports strictly down, and never among places of one rank', () => {
    const upward = inner.filter(
      ({ from, to }) => placeOf(from) !== placeOf(to) && rankOf(to) >= rankOf(from),
    )
    expect(upward).toEqual([])
  })

  test('has no import cycle', () => {
    expect(findCycle()).toBeUndefined()
  })

  test(`has no file of more than ${MAX_LINES} lines`, () => {
    const all = readdirSync(SRC, { recursive: true, encoding: 'utf8' })
    const long = all
      .filter((file) => /\.(tsx?|js|css|html)$/.test(file))
      .map((file) => [file, lines(file)] as const)
      .filter(([, count]) => count > MAX_LINES)
    expect(long).toEqual([])
  })

  test('uses each library in one place', () => {
    const strays = outer.filter(({ from, to }) => {
      const name = packageOf(to)
      const bundled = from.startsWith(`${BUNDLED}/`)
      if (bundled || BUNDLED_LIBRARIES.includes(name)) {
        return !(bundled && BUNDLED_LIBRARIES.includes(name))
      }
      const places = SHARED[name] ?? [LIBRARIES[name] ?? '']
      return !places.some((place) => place !== '' && (from === place || placeOf(from) === place))
    })
    expect(strays).toEqual([])
  })

  test('uses every library that package.json lists, and no other', () => {
    const manifest = JSON.parse(readFileSync(join(SRC, '..', 'package.json'), 'utf8')) as {
      dependencies: object
      devDependencies: object
      peerDependencies?: object
    }
    expect(Object.keys(manifest.devDependencies)).toEqual(expect.arrayContaining(BUNDLED_LIBRARIES))
    const installed = Object.keys({ ...manifest.dependencies, ...manifest.peerDependencies })
    const listed = [...installed, ...BUNDLED_LIBRARIES]
    expect([...new Set(outer.map(({ to }) => packageOf(to)))].sort()).toEqual(listed.sort())
  })

  test('shares no code between the dashboard and the server', () => {
    const inside = (file: string) => file.startsWith(`${BUNDLED}/`)
    expect(inner.filter(({ from, to }) => inside(from) !== inside(to))).toEqual([])
  })

  test('prints to the console nowhere', () => {
    const printing = files.filter((file) => /\bconsole\s*[.[]/.test(code(file)))
    expect(printing).toEqual([])
  })

  test('is what src/README.md draws', () => {
    const page = readFileSync(join(SRC, 'README.md'), 'utf8')
    const entries = readdirSync(SRC, { withFileTypes: true })
    const names = entries.map((entry) => (entry.isDirectory() ? `${entry.name}/` : entry.name))
    expect(names.filter((name) => !new RegExp(`^ {2}${name}`, 'm').test(page))).toEqual([])
  })
})

function lines(file: string): number {
  return readFileSync(join(SRC, file), 'utf8').trimEnd().split('\n').length
}

function packageOf(specifier: string): string {
  const [first, second] = specifier.split('/') as [string, string?]
  return first.startsWith('@') ? `${first}/${second}` : first
}

/** Depth first, what is being visited marked: an import back into it closes a cycle. */
function findCycle(): string[] | undefined {
  const next = new Map<string, string[]>()
  for (const { from, to, typeOnly } of inner) {
    if (!typeOnly) next.set(from, [...(next.get(from) ?? []), to])
  }
  const done = new Set<string>()
  const visit = (file: string, path: readonly string[]): string[] | undefined => {
    if (path.includes(file)) return [...path.slice(path.indexOf(file)), file]
    if (done.has(file)) return undefined
    for (const to of next.get(file) ?? []) {
      const cycle = visit(to, [...path, file])
      if (cycle) return cycle
    }
    done.add(file)
    return undefined
  }
  for (const file of files) {
    const cycle = visit(file, [])
    if (cycle) return cycle
  }
  return undefined
}
