/** Renders a JSON Schema as Markdown tables: one for each group of keys. */

interface Node {
  readonly type?: string
  readonly description?: string
  readonly default?: unknown
  readonly enum?: readonly unknown[]
  readonly const?: unknown
  readonly properties?: Readonly<Record<string, Node>>
  readonly required?: readonly string[]
  readonly items?: Node
  readonly additionalProperties?: Node | false
  readonly anyOf?: readonly Node[]
  readonly oneOf?: readonly Node[]
}

interface Row {
  readonly key: string
  readonly node: Node
  readonly required: boolean
}

/** The top level, then one table per pool, credential and source type. */
export function renderReference(schema: object): string {
  const root = schema as Node
  const pool = root.properties?.pools?.additionalProperties
  if (!pool) throw new Error('the schema has no pools')
  const credential = pool.properties?.credentials?.items
  const sources = credential?.properties?.source?.oneOf ?? []
  const sections = [
    table('Top level', flatten(root)),
    table('A pool: `pools.NAME`', flatten(pool)),
    table('A response matcher: an entry of `expired`, `limited`, `denied`', [
      ...flatten(pool.properties?.expired?.items ?? {}),
    ]),
    table('A requirement: an entry of `requires`', flatten(pool.properties?.requires?.items ?? {})),
    table('A credential: an entry of `credentials`', flatten(credential ?? {})),
    ...sources.flatMap((source) => {
      const type = source.properties?.type?.const
      const step = source.properties?.steps?.items
      return [
        table(`A source of type \`${type}\``, flatten(source)),
        ...(step ? [table(`A step of \`${type}\`: an entry of \`steps\``, flatten(step))] : []),
      ]
    }),
  ]
  return `${sections.join('\n\n')}\n`
}

/** Nested objects become dotted rows; a name that the operator chooses is written NAME. */
function flatten(node: Node, prefix = ''): Row[] {
  return Object.entries(node.properties ?? {}).flatMap(([name, child]): Row[] => {
    const key = `${prefix}${name}`
    if (child.properties) return flatten(child, `${key}.`)
    const row: Row = { key, node: child, required: node.required?.includes(name) ?? false }
    // Pools have a table of their own.
    const named = key === 'pools' ? undefined : child.additionalProperties || undefined
    const entry = named?.properties ? named : named?.anyOf?.find((branch) => branch.properties)
    return entry ? [row, ...flatten(entry, `${key}.NAME.`)] : [row]
  })
}

function table(title: string, rows: readonly Row[]): string {
  const lines = rows.map(
    ({ key, node, required }) =>
      `| \`${key}\` | ${meaning(node)} | ${required ? 'required' : standard(node)} |`,
  )
  return [`### ${title}`, '', '| key | meaning | default |', '|---|---|---|', ...lines].join('\n')
}

function meaning(node: Node): string {
  const values = node.enum ?? (node.const === undefined ? [] : [node.const])
  const choices = values.map((value) => `\`${String(value)}\``).join(', ')
  const text = [node.description, choices].filter(Boolean).join(': ')
  return text.replaceAll('|', '\\|')
}

function standard(node: Node): string {
  if (node.default === undefined) return '—'
  const text = JSON.stringify(node.default)
  if (text === '{}' || text === '[]') return 'none'
  return `\`${typeof node.default === 'string' ? node.default : text}\``
}
