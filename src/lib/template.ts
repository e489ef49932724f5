/**
 * Text with names in braces. `{NAME}` stands for a value, `{{NAME}}` for the text `{NAME}`; every other brace is
 * text, so that JSON, GraphQL and regular expressions need no escapes. Further braces around a name pair up from
 * the inside: `{{{NAME}}}` is a value between braces.
 */

/** A piece of a template: text as it is, or the name of a value. */
export type TemplatePart = string | { readonly name: string }

const NAMED = /(\{+)([A-Za-z_][A-Za-z0-9_-]*)(\}+)/g

/** Takes a template apart; every text is a template. */
export function parseTemplate(text: string): TemplatePart[] {
  const parts: TemplatePart[] = []
  let literal = ''
  let end = 0
  for (const match of text.matchAll(NAMED)) {
    const [whole, open, name, close] = match as unknown as [string, string, string, string]
    const depth = Math.min(open.length, close.length)
    const kept = Math.floor(depth / 2)
    literal += text.slice(end, match.index) + '{'.repeat(open.length - depth + kept)
    if (depth % 2 === 0) literal += name
    else {
      if (literal !== '') parts.push(literal)
      parts.push({ name })
      literal = ''
    }
    literal += '}'.repeat(close.length - depth + kept)
    end = match.index + whole.length
  }
  literal += text.slice(end)
  if (literal !== '') parts.push(literal)
  return parts
}

/** The names that a template asks for, each once. */
export function templateNames(text: string): string[] {
  const names = parseTemplate(text).flatMap((part) => (typeof part === 'string' ? [] : [part.name]))
  return [...new Set(names)]
}

/**
 * Fills a template in. `quote` makes a value fit for its place and is told all text before it; what comes out
 * is not looked at again, so a value with braces stays as it is.
 */
export function renderTemplate(
  text: string,
  lookUp: (name: string) => string,
  quote: (value: string, before: string) => string = (value) => value,
): string {
  let result = ''
  for (const part of parseTemplate(text)) {
    result += typeof part === 'string' ? part : quote(lookUp(part.name), result)
  }
  return result
}

/** A template that gives exactly this text. */
export function escapeTemplate(text: string): string {
  return text.replace(NAMED, (_, open: string, name: string, close: string) => {
    const more = Math.min(open.length, close.length)
    return '{'.repeat(open.length + more) + name + '}'.repeat(close.length + more)
  })
}
