import { createPrivateKey, X509Certificate } from 'node:crypto'
import { chmod, mkdir, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { openAuthority, rotateAuthority } from '../../src/ca/authority.ts'
import { LeafCache } from '../../src/ca/leaf.ts'
import {
  DAY,
  handClock,
  handshake,
  options,
  run,
  serve,
  targets,
  temporaryFolder,
} from './support.ts'

const modeOf = async (path: string) => (await stat(path)).mode & 0o777

/** Every file of a folder with its content, to show that nothing was touched. */
async function snapshot(folder: string) {
  const names = (await readdir(folder)).sort()
  return Promise.all(names.map(async (name) => [name, await readFile(join(folder, name), 'utf8')]))
}

describe('first start', () => {
  test.each([
    ['0000', 0o000],
    ['0022', 0o022],
    ['0777', 0o777],
  ])('makes private files under umask %s', async (_, mask) => {
    await using folder = await temporaryFolder()
    const dir = join(folder.path, 'deep', 'certs')
    const before = process.umask(mask)
    try {
      await openAuthority(options(dir, 'api.example.com'))
    } finally {
      process.umask(before)
    }
    expect(await modeOf(dir)).toBe(0o700)
    expect(await modeOf(join(dir, 'ca.pem'))).toBe(0o644)
    expect(await modeOf(join(dir, 'ca-key.pem'))).toBe(0o600)
    expect(await readdir(dir)).toEqual(['ca-key.pem', 'ca.pem'])
  })

  test('narrows a folder that is there already, unless others keep files in it', async () => {
    await using folder = await temporaryFolder()
    const [own, shared] = [join(folder.path, 'own'), join(folder.path, 'shared')]
    for (const dir of [own, shared]) {
      await mkdir(dir)
      await chmod(dir, 0o755)
      await writeFile(join(dir, 'README.md'), '')
    }
    await writeFile(join(shared, 'config.json'), '{}')
    await openAuthority(options(own, 'api.example.com'))
    await openAuthority(options(shared, 'api.example.com'))
    expect(await modeOf(own)).toBe(0o700)
    expect(await modeOf(shared)).toBe(0o755)
    expect(await modeOf(join(shared, 'ca-key.pem'))).toBe(0o600)
  })

  test('starts at once agree on one CA', async () => {
    await using folder = await temporaryFolder()
    const dir = join(folder.path, 'certs')
    const all = await Promise.all(
      Array.from({ length: 12 }, () => openAuthority(options(dir, 'api.example.com'))),
    )
    expect(new Set(all.map((authority) => authority.fingerprint256)).size).toBe(1)
    const certificate = new X509Certificate(await readFile(join(dir, 'ca.pem')))
    const key = createPrivateKey(await readFile(join(dir, 'ca-key.pem')))
    expect(certificate.checkPrivateKey(key)).toBe(true)
    expect(certificate.fingerprint256).toBe(all[0]?.fingerprint256)
    expect(await readdir(dir)).toEqual(['ca-key.pem', 'ca.pem'])
  })

  test('goes on where one that died between key and certificate stopped', async () => {
    await using folder = await temporaryFolder()
    await openAuthority(options(folder.path, 'api.example.com'))
    const key = await readFile(join(folder.path, 'ca-key.pem'), 'utf8')
    await rm(join(folder.path, 'ca.pem'))
    const authority = await openAuthority(options(folder.path, 'api.example.com'))
    expect(await readFile(join(folder.path, 'ca-key.pem'), 'utf8')).toBe(key)
    expect(await readFile(authority.certificatePath, 'utf8')).toBe(authority.certificatePem)
  })

  test('tells several CAs apart by their names', async () => {
    await using one = await temporaryFolder()
    await using two = await temporaryFolder()
    const subjects = await Promise.all(
      [one, two].map(async ({ path }) => {
        const { certificatePem } = await openAuthority(options(path, 'api.example.com'))
        return new X509Certificate(certificatePem).subject
      }),
    )
    for (const subject of subjects) {
      expect(subject).toMatch(/^O=Cupbearer\nCN=Cupbearer CA [0-9a-f]{8} \d{4}-\d\d-\d\d$/)
    }
    expect(subjects[0]).not.toBe(subjects[1])
  })
})

describe('the certificate', () => {
  test('is one that openssl accepts under its strictest rules, with a leaf below it', async () => {
    await using folder = await temporaryFolder()
    const authority = await openAuthority(options(folder.path, '*.example.com', '[2001:db8::1]'))
    const leaves = new LeafCache(authority, { clock: handClock() })
    for (const host of ['api.example.com', '2001:db8::1']) {
      await using server = await serve(() => leaves.contextFor(host))
      const leaf = await handshake(server.port, host, authority.certificatePem)
      const file = join(folder.path, 'leaf.pem')
      await writeFile(file, leaf.toString())
      const verify = ['verify', '-x509_strict', '-check_ss_sig', '-purpose', 'sslserver']
      const result = await run('openssl', [...verify, '-CAfile', authority.certificatePath, file])
      expect(result).toEqual({ code: 0, output: `${file}: OK\n` })
    }
  })

  test('can sign nothing but server certificates for the mapped hosts', async () => {
    await using folder = await temporaryFolder()
    const hosts = ['api.example.com', '*.example.org', 'http://plain.example.net', '192.0.2.7']
    const { certificatePath } = await openAuthority(options(folder.path, ...hosts))
    const { output } = await run('openssl', ['x509', '-noout', '-text', '-in', certificatePath])
    const text = output.replace(/\s+/g, ' ')
    expect(text).toContain('Basic Constraints: critical CA:TRUE, pathlen:0 ')
    expect(text).toContain('Key Usage: critical Certificate Sign, CRL Sign ')
    expect(text).toContain('Extended Key Usage: TLS Web Server Authentication ')
    expect(text).toContain(
      'Name Constraints: critical Permitted: DNS:api.example.com DNS:example.org IP:192.0.2.7/255.255.255.255 Excluded: IP:0:0:0:0:0:0:0:0/0:0:0:0:0:0:0:0 ',
    )
    expect(text).not.toContain('example.net')
  })

  test('is good for two years from an hour ago', async () => {
    await using folder = await temporaryFolder()
    const given = options(folder.path, 'api.example.com')
    const { notBefore, notAfter } = await openAuthority(given)
    const now = Math.floor(given.clock.now() / 1000) * 1000
    expect(notBefore.getTime()).toBe(now - 3_600_000)
    expect(notAfter.getTime() - notBefore.getTime()).toBe(730 * DAY)
  })

  test('writes dates from 2050 on as RFC 5280 wants them', async () => {
    await using folder = await temporaryFolder()
    const given = options(folder.path, 'api.example.com')
    const year2049 = Date.UTC(2049, 5, 1)
    const clock = { ...given.clock, now: () => year2049 }
    const { notAfter, certificatePath } = await openAuthority({ ...given, clock })
    expect(notAfter.getUTCFullYear()).toBe(2051)
    const parsed = await run('openssl', ['asn1parse', '-in', certificatePath])
    expect(parsed.output).toMatch(/UTCTIME +:490531230000Z/)
    expect(parsed.output).toMatch(/GENERALIZEDTIME +:20510531230000Z/)
  })
})

describe('next start', () => {
  test.each([
    ['nothing mapped', []],
    ['plain http only', ['http://plain.example.net']],
    ['names', ['a.example.com', '*.b.example.com', 'localhost']],
    ['an IPv4 address', ['10.0.0.1']],
    ['an IPv6 address', ['[::1]', 'localhost']],
  ])('keeps the CA: %s', async (_, texts) => {
    await using folder = await temporaryFolder()
    const first = await openAuthority(options(folder.path, ...texts))
    const second = await openAuthority(options(folder.path, ...texts))
    expect(second.fingerprint256).toBe(first.fingerprint256)
    expect(second.notices).toEqual([])
  })

  test('keeps the CA when a name goes, or comes beneath one that is permitted', async () => {
    await using folder = await temporaryFolder()
    const first = await openAuthority(options(folder.path, '*.example.com', 'example.net'))
    const second = await openAuthority(options(folder.path, 'deep.api.example.com'))
    expect(second.fingerprint256).toBe(first.fingerprint256)
    expect(second.covers('example.net')).toBe(false)
  })

  test('re-issues for a name outside: old copies hold for the old names only', async () => {
    await using folder = await temporaryFolder()
    const old = await openAuthority(options(folder.path, 'api.example.com'))
    const hosts = ['api.example.com', 'api.example.net', '192.0.2.7', '2001:db8::7']
    const all = hosts.map((host) => (host.includes(':') ? `[${host}]` : host))
    const renewed = await openAuthority(options(folder.path, ...all))
    expect(renewed.notices).toEqual([
      `${renewed.certificatePath} was re-issued because it does not permit api.example.net, 192.0.2.7, 2001:db8::7: install it again, in place of the old one, where you trusted it`,
    ])
    const [before, after] = [old, renewed].map((each) => new X509Certificate(each.certificatePem))
    expect(after?.publicKey.equals(before?.publicKey as never)).toBe(true)
    expect(after?.subject).toBe(before?.subject)
    expect(after?.serialNumber).not.toBe(before?.serialNumber)

    const leaves = new LeafCache(renewed, { clock: handClock() })
    for (const host of hosts) {
      await using server = await serve(() => leaves.contextFor(host))
      await handshake(server.port, host, renewed.certificatePem)
      const byOld = handshake(server.port, host, old.certificatePem)
      if (host === 'api.example.com') await byOld
      else await expect(byOld).rejects.toThrow(/(permitted|excluded) subtree violation/)
    }
  })

  test('re-issues within 30 days of the end', async () => {
    await using folder = await temporaryFolder()
    const clock = handClock()
    const given = { ...options(folder.path, 'api.example.com'), clock }
    const first = await openAuthority(given)
    clock.advance(699 * DAY)
    expect((await openAuthority(given)).fingerprint256).toBe(first.fingerprint256)
    clock.advance(2 * DAY)
    const second = await openAuthority(given)
    expect(second.fingerprint256).not.toBe(first.fingerprint256)
    expect(second.notices[0]).toMatch(/re-issued because its validity ends on \d{4}-\d\d-\d\d:/)
    expect(second.notAfter.getTime()).toBeGreaterThan(clock.now() + 700 * DAY)
  })

  test('re-issues when name constraints are switched', async () => {
    await using folder = await temporaryFolder()
    const limited = options(folder.path, 'api.example.com')
    await openAuthority(limited)
    const open = await openAuthority({ ...limited, nameConstraints: false })
    expect(open.notices[0]).toContain('ca.nameConstraints turns off')
    expect((await openAuthority({ ...limited, nameConstraints: false })).notices).toEqual([])
    const again = await openAuthority(limited)
    expect(again.notices[0]).toContain('it is not limited to the mapped names')
  })
})

describe('refuses, and leaves everything as it is', () => {
  test.each([
    ['garbage for a certificate', 'ca.pem', 'nonsense', /ca\.pem holds no certificate: put/],
    ['garbage for a key', 'ca-key.pem', 'nonsense', /ca-key\.pem holds no private key: put/],
    ['an empty certificate', 'ca.pem', '', /ca\.pem holds no certificate: put/],
  ])('%s', async (_, file, content, message) => {
    await using folder = await temporaryFolder()
    await openAuthority(options(folder.path, 'api.example.com'))
    await writeFile(join(folder.path, file), content)
    const before = await snapshot(folder.path)
    const opening = openAuthority(options(folder.path, 'api.example.com', 'new.example.net'))
    await expect(opening).rejects.toMatchObject({
      code: 'CA_INVALID',
      message: expect.stringMatching(message),
    })
    expect(await snapshot(folder.path)).toEqual(before)
  })

  test('a certificate of another key', async () => {
    await using one = await temporaryFolder()
    await using two = await temporaryFolder()
    await openAuthority(options(one.path, 'api.example.com'))
    const { certificatePem } = await openAuthority(options(two.path, 'api.example.com'))
    await writeFile(join(one.path, 'ca.pem'), certificatePem)
    const before = await snapshot(one.path)
    await expect(openAuthority(options(one.path, 'api.example.com'))).rejects.toMatchObject({
      code: 'CA_INVALID',
      message: expect.stringMatching(/does not belong to .*ca-key\.pem: put the right one back/),
    })
    expect(await snapshot(one.path)).toEqual(before)
  })

  test('a certificate whose key is gone', async () => {
    await using folder = await temporaryFolder()
    await openAuthority(options(folder.path, 'api.example.com'))
    await rm(join(folder.path, 'ca-key.pem'))
    const before = await snapshot(folder.path)
    await expect(openAuthority(options(folder.path, 'api.example.com'))).rejects.toMatchObject({
      code: 'CA_INVALID',
      message: expect.stringMatching(/ca-key\.pem is missing: put it back, or move .*ca\.pem away/),
    })
    expect(await snapshot(folder.path)).toEqual(before)
  })

  test.each([
    ['0640', 0o640],
    ['0604', 0o604],
    ['0644', 0o644],
  ])('a key of mode %s', async (octal, mode) => {
    await using folder = await temporaryFolder()
    const { keyPath } = await openAuthority(options(folder.path, 'api.example.com'))
    await chmod(keyPath, mode)
    await expect(openAuthority(options(folder.path, 'api.example.com'))).rejects.toMatchObject({
      code: 'CA_INVALID',
      message: `${keyPath} can be read by others (mode ${octal}): run chmod 600 '${keyPath}'`,
    })
    expect(await modeOf(keyPath)).toBe(mode)
  })

  test('a folder that cannot be made', async () => {
    await using folder = await temporaryFolder()
    await writeFile(join(folder.path, 'file'), '')
    const opening = openAuthority(options(join(folder.path, 'file', 'certs'), 'api.example.com'))
    await expect(opening).rejects.toMatchObject({ code: 'CA_INVALID' })
  })

  test("to re-issue the operator's own CA, which it uses as long as that fits", async () => {
    await using folder = await temporaryFolder()
    const [key, certificate] = [join(folder.path, 'ca-key.pem'), join(folder.path, 'ca.pem')]
    const request = 'req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 90'.split(
      ' ',
    )
    const subject = ['-subj', '/CN=Example Corp', '-addext', 'keyUsage=critical,keyCertSign']
    const made = await run('openssl', [...request, ...subject, '-keyout', key, '-out', certificate])
    expect(made.code, made.output).toBe(0)
    await chmod(key, 0o600)
    const before = await snapshot(folder.path)
    const given = options(folder.path, 'api.example.com')

    const authority = await openAuthority({ ...given, nameConstraints: false })
    const leaves = new LeafCache(authority, { clock: given.clock })
    await using server = await serve(() => leaves.contextFor('api.example.com'))
    await handshake(server.port, 'api.example.com', authority.certificatePem)

    await expect(openAuthority(given)).rejects.toMatchObject({
      code: 'CA_INVALID',
      message: expect.stringContaining('is not one that Cupbearer made, and it is not limited'),
    })
    expect(await snapshot(folder.path)).toEqual(before)
  })
})

test('rotation makes a new key and keeps the old certificate beside', async () => {
  await using folder = await temporaryFolder()
  const given = options(folder.path, 'api.example.com')
  const old = await openAuthority(given)
  const rotated = await rotateAuthority(given)
  const kept = (await readdir(folder.path)).filter((name) => name.startsWith('ca-OLD-'))
  expect(kept).toHaveLength(1)
  expect(await readFile(join(folder.path, kept[0] as string), 'utf8')).toBe(old.certificatePem)
  const loaded = await openAuthority(given)
  expect(loaded.fingerprint256).toBe(rotated.fingerprint256)
  expect(await modeOf(rotated.keyPath)).toBe(0o600)

  const leaves = new LeafCache(rotated, { clock: given.clock })
  await using server = await serve(() => leaves.contextFor('api.example.com'))
  await handshake(server.port, 'api.example.com', rotated.certificatePem)
  await expect(handshake(server.port, 'api.example.com', old.certificatePem)).rejects.toThrow()
})

test('covers exactly the hosts of https targets', async () => {
  await using folder = await temporaryFolder()
  const authority = await openAuthority({
    ...options(folder.path),
    targets: targets(
      'api.example.com/v1/**',
      '*.example.org',
      'http://plain.example.net',
      '10.0.0.1',
    ),
  })
  const hosts = {
    'api.example.com': true,
    'x.api.example.com': false,
    'example.org': false,
    'a.example.org': true,
    'a.b.example.org': true,
    'badexample.org': false,
    '.example.org': false,
    'plain.example.net': false,
    '10.0.0.1': true,
    '10.0.0.2': false,
  }
  for (const [host, covered] of Object.entries(hosts)) {
    expect([host, authority.covers(host)]).toEqual([host, covered])
  }
})
