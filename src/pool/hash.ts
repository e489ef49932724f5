/** A 32-bit hash of a text (FNV-1a): for spreading, not for secrets. */
export function hashText(text: string): number {
  let value = 0x811c9dc5
  for (let i = 0; i < text.length; i++) {
    value = Math.imul(value ^ text.charCodeAt(i), 0x01000193)
  }
  return value
}

/** MurmurHash3's finaliser: spreads what FNV leaves alike. */
function mix(value: number): number {
  let bits = Math.imul(value ^ (value >>> 16), 0x85ebca6b)
  bits = Math.imul(bits ^ (bits >>> 13), 0xc2b2ae35)
  return (bits ^ (bits >>> 16)) >>> 0
}

/** Highest random weight: a key keeps its choice for as long as the choice is among the names. */
export function rendezvous<Item>(
  key: string,
  items: Iterable<Item>,
  hashOf: (item: Item) => number,
): Item | undefined {
  const seed = mix(hashText(key))
  let chosen: Item | undefined
  let highest = -1
  for (const item of items) {
    const weight = mix(seed ^ hashOf(item))
    if (weight <= highest) continue
    highest = weight
    chosen = item
  }
  return chosen
}
