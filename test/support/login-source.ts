import { configSchema } from '../../src/config/schema.ts'
import type { Source } from '../../src/sources/source.ts'
import { createSource } from '../../src/sources/table.ts'

/** A source made as from a file: parsed by the schema, with the `vars` of its credential. */
export function sourceOf(source: object, vars: Record<string, string> = {}): Source {
  const config = configSchema.parse({
    pools: { api: { targets: ['api.test'], credentials: [{ id: 'a', vars, source }] } },
  })
  const credential = config.pools.api?.credentials[0]
  if (!credential) throw new Error('the schema has lost the credential')
  return createSource(credential.source, { vars: credential.vars })
}

/** A login that posts user name and password as JSON, and takes the token from the answer. */
export function passwordLogin(url: string, more: object = {}, step: object = {}): object {
  return {
    type: 'login',
    steps: [
      {
        url,
        json: { user: '{user}', password: '{password}' },
        extract: { TOKEN: { json: '/token' } },
        ...step,
      },
    ],
    token: '{TOKEN}',
    ...more,
  }
}
