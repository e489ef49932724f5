import { MessageError } from './message.ts'

const VERSION = Buffer.from('HTTP/1.')

/** The minor version of an `HTTP/1.x` at `at`; throws for any other. */
export function readVersion(data: Buffer, at: number): 0 | 1 {
  for (let i = 0; i < VERSION.length; i++) {
    if (data[at + i] !== VERSION[i]) throw new MessageError('version')
  }
  const minor = data[at + VERSION.length]
  if (minor === 0x31) return 1
  if (minor === 0x30) return 0
  throw new MessageError('version')
}

/** Past the CRLF that must stand at `at`. */
export function endOfLine(data: Buffer, at: number): number {
  if (data[at] !== 0x0d || data[at + 1] !== 0x0a) throw new MessageError('start-line')
  return at + 2
}
