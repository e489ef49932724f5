import type { FastifyInstance } from 'fastify'
import { AdminError } from './problem.ts'

/** A JSON object as it came; undefined for an empty body. */
export type JsonObject = Readonly<Record<string, unknown>> | undefined

/** Makes the routes of a scope read their bodies as JSON objects, whatever their content type says. */
export function takeJsonObjects(scope: FastifyInstance, bodyLimit: number): void {
  scope.removeAllContentTypeParsers()
  scope.addContentTypeParser(
    '*',
    { parseAs: 'string', bodyLimit },
    async (_request: unknown, body: string | Buffer) => readObject(String(body)),
  )
}

function readObject(text: string): JsonObject {
  if (text === '') return undefined
  try {
    const value: unknown = JSON.parse(text)
    if (typeof value === 'object' && value !== null && !Array.isArray(value)) {
      return value as JsonObject
    }
  } catch {
    // Told below.
  }
  throw new AdminError('BAD_REQUEST', 'expected a JSON object')
}
