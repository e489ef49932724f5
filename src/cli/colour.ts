/** Colours for a terminal, where there is one that wants them (https://no-color.org). */
export interface Colours {
  readonly good: (text: string) => string
  readonly bad: (text: string) => string
  readonly odd: (text: string) => string
  readonly faint: (text: string) => string
  readonly strong: (text: string) => string
}

const paint = (code: number) => (text: string) => `\x1b[${code}m${text}\x1b[0m`
const asItIs = (text: string) => text

const ON: Colours = {
  good: paint(32),
  bad: paint(31),
  odd: paint(33),
  faint: paint(2),
  strong: paint(1),
}
const OFF: Colours = { good: asItIs, bad: asItIs, odd: asItIs, faint: asItIs, strong: asItIs }

/** Whether a stream is to be written to in colours. */
export function coloursFor(
  stream: { readonly isTTY?: boolean },
  env: NodeJS.ProcessEnv = process.env,
): Colours {
  if (env.NO_COLOR) return OFF
  if (env.FORCE_COLOR && env.FORCE_COLOR !== '0') return ON
  return stream.isTTY && env.TERM !== 'dumb' ? ON : OFF
}
