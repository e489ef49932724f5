/** One record of a CSV file, with the line that it starts on. */
export interface CsvRecord {
  readonly line: number
  readonly fields: readonly string[]
}

/** Where a CSV file is not one: nothing after it can be told apart. */
export interface CsvProblem {
  readonly line: number
  readonly message: string
}

/**
 * Reads CSV (RFC 4180): fields between commas, in double quotes where they hold commas, quotes (doubled) or line
 * ends; lines end with LF or CRLF. Empty lines are left out. White space is part of a field.
 */
export function readCsv(text: string): { records: CsvRecord[]; problem: CsvProblem | undefined } {
  const records: CsvRecord[] = []
  const plain = /[^",\r\n]*(?:\r(?!\n)[^",\r\n]*)*/y
  const quoted = /"((?:[^"]|"")*)"/y
  let at = text.charCodeAt(0) === 0xfeff ? 1 : 0
  let line = 1
  while (at < text.length) {
    const start = line
    const fields: string[] = []
    for (;;) {
      const pattern = text[at] === '"' ? quoted : plain
      pattern.lastIndex = at
      const match = pattern.exec(text)
      if (!match) {
        const message = `column ${fields.length + 1}: its quotes do not end`
        return { records, problem: { line, message } }
      }
      at = pattern.lastIndex
      const inner = match[1]
      if (inner === undefined) fields.push(match[0])
      else {
        fields.push(inner.replaceAll('""', '"'))
        line += inner.split('\n').length - 1
      }
      if (text[at] === ',') {
        at += 1
        continue
      }
      const end = /\r?\n|$/y
      end.lastIndex = at
      if (!end.test(text)) {
        const message = `column ${fields.length}: expected quotes around a field with quotes, and none within but doubled`
        return { records, problem: { line, message } }
      }
      at = end.lastIndex
      line += 1
      break
    }
    if (fields.length > 1 || fields[0] !== '') records.push({ line: start, fields })
  }
  return { records, problem: undefined }
}
