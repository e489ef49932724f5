/** Checks an HTTP archive against the fields of HAR 1.2 (http://www.softwareishard.com/blog/har-12-spec/). */

type Check = (value: unknown, path: string) => string[]

const text: Check = (value, path) =>
  typeof value === 'string' ? [] : [`${path}: expected a string`]
const number: Check = (value, path) =>
  typeof value === 'number' && Number.isFinite(value) ? [] : [`${path}: expected a number`]
/** A length of time, or -1 for what does not apply. */
const phase: Check = (value, path) =>
  number(value, path).length > 0 || (value as number) >= 0 || value === -1
    ? number(value, path)
    : [`${path}: expected -1 or more`]
const time: Check = (value, path) =>
  /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)$/.test(String(value)) &&
  !Number.isNaN(Date.parse(String(value)))
    ? []
    : [`${path}: expected an ISO 8601 time`]
const url: Check = (value, path) =>
  URL.canParse(String(value)) ? [] : [`${path}: expected an absolute URL`]

const listOf =
  (check: Check): Check =>
  (value, path) =>
    Array.isArray(value)
      ? value.flatMap((item, index) => check(item, `${path}[${index}]`))
      : [`${path}: expected a list`]

/** An object with these members; those that end in `?` may be missing. Names with an underscore are free. */
const object =
  (members: Record<string, Check>): Check =>
  (value, path) => {
    if (typeof value !== 'object' || value === null || Array.isArray(value)) {
      return [`${path}: expected an object`]
    }
    const given = value as Record<string, unknown>
    const known = Object.keys(members).map((name) => name.replace(/\?$/, ''))
    const strange = Object.keys(given).filter(
      (name) => !name.startsWith('_') && name !== 'comment' && !known.includes(name),
    )
    return [
      ...strange.map((name) => `${path}.${name}: no such field in HAR 1.2`),
      ...Object.entries(members).flatMap(([name, check]) => {
        const key = name.replace(/\?$/, '')
        if (given[key] === undefined) return key === name ? [`${path}.${key}: missing`] : []
        return check(given[key], `${path}.${key}`)
      }),
    ]
  }

const pair = object({ name: text, value: text })
const cookie = object({
  name: text,
  value: text,
  'path?': text,
  'domain?': text,
  'expires?': time,
  'httpOnly?': () => [],
  'secure?': () => [],
})
const timings = object({
  blocked: phase,
  dns: phase,
  connect: phase,
  send: phase,
  wait: phase,
  receive: phase,
  ssl: phase,
})
const entry = object({
  startedDateTime: time,
  time: number,
  request: object({
    method: text,
    url,
    httpVersion: text,
    cookies: listOf(cookie),
    headers: listOf(pair),
    queryString: listOf(pair),
    'postData?': object({ mimeType: text, params: listOf(pair), text }),
    headersSize: number,
    bodySize: number,
  }),
  response: object({
    status: number,
    statusText: text,
    httpVersion: text,
    cookies: listOf(cookie),
    headers: listOf(pair),
    content: object({
      size: number,
      'compression?': number,
      mimeType: text,
      'text?': text,
      'encoding?': text,
    }),
    redirectURL: text,
    headersSize: number,
    bodySize: number,
  }),
  cache: object({ 'beforeRequest?': () => [], 'afterRequest?': () => [] }),
  timings,
  'serverIPAddress?': text,
  'connection?': text,
  'pageref?': text,
})
const archive = object({
  log: object({
    version: text,
    creator: object({ name: text, version: text }),
    'browser?': object({ name: text, version: text }),
    'pages?': listOf(() => []),
    entries: listOf(entry),
  }),
})

/** What is wrong with an archive; nothing for a valid one. The times of an entry must make up its whole, too. */
export function harProblems(har: unknown): string[] {
  const problems = archive(har, 'har')
  if (problems.length > 0) return problems
  const { entries } = (har as { log: { entries: HarLike[] } }).log
  return entries.flatMap(({ time: whole, timings: parts }, index) => {
    const { ssl, ...added } = parts
    const sum = Object.values(added).reduce((total, part) => total + Math.max(0, part), 0)
    const wrong = []
    if (Math.abs(sum - whole) > 0.01) wrong.push(`entry ${index}: ${sum} ms is not ${whole} ms`)
    // TLS is a part of connecting.
    if (ssl > (parts.connect ?? -1)) wrong.push(`entry ${index}: TLS took longer than connecting`)
    return wrong
  })
}

interface HarLike {
  readonly time: number
  readonly timings: Record<string, number> & { ssl: number }
}
