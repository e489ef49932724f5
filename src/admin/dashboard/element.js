/**
 * Makes an element. Text goes in as text nodes only, so nothing that an upstream or a client wrote is ever markup.
 * `on…` properties are listeners, a boolean sets or leaves out the attribute.
 */
export function element(name, properties = {}, ...children) {
  const node = document.createElement(name)
  for (const [key, value] of Object.entries(properties)) {
    if (key.startsWith('on')) node.addEventListener(key.slice(2), value)
    else if (value === true) node.setAttribute(key, '')
    else if (value !== false && value !== undefined && value !== null) node.setAttribute(key, value)
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined))
  return node
}

/** A pair of a description list. */
export function term(name, value, properties = {}) {
  return element('div', properties, element('dt', {}, name), element('dd', {}, value ?? '–'))
}

/** `95 s`, `12 min`, `3 h`, `2 d`: the two digits that matter. */
export function duration(seconds) {
  if (seconds === null || seconds === undefined) return '–'
  const size = Math.abs(seconds)
  if (size < 120) return `${Math.round(seconds)} s`
  if (size < 7200) return `${Math.round(seconds / 60)} min`
  if (size < 172_800) return `${Math.round(seconds / 3600)} h`
  return `${Math.round(seconds / 86_400)} d`
}

export function milliseconds(ms) {
  if (ms === null || ms === undefined) return '–'
  if (ms < 10) return `${ms.toFixed(1)} ms`
  return ms < 10_000 ? `${Math.round(ms)} ms` : duration(ms / 1000)
}

export function percent(share, digits = 0) {
  return share === null || share === undefined ? '–' : `${(share * 100).toFixed(digits)} %`
}

export function bytes(count) {
  if (count < 1024) return `${count} B`
  if (count < 1024 ** 2) return `${(count / 1024).toFixed(1)} KiB`
  return `${(count / 1024 ** 2).toFixed(1)} MiB`
}

/** Local wall time to the second. */
export function clockTime(iso) {
  return new Date(iso).toLocaleTimeString(undefined, { hour12: false })
}
