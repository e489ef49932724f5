import type { CaptureSourceConfig } from '../config/schema.ts'
import { SourceError } from '../errors.ts'
import type { Secret } from '../lib/secret.ts'
import { parseUrlGlob } from './browser-url.ts'
import { type Renewal, readRenewal } from './learned-renewal.ts'
import { readPointer } from './pointer.ts'
import type { FoundToken, Learns, Source, SourceContext } from './source.ts'

/**
 * Tokens that come by in the traffic of somebody who logs in through the proxy. Nothing is asked for until a
 * login has been seen; then the renewal that was learned from it is repeated.
 */
class CaptureSource implements Source {
  readonly renewable = true
  readonly learns: Learns
  /** Keeps what the asker remembers of its endpoint for as long as the same renewal holds. */
  #asker: { readonly renewal: Secret; readonly source: Source } | undefined

  constructor({ authorization, response }: CaptureSourceConfig) {
    this.learns = {
      authorization,
      response: response && {
        covers: parseUrlGlob(response.url),
        read: (document) => readAnswer(document, response),
      },
    }
  }

  async obtain(previous: Parameters<Source['obtain']>[0], context: SourceContext) {
    const { renewal } = previous ?? {}
    const request = renewal && readRenewal(renewal)
    if (!renewal || !request) {
      throw new SourceError('transient', `nothing has been learned yet, ${captureNeeded(context)}`)
    }
    if (this.#asker?.renewal !== renewal) {
      this.#asker = { renewal, source: await askerFor(request) }
    }
    try {
      const token = await this.#asker.source.obtain(previous, withOrigin(context, request.origin))
      return { ...token, renewal }
    } catch (error) {
      if (!(error instanceof SourceError && error.kind === 'revoked')) throw error
      const host = new URL(request.tokenUrl).host
      const message = `token endpoint ${host} refuses the learned login, ${captureNeeded(context)}`
      throw new SourceError('revoked', message, { cause: error })
    }
  }
}

/** Makes a source that learns its tokens from the traffic. */
export function captureSource(config: CaptureSourceConfig): Source {
  return new CaptureSource(config)
}

function captureNeeded({ name = 'POOL/ID' }: SourceContext): string {
  return `run: cupbearer capture ${name.split('/', 1)[0]}`
}

async function askerFor({ origin: _, ...request }: Renewal): Promise<Source> {
  const { oauth2Source } = await import('./oauth2.ts')
  return oauth2Source({ type: 'oauth2', ...request })
}

/** Clients that live in a page are known by it, and some endpoints insist. */
function withOrigin(context: SourceContext, origin: string | undefined): SourceContext {
  if (origin === undefined) return context
  return {
    ...context,
    fetch: (url, init) => {
      const headers = new Headers(init?.headers)
      headers.set('origin', origin)
      return context.fetch(url, { ...init, headers })
    },
  }
}

function readAnswer(
  document: unknown,
  places: NonNullable<CaptureSourceConfig['response']>,
): FoundToken | undefined {
  const at = (pointer: string | undefined) => {
    const value = pointer === undefined ? undefined : readPointer(document, pointer)
    return typeof value === 'string' || typeof value === 'number' ? String(value) : undefined
  }
  const token = at(places.token)
  if (token === undefined || token === '') return undefined
  return { token, refreshToken: at(places.refreshToken), expiresIn: at(places.expiresIn) }
}
