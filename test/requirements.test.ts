import { spawnSync } from 'node:child_process'
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { expect, test } from 'vitest'
import { LIBRARIES, PROGRAMS } from './support/requirements.mjs'

const TESTS = fileURLToPath(new URL('.', import.meta.url))

function check(path: string) {
  return spawnSync(process.execPath, [join(TESTS, 'support/requirements.mjs')], {
    env: { PATH: path },
    encoding: 'utf8',
  })
}

test('every program that a test runs is among the requirements', () => {
  const files = readdirSync(TESTS, { recursive: true, encoding: 'utf8' }).filter(
    (file) => /\.(ts|mjs)$/.test(file) && !/(^|[\\/])(bench|node_modules)[\\/]/.test(file),
  )
  const run = /(?<![.\w])(?:run|spawn|spawnSync|execFile|execFileSync)\(\s*'([a-z][\w-]*)'/g
  const programs = files.flatMap((file) =>
    [...readFileSync(join(TESTS, file), 'utf8').matchAll(run)].map((match) => match[1] as string),
  )
  const known = new Set([...Object.keys(PROGRAMS), 'apt-get', 'npm', 'npx', 'sh'])
  expect(programs).toContain('openssl')
  expect(programs.filter((program) => !known.has(program))).toEqual([])
})

test('what is missing and cannot be installed fails with the names of the packages', () => {
  const empty = mkdtempSync(join(tmpdir(), 'cupbearer-path-'))
  try {
    const { status, stderr } = check(empty)
    expect(status).toBe(1)
    const needs = [...Object.keys(PROGRAMS), ...Object.keys(LIBRARIES)]
    expect(stderr).toContain(`The tests need ${needs.join(', ')} on PATH`)
    const packages = Object.values(LIBRARIES).flatMap((library) => library.packages)
    for (const name of [...Object.values(PROGRAMS), ...packages]) expect(stderr).toContain(name)
  } finally {
    rmSync(empty, { recursive: true })
  }
})

test('nothing is said when all is there', () => {
  expect(check(process.env.PATH ?? '')).toMatchObject({ status: 0, stdout: '', stderr: '' })
})
