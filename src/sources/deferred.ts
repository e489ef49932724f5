import type { Source } from './source.ts'

/**
 * Stands for a renewable source until it is first asked: only then is its module loaded, with the library that
 * it needs. `login` tells whether a person can help it.
 */
export function deferred(load: () => Promise<Source>, traits: { login: boolean }): Source {
  let loading: Promise<Source> | undefined
  const source = () => {
    loading ??= load().catch((error: unknown) => {
      loading = undefined
      throw error
    })
    return loading
  }
  const deferred: Source = {
    renewable: true,
    obtain: async (previous, context) => (await source()).obtain(previous, context),
  }
  if (!traits.login) return deferred
  return {
    ...deferred,
    async login(dialogue, context) {
      const loaded = await source()
      if (!loaded.login) throw new TypeError('the source needs no person')
      return loaded.login(dialogue, context)
    },
  }
}
