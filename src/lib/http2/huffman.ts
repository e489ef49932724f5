/** Bits of each byte's code, and of EOS as the last one (RFC 7541, appendix B). The code is canonical: lengths suffice. */
const LENGTHS = [
  13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28,
  28, 28, 28, 28, 28, 28, 28, 28, 6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, 5, 5, 5,
  6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10, 13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7,
  7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6, 15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, 6,
  7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28, 20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23,
  23, 23, 24, 23, 24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24, 22, 21, 20, 22,
  22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22,
  23, 22, 22, 23, 26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, 19, 21, 26, 27,
  27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27, 20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25,
  24, 24, 26, 23, 26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26, 30,
]
const EOS = 256
const LONGEST = 30

/** A step of the automaton by four bits: the next state where the table has it, and the byte that it completes. */
const STATE = 0xff0
const EMITS_SHIFT = 12
const SYMBOL_SHIFT = 13
const FAILS = 0x400000
/** By state and four bits. */
const steps = new Int32Array(256 * 16)
/** Whether the code may stop in a state: in up to seven bits of the padding, which are ones (RFC 7541 §5.2). */
const mayEnd = new Uint8Array(256)

/** Bits that a state has read already lead to children: another state from 1 on, or a symbol as its complement. */
function build(): void {
  const children = new Int16Array(256 * 2)
  let states = 1
  let code = 0
  for (let length = 1; length <= LONGEST; length++) {
    code *= 2
    for (let symbol = 0; symbol <= EOS; symbol++) {
      if (LENGTHS[symbol] !== length) continue
      let state = 0
      for (let bit = length - 1; bit > 0; bit--) {
        const at = state * 2 + ((code >> bit) & 1)
        if (children[at] === 0) children[at] = states++
        state = children[at] as number
      }
      children[state * 2 + (code & 1)] = ~symbol
      code += 1
    }
  }
  for (let state = 0; state < 256; state++) {
    for (let bits = 0; bits < 16; bits++) steps[state * 16 + bits] = follow(children, state, bits)
  }
  let state = 0
  for (let ones = 0; ones < 8; ones++) {
    mayEnd[state] = 1
    state = children[state * 2 + 1] as number
  }
}

function follow(children: Int16Array, from: number, bits: number): number {
  let state = from
  let emitted = 0
  for (let bit = 3; bit >= 0; bit--) {
    const child = children[state * 2 + ((bits >> bit) & 1)] as number
    if (child >= 0) state = child
    else if (~child === EOS) return FAILS
    else {
      emitted = (1 << EMITS_SHIFT) | (~child << SYMBOL_SHIFT)
      state = 0
    }
  }
  return emitted | (state << 4)
}

build()

/** What `toString` calls, without the looks at its arguments; Node's types leave it out. */
type Sliceable = Buffer & { latin1Slice(start: number, end: number): string }

/** Several characters by one call: up to here that costs a third of what the buffer's own way does, as measured. */
const fromCodes = String.fromCharCode as (...codes: (number | undefined)[]) => string

/** The string that these bytes are in latin1. */
export function latin1(b: Buffer, at: number, end: number): string {
  switch (end - at) {
    case 0:
      return ''
    case 1:
      return fromCodes(b[at])
    case 2:
      return fromCodes(b[at], b[at + 1])
    case 3:
      return fromCodes(b[at], b[at + 1], b[at + 2])
    case 4:
      return fromCodes(b[at], b[at + 1], b[at + 2], b[at + 3])
    case 5:
      return fromCodes(b[at], b[at + 1], b[at + 2], b[at + 3], b[at + 4])
    case 6:
      return fromCodes(b[at], b[at + 1], b[at + 2], b[at + 3], b[at + 4], b[at + 5])
    case 7:
      return fromCodes(b[at], b[at + 1], b[at + 2], b[at + 3], b[at + 4], b[at + 5], b[at + 6])
    default:
      return (b as Sliceable).latin1Slice(at, end)
  }
}

let scratch = Buffer.allocUnsafeSlow(4096)

/** How long the string of a literal is (RFC 7541 §5.2); -1 where it is not the code of one. */
export function huffmanLength(bytes: Buffer, start: number, end: number): number {
  // The shortest code has five bits; one byte more is written, and not counted.
  const most = Math.ceil(((end - start) * 8) / 5) + 1
  if (scratch.length < most) scratch = Buffer.allocUnsafeSlow(2 * most)
  const into = scratch
  let state = 0
  let length = 0
  let seen = 0
  for (let at = start; at < end; at++) {
    const byte = bytes[at] as number
    // Whether a step completes a byte cannot be foretold: it is written in any case, and counted if it does.
    const first = steps[state | (byte >> 4)] as number
    into[length] = first >> SYMBOL_SHIFT
    length += (first >> EMITS_SHIFT) & 1
    const second = steps[(first & STATE) | (byte & 15)] as number
    into[length] = second >> SYMBOL_SHIFT
    length += (second >> EMITS_SHIFT) & 1
    seen |= first | second
    state = second & STATE
  }
  if (seen & FAILS) return -1
  return mayEnd[state >> 4] ? length : -1
}

/** The string of a literal in latin1; undefined where it is not the code of one. */
export function decodeHuffman(bytes: Buffer, start: number, end: number): string | undefined {
  const length = huffmanLength(bytes, start, end)
  return length === -1 ? undefined : latin1(scratch, 0, length)
}
