import { readFileSync } from 'node:fs'
import { test } from 'vitest'
import { ChildFolder } from '/work/main/test/support/child-app.ts'
import { startOrigin } from '/work/main/test/support/origin.ts'
import { RedisServer } from '/work/main/test/support/redis.ts'

const cpu = (pid: number) => {
  const f = readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ')[1]!.split(' ')
  return (Number(f[11]) + Number(f[12])) * 10
}
test('ratio', { timeout: 200000 }, async () => {
  await using redis = await RedisServer.start()
  await using origin = await startOrigin({ handler: (_q, r) => { r.end('x'.repeat(1024)) } })
  const key = Buffer.alloc(32, 1).toString('base64')
  let n = 0
  const rows: string[] = []
  const kinds: [string, object][] = [
    ['none', {}], ['one by one 60/s..', { rate: ['2000000/d'] }], ['narrow-ish 2000/s day 10M', { rate: ['2000/s', '10000000/d'] }],
  ]
  for (const [name, limits] of kinds) {
    const apps = []
    for (const store of ['file:data/x.db', `${redis.url}?prefix=r${n++}`]) {
      const folder = new ChildFolder({ store, storeKey: key, pools: { api: { targets: [`http://127.0.0.1:${origin.port}`], limits, credentials: [{ id: 'a', source: { type: 'static', token: 't' } }] } } })
      apps.push({ store, app: await folder.start(), folder, rps: 0, cpu: 0, count: 0, ms: 0 })
    }
    for (let round = 0; round < 4; round++) for (const each of apps) {
      const client = each.app.client()
      const c0 = cpu(each.app.child.pid!)
      const t0 = performance.now()
      const end = t0 + (round === 0 ? 700 : 1500)
      let count = 0
      await Promise.all(Array.from({ length: 32 }, async () => { while (performance.now() < end) { await client.request(`http://127.0.0.1:${origin.port}/`); count++ } }))
      if (round > 0) { each.count += count; each.ms += performance.now() - t0; each.cpu += cpu(each.app.child.pid!) - c0 }
    }
    const [f, r] = apps.map((a) => ({ rps: a.count / a.ms * 1000, cpu: a.cpu / a.count }))
    rows.push(`${name}: rps ${f!.rps.toFixed(0)} -> ${r!.rps.toFixed(0)} ratio ${(r!.rps / f!.rps).toFixed(2)}; cpu ms/req ${f!.cpu.toFixed(3)} -> ${r!.cpu.toFixed(3)} ratio ${(f!.cpu / r!.cpu).toFixed(2)}`)
    for (const a of apps) { await a.app[Symbol.asyncDispose](); a.folder[Symbol.dispose]() }
  }
  console.log(rows.join('\n'))
})
