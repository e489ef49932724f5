import type { IncomingMessage } from 'node:http'
import { createInterface } from 'node:readline'

/** The events of one name in a stream of them (HTML §9.2), as JSON. */
export async function* eventsOf<T>(stream: IncomingMessage, name: string): AsyncGenerator<T> {
  let event = ''
  for await (const line of createInterface({ input: stream })) {
    if (line.startsWith('event: ')) event = line.slice('event: '.length)
    else if (line === '') event = ''
    else if (event === name && line.startsWith('data: ')) {
      yield JSON.parse(line.slice('data: '.length)) as T
    }
  }
}
