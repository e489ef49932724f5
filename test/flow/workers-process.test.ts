import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { afterEach, expect, test } from 'vitest'
import { cupbearer, said } from '../cli/command-line.ts'
import { type ChildApp, ChildFolder } from '../support/child-app.ts'
import { type Origin, startOrigin } from '../support/origin.ts'
import { until } from '../support/until.ts'
import { isAlive, servedBy, workersOf } from '../support/workers.ts'

const TOKEN = 'a-token-that-nobody-may-see'

const open: (AsyncDisposable | Disposable)[] = []

afterEach(async () => {
  for (const each of open.splice(0).reverse()) {
    if (Symbol.asyncDispose in each) await each[Symbol.asyncDispose]()
    else each[Symbol.dispose]()
  }
})

function folderFor(api: Origin, more: object = {}): ChildFolder {
  const folder = new ChildFolder({
    ...more,
    pools: {
      api: {
        targets: [api.url],
        credentials: [{ id: 'a', source: { type: 'static', token: '${env:API_TOKEN}' } }],
      },
    },
  })
  open.push(folder)
  return folder
}

async function start(folder: ChildFolder, args: readonly string[] = []): Promise<ChildApp> {
  const child = await folder.start({ args, env: { API_TOKEN: TOKEN } })
  open.push(child)
  return child
}

test('start --workers 2 serves by two processes that hold no token in sight, and --json prints once', async () => {
  const api = await startOrigin()
  open.push(api)
  const child = await start(folderFor(api), ['--workers', '2'])
  let more = ''
  child.child.stdout.on('data', (text) => {
    more += text
  })
  const pid = child.child.pid as number
  const workers = workersOf(pid)
  expect(workers).toHaveLength(2)
  const answers = await Promise.all(
    Array.from({ length: 4 }, () => child.client().request(`${api.url}/x`)),
  )
  for (const answer of answers) {
    expect(answer.json<{ authorization: string }>().authorization).toBe(`Bearer ${TOKEN}`)
  }
  expect(new Set(answers.map(servedBy)).size).toBe(2)
  for (const worker of workers) {
    for (const file of ['cmdline', 'environ']) {
      const content = readFileSync(`/proc/${worker}/${file}`, 'latin1')
      expect(content).not.toContain(TOKEN)
      expect(content).not.toContain('API_TOKEN')
    }
  }
  expect(more).toBe('')
})

test('SIGTERM with 100 requests in flight drops none of them, and ends with 0', async () => {
  let release = () => {}
  const released = new Promise<void>((resolve) => {
    release = resolve
  })
  let arrived = 0
  const api = await startOrigin({
    handler: (_, response) => {
      arrived += 1
      response.write('begun ')
      void released.then(() => response.end('and done'))
    },
  })
  open.push(api)
  const child = await start(folderFor(api, { workers: 2 }))
  const workers = workersOf(child.child.pid as number)
  const asked = Array.from({ length: 100 }, () => child.client().request(`${api.url}/x`))
  await until(() => arrived === 100)
  const ended = once(child.child, 'exit')
  const draining = said(child.child.stderr, /finishing the requests in flight/)
  child.child.kill('SIGTERM')
  await draining
  await expect(child.client().request(`${api.url}/late`)).rejects.toThrow()
  release()
  const answers = await Promise.all(asked)
  expect(answers.filter(({ body }) => body.toString() === 'begun and done')).toHaveLength(100)
  expect((await ended)[0]).toBe(0)
  expect(workers.filter(isAlive)).toEqual([])
})

test('a primary that is killed takes its workers with it at once', async () => {
  const api = await startOrigin()
  open.push(api)
  const child = await start(folderFor(api, { workers: 2 }))
  const workers = workersOf(child.child.pid as number)
  expect(workers.filter(isAlive)).toHaveLength(2)
  await child.kill()
  await until(() => workers.every((worker) => !isAlive(worker)))
})

test('a number of workers that makes no sense is a usage error', async () => {
  const api = await startOrigin()
  open.push(api)
  const folder = folderFor(api)
  const args = ['start', '-c', 'config.json', '--workers']
  const options = { cwd: folder.path, env: { API_TOKEN: TOKEN } }
  const { code, err } = await cupbearer([...args, '0'], options)
  expect([code, err]).toEqual([2, expect.stringContaining('workers from 1 to')])
})
