import { readFile, stat, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import forge from 'node-forge'
import { afterEach, describe, expect, test } from 'vitest'
import { openAuthority } from '../../src/ca/authority.ts'
import { writeJavaTrustStore } from '../../src/ca/java-trust-store.ts'
import { LeafCache } from '../../src/ca/leaf.ts'
import { childEnvironment, systemRoots, writeBundle } from '../../src/ca/trust.ts'
import { curl, options, run, serve, temporaryFolder } from './support.ts'

const countOf = (pem: string) => pem.split('-----BEGIN CERTIFICATE-----').length - 1

const inherited = process.env.SSL_CERT_FILE
afterEach(() => {
  if (inherited === undefined) delete process.env.SSL_CERT_FILE
  else process.env.SSL_CERT_FILE = inherited
})

describe('the bundle', () => {
  test('holds the system roots and the CA, readable by all under any umask', async () => {
    await using folder = await temporaryFolder()
    const { certificatePem } = await openAuthority(options(folder.path, 'api.example.com'))
    const bundle = join(folder.path, 'bundle.pem')
    const before = process.umask(0o077)
    try {
      await writeBundle(bundle, certificatePem)
    } finally {
      process.umask(before)
    }
    const text = await readFile(bundle, 'utf8')
    expect(countOf(systemRoots())).toBeGreaterThan(50)
    expect(countOf(text)).toBe(countOf(systemRoots()) + 1)
    expect(text).toContain(certificatePem.trim())
    expect((await stat(bundle)).mode & 0o777).toBe(0o644)
  })

  test('starts from SSL_CERT_FILE, and never holds a certificate twice', async () => {
    await using folder = await temporaryFolder()
    await using other = await temporaryFolder()
    const { certificatePem } = await openAuthority(options(folder.path, 'api.example.com'))
    const { certificatePem: corporate } = await openAuthority(options(other.path, 'x.example'))
    const bundle = join(folder.path, 'bundle.pem')
    const own = join(folder.path, 'corporate.pem')
    await writeFile(own, `Corporate root\r\n${corporate.replaceAll('\n', '\r\n')}`)
    process.env.SSL_CERT_FILE = own
    await writeBundle(bundle, certificatePem)
    const expected = corporate + certificatePem
    expect(await readFile(bundle, 'utf8')).toBe(expected)
    process.env.SSL_CERT_FILE = bundle
    await writeBundle(bundle, certificatePem)
    expect(await readFile(bundle, 'utf8')).toBe(expected)
  })

  test('falls back to the system where SSL_CERT_FILE holds no certificate', () => {
    process.env.SSL_CERT_FILE = '/dev/null'
    expect(countOf(systemRoots())).toBeGreaterThan(50)
  })
})

describe('the environment of a child', () => {
  const given = {
    proxyUrl: 'http://worker:pw@127.0.0.1:8080',
    caPath: '/certs/ca.pem',
    bundle: '/certs/bundle.pem',
    inherit: {},
  }

  test('points at the proxy and at the roots', () => {
    expect(childEnvironment(given)).toEqual({
      HTTP_PROXY: given.proxyUrl,
      http_proxy: given.proxyUrl,
      HTTPS_PROXY: given.proxyUrl,
      https_proxy: given.proxyUrl,
      NO_PROXY: '',
      no_proxy: '',
      grpc_proxy: given.proxyUrl,
      no_grpc_proxy: '',
      SSL_CERT_FILE: '/certs/bundle.pem',
      CURL_CA_BUNDLE: '/certs/bundle.pem',
      REQUESTS_CA_BUNDLE: '/certs/bundle.pem',
      HTTPLIB2_CA_CERTS: '/certs/bundle.pem',
      PIP_CERT: '/certs/bundle.pem',
      GIT_SSL_CAINFO: '/certs/bundle.pem',
      AWS_CA_BUNDLE: '/certs/bundle.pem',
      CLOUDSDK_CORE_CUSTOM_CA_CERTS_FILE: '/certs/bundle.pem',
      CARGO_HTTP_CAINFO: '/certs/bundle.pem',
      BUNDLE_SSL_CA_CERT: '/certs/bundle.pem',
      COMPOSER_CAFILE: '/certs/bundle.pem',
      DENO_CERT: '/certs/bundle.pem',
      NIX_SSL_CERT_FILE: '/certs/bundle.pem',
      npm_config_cafile: '/certs/bundle.pem',
      GRPC_DEFAULT_SSL_ROOTS_FILE_PATH: '/certs/bundle.pem',
      PERL_LWP_SSL_CA_FILE: '/certs/bundle.pem',
      HTTPS_CA_FILE: '/certs/bundle.pem',
      PERL_LWP_ENV_PROXY: '1',
      NODE_EXTRA_CA_CERTS: '/certs/ca.pem',
      NODE_USE_ENV_PROXY: '1',
      JAVA_TOOL_OPTIONS:
        '-Dhttp.proxyHost=127.0.0.1 -Dhttp.proxyPort=8080 -Dhttps.proxyHost=127.0.0.1 -Dhttps.proxyPort=8080 ' +
        '-Dhttp.nonProxyHosts= -Djdk.http.auth.tunneling.disabledSchemes=',
    })
  })

  test('merges NO_PROXY with what is inherited, for Java too', () => {
    const inherit = {
      NO_PROXY: 'localhost, .corp.example',
      no_proxy: 'localhost,::1,10.0.0.0/8 db.example:5432',
    }
    const env = childEnvironment({ ...given, inherit })
    expect(env.NO_PROXY).toBe('localhost,.corp.example,::1,10.0.0.0/8,db.example:5432')
    expect([env.no_proxy, env.no_grpc_proxy]).toEqual([env.NO_PROXY, env.NO_PROXY])
    expect(env.JAVA_TOOL_OPTIONS).toContain(
      ' -Dhttp.nonProxyHosts=localhost|*.localhost|corp.example|*.corp.example|[::1] ',
    )
  })

  test('adds to the Java options that are inherited, quoting what has blanks', () => {
    const env = childEnvironment({
      ...given,
      proxyUrl: 'http://[::1]:8080',
      inherit: { JAVA_TOOL_OPTIONS: '-Xmx1g' },
      javaTrustStore: { path: '/my certs/trust.p12', password: 'changeit' },
    })
    expect(env.JAVA_TOOL_OPTIONS).toMatch(/^-Xmx1g -Dhttp\.proxyHost=::1 /)
    expect(env.JAVA_TOOL_OPTIONS).toContain('-Djavax.net.ssl.trustStore="/my certs/trust.p12" ')
    expect(env.JAVA_TOOL_OPTIONS).toContain(' -Djavax.net.ssl.trustStoreType=PKCS12 ')
  })

  test('adds to the Node options that are inherited, once, quoting what has blanks', () => {
    const options = (nodePreload: string, NODE_OPTIONS?: string) =>
      childEnvironment({ ...given, nodePreload, inherit: { NODE_OPTIONS } }).NODE_OPTIONS
    expect(options('/lib/a.cjs')).toBe('--require /lib/a.cjs')
    expect(options('/my lib/a.cjs', '--no-warnings')).toBe(
      '--no-warnings --require "/my lib/a.cjs"',
    )
    expect(options('/lib/a.cjs', options('/lib/a.cjs', '--no-warnings'))).toBe(
      '--no-warnings --require /lib/a.cjs',
    )
  })

  test('keeps the folders that PHP reads its settings from', () => {
    const folders = (PHP_INI_SCAN_DIR?: string) =>
      childEnvironment({ ...given, phpFolder: '/d/php', inherit: { PHP_INI_SCAN_DIR } })
        .PHP_INI_SCAN_DIR
    expect(folders()).toBe(':/d/php')
    expect(folders('/etc/php')).toBe('/etc/php:/d/php')
    expect(folders(folders('/etc/php'))).toBe('/etc/php:/d/php')
  })

  test('lets curl and node trust the CA without a flag', async () => {
    await using folder = await temporaryFolder()
    const given = options(folder.path, 'api.example.com')
    const { certificatePath, certificatePem } = await openAuthority(given)
    const leaves = new LeafCache(await openAuthority(given), { clock: given.clock })
    const bundle = join(folder.path, 'bundle.pem')
    await writeBundle(bundle, certificatePem)
    const env = childEnvironment({
      proxyUrl: 'http://127.0.0.1:1',
      caPath: certificatePath,
      bundle,
      inherit: {},
    })
    await using server = await serve(() => leaves.contextFor('api.example.com'))
    expect(await curl('api.example.com', server.port, [], env)).toEqual({ code: 0, output: 'ok' })
    expect((await curl('api.example.com', server.port, [])).code).toBe(60)
    const script = `require('tls').connect({ host: '127.0.0.1', port: ${server.port}, servername: 'api.example.com' }, function () { console.log(this.authorized); this.destroy() })`
    expect(await run(process.execPath, ['-e', script], env)).toEqual({ code: 0, output: 'true\n' })
  })
})

describe('the Java trust store', () => {
  const TRUSTED_KEY_USAGE = '2.16.840.1.113894.746875.1.1'

  test('is sound PKCS #12 with each certificate marked as trusted', async () => {
    await using folder = await temporaryFolder()
    const { certificatePem } = await openAuthority(options(folder.path, 'api.example.com'))
    const store = join(folder.path, 'trust.p12')
    await writeJavaTrustStore(store, [systemRoots(), certificatePem], 'changeit')
    const info = await run('openssl', [
      'pkcs12',
      '-info',
      '-nokeys',
      '-in',
      store,
      '-passin',
      'pass:changeit',
    ])
    expect(info.code, info.output).toBe(0)
    expect(info.output).toContain('MAC: sha256, Iteration 2048')
    expect(countOf(info.output)).toBe(countOf(systemRoots()) + 1)
    expect(info.output.split(TRUSTED_KEY_USAGE).length - 1).toBe(countOf(info.output))
    expect(info.output).toContain(certificatePem.trim())
    expect((await stat(store)).mode & 0o777).toBe(0o644)
  })

  test('tells a wrong password', async () => {
    await using folder = await temporaryFolder()
    const { certificatePem } = await openAuthority(options(folder.path, 'api.example.com'))
    const store = join(folder.path, 'trust.p12')
    await writeJavaTrustStore(store, [certificatePem], 'changeit')
    const asn1 = () => forge.asn1.fromDer(forge.util.createBuffer(bytes))
    const bytes = (await readFile(store)).toString('latin1')
    expect(() => forge.pkcs12.pkcs12FromAsn1(asn1(), 'wrong')).toThrow(/password/)
    const wrong = await run('openssl', ['pkcs12', '-nokeys', '-in', store, '-passin', 'pass:wrong'])
    expect(wrong.code).not.toBe(0)
  })
})
