import { execFileSync } from 'node:child_process'
import { chmodSync, copyFileSync, existsSync, readFileSync, writeFileSync } from 'node:fs'
import net from 'node:net'
import { dirname } from 'node:path'

/** Proxies that npm does not bring: measured where they are installed, never installed by the benchmark. */

const onPath = (command) =>
  (process.env.PATH ?? '').split(':').some((folder) => existsSync(`${folder}/${command}`))

const freePort = () =>
  new Promise((resolve, reject) => {
    const server = net.createServer()
    server.once('error', reject).listen(0, '127.0.0.1', () => {
      const { port } = server.address()
      server.close(() => resolve(port))
    })
  })

/** mitmproxy without its console, with an addon that sets the header and says when it listens. */
export async function mitmdump({ folder, token, authorityPem }) {
  if (!onPath('mitmdump')) return { missing: 'not on PATH' }
  const port = await freePort()
  const ca = `${folder}/mitmproxy-ca-cert.pem`
  writeFileSync(
    `${folder}/addon.py`,
    `import json

def running():
    print(${JSON.stringify(JSON.stringify({ port, ca }))}, flush=True)

def server_connect(data):
    data.server.address = ("127.0.0.1", data.server.address[1])

def request(flow):
    flow.request.headers["authorization"] = ${JSON.stringify(`Bearer ${token}`)}
`,
  )
  const options = {
    confdir: folder,
    connection_strategy: 'lazy',
    ssl_verify_upstream_trusted_ca: authorityPem,
  }
  const set = Object.entries(options).flatMap(([name, value]) => ['--set', `${name}=${value}`])
  const listen = ['--listen-host', '127.0.0.1', '--listen-port', String(port)]
  return { command: 'mitmdump', args: ['-q', ...listen, ...set, '-s', `${folder}/addon.py`] }
}

/** Squid with ssl-bump of everything, without a cache (the Debian package is squid-openssl). */
export async function squid({ folder, token, authority, authorityPem }) {
  if (!onPath('squid')) return { missing: 'not on PATH' }
  if (!execFileSync('squid', ['-v'], { encoding: 'utf8' }).includes('--with-openssl')) {
    return { missing: 'built without OpenSSL' }
  }
  const minter = [
    '/usr/lib/squid/security_file_certgen',
    '/usr/lib64/squid/security_file_certgen',
  ].find((path) => existsSync(path))
  if (!minter) return { missing: 'no security_file_certgen' }
  const port = await freePort()
  const key = `${folder}/ca.key`
  writeFileSync(key, JSON.parse(readFileSync(authority, 'utf8')).key)
  copyFileSync(authorityPem, `${folder}/ca.pem`)
  writeFileSync(`${folder}/hosts`, '127.0.0.1 api.bench.test\n')
  // Squid gives up root for the user proxy, who must get here and write: a throw-away folder and CA.
  chmodSync(dirname(folder), 0o711)
  chmodSync(folder, 0o777)
  if (!existsSync(`${folder}/leaves`)) {
    execFileSync(minter, ['-c', '-s', `${folder}/leaves`, '-M', '16MB'])
    execFileSync('chmod', ['-R', 'a+rwX', `${folder}/leaves`])
  }
  writeFileSync(
    `${folder}/squid.conf`,
    `http_port 127.0.0.1:${port} ssl-bump tls-cert=${folder}/ca.pem tls-key=${key} generate-host-certificates=on dynamic_cert_mem_cache_size=16MB
sslcrtd_program ${minter} -s ${folder}/leaves -M 16MB
ssl_bump bump all
tls_outgoing_options cafile=${folder}/ca.pem
hosts_file ${folder}/hosts
http_access allow all
cache deny all
access_log none
cache_log ${folder}/cache.log
pid_filename none
pinger_enable off
shutdown_lifetime 0 seconds
request_header_access Authorization deny all
request_header_add Authorization "Bearer ${token}"
`,
  )
  return {
    command: 'squid',
    args: ['-N', '-f', `${folder}/squid.conf`],
    port,
    ca: `${folder}/ca.pem`,
  }
}
