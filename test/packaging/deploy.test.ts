import { access, readFile } from 'node:fs/promises'
import { dirname, join, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import { describe, expect, test } from 'vitest'
import { parse, parseAllDocuments } from 'yaml'
import { configSchema } from '../../src/config/schema.ts'

const ROOT = fileURLToPath(new URL('../../', import.meta.url))
const DEPLOY = join(ROOT, 'docs/deploy')

/** As much of a document as these tests look at. */
// biome-ignore lint/suspicious/noExplicitAny: what others' programs read has no types here
type Document = any

const read = (file: string) => readFile(resolve(DEPLOY, file), 'utf8')
const yaml = async (file: string): Promise<Document> => parse(await read(file))

/** Puts stand-ins for what the files of a secret hold. */
function readable(config: string): unknown {
  return JSON.parse(config, (_key, value) => {
    if (typeof value !== 'string' || !value.startsWith('${')) return value
    if (value.includes('store_key')) return Buffer.alloc(32, 7).toString('base64')
    return value.includes('redis_url') ? 'redis://redis.example:6379' : 'a-secret-of-the-test'
  })
}

describe('the Dockerfile', async () => {
  const lines = (await readFile(join(ROOT, 'Dockerfile'), 'utf8'))
    .replace(/\\\n/g, ' ')
    .split('\n')
    .filter((line) => line !== '' && !line.startsWith('#'))
  const stages = lines
    .join('\n')
    .split(/^(?=FROM )/m)
    .filter(Boolean)
  const last = stages.at(-1) as string
  const instruction = (name: string): string =>
    new RegExp(`^${name} (.*)$`, 'm').exec(last)?.[1] ?? ''

  test('runs as a user without rights, in exec form', () => {
    expect(instruction('USER')).toBe('node')
    expect(JSON.parse(instruction('ENTRYPOINT'))).toEqual(['cupbearer'])
    expect(JSON.parse(instruction('CMD'))[0]).toBe('start')
    expect(instruction('STOPSIGNAL')).toBe('SIGTERM')
  })

  test('names a version of its base, and takes from the build only what was installed', () => {
    for (const stage of stages) expect(stage).toMatch(/^FROM node:\d+-[a-z]+-slim( AS build)?\n/)
    expect(last.match(/^(COPY|ADD) .*$/gm)).toEqual([
      'COPY --from=build /out/node_modules /opt/cupbearer/node_modules',
    ])
  })

  test('asks for health what is there without a token', async () => {
    const [, command] = /HEALTHCHECK .*?CMD (\[.*\])$/m.exec(last) ?? []
    const [program, , script] = JSON.parse(command as string) as string[]
    expect(program).toBe('node')
    expect(script).toContain(`:8081${(await probes()).livenessProbe}'`)
  })

  test('copies files that the context holds', async () => {
    const ignored = (await readFile(join(ROOT, '.dockerignore'), 'utf8')).split('\n')
    for (const file of [
      'package.json',
      'package-lock.json',
      'src',
      'test',
      'tsconfig.build.json',
    ]) {
      await access(join(ROOT, file))
      expect(ignored).not.toContain(file)
    }
    expect(ignored).toEqual(expect.arrayContaining(['node_modules', 'certs', '.git', 'dist']))
  })
})

async function probes(): Promise<Record<string, string>> {
  const [container] = (await kubernetes('Deployment')).spec.template.spec.containers
  return Object.fromEntries(
    ['startupProbe', 'livenessProbe', 'readinessProbe'].map((name) => [
      name,
      container[name].httpGet.path,
    ]),
  )
}

async function kubernetes(kind: string): Promise<Document> {
  const documents = parseAllDocuments(await read('kubernetes/cupbearer.yaml'), { merge: true })
  return documents.map((each) => each.toJS() as Document).find((each) => each.kind === kind)
}

describe('the compose file', () => {
  test('mounts files that are there, and secrets that it declares', async () => {
    const { services, secrets, volumes } = await yaml('compose.yaml')
    for (const service of Object.values<Document>(services)) {
      for (const mount of service.volumes ?? []) {
        const [from] = mount.split(':')
        if (from.startsWith('.')) await access(resolve(DEPLOY, from))
        else expect(volumes).toHaveProperty(from)
      }
      for (const secret of service.secrets ?? []) expect(secrets).toHaveProperty(secret)
    }
  })

  test('its configuration is valid, reads the secrets that are mounted, and drains in time', async () => {
    const text = await read('config.json')
    const config = configSchema.parse(readable(text))
    const { services } = await yaml('compose.yaml')
    const named = [...text.matchAll(/\$\{file:\/run\/secrets\/(\w+)\}/g)].map(([, name]) => name)
    expect(services.cupbearer.secrets).toEqual(expect.arrayContaining(named))
    expect(Number.parseInt(services.cupbearer.stop_grace_period, 10) * 1000).toBeGreaterThan(
      config.server.drainTimeout,
    )
    expect(config.store).toBe('redis://redis:6379')
    expect(services.redis.command.join(' ')).toContain('--appendfsync always')
  })

  test('Prometheus scrapes a name that the admin listener answers to, with the token', async () => {
    const { scrape_configs, rule_files } = await yaml('prometheus.yml')
    const { hosts, listen } = configSchema.parse(readable(await read('config.json'))).admin
    const [target] = scrape_configs[0].static_configs[0].targets
    const [host, port] = target.split(':')
    expect(hosts).toContain(host)
    expect(Number(port)).toBe(listen.port)
    const { services } = await yaml('compose.yaml')
    const mounts: string[] = services.prometheus.volumes
    expect(mounts.some((mount) => mount.includes(`/etc/prometheus/${rule_files[0]}`))).toBe(true)
    expect(services.prometheus.secrets).toEqual(['admin_token'])
  })

  test('Grafana’s dashboard asks the data source that is provisioned', async () => {
    const [source] = (await yaml('grafana/datasources.yml')).datasources
    const { services } = await yaml('compose.yaml')
    expect(source.url).toBe(`http://prometheus:${services.prometheus.ports[0].split(':').at(-1)}`)
    expect((await yaml('grafana/dashboards.yml')).providers[0].options.path).toBe(
      '/var/lib/grafana/dashboards',
    )
  })
})

describe('the Kubernetes manifest', () => {
  test('probes paths that are open to all', async () => {
    const openapi = await readFile(join(ROOT, 'src/admin/routes.ts'), 'utf8')
    for (const path of Object.values(await probes())) {
      expect(openapi).toContain(`'${path}', anybody`)
    }
  })

  test('its configuration is valid, and reads from the secret that is mounted', async () => {
    const { data } = await kubernetes('ConfigMap')
    const config = configSchema.parse(readable(data['config.json']))
    const { spec } = (await kubernetes('Deployment')).spec.template
    const [{ volumeMounts, lifecycle }] = spec.containers
    for (const [, path] of data['config.json'].matchAll(/\$\{file:([^}]+)\/\w+\}/g)) {
      expect(volumeMounts).toContainEqual({ name: 'secrets', mountPath: path, readOnly: true })
    }
    const written = [config.dataDir as string, dirname(config.ca.dir)]
    for (const path of written)
      expect(volumeMounts).toContainEqual({ name: 'data', mountPath: path })
    const wait = Number(lifecycle.preStop.exec.command[1])
    expect(spec.terminationGracePeriodSeconds).toBeGreaterThan(
      wait + config.server.drainTimeout / 1000,
    )
  })

  test('every container is locked down', async () => {
    const { spec } = (await kubernetes('Deployment')).spec.template
    expect(spec.securityContext).toMatchObject({ runAsNonRoot: true })
    for (const container of [...spec.initContainers, ...spec.containers]) {
      expect(container.securityContext).toEqual({
        allowPrivilegeEscalation: false,
        readOnlyRootFilesystem: true,
        capabilities: { drop: ['ALL'] },
      })
      const names = spec.volumes.map(({ name }: { name: string }) => name)
      for (const { name } of container.volumeMounts) expect(names).toContain(name)
    }
  })

  test('its Service, budget and policy select its pods and ports', async () => {
    const { template } = (await kubernetes('Deployment')).spec
    const labels = template.metadata.labels
    expect((await kubernetes('Service')).spec.selector).toEqual(labels)
    expect((await kubernetes('PodDisruptionBudget')).spec.selector.matchLabels).toEqual(labels)
    expect((await kubernetes('NetworkPolicy')).spec.podSelector.matchLabels).toEqual(labels)
    const ports = template.spec.containers[0].ports.map(({ name }: { name: string }) => name)
    for (const { targetPort } of (await kubernetes('Service')).spec.ports) {
      expect(ports).toContain(targetPort)
    }
  })
})

test('the systemd unit starts, reloads and stops it as its signals mean', async () => {
  const unit = await read('systemd/cupbearer.service')
  expect(unit).toMatch(/^ExecStart=\S*cupbearer start -c \S+config\.json$/m)
  expect(unit).toMatch(/^ExecReload=.*kill -HUP \$MAINPID$/m)
  expect(unit).toMatch(/^KillSignal=SIGTERM$/m)
  expect(unit).toMatch(/^LimitCORE=0$/m)
  expect(unit).toMatch(/^StateDirectoryMode=0700$/m)
})
