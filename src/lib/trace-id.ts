let count = 0
const prefix = Math.floor(Math.random() * 36 ** 5)
  .toString(36)
  .padStart(5, '0')

/** The next trace id: unique in this process, and most likely among all processes and runs. */
export function nextTraceId(): string {
  count += 1
  return prefix + count.toString(36).padStart(6, '0')
}
