import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import {
  escapeTemplate,
  parseTemplate,
  renderTemplate,
  templateNames,
} from '../../src/lib/template.ts'

const fill = (text: string, values: Record<string, string> = { user: 'alice', a: '{b}', b: 'B' }) =>
  renderTemplate(text, (name) => values[name] ?? `<no ${name}>`)

describe('a template', () => {
  it.each([
    ['{user}', 'alice'],
    ['{user}@{b}', 'alice@B'],
    ['{{user}}', '{user}'],
    ['{{{user}}}', '{alice}'],
    ['{{{{user}}}}', '{{user}}'],
    ['{{user}', '{alice'],
    ['{"name":"{user}","deep":{"b":{b}}}', '{"name":"alice","deep":{"b":B}}'],
    ['mutation { login { token } }', 'mutation { login { token } }'],
    ['{login{{token}}}', '{login{token}}'],
    ['{} {1} {a b} { user } {{', '{} {1} {a b} { user } {{'],
    ['', ''],
  ])('%s gives %s', (text, expected) => {
    expect(fill(text)).toBe(expected)
  })

  it('does not look at a value again', () => {
    expect(fill('{a}{b}')).toBe('{b}B')
  })

  it('names what it needs, each once', () => {
    expect(templateNames('{a}{{b}}{c}{a}')).toEqual(['a', 'c'])
    expect(parseTemplate('x{a}')).toEqual(['x', { name: 'a' }])
  })

  it('tells the escape all that stands before a value', () => {
    const seen: string[] = []
    renderTemplate(
      'a{x}b{y}',
      (name) => name,
      (value, before) => {
        seen.push(before)
        return value.toUpperCase()
      },
    )
    expect(seen).toEqual(['a', 'aXb'])
  })
})

it('any text can be escaped into a template of itself', () => {
  const piece = fc.constantFrom('{', '}', '{{', '}}', 'user', 'a', ' ', '1', '"')
  fc.assert(
    fc.property(fc.array(piece, { maxLength: 12 }), (pieces) => {
      const text = pieces.join('')
      expect(fill(escapeTemplate(text))).toBe(text)
      expect(templateNames(escapeTemplate(text))).toEqual([])
    }),
  )
})
