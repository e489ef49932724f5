// A process of its own around a store. Arguments: the compiled src/, the store's URL, the job.
// It prints a line per event and takes commands by line from stdin.
import { createInterface } from 'node:readline'
import { pathToFileURL } from 'node:url'

const [source, url, job] = process.argv.slice(2)
const { openStore } = await import(pathToFileURL(`${source}/store/open.js`).href)
const { Secret } = await import(pathToFileURL(`${source}/lib/secret.js`).href)
const { systemClock } = await import(pathToFileURL(`${source}/lib/clock.js`).href)

const say = (line) => process.stdout.write(`${line}\n`)
const record = (generation) => ({
  generation,
  fingerprint: 'f',
  egress: 'direct',
  token: new Secret(`token-${generation}-${'x'.repeat(800)}`),
  refreshToken: new Secret(`refresh-${generation}`),
})

try {
  const store = await openStore(url, { key: undefined, clock: systemClock })
  say('open')
  if (job === 'rotate') {
    const known = await store.read('pool', 'a')
    for (let generation = (known?.generation ?? 0) + 1; ; generation++) {
      store.saveUsage('pool', 'a', { windows: {}, uses: generation, generation })
      say(`used ${generation}`)
      await store.save('pool', 'a', record(generation))
      say(`saved ${generation}`)
    }
  }
  for await (const line of createInterface({ input: process.stdin })) {
    const [verb, number] = line.split(' ')
    try {
      if (verb === 'save') await store.save('pool', 'a', record(Number(number)))
      if (verb === 'use')
        store.saveUsage('pool', 'a', { windows: {}, uses: Number(number), generation: 1 })
      say('done')
    } catch (error) {
      say(`failed ${error.code} ${error.message}`)
    }
  }
  await store.close()
} catch (error) {
  say(`refused ${error.code} ${error.message}`)
}
