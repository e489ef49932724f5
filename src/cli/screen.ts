import type { ReadStream, WriteStream } from 'node:tty'

const ESC = '\x1b['
/** A buffer of its own, so that what stood there comes back; no cursor; lines are cut, not wrapped. */
const ENTER = `${ESC}?1049h${ESC}?25l${ESC}?7l`
const LEAVE = `${ESC}?7h${ESC}?25h${ESC}?1049l`
/** The terminal shows what is between as one (synchronized output); those that don't know it ignore it. */
const BEGIN = `${ESC}?2026h${ESC}H`
const END = `${ESC}J${ESC}?2026l`

/** A terminal that one text after the other is shown on, in place. */
export class Screen {
  readonly #output: WriteStream
  readonly #input: ReadStream | undefined
  readonly #ended = new AbortController()
  #render: ((columns: number, rows: number) => readonly string[]) | undefined

  /** Takes the terminal over; q, Ctrl-C, SIGINT and SIGTERM end it. */
  constructor(output: WriteStream, input: ReadStream) {
    this.#output = output
    this.#input = input.isTTY ? input : undefined
    output.write(ENTER)
    output.on('resize', this.#redraw)
    output.on('error', this.#end)
    process.on('SIGINT', this.#end).on('SIGTERM', this.#end).on('SIGHUP', this.#end)
    this.#input?.setRawMode(true)
    this.#input?.resume()
    this.#input?.on('data', this.#onKeys)
  }

  /** Aborted when it was ended. */
  get ended(): AbortSignal {
    return this.#ended.signal
  }

  /** Shows lines; `render` is asked again when the terminal changes its size. */
  show(render: (columns: number, rows: number) => readonly string[]): void {
    this.#render = render
    this.#redraw()
  }

  /** Gives the terminal back as it was. */
  close(): void {
    this.#end()
    this.#output.off('resize', this.#redraw)
    process.off('SIGINT', this.#end).off('SIGTERM', this.#end).off('SIGHUP', this.#end)
    this.#input?.off('data', this.#onKeys)
    this.#input?.setRawMode(false)
    this.#input?.pause()
    this.#output.write(LEAVE)
    this.#output.off('error', this.#end)
  }

  readonly #end = (): void => this.#ended.abort()

  readonly #redraw = (): void => {
    if (!this.#render || this.ended.aborted) return
    const { columns = 80, rows = 24 } = this.#output
    const lines = this.#render(columns, rows).slice(0, rows)
    // Each line is written over the old one and wiped behind it: nothing is ever blank in between.
    const text = lines.map((line) => `${cut(line, columns)}${ESC}K`).join('\r\n')
    this.#output.write(`${BEGIN}${text}${END}`)
  }

  readonly #onKeys = (keys: Buffer): void => {
    // In raw mode Ctrl-C is a byte like others.
    if (/[qQ\x03\x04]/.test(keys.toString('latin1'))) this.#end()
  }
}

/** As much of a line as fits; colours take no room. */
export function cut(line: string, columns: number): string {
  let room = columns
  let text = ''
  for (const part of line.split(/(\x1b\[[\d;]*m)/)) {
    if (part.startsWith('\x1b')) text += part
    else {
      text += part.slice(0, room)
      room -= Math.min(part.length, room)
    }
  }
  return text
}
