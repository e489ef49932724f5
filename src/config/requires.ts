import { z } from 'zod'
import { object } from './values.ts'

/** RFC 6749 §3.3: no white space, quotes or backslashes. */
const scopeName = z.string().regex(/^[\x21\x23-\x5b\x5d-\x7e]+$/, 'expected one scope')

/** What a token must hold for some requests of a pool. */
export const requirement = object({
  methods: z
    .array(z.string().regex(/^[A-Z][A-Z-]*$/, 'expected a method such as "POST"'))
    .min(1, 'expected at least one method')
    .optional()
    .describe('methods it holds for (GET covers HEAD); default: all'),
  path: z
    .string()
    .startsWith('/', 'expected a path')
    .optional()
    .describe('paths it holds for, * stands for any run of characters; default: all'),
  scopes: z.array(scopeName).default([]).describe('scopes that the token must have'),
  claims: z
    .record(
      z.string().min(1, 'expected the name of a claim'),
      z.union([z.string(), z.number(), z.boolean()], {
        error: 'expected a string, a number, true or false',
      }),
    )
    .default({})
    .describe('claim, or JSON pointer into the claims → value it must equal, or have in its list'),
})
