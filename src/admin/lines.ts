import type { ServerResponse } from 'node:http'
import { SECURITY_HEADERS } from './guard.ts'

/** A response as lines of JSON; `closed` aborts when nobody reads any more. */
export class Lines<Line> {
  readonly #response: ServerResponse
  readonly #gone = new AbortController()

  constructor(response: ServerResponse) {
    this.#response = response
    response.on('close', () => this.#gone.abort())
    response.on('error', () => this.#gone.abort())
    response.writeHead(200, { ...SECURITY_HEADERS, 'content-type': 'application/x-ndjson' })
  }

  get closed(): AbortSignal {
    return this.#gone.signal
  }

  write(line: Line): void {
    if (!this.#gone.signal.aborted) this.#response.write(`${JSON.stringify(line)}\n`)
  }

  end(): void {
    this.#response.end()
  }
}
