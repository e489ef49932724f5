import { z } from 'zod'
import { urlGlob } from './browser.ts'
import { object, pointer } from './values.ts'

/** The source `capture`: what it accepts. OAuth token answers are recognised without being described. */
export const captureSource = object({
  type: z.literal('capture'),
  authorization: z
    .boolean()
    .default(true)
    .describe('whether the bearer token of a request that upstream answered well is learned'),
  response: object({
    url: urlGlob.describe('of the request; * is any text'),
    token: pointer.describe('where it stands in the JSON'),
    refreshToken: pointer.optional().describe('the same for a refresh token'),
    expiresIn: pointer.optional().describe('lifetime or end'),
  })
    .optional()
    .describe('an answer that holds the token, where it is none of OAuth 2.0'),
})

export type CaptureSourceConfig = z.output<typeof captureSource>
