/** What the OpenAPI document is put together from. */

export const text = { type: 'string' }
export const number = { type: 'number' }
export const integer = { type: 'integer' }
export const orNull = (type: string) => ({ type: [type, 'null'] })
export const time = { type: 'string', format: 'date-time' }
export const timeOrNull = { type: ['string', 'null'], format: 'date-time' }
export const listOf = (items: object) => ({ type: 'array', items })
export const record = (properties: object) => ({ type: 'object', properties })
export const schema = (name: string) => ({ $ref: `#/components/schemas/${name}` })

export const json = (description: string, content: object) => ({
  description,
  content: { 'application/json': { schema: content } },
})
export const plain = (description: string, type: string) => ({
  description,
  content: { [type]: { schema: text } },
})
export const inPath = (name: string, description: string) => ({
  name,
  in: 'path',
  required: true,
  description,
  schema: text,
})
export const inQuery = (name: string, description: string, type: object = text) => ({
  name,
  in: 'query',
  description,
  schema: type,
})
export const open = (summary: string, responses: object) => ({
  get: { summary, security: [], responses },
})
const failure = json('Refused; `code` says why', schema('Error'))
export const closed = (summary: string, responses: object, parameters: object[] = []) => ({
  summary,
  parameters,
  responses: { ...responses, default: failure },
})
/** Open to clients that may lease, too. */
export const leasing = (body: string, operation: ReturnType<typeof closed>) => ({
  ...operation,
  security: [{ adminToken: [] }, { client: [] }],
  requestBody: { content: { 'application/json': { schema: schema(body) } } },
})
