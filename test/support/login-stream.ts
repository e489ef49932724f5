import { once } from 'node:events'
import { request } from 'node:http'
import { createInterface } from 'node:readline'
import type { LoginLine } from '../../src/admin/login-routes.ts'

type Step = LoginLine['step']

/** A login by the admin API, as a command line follows it. */
export class LoginStream {
  readonly #adminUrl: string
  readonly #token: string
  readonly #lines: AsyncGenerator<LoginLine>
  readonly stop: () => void

  constructor(
    adminUrl: string,
    credential: string,
    options: { token?: string; redirectUri?: string } = {},
  ) {
    const { token = 'admin-token-of-the-test', redirectUri } = options
    this.#adminUrl = adminUrl
    this.#token = token
    const [pool, id] = credential.split('/')
    const outgoing = request(`${adminUrl}/api/pools/${pool}/credentials/${id}/login`, {
      method: 'POST',
      agent: false,
      headers: { authorization: `Bearer ${token}` },
    })
    outgoing.on('error', () => {})
    outgoing.end(JSON.stringify({ redirectUri }))
    this.stop = () => outgoing.destroy()
    this.#lines = (async function* () {
      const [response] = await once(outgoing, 'response')
      for await (const line of createInterface({ input: response })) yield JSON.parse(line)
    })()
  }

  /** The next line, which must be of this kind; `end` for none. */
  async next<Kind extends Step | 'end'>(kind: Kind): Promise<Extract<LoginLine, { step: Kind }>> {
    const { value } = await this.#lines.next()
    const found = value?.step ?? 'end'
    if (found !== kind) throw new Error(`${found} came, not ${kind}: ${JSON.stringify(value)}`)
    return value
  }

  /** The next line, whatever it is. */
  async any(): Promise<LoginLine | undefined> {
    return (await this.#lines.next()).value
  }

  /** Hands over what the browser brought back; the status of the answer. */
  async hand(login: string, redirected: unknown): Promise<number> {
    const response = await fetch(`${this.#adminUrl}/api/logins/${login}`, {
      method: 'POST',
      headers: { authorization: `Bearer ${this.#token}` },
      body: JSON.stringify({ redirected }),
    })
    await response.arrayBuffer()
    return response.status
  }
}
