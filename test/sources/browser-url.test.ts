import { describe, expect, test } from 'vitest'
import { parseUrlGlob } from '../../src/sources/browser-url.ts'

describe('a URL glob', () => {
  test.each([
    ['https://api.test/*', 'https://api.test/v1/me?a=b#c', true],
    ['https://api.test/*', 'https://api.test.evil.test/v1', false],
    ['https://*.api.test/token', 'https://eu.api.test/token?x', true],
    ['https://*.api.test/token', 'https://evil.test/.api.test/token', false],
    ['https://*.api.test/token', 'https://evil.test?.api.test/token', false],
    ['https://api.test/a?x=1*', 'https://api.test/a?x=12', true],
    ['https://api.test/a?x=1*', 'https://api.test/a?y=12', false],
    ['*://api.test:*/home', 'http://api.test:8080/home', true],
    ['https://api.test/a.b', 'https://api.test/aXb', false],
    ['https://api.test', 'https://api.test/', true],
  ])('%s and %s: %s', (glob, url, covered) => {
    expect(parseUrlGlob(glob)(url)).toBe(covered)
  })
})
