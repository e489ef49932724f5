/** `make(key)` once for each key. */
export function memo(make) {
  const known = new Map()
  return (key) => {
    if (!known.has(key)) known.set(key, make(key))
    return known.get(key)
  }
}
