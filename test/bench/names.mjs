import dns from 'node:dns'
import { syncBuiltinESMExports } from 'node:module'

/** Every name of the benchmark is on loopback; the rest resolves as ever. Import before anything that dials. */
const resolve = dns.lookup
dns.lookup = (hostname, options, callback) => {
  if (!hostname?.endsWith('.bench.test')) return resolve(hostname, options, callback)
  const done = callback ?? options
  if (options.all) process.nextTick(done, null, [{ address: '127.0.0.1', family: 4 }])
  else process.nextTick(done, null, '127.0.0.1', 4)
}
syncBuiltinESMExports()
