import { access } from 'node:fs/promises'
import { dirname, relative, resolve } from 'node:path'
import { isDeepStrictEqual } from 'node:util'
import { ConfigError } from '../errors.ts'
import { parseTarget, type Target } from '../lib/authority.ts'
import { type Command, CommandError, configFlag, EXIT, print } from './command.ts'
import { Dialogue } from './init-dialogue.ts'
import {
  readExisting,
  refusal,
  SecretFiles,
  schemaBeside,
  type Tree,
  withPool,
  writeConfig,
} from './init-files.ts'
import { type Question, SOURCE_KINDS, type SourceKind } from './init-sources.ts'
import type { Tried } from './init-try.ts'
import { duration, plain } from './table.ts'

const EXAMPLE_TARGET = 'api.example.com'

/** Each question is a flag too; some are asked by several kinds. */
const QUESTIONS = new Map(
  SOURCE_KINDS.flatMap(({ questions }) => questions.map((each) => [each.name, each] as const)),
)
const flagOf = ({ name, secret }: Question) => (secret ? `${name}-file` : name)

/** `init`: a configuration for one target, whose login has been tried. */
export const init: Command = (cli) =>
  cli.command(
    'init',
    'set up a target: asks, tries the login, writes the configuration',
    (command) => {
      const flags = command
        .option('target', {
          type: 'string',
          requiresArg: true,
          describe: 'host that gets the token, [scheme://]host[:port][/path]',
        })
        .option('source', {
          choices: SOURCE_KINDS.map(({ name }) => name),
          requiresArg: true,
          describe: 'how its token comes',
        })
        .option('pool', { type: 'string', requiresArg: true, describe: 'name of the pool' })
        .option('id', { type: 'string', default: 'account-1', describe: 'name of the account' })
        .option('ca', { type: 'string', requiresArg: true, describe: 'file of a private CA' })
        .option('add', {
          type: 'boolean',
          default: false,
          describe: 'put the pool into a configuration that is there',
        })
        .option('test', {
          type: 'boolean',
          default: true,
          describe: 'get a token once; --no-test only writes the configuration',
        })
        .option('yes', {
          alias: 'y',
          type: 'boolean',
          default: false,
          describe: 'ask nothing, take the flags and the defaults',
        })
      for (const question of QUESTIONS.values()) {
        flags.option(flagOf(question), {
          type: 'string',
          requiresArg: true,
          group: 'What a source is told:',
          describe: question.secret
            ? `${question.text.replace(/ \(.*/, '')}: file that holds it, - for standard input`
            : question.text,
        })
      }
      return flags
        .example('$0 init', 'asks for what it needs, on a terminal')
        .example('$0 init --yes', `writes config.json for ${EXAMPLE_TARGET} and a token in a file`)
        .example(
          '$0 init --yes --target api.supplier.example --source client-credentials --token-url https://login.supplier.example/token --client-id acme --client-secret-file - < secret',
          'for scripts; the secret is kept in a file (0600)',
        )
        .epilog(
          'Secrets go into files of their own (0600), to which the configuration refers; never into an ' +
            'argument. Where the login does not work, nothing is written.',
        )
    },
    (options) => new Setup(options as unknown as Options).run(),
  )

interface Options extends Readonly<Record<string, unknown>> {
  readonly config: string
  readonly target?: string
  readonly source?: string
  readonly pool?: string
  readonly id: string
  readonly ca?: string
  readonly add: boolean
  readonly test: boolean
  readonly yes: boolean
}

/** What was chosen, ready to be tried and written. */
interface Plan {
  readonly target: Target
  readonly kind: SourceKind
  readonly pool: string
  readonly tree: Tree
  /** The file whose token does not come from here, where there is none yet. */
  readonly waitsFor: string | undefined
}

/** One run of `init`. */
class Setup {
  readonly #options: Options
  readonly #file: string
  #dialogue: Dialogue | undefined
  #existing: Tree | undefined
  #add: boolean
  /** By pool; those of a pool that is not written are undone at the end. */
  readonly #secrets = new Map<string, SecretFiles>()

  constructor(options: Options) {
    this.#options = options
    this.#add = options.add
    this.#file = options.config
  }

  async run(): Promise<void> {
    this.#existing = await readExisting(this.#file)
    const { yes } = this.#options
    const interactive = !yes && process.stdin.isTTY && process.stdout.isTTY
    try {
      if (interactive) {
        this.#dialogue = new Dialogue()
        if (this.#existing && !this.#add) await this.#askToAdd()
        print(`A few questions, then ${this.#file} is ready. Ctrl-C stops, and nothing is written.`)
      }
      for (;;) {
        const plan = await this.#plan()
        if (!(await this.#isReady(plan))) continue
        await this.#finish(plan)
        this.#secrets.delete(plan.pool)
        return
      }
    } finally {
      for (const files of this.#secrets.values()) await files.undo()
      this.#dialogue?.close()
    }
  }

  async #askToAdd(): Promise<void> {
    const choices = ['put another pool into it', 'leave it as it is']
    const choice = await this.#dialogue?.choose(`${this.#file} is there already.`, choices)
    if (choice !== 0) throw refusal(this.#file)
    this.#add = true
  }

  async #plan(): Promise<Plan> {
    const { id } = this.#options
    const target = await this.#target()
    const kind = await this.#kind()
    const pool =
      (await this.#answer(
        {
          name: 'pool',
          text: 'Name of the pool',
          default: this.#dialogue ? nameFrom(target) : 'main',
        },
        this.#options.pool,
      )) ?? 'main'
    const answers: Record<string, string | undefined> = { 'target-glob': globOf(target) }
    const secrets = this.#secrets.get(pool) ?? new SecretFiles(this.#file, `${pool}-${id}`)
    this.#secrets.set(pool, secrets)
    for (const question of kind.questions) {
      if (question.when && !question.when(answers)) continue
      const given = this.#options[flagOf(question)] as string | undefined
      answers[question.name] = question.secret
        ? await this.#secret(question, given, secrets)
        : await this.#answer(question, given)
    }
    const added = {
      targets: [target.text, ...(kind.targets?.(answers) ?? [])],
      credentials: [{ id, ...kind.credential(answers) }],
    }
    const path = kind.name === 'file' ? resolve(dirname(this.#file), `${answers.path}`) : undefined
    return {
      target,
      kind,
      pool,
      // Undefined keys go by the way of JSON.
      tree: this.#tree(pool, JSON.parse(JSON.stringify(added)) as Tree),
      waitsFor: path && (await isMissing(path)) ? path : undefined,
    }
  }

  #tree(name: string, pool: Tree): Tree {
    const { ca } = this.#options
    if (this.#existing && this.#add) return withPool(this.#existing, this.#file, name, pool)
    const schema = schemaBeside(this.#file)
    const folder = dirname(resolve(this.#file))
    const tree = {
      ...(schema ? { $schema: schema } : {}),
      listen: '127.0.0.1:8080',
      ...(ca ? { upstream: { ca: [relative(folder, resolve(ca))] } } : {}),
      pools: { [name]: pool },
    }
    // The same again does no harm, and a try that failed can be repeated.
    if (this.#existing && !isDeepStrictEqual(this.#existing, tree)) throw refusal(this.#file)
    return tree
  }

  async #target(): Promise<Target> {
    const wrong = (text: string) => {
      const read = parseTarget(text)
      return typeof read === 'string' ? read : undefined
    }
    const question = {
      name: 'target',
      text: 'Host that gets the token',
      default: EXAMPLE_TARGET,
      wrong,
    }
    return parseTarget((await this.#answer(question, this.#options.target)) as string) as Target
  }

  async #kind(): Promise<SourceKind> {
    const { source } = this.#options
    const named = SOURCE_KINDS.find(({ name }) => name === (source ?? 'file')) as SourceKind
    if (source !== undefined || !this.#dialogue) return named
    const titles = SOURCE_KINDS.map(({ title }) => title)
    return SOURCE_KINDS[
      await this.#dialogue.choose('How does its token come?', titles)
    ] as SourceKind
  }

  async #answer(question: Question, given: string | undefined): Promise<string | undefined> {
    if (given !== undefined) {
      const wrong = question.wrong?.(given)
      if (wrong !== undefined) throw new CommandError(EXIT.usage, `${question.name}: ${wrong}`)
      return given
    }
    if (this.#dialogue) return this.#dialogue.ask(question)
    if (question.default !== undefined || question.optional) return question.default
    throw new CommandError(EXIT.usage, `--${flagOf(question)} is needed`, question.text)
  }

  async #secret(
    question: Question,
    given: string | undefined,
    files: SecretFiles,
  ): Promise<string | undefined> {
    const { name } = question
    if (given !== undefined) return files.adopt(name, given)
    const kept = await files.has(name)
    if (!this.#dialogue) {
      if (kept) return files.reference(name)
      return this.#answer(question, undefined)
    }
    const text = kept ? `${question.text} (empty: as in ${files.pathOf(name)})` : question.text
    const typed = await this.#dialogue.ask({
      ...question,
      text,
      optional: kept || (question.optional ?? false),
    })
    if (typed !== undefined) return files.keep(name, typed)
    return kept ? files.reference(name) : undefined
  }

  /** Whether the plan is to be written; false asks anew. */
  async #isReady({ kind, pool, tree, waitsFor }: Plan): Promise<boolean> {
    const { id, test } = this.#options
    try {
      const { readConfig } = await import('../config/load.ts')
      const config = await readConfig(tree, this.#file)
      if (!test || kind.byHand || waitsFor) return true
      print(`Trying to get a token for ${pool}/${id} …`)
      const { tryCredential } = await import('./init-try.ts')
      const tried = await tryCredential(config, pool, id)
      if (tried === undefined) {
        print('  a proxy runs with this store, and will get it by itself: `cupbearer token list`')
        return true
      }
      if (typeof tried !== 'string') {
        describe(tried)
        return true
      }
      if (!this.#dialogue) {
        const hint = 'nothing was written; --no-test writes the configuration all the same'
        throw new CommandError(EXIT.failed, `no token: ${plain(tried)}`, hint)
      }
      print(`  no token: ${plain(tried)}`)
    } catch (error) {
      if (!this.#dialogue || !(error instanceof ConfigError)) throw error
      print(error.message)
    }
    const choices = ['answer again', 'write the configuration all the same', 'give up']
    const choice = await this.#dialogue.choose('What now?', choices)
    if (choice === 2) throw new CommandError(EXIT.failed, 'given up; no configuration was written')
    return choice === 1
  }

  async #finish({ target, kind, pool, tree, waitsFor }: Plan): Promise<void> {
    const file = this.#file
    const same = isDeepStrictEqual(this.#existing, tree)
    if (!same) await writeConfig(file, tree, this.#existing)
    const flag = configFlag(file)
    const host = target.wildcard ? `www.${target.host}` : target.host
    const url = `${target.scheme}://${host}${target.portWritten ? `:${target.port}` : ''}/`
    const steps = [
      ...(waitsFor ? [`put the token for ${target.text} into ${waitsFor}`] : []),
      `cupbearer start${flag}`,
      ...(kind.byHand ? [`in another terminal: ${kind.byHand(pool, this.#options.id, flag)}`] : []),
      `in another terminal: cupbearer run${flag} -- curl ${url}`,
    ]
    print(`${same ? 'Nothing changed in' : 'Wrote'} ${file}. Next:`)
    for (const [index, step] of steps.entries()) print(`  ${index + 1}. ${step}`)
    print(
      '`cupbearer check` explains what is wrong after an edit; docs/configuration.md has every key.',
    )
  }
}

function describe({ subject, scopes, expiresAt }: Tried): void {
  const left = expiresAt === null ? undefined : (Date.parse(expiresAt) - Date.now()) / 1000
  print('  it works: a token is here')
  print(`  subject  ${plain(subject ?? 'it does not say')}`)
  print(`  scopes   ${plain(scopes?.join(' ') || 'it does not say')}`)
  print(
    `  expires  ${left === undefined ? 'it does not say' : `in ${duration(left)} (${expiresAt})`}`,
  )
}

/** `api.supplier.example` → `supplier`. */
function nameFrom({ host }: Target): string {
  const labels = host.split('.')
  const label = /^[\d.:]+$/.test(host) ? undefined : (labels.at(-2) ?? labels[0])
  return label?.replace(/[^\w-]/g, '') || 'main'
}

/** Any URL of the target, as `capture` takes it. */
const globOf = ({ scheme, host, wildcard, port, portWritten }: Target) =>
  `${scheme}://${wildcard ? '*.' : ''}${host}${portWritten ? `:${port}` : ''}/*`

const isMissing = (file: string): Promise<boolean> =>
  access(file).then(
    () => false,
    () => true,
  )
