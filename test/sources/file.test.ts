import { execFileSync } from 'node:child_process'
import { mkdir, mkdtemp, rename, rm, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { fileSource } from '../../src/sources/file.ts'
import { readPointer } from '../../src/sources/pointer.ts'
import { sourceContext } from '../support/source-context.ts'

let folder: string
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'cupbearer-file-'))
})
afterEach(() => rm(folder, { recursive: true }))

const obtain = (path: string, pointer?: string) =>
  fileSource(
    pointer === undefined ? { type: 'file', path } : { type: 'file', path, pointer },
  ).obtain(undefined, sourceContext())

describe('a token file', () => {
  it('is read whole and trimmed', async () => {
    await writeFile(join(folder, 'token'), '\ufeff  the-token \r\n')
    expect((await obtain(join(folder, 'token'))).token.reveal()).toBe('the-token')
  })

  it('is read by a JSON pointer', async () => {
    await writeFile(join(folder, 'token.json'), '{"a/b":[{"m~n":"the-token"}]}')
    const token = await obtain(join(folder, 'token.json'), '/a~1b/0/m~0n')
    expect(token.token.reveal()).toBe('the-token')
  })

  it.each([
    ['missing', undefined, undefined, /cannot be read \(ENOENT\)/],
    ['empty', ' \n', undefined, /empty/],
    ['of two lines', 'hidden\nhidden', undefined, /header field/],
    ['larger than 1 MiB', 'x'.repeat(2 ** 20 + 1), undefined, /larger than 1 MiB/],
    ['not JSON', '{"token": hidden', '/token', /not valid JSON/],
    ['without the member', '{"other":"hidden"}', '/token', /no string at \/token/],
    ['with a number there', '{"token":7}', '/token', /no string at \/token/],
  ])(
    'that is %s fails with its path and without its text',
    async (_what, text, pointer, message) => {
      const path = join(folder, 'token')
      if (text !== undefined) await writeFile(path, text)
      const error = await obtain(path, pointer).catch((reason: unknown) => reason)
      expect(error).toMatchObject({ code: 'SOURCE_FAILED', kind: 'transient' })
      expect((error as Error).message).toMatch(message)
      expect((error as Error).message).toContain(path)
      expect((error as Error).message).not.toContain('hidden')
    },
  )

  it('that is a pipe or a folder is refused at once', async () => {
    execFileSync('mkfifo', [join(folder, 'pipe')])
    await expect(obtain(join(folder, 'pipe'))).rejects.toThrow(/not a regular file/)
    await expect(obtain(folder)).rejects.toThrow(/not a regular file/)
  })
})

describe('a watched token file', () => {
  const watched = (path: string, options: { pollMs?: number }) => {
    const waiting: (() => void)[] = []
    let count = 0
    const stop = fileSource({ type: 'file', path }, { settleMs: 5, ...options }).watch?.(() => {
      count++
      for (const resolve of waiting.splice(0)) resolve()
    })
    const changed = () => new Promise<void>((resolve) => waiting.push(resolve))
    return { changed, count: () => count, stop: () => stop?.() }
  }

  it('is told when written, replaced, removed and made again', async () => {
    const path = join(folder, 'token')
    await writeFile(path, 'one')
    const watch = watched(path, { pollMs: 1e6 })
    for (const change of [
      () => writeFile(path, 'three'),
      () => writeFile(`${path}.new`, 'four').then(() => rename(`${path}.new`, path)),
      () => rm(path).then(() => writeFile(path, 'fifth')),
    ]) {
      const told = watch.changed()
      await change()
      await told
    }
    watch.stop()
  })

  it('is told when a link beside it is swapped, as Kubernetes does', async () => {
    const release = async (name: string, token: string) => {
      await mkdir(join(folder, name))
      await writeFile(join(folder, name, 'token'), token)
      await symlink(name, join(folder, '..data_tmp'))
      await rename(join(folder, '..data_tmp'), join(folder, '..data'))
    }
    await release('..1', 'one')
    await symlink('..data/token', join(folder, 'token'))
    const watch = watched(join(folder, 'token'), { pollMs: 1e6 })
    const told = watch.changed()
    await release('..2', 'two')
    await told
    expect((await obtain(join(folder, 'token'))).token.reveal()).toBe('two')
    watch.stop()
  })

  it('is polled where the system reports nothing', async () => {
    const path = join(folder, 'later', 'token')
    const watch = watched(path, { pollMs: 10 })
    const told = watch.changed()
    await mkdir(join(folder, 'later'))
    await writeFile(path, 'one')
    await told
    watch.stop()
  })

  it('is left alone for changes of other files, and after the watch ended', async () => {
    const path = join(folder, 'token')
    await writeFile(path, 'one')
    const other = watched(join(folder, 'other'), { pollMs: 10 })
    const watch = watched(path, { pollMs: 10 })
    for (const text of ['x', 'xx', 'xxx', 'xxxx']) {
      const told = other.changed()
      await writeFile(join(folder, 'other'), text)
      await told
    }
    expect(watch.count()).toBe(0)
    watch.stop()
    const again = other.changed()
    await writeFile(path, 'two')
    await writeFile(join(folder, 'other'), 'yz')
    await again
    expect(watch.count()).toBe(0)
    other.stop()
  })
})

describe('a JSON pointer', () => {
  // RFC 6901 §5.
  const document = { foo: ['bar', 'baz'], '': 0, 'a/b': 1, 'c%d': 2, 'm~n': 8, '~1': 9 }

  it.each([
    ['', document],
    ['/foo', ['bar', 'baz']],
    ['/foo/0', 'bar'],
    ['/', 0],
    ['/a~1b', 1],
    ['/c%d', 2],
    ['/m~0n', 8],
    ['/~01', 9],
    ['/foo/00', undefined],
    ['/foo/-', undefined],
    ['/foo/length', undefined],
    ['/toString', undefined],
    ['/foo/0/0', undefined],
  ])('%j names its value', (pointer, expected) => {
    expect(readPointer(document, pointer)).toEqual(expected)
  })
})
