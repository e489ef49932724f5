import { execFileSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import type { ClientResponse } from './client.ts'

/** Processes that run as workers of this one. */
export function workersOf(pid: number): number[] {
  const list = execFileSync('ps', ['--ppid', String(pid), '-o', 'pid=,args='], { encoding: 'utf8' })
  return list
    .split('\n')
    .filter((line) => line.includes('workers/main.js'))
    .map((line) => Number.parseInt(line, 10))
}

/** Whether a process is still there, one that nobody has waited for yet left out. */
export function isAlive(pid: number): boolean {
  try {
    return !/^\d+ \(.*\) Z/.test(readFileSync(`/proc/${pid}/stat`, 'utf8'))
  } catch {
    return false
  }
}

/** Which process has served a request: its traces are numbered under a name of its own. */
export function servedBy({ headers }: Pick<ClientResponse, 'headers'>): string {
  return String(headers['cupbearer-trace']).slice(0, 5)
}
