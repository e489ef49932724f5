import { z } from 'zod'
import { fieldName, httpUrl, object, secret, size } from './values.ts'

const MAX_BODY = '64KiB'
const MAX_TOTAL = '16MiB'
const MAX_FILE = '64MiB'

const filePath = z.string().min(1, 'expected a path')

const bodies = z.union(
  [
    z.boolean().transform((on) => (on ? { max: 64 * 1024, total: 16 * 2 ** 20 } : undefined)),
    object({
      max: size.prefault(MAX_BODY).describe('most of each body'),
      total: size.prefault(MAX_TOTAL).describe('most of all that is kept in memory'),
    }),
  ],
  { error: 'expected true, false or { "max", "total" }' },
)

const har = z.union(
  [
    filePath.transform((path) => ({ path, max: 64 * 2 ** 20 })),
    object({
      path: filePath.describe('file, readable by its owner only'),
      max: size.prefault(MAX_FILE).describe('size at which it becomes PATH.1 and a new one begins'),
    }),
  ],
  { error: 'expected a path, or { "path", "max" }' },
)

const otlp = z.union(
  [
    httpUrl.transform((url) => ({
      url,
      headers: {} as Record<string, z.output<typeof secret>>,
      sample: 1,
      service: 'cupbearer',
      propagate: false,
    })),
    object({
      url: httpUrl.describe('traces endpoint of the collector'),
      headers: z.record(fieldName, secret).default({}).describe('headers for the collector'),
      sample: z.number().min(0).max(1).default(1).describe('share of the traces that begin here'),
      service: z.string().min(1).default('cupbearer').describe('service.name'),
      propagate: z
        .boolean()
        .default(false)
        .describe(
          'whether upstream gets a traceparent of the proxy’s span; else the client’s passes',
        ),
    }),
  ],
  { error: 'expected a URL, or { "url", "headers", "sample", "service", "propagate" }' },
)

/** What is recorded of requests, and where it goes. */
export const trace = object({
  capacity: z.int().min(1).max(1_000_000).default(2000).describe('requests to remember'),
  headers: z
    .boolean()
    .default(false)
    .describe(
      'whether traces have the messages’ headers, secrets replaced; `har` and `bodies` imply it',
    ),
  bodies: bodies
    .prefault(false)
    .describe('whether traces have the beginning of text bodies too: true, or { "max", "total" }'),
  har: har
    .optional()
    .describe('HTTP archive that every request is appended to: a path, or { "path", "max" }'),
  otlp: otlp
    .optional()
    .describe('OTLP/HTTP endpoint for spans, https://HOST/v1/traces: a URL, or an object with one'),
})
  .prefault({})
  .describe('the record of requests')
