import { type ChildProcessByStdio, spawn } from 'node:child_process'
import { once } from 'node:events'
import type { Readable, Writable } from 'node:stream'
import { onTestFinished } from 'vitest'
import { MAIN, said } from './command-line.ts'

/** Runs a command in a pseudo-terminal; each line that it is sent is `key TEXT` or `size COLUMNS ROWS`. */
const RELAY = `
import fcntl, os, pty, select, struct, sys, termios
def size(fd, columns, rows):
    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack('HHHH', int(rows), int(columns), 0, 0))
columns, rows, *command = sys.argv[1:]
pid, fd = pty.fork()
if pid == 0:
    size(0, columns, rows)
    os.execvp(command[0], command)
said = b''
while True:
    ready, _, _ = select.select([fd, 0], [], [])
    if fd in ready:
        try:
            data = os.read(fd, 65536)
        except OSError:
            data = b''
        if not data:
            break
        os.write(1, data)
    if 0 in ready:
        data = os.read(0, 65536)
        if not data:
            break
        said += data
        *lines, said = said.split(b'\\n')
        for line in lines:
            what, _, rest = line.decode().partition(' ')
            if what == 'size':
                size(fd, *rest.split())
            else:
                os.write(fd, rest.encode())
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
`

/** The built command line in a terminal of its own. */
export class Terminal {
  readonly #child: ChildProcessByStdio<Writable, Readable, null>
  readonly #closed: Promise<unknown>

  constructor(args: readonly string[], cwd: string, columns: number, rows: number) {
    const command = [process.execPath, MAIN, ...args]
    this.#child = spawn('python3', ['-c', RELAY, String(columns), String(rows), ...command], {
      cwd,
      env: { PATH: process.env.PATH, TERM: 'xterm-256color' },
      stdio: ['pipe', 'pipe', 'inherit'],
    })
    this.#closed = once(this.#child, 'close')
    onTestFinished(() => {
      this.#child.kill('SIGKILL')
    })
  }

  /** Resolves, once the terminal shows what is wanted, with all that came since it was last asked. */
  shows(wanted: RegExp): Promise<string> {
    return said(this.#child.stdout, wanted)
  }

  press(keys: string): void {
    this.#child.stdin.write(`key ${keys}\n`)
  }

  resize(columns: number, rows: number): void {
    this.#child.stdin.write(`size ${columns} ${rows}\n`)
  }

  /** The exit code, once the command has ended. */
  async code(): Promise<number | null> {
    await this.#closed
    return this.#child.exitCode
  }
}
