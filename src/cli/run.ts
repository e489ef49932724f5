import { spawn } from 'node:child_process'
import { constants } from 'node:os'
import { type Command, CommandError, EXIT, withConfig } from './command.ts'

/** `run`: one program through the proxy. */
export const run: Command = (cli) =>
  cli.command(
    'run',
    'run a program through the proxy: run -- CMD…',
    (command) =>
      command
        .usage('$0 run [--client NAME] -- CMD…')
        .option('client', {
          type: 'string',
          requiresArg: true,
          describe: 'name in clients to authenticate as',
        })
        .example('$0 run -- curl https://api.example.com/orders', 'its exit code is curl’s')
        .example('$0 run --client crawler -- python crawl.py', 'as the client `crawler`'),
    async ({ config: file, client, '--': words }) => {
      const [program, ...args] = (words as string[] | undefined) ?? []
      if (program === undefined) {
        throw new CommandError(EXIT.usage, 'run what? The program follows after --')
      }
      await withConfig(file, async (config) => {
        const { prepareEnvironment } = await import('./child-environment.ts')
        const variables = await prepareEnvironment(config, { client })
        process.exitCode = await execute(program, args, { ...process.env, ...variables })
      })
    },
  )

const FORWARDED = ['SIGINT', 'SIGTERM', 'SIGHUP', 'SIGQUIT'] as const

/** Runs the program with our terminal and gives its exit code, as a shell would. */
function execute(program: string, args: string[], env: NodeJS.ProcessEnv): Promise<number> {
  return new Promise((resolve, reject) => {
    const child = spawn(program, args, { stdio: 'inherit', env })
    const forward = (signal: NodeJS.Signals) => {
      // Ctrl-C reaches the whole foreground group: sent on, the child would have it twice, and many
      // programs take a second one as 'stop at once'.
      const byTerminal = process.stdin.isTTY && (signal === 'SIGINT' || signal === 'SIGQUIT')
      if (!byTerminal) child.kill(signal)
    }
    for (const signal of FORWARDED) process.on(signal, forward)
    const settle = () => {
      for (const signal of FORWARDED) process.off(signal, forward)
    }
    child.once('error', (cause: NodeJS.ErrnoException) => {
      settle()
      const reason = cause.code === 'ENOENT' ? 'no such program' : (cause.code ?? 'unknown')
      // The codes of POSIX shells: 127 not found, 126 found and not runnable.
      const code = cause.code === 'ENOENT' ? 127 : 126
      reject(new CommandError(code, `${program} cannot be run (${reason})`, undefined, { cause }))
    })
    child.once('exit', (code, signal) => {
      settle()
      resolve(code ?? 128 + (signal ? constants.signals[signal] : 0))
    })
  })
}
