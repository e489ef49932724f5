import { createHash, randomBytes } from 'node:crypto'
import { mkdtemp, readdir, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { PassThrough, Readable } from 'node:stream'
import { afterEach, beforeEach, expect, test, vi } from 'vitest'
import { RequestBody } from '../../src/lib/body.ts'

let dir: string

beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), 'cupbearer-body-'))
})

afterEach(() => rm(dir, { recursive: true, force: true }))

async function drain(body: Buffer | Readable): Promise<Buffer> {
  if (Buffer.isBuffer(body)) return body
  const chunks: Buffer[] = []
  for await (const chunk of body) chunks.push(chunk as Buffer)
  return Buffer.concat(chunks)
}

function pieces(data: Buffer, size: number): Readable {
  return Readable.from(
    (function* () {
      for (let at = 0; at < data.length; at += size) yield data.subarray(at, at + size)
    })(),
    { objectMode: false },
  )
}

test.each([0, 1, 1000, 70_000, 3_000_000, 30_000_000])(
  'a body of %i bytes is the same at each attempt, from memory and from disk',
  async (size) => {
    const data = randomBytes(size)
    const body = new RequestBody(pieces(data, 16_384), { memory: 100_000, disk: 100_000_000, dir })
    for (let attempt = 0; attempt < 3; attempt++) {
      expect((await drain(body.open())).equals(data)).toBe(true)
    }
    expect(body.bytesRead).toBe(size)
    expect(body.replayable).toBe(true)
    body.release()
    expect(await readdir(dir)).toEqual([])
  },
)

test('a second attempt takes over where the first stopped, at any point', async () => {
  const data = randomBytes(20_000_000)
  const wanted = createHash('sha1').update(data).digest('hex')
  for (const stopAfter of [0, 1, 50_000, 120_000, 9_000_000, 17_000_000, 19_999_999]) {
    const body = new RequestBody(pieces(data, 60_000), { memory: 100_000, disk: 100_000_000, dir })
    const first = body.open() as Readable
    let seen = 0
    while (seen < stopAfter) {
      const chunk = first.read() as Buffer | null
      if (chunk) seen += chunk.length
      else await new Promise((resolve) => first.once('readable', resolve))
    }
    const whole = await drain(body.open())
    expect(createHash('sha1').update(whole).digest('hex')).toBe(wanted)
    expect(first.destroyed).toBe(true)
    body.release()
  }
})

test('a body beyond memory and disk passes once, whole, and cannot be sent again', async () => {
  const data = randomBytes(1_000_000)
  const body = new RequestBody(pieces(data, 16_384), { memory: 50_000, disk: 200_000, dir })
  expect((await drain(body.open())).equals(data)).toBe(true)
  expect(body.replayable).toBe(false)
  expect(() => body.open()).toThrow()
  body.release()
})

test('a folder that cannot be written costs the replay, not the request', async () => {
  const data = randomBytes(20_000_000)
  const body = new RequestBody(pieces(data, 16_384), {
    memory: 50_000,
    disk: 1e9,
    dir: join(dir, 'none'),
  })
  expect((await drain(body.open())).equals(data)).toBe(true)
  await vi.waitFor(() => expect(body.replayable).toBe(false), 20_000)
  body.release()
})

test('the client is read only as fast as the attempt takes the body', async () => {
  let produced = 0
  const source = new Readable({
    highWaterMark: 16_384,
    read() {
      produced += 16_384
      this.push(Buffer.alloc(16_384))
    },
  })
  const body = new RequestBody(source, { memory: 1_000, disk: 1e9, dir })
  const attempt = body.open() as Readable
  attempt.read(0)
  for (let i = 0; i < 50; i++) await new Promise((resolve) => setImmediate(resolve))
  expect(produced).toBeLessThan(300_000)
  body.release()
  source.destroy()
})

test('a client that breaks off ends the attempt with an error, a later one too', async () => {
  const source = new PassThrough()
  const body = new RequestBody(source, { memory: 100_000, disk: 0, dir })
  const attempt = body.open() as Readable
  source.write('half')
  source.destroy()
  await expect(drain(attempt)).rejects.toThrow()
  await expect(drain(body.open())).rejects.toThrow('the client left')
  body.release()
})

test('what is left of a released body is let through', async () => {
  const source = pieces(randomBytes(1_000_000), 16_384)
  const body = new RequestBody(source, { memory: 10_000, disk: 1e9, dir })
  ;(body.open() as Readable).read(0)
  body.release()
  await new Promise((resolve) => source.once('end', resolve))
  expect(body.replayable).toBe(false)
})
