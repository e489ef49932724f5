import { fileURLToPath } from 'node:url'
import { pythonWithModules } from '../support/requirements.mjs'
import type { Step } from './steps.ts'

/** A program or library that is tried, and what the table in docs/clients.md says of it. */
export interface Client {
  /** Also the first label of the host that it asks. */
  readonly id: string
  readonly name: string
  /** What `cupbearer run` runs. */
  readonly command: (base: string, folder: string) => readonly string[]
  /** Prints its version. */
  readonly version: readonly string[]
  /** The version of HTTP that it has to say it spoke. */
  readonly speaks?: string
  /** Steps that are not in its nature. */
  readonly without?: readonly Step[]
  /** Why versions of today reach nothing; one that does is tried like the others. */
  readonly fails?: string
  /** What it needs under `run`, where the environment does not carry it. */
  readonly inside?: string
  /** What it needs without `run`: proxy and CA. */
  readonly outside: string
  /** Run in the folder before it, outside of `run`. */
  readonly prepare?: (folder: string, caPath: string) => readonly (readonly string[])[]
  /** Speaks to the gRPC service. */
  readonly grpc?: true
}

const program = (name: string) => fileURLToPath(new URL(`programs/${name}`, import.meta.url))
const shell = (name: string) => (base: string) => ['sh', program(name), base]
const python = pythonWithModules() ?? 'python3'
const snake = (name: string) => (base: string) => [python, program(name), base]
const node = (name: string) => (base: string) => [process.execPath, program(name), base]
const pythonVersion = (module: string) => [
  python,
  '-c',
  `from importlib.metadata import version; print(version('${module}'))`,
]
const nodeVersion = (name: string) => [
  process.execPath,
  '-p',
  `require('${program(`../../../node_modules/${name}/package.json`)}').version`,
]
const NODE_ENV =
  '`NODE_EXTRA_CA_CERTS=certs/ca.pem`, and `NODE_USE_ENV_PROXY=1 HTTPS_PROXY=http://127.0.0.1:8080` from Node 22.21 and 24.5 on'
const ENV = '`HTTPS_PROXY=http://127.0.0.1:8080'

export const TOOLS: readonly Client[] = [
  {
    id: 'curl-h1',
    name: 'curl, HTTP/1.1',
    command: (base) => ['sh', program('curl.sh'), base, '--http1.1'],
    speaks: '1.1',
    version: ['curl', '--version'],
    outside: '`curl --proxy http://127.0.0.1:8080 --cacert certs/ca.pem URL`',
  },
  {
    id: 'curl-h2',
    name: 'curl, HTTP/2',
    command: (base) => ['sh', program('curl.sh'), base, '--http2'],
    speaks: '2',
    version: ['curl', '--version'],
    outside: 'the same',
  },
  {
    id: 'wget',
    name: 'wget',
    command: shell('wget.sh'),
    version: ['wget', '--version'],
    outside: '`https_proxy=http://127.0.0.1:8080 wget --ca-certificate=certs/ca.pem URL`',
  },
  {
    id: 'wget2',
    name: 'wget2',
    command: shell('wget2.sh'),
    version: ['wget2', '--version'],
    fails:
      'sends no CONNECT: it speaks TLS to the proxy ([its issue 258](https://github.com/rockdaboot/wget2/issues/258)); use wget',
    outside: '',
  },
  {
    id: 'aria2',
    name: 'aria2',
    command: shell('aria2.sh'),
    version: ['aria2c', '--version'],
    without: ['post'],
    inside: '`--ca-certificate="$SSL_CERT_FILE"`',
    outside: '`aria2c --https-proxy=http://127.0.0.1:8080 --ca-certificate=certs/ca.pem URL`',
  },
  {
    id: 'git',
    name: 'git, smart HTTP',
    command: shell('git.sh'),
    version: ['git', '--version'],
    outside: '`git -c http.proxy=http://127.0.0.1:8080 -c http.sslCAInfo=certs/ca.pem clone URL`',
  },
  {
    id: 'openssl',
    name: 'openssl s_client',
    command: shell('openssl.sh'),
    version: ['openssl', 'version'],
    inside: '`-proxy 127.0.0.1:8080`',
    outside: '`openssl s_client -proxy 127.0.0.1:8080 -CAfile certs/ca.pem -connect HOST:443`',
  },
]

export const SCRIPTS: readonly Client[] = [
  {
    id: 'urllib',
    name: 'Python urllib',
    command: snake('python_urllib.py'),
    version: [python, '--version'],
    without: ['keep-alive'],
    outside: `${ENV} SSL_CERT_FILE=ca-bundle.pem\``,
  },
  {
    id: 'requests',
    name: 'Python requests',
    command: snake('python_requests.py'),
    version: pythonVersion('requests'),
    outside: `${ENV} REQUESTS_CA_BUNDLE=ca-bundle.pem\``,
  },
  {
    id: 'httpx',
    name: 'Python httpx',
    command: snake('python_httpx.py'),
    version: pythonVersion('httpx'),
    outside: `${ENV} SSL_CERT_FILE=ca-bundle.pem\``,
  },
  {
    id: 'aiohttp',
    name: 'Python aiohttp',
    command: snake('python_aiohttp.py'),
    version: pythonVersion('aiohttp'),
    inside: '`ClientSession(trust_env=True)`',
    outside: `${ENV} SSL_CERT_FILE=ca-bundle.pem\`, and \`ClientSession(trust_env=True)\``,
  },
  {
    id: 'scrapy',
    name: 'Scrapy',
    command: snake('python_scrapy.py'),
    version: pythonVersion('scrapy'),
    outside: `${ENV}\`; it checks no certificates unless told to`,
  },
  {
    id: 'go',
    name: 'Go net/http',
    command: (base, folder) => [`${folder}/http`, base],
    prepare: (folder) => [['go', 'build', '-o', `${folder}/http`, program('http.go')]],
    version: ['go', 'version'],
    outside: `${ENV} SSL_CERT_FILE=ca-bundle.pem\``,
  },
  {
    id: 'ruby',
    name: 'Ruby Net::HTTP',
    command: (base) => ['ruby', program('net_http.rb'), base],
    version: ['ruby', '--version'],
    outside: '`http_proxy=http://127.0.0.1:8080 SSL_CERT_FILE=ca-bundle.pem`, for https too',
  },
  {
    id: 'perl',
    name: 'Perl LWP',
    command: (base) => ['perl', program('lwp.pl'), base],
    version: ['perl', '-MLWP', '-e', 'print LWP->VERSION'],
    outside:
      '`https_proxy=http://127.0.0.1:8080 PERL_LWP_ENV_PROXY=1 PERL_LWP_SSL_CA_FILE=ca-bundle.pem`',
  },
  {
    id: 'php-curl',
    name: 'PHP curl',
    command: (base) => ['php', program('curl.php'), base],
    version: ['php', '--version'],
    outside: `${ENV}\`, and \`curl.cainfo=ca-bundle.pem\` in php.ini`,
  },
  {
    id: 'php-streams',
    name: 'PHP streams',
    command: (base) => ['php', program('streams.php'), base],
    version: ['php', '--version'],
    without: ['keep-alive'],
    inside: "`stream_context_create(['http' => ['proxy' => 'tcp://127.0.0.1:8080']])`",
    outside: 'the same, and `SSL_CERT_FILE=ca-bundle.pem`',
  },
]

export const RUNTIMES: readonly Client[] = [
  {
    id: 'java-http',
    name: 'Java java.net.http',
    command: (base) => ['java', program('NetHttp.java'), base],
    version: ['java', '--version'],
    outside:
      '`-Dhttps.proxyHost=127.0.0.1 -Dhttps.proxyPort=8080 -Djavax.net.ssl.trustStore=truststore.p12`',
  },
  {
    id: 'java-url',
    name: 'Java HttpURLConnection',
    command: (base) => ['java', program('UrlConnection.java'), base],
    version: ['java', '--version'],
    outside: 'the same',
  },
  {
    id: 'node-fetch',
    name: 'Node fetch',
    command: node('node-fetch.mjs'),
    version: [process.execPath, '--version'],
    outside: NODE_ENV,
  },
  {
    id: 'node-https',
    name: 'Node https',
    command: node('node-https.mjs'),
    version: [process.execPath, '--version'],
    outside: 'the same',
  },
  {
    id: 'undici',
    name: 'Node undici',
    command: node('node-undici.mjs'),
    version: nodeVersion('undici'),
    outside:
      '`NODE_EXTRA_CA_CERTS=certs/ca.pem`, and `setGlobalDispatcher(new EnvHttpProxyAgent())`',
  },
  {
    id: 'axios',
    name: 'Node axios',
    command: node('node-axios.mjs'),
    version: nodeVersion('axios'),
    // Where Node reads no proxy variable its own code does, and opens a tunnel for each request.
    without: ['keep-alive'],
    inside: '`{ proxy: false }` to keep connections, below Node 22.21 and 24.5',
    outside: `${ENV} NODE_EXTRA_CA_CERTS=certs/ca.pem\``,
  },
  {
    id: 'got',
    name: 'Node got',
    command: node('node-got.mjs'),
    version: nodeVersion('got'),
    outside:
      '`NODE_EXTRA_CA_CERTS=certs/ca.pem`, and `{ agent: { https: new HttpsProxyAgent(PROXY) } }`',
  },
]
export const BROWSERS_AND_STREAMS: readonly Client[] = [
  {
    id: 'ws',
    name: 'Node ws (WebSocket)',
    command: node('node-ws.mjs'),
    version: nodeVersion('ws'),
    without: ['keep-alive'],
    inside: '`{ agent: https.globalAgent }`',
    outside: '`NODE_EXTRA_CA_CERTS=certs/ca.pem`, and `{ agent: new HttpsProxyAgent(PROXY) }`',
  },
  {
    id: 'grpc',
    name: 'Node @grpc/grpc-js',
    command: node('node-grpc.mjs'),
    version: nodeVersion('@grpc/grpc-js'),
    grpc: true,
    outside: '`https_proxy=http://127.0.0.1:8080 GRPC_DEFAULT_SSL_ROOTS_FILE_PATH=ca-bundle.pem`',
  },
  {
    id: 'chromium',
    name: 'Chromium by Playwright',
    command: node('chromium.mjs'),
    version: ['chromium', '--version'],
    prepare: (folder, caPath) => [
      ['mkdir', '-p', `${folder}/.pki/nssdb`],
      ['certutil', '-d', `sql:${folder}/.pki/nssdb`, '-N', '--empty-password'],
      [
        'certutil',
        '-d',
        `sql:${folder}/.pki/nssdb`,
        '-A',
        '-n',
        'Cupbearer',
        '-t',
        'C,,',
        '-i',
        caPath,
      ],
    ],
    inside: '`certutil -d sql:$HOME/.pki/nssdb -A -n Cupbearer -t C,, -i certs/ca.pem`, once',
    outside: "the same, and `launch({ proxy: { server: 'http://127.0.0.1:8080' } })`",
  },
]

/** Every client, as the table lists them. */
export const MATRIX = [...TOOLS, ...SCRIPTS, ...RUNTIMES, ...BROWSERS_AND_STREAMS]
