import { spawn } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'

export interface Traced {
  /** What the program printed, by line. */
  readonly lines: readonly string[]
  /** How often its main thread made each of the calls. */
  readonly calls: ReadonlyMap<string, number>
}

/** Runs Node under strace and looks at these system calls; `inject` is strace's option of that name. */
export async function straced(
  args: readonly string[],
  input: string,
  calls: readonly string[],
  inject?: string,
): Promise<Traced> {
  const folder = mkdtempSync(join(tmpdir(), 'cupbearer-strace-'))
  const report = join(folder, 'calls')
  try {
    const filter = ['--seccomp-bpf', '-f', '-qq', '-o', report, '-e', `trace=${calls.join(',')}`]
    const fault = inject === undefined ? [] : ['-e', `inject=${inject}`]
    const child = spawn('strace', [...filter, ...fault, process.execPath, ...args])
    // A program that is killed at once reads no more of it.
    child.stdin.on('error', () => {})
    child.stdin.end(input)
    const [out, said] = await Promise.all([text(child.stdout), text(child.stderr)])
    if (/^\S*strace: .*(ptrace|not permitted)/im.test(said)) {
      throw new Error(
        `strace may not trace here, and this test needs it: ${said.trim()}\n` +
          'In a container allow it by --cap-add=SYS_PTRACE; elsewhere set kernel.yama.ptrace_scope to 1 or less.',
      )
    }
    const counts = new Map<string, number>()
    let main: string | undefined
    for (const line of readFileSync(report, 'utf8').split('\n')) {
      const [, thread, call] = /^(\d+) +(\w+)\(/.exec(line) ?? []
      if (thread === undefined || call === undefined) continue
      main ??= thread
      if (thread === main) counts.set(call, (counts.get(call) ?? 0) + 1)
    }
    return { lines: out.split('\n').filter((line) => line !== ''), calls: counts }
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}
