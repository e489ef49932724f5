import { readFileSync } from 'node:fs'
import { delimiter } from 'node:path'
import { rootCertificates } from 'node:tls'
import { replaceFile } from '../lib/files.ts'

/** What makes other programs trust the CA and find the proxy: a bundle of roots, and an environment. */

/** Where systems keep their roots in one file. */
const SYSTEM_BUNDLES = [
  '/etc/ssl/certs/ca-certificates.crt', // Debian, Ubuntu, Arch, Alpine
  '/etc/pki/tls/certs/ca-bundle.crt', // Fedora, RHEL, Amazon Linux
  '/etc/ssl/ca-bundle.pem', // openSUSE
  '/etc/ssl/cert.pem', // macOS, Alpine, OpenBSD
  '/usr/local/share/certs/ca-root-nss.crt', // FreeBSD
]

/** The system's trusted roots in PEM: its bundle file (`SSL_CERT_FILE` first), else those built into Node. */
export function systemRoots(): string {
  const named = process.env.SSL_CERT_FILE
  for (const file of named ? [named, ...SYSTEM_BUNDLES] : SYSTEM_BUNDLES) {
    try {
      const found = splitCertificates(readFileSync(file, 'utf8'))
      if (found.length > 0) return joinCertificates(found)
    } catch {
      // Not on this system; the next place is tried.
    }
  }
  return joinCertificates(rootCertificates)
}

/** Writes the system's roots and the CA into one PEM file (0644), at once. */
export async function writeBundle(file: string, caPem: string): Promise<void> {
  // Inside `cupbearer run` the roots may be such a bundle already: nothing stands in it twice.
  const all = new Set([...splitCertificates(systemRoots()), ...splitCertificates(caPem)])
  await replaceFile(file, joinCertificates(all), 0o644)
}

/** The PEM blocks of certificates in a text, without what stands between them. */
export function splitCertificates(pem: string): string[] {
  const blocks = pem.match(/-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----/g) ?? []
  return blocks.map((block) => block.replaceAll('\r', ''))
}

const joinCertificates = (blocks: Iterable<string>) => `${[...blocks].join('\n')}\n`

export interface ChildEnvironmentOptions {
  /** URL of the proxy, with the client's credentials where it needs them. */
  readonly proxyUrl: string
  /** The CA's own certificate. */
  readonly caPath: string
  /** System roots and the CA. */
  readonly bundle: string
  readonly javaTrustStore?: { readonly path: string; readonly password: string }
  readonly wgetrc?: string
  readonly wget2rc?: string
  /** Folder with settings for PHP. */
  readonly phpFolder?: string
  /** Module that Node loads first, where Node's own clients read no proxy variable. */
  readonly nodePreload?: string
  /** The environment that the child would have otherwise. */
  readonly inherit: NodeJS.ProcessEnv
}

/** Variables that take a file of trusted roots in place of the built-in ones, and who reads them. */
const BUNDLE_VARIABLES = [
  'SSL_CERT_FILE', // OpenSSL, Go, Ruby, .NET, PHP streams, httpx, reqwest
  'CURL_CA_BUNDLE',
  'REQUESTS_CA_BUNDLE',
  'HTTPLIB2_CA_CERTS',
  'PIP_CERT',
  'GIT_SSL_CAINFO',
  'AWS_CA_BUNDLE',
  'CLOUDSDK_CORE_CUSTOM_CA_CERTS_FILE',
  'CARGO_HTTP_CAINFO',
  'BUNDLE_SSL_CA_CERT',
  'COMPOSER_CAFILE',
  'DENO_CERT',
  'NIX_SSL_CERT_FILE',
  'npm_config_cafile',
  'GRPC_DEFAULT_SSL_ROOTS_FILE_PATH',
  'PERL_LWP_SSL_CA_FILE',
  'HTTPS_CA_FILE', // Perl's Crypt::SSLeay
]

/** The variables to set for a child process, so that it uses the proxy and trusts the CA. */
export function childEnvironment(options: ChildEnvironmentOptions): Record<string, string> {
  const { proxyUrl, inherit, wgetrc, wget2rc, phpFolder, nodePreload } = options
  const noProxy = noProxyEntries(inherit)
  const java = [inherit.JAVA_TOOL_OPTIONS, ...javaOptions(options, noProxy)]
  return {
    HTTP_PROXY: proxyUrl,
    http_proxy: proxyUrl,
    HTTPS_PROXY: proxyUrl,
    https_proxy: proxyUrl,
    NO_PROXY: noProxy.join(','),
    no_proxy: noProxy.join(','),
    // gRPC prefers these, so that an inherited one would win.
    grpc_proxy: proxyUrl,
    no_grpc_proxy: noProxy.join(','),
    ...Object.fromEntries(BUNDLE_VARIABLES.map((name) => [name, options.bundle])),
    PERL_LWP_ENV_PROXY: '1',
    ...(wgetrc && { SYSTEM_WGETRC: wgetrc }),
    ...(wget2rc && { SYSTEM_WGET2RC: wget2rc }),
    ...(phpFolder && { PHP_INI_SCAN_DIR: phpFolders(inherit.PHP_INI_SCAN_DIR, phpFolder) }),
    // Node adds these to its own roots, so the CA alone is right here.
    NODE_EXTRA_CA_CERTS: options.caPath,
    NODE_USE_ENV_PROXY: '1',
    ...(nodePreload && { NODE_OPTIONS: nodeOptions(inherit.NODE_OPTIONS, nodePreload) }),
    JAVA_TOOL_OPTIONS: java.filter(Boolean).join(' '),
  }
}

/** What `NO_PROXY` holds, in either case of the name. */
export function noProxyEntries({ NO_PROXY, no_proxy }: NodeJS.ProcessEnv): string[] {
  const entries = [NO_PROXY, no_proxy].flatMap((list) => (list ?? '').split(/[\s,]+/))
  return [...new Set(entries.filter((entry) => entry !== ''))]
}

/** An empty entry stands for the folder that PHP was built with. */
function phpFolders(inherited: string | undefined, folder: string): string {
  const folders = (inherited ?? '').split(delimiter)
  return [...folders.filter((each) => each !== folder), folder].join(delimiter)
}

/** Node splits these at blanks outside of double quotes, within which a backslash escapes. */
function nodeOptions(inherited: string | undefined, preload: string): string {
  const path = /[\s"\\]/.test(preload) ? `"${preload.replace(/["\\]/g, '\\$&')}"` : preload
  const option = `--require ${path}`
  if (inherited?.includes(option)) return inherited
  return inherited ? `${inherited} ${option}` : option
}

/**
 * The JVM prints these options on standard error at each start, so the client's credentials are left out: a program
 * gives them by an `Authenticator`, which Java asks for Basic only where the last option allows it.
 */
function javaOptions(options: ChildEnvironmentOptions, noProxy: readonly string[]): string[] {
  const { hostname, port, username } = new URL(options.proxyUrl)
  const host = hostname.replace(/^\[|\]$/g, '')
  const properties: [string, string][] = [
    ...['http', 'https'].flatMap((scheme): [string, string][] => [
      [`${scheme}.proxyHost`, host],
      [`${scheme}.proxyPort`, port || '80'],
    ]),
    // Set even when empty: Java's default keeps loopback hosts away from the proxy.
    ['http.nonProxyHosts', noProxy.flatMap(javaHostPatterns).join('|')],
  ]
  if (options.javaTrustStore) {
    properties.push(
      ['javax.net.ssl.trustStore', options.javaTrustStore.path],
      ['javax.net.ssl.trustStoreType', 'PKCS12'],
      ['javax.net.ssl.trustStorePassword', options.javaTrustStore.password],
    )
  }
  if (username) properties.push(['jdk.http.auth.tunneling.disabledSchemes', ''])
  return properties.map(([name, value]) => `-D${name}=${javaQuote(value)}`)
}

/** Java knows `*` at either end of a host, and neither ports nor address ranges. */
function javaHostPatterns(entry: string): string[] {
  if (entry === '*') return ['*']
  const name = entry.replace(/^\*?\./, '')
  if (/^[0-9a-f]*:[0-9a-f:]+$/i.test(name)) return [`[${name}]`]
  if (/[/:]/.test(name)) return []
  return [name, `*.${name}`]
}

/** The JVM splits these options at white space, outside of single or double quotes. */
function javaQuote(value: string): string {
  if (!/[\s'"]/.test(value)) return value
  return value.includes('"') ? `'${value}'` : `"${value}"`
}
