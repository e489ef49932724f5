import { readdirSync, readFileSync } from 'node:fs'

/** What Linux says of a process tree: CPU seconds and resident memory (proc(5)). */

const TICKS_PER_SECOND = 100

function stat(pid) {
  let text
  try {
    text = readFileSync(`/proc/${pid}/stat`, 'latin1')
  } catch {
    return undefined
  }
  // The command may hold spaces and brackets; the fields begin after its last one.
  const fields = text.slice(text.lastIndexOf(')') + 2).split(' ')
  const [utime, stime, cutime, cstime] = fields.slice(11, 15).map(Number)
  return { parent: Number(fields[1]), ticks: utime + stime, reaped: cutime + cstime }
}

/** The process and all its descendants, as ids. */
export function processTree(root) {
  const parents = new Map()
  for (const entry of readdirSync('/proc')) {
    if (/^\d+$/.test(entry)) parents.set(Number(entry), stat(entry)?.parent)
  }
  const tree = [root]
  for (const pid of tree) {
    for (const [child, parent] of parents) if (parent === pid) tree.push(child)
  }
  return tree
}

/** User + system seconds that these processes (and children they have reaped) have used. */
export function cpuSeconds(pids) {
  let ticks = 0
  for (const pid of pids) {
    const process = stat(pid)
    if (process) ticks += process.ticks + process.reaped
  }
  return ticks / TICKS_PER_SECOND
}

/** Resident memory of a process tree in bytes. */
export function residentBytes(root) {
  let kilobytes = 0
  for (const pid of processTree(root)) {
    const status = readFileSync(`/proc/${pid}/status`, 'latin1')
    kilobytes += Number(/^VmRSS:\s+(\d+)/m.exec(status)?.[1] ?? 0)
  }
  return kilobytes * 1024
}
