import { readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { expect, test } from 'vitest'

const read = (file: string) =>
  readFileSync(fileURLToPath(new URL(`../../${file}`, import.meta.url)), 'utf8')
const manifest = JSON.parse(read('package.json')) as {
  scripts: Record<string, string>
  dependencies: Record<string, string>
}
const locked = Object.entries(
  (
    JSON.parse(read('package-lock.json')) as {
      packages: Record<
        string,
        { dev?: boolean; resolved?: string; integrity?: string; hasInstallScript?: boolean }
      >
    }
  ).packages,
).filter(([path, { dev }]) => path !== '' && !dev)

test('installing runs no script, of ours or of a dependency', () => {
  const hooks = ['preinstall', 'install', 'postinstall', 'prepare', 'prepublish']
  expect(Object.keys(manifest.scripts).filter((name) => hooks.includes(name))).toEqual([])
  expect(locked.filter(([, { hasInstallScript }]) => hasInstallScript)).toEqual([])
})

test('the lock file pins every dependency by its hash, from the public registry alone', () => {
  expect(locked.length).toBeGreaterThan(Object.keys(manifest.dependencies).length)
  const ours = 'https://registry.npmjs.org/'
  const loose = locked.filter(
    ([, { resolved = ours, integrity }]) =>
      !resolved.startsWith(ours) || !integrity?.startsWith('sha512-'),
  )
  expect(loose).toEqual([])
})

test('every dependency says why it is there', () => {
  const page = read('docs/decisions/07-dependencies.md')
  const unexplained = Object.keys(manifest.dependencies).filter(
    (name) => !page.includes(`\`${name.replace(/^(@opentelemetry)\/.*/, '$1/*')}\``),
  )
  expect(unexplained).toEqual([])
})

test('releases carry their provenance, and what runs in public may read but not write', () => {
  expect(read('.github/workflows/publish.yml')).toMatch(/npm publish --provenance/)
  expect(read('.github/workflows/publish.yml')).toMatch(
    /contents: read\n(.*\n)* {2}id-token: write/,
  )
  const ci = read('.github/workflows/ci.yml')
  expect(ci).toMatch(/^permissions:\n {2}contents: read\n\n/m)
  expect(ci).toContain('npm audit --omit=dev')
})
