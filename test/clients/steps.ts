import { createHash } from 'node:crypto'

/** What each client is to do, where it can. */
export const STEPS = ['get', 'post', 'big', 'keep-alive', 'healed'] as const
export type Step = (typeof STEPS)[number]

export const PAYLOAD = Buffer.alloc(100_000, 'x')
/** 5 MiB that nobody gets right by chance. */
export const BIG = pseudorandom(5 * 2 ** 20)

/** What the answers hold. */
export const BODIES: Readonly<Record<string, Buffer>> = {
  get: Buffer.from('got\n'),
  post: PAYLOAD,
  big: BIG,
  'keep-1': Buffer.from('kept 1\n'),
  'keep-2': Buffer.from('kept 2\n'),
  healed: Buffer.from('healed\n'),
}

export const sha256 = (bytes: Buffer): string => createHash('sha256').update(bytes).digest('hex')

function pseudorandom(length: number): Buffer {
  const blocks = Array.from({ length: Math.ceil(length / 32) }, (_, index) =>
    createHash('sha256').update(`${index}`).digest(),
  )
  return Buffer.concat(blocks).subarray(0, length)
}
