import { readdir, readFile } from 'node:fs/promises'
import { extname } from 'node:path'

const TYPES: Readonly<Record<string, string>> = {
  '.html': 'text/html; charset=utf-8',
  '.css': 'text/css; charset=utf-8',
  '.js': 'text/javascript; charset=utf-8',
}

/** The build puts the dashboard beside the compiled server; the sources run with what was built last. */
const BUILT = new URL(
  import.meta.url.endsWith('.ts') ? '../../dist/admin/dashboard/' : './dashboard/',
  import.meta.url,
)

/** A file of the dashboard. */
export interface Asset {
  readonly path: string
  readonly contentType: string
  readonly content: Buffer
}

/** Reads the dashboard once; only these files are ever served, so no path of a request reaches the disk. */
export async function loadDashboard(folder: URL = BUILT): Promise<Asset[]> {
  const assets = new URL('assets/', folder)
  const names = await readdir(assets).catch(() => [])
  if (names.length === 0) return [UNBUILT]
  return Promise.all([
    read('/', new URL('index.html', folder)),
    ...names
      .filter((name) => extname(name) in TYPES)
      .map((name) => read(`/assets/${name}`, new URL(name, assets))),
  ])
}

/** A checkout that was never built serves everything but the page. */
const UNBUILT: Asset = {
  path: '/',
  contentType: 'text/plain; charset=utf-8',
  content: Buffer.from('The dashboard is not built: npm run build\n'),
}

async function read(path: string, file: URL): Promise<Asset> {
  const contentType = TYPES[extname(file.pathname)] as string
  return { path, contentType, content: await readFile(file) }
}
