import { z } from 'zod'
import { Secret } from '../lib/secret.ts'
import { templateNames } from '../lib/template.ts'
import type { Path } from './path.ts'
import { object, timeout } from './values.ts'

/** The source `exec`: what it accepts, and the rules that look at several of its keys at once. */
export const execSource = object({
  type: z.literal('exec'),
  command: z
    .array(z.string().refine((text) => !text.includes('\0'), 'expected no NUL'))
    .min(1, 'expected a program')
    .refine(([program]) => program !== '', 'expected a program')
    .describe('program and arguments, run without a shell; others on the machine can see them'),
  env: z
    .record(
      z.string().regex(/^[^=\0]+$/, 'expected the name of a variable'),
      z
        .string()
        .refine((text) => !text.includes('\0'), 'expected no NUL')
        .transform((text) => new Secret(text)),
    )
    .default({})
    .describe('variable → template; besides PATH, HOME and LANG nothing else is passed on'),
  cwd: z.string().min(1, 'expected a path').optional().describe('default: folder of this file'),
  timeout: timeout.optional().describe('default: refresh.timeout of the pool, which bounds it too'),
})

export type ExecSourceConfig = z.output<typeof execSource>

/** The rules of an `exec` source as it stands in the file; `vars` are the names that its credential has. */
export function checkExec(
  source: Readonly<Record<string, unknown>>,
  vars: readonly string[],
  report: (path: Path, message: string) => void,
): void {
  const { env } = source
  if (typeof env !== 'object' || env === null) return
  for (const [name, text] of Object.entries(env)) {
    if (typeof text !== 'string') continue
    if (templateNames(text).every((each) => vars.includes(each))) continue
    report(
      ['env', name],
      `expected in braces the name of one of vars (${vars.join(', ') || 'none'}); {{TEXT}} stands for {TEXT} itself`,
    )
  }
}
