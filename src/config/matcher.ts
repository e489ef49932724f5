import { z } from 'zod'
import { fieldName, literalOrRegex, object, regex } from './values.ts'

const status = z.int().min(100).max(999)

/** What can be said of a response. */
export const matcherFields = {
  status: z
    .union([status, z.array(status).min(1)], { error: 'expected a status or a list of statuses' })
    .optional()
    .describe('status, or a list of them'),
  header: z.record(fieldName, regex).optional().describe('header name → regular expression'),
  json: z
    .record(
      z.string().regex(/^(\/.*)?$/, 'expected a JSON pointer'),
      z.union([literalOrRegex, z.number(), z.boolean(), z.null()], {
        error: 'expected a string, a number, true, false or null',
      }),
    )
    .optional()
    .describe('JSON pointer → value, or "/REGEX/"'),
}

/** What a response looks like. */
export const matcher = object(matcherFields)
