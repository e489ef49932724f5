import { readFile } from 'node:fs/promises'

const FILES = {
  'index.html': 'text/html; charset=utf-8',
  'base.css': 'text/css; charset=utf-8',
  'style.css': 'text/css; charset=utf-8',
  'app.js': 'text/javascript; charset=utf-8',
  'connection.js': 'text/javascript; charset=utf-8',
  'element.js': 'text/javascript; charset=utf-8',
  'pools.js': 'text/javascript; charset=utf-8',
  'traces.js': 'text/javascript; charset=utf-8',
} as const

/** A file of the dashboard. */
export interface Asset {
  readonly path: string
  readonly contentType: string
  readonly content: Buffer
}

/** Reads the dashboard once; only these files are ever served, so no path of a request reaches the disk. */
export function loadDashboard(): Promise<Asset[]> {
  return Promise.all(
    Object.entries(FILES).map(async ([name, contentType]) => ({
      path: name === 'index.html' ? '/' : `/assets/${name}`,
      contentType,
      content: await readFile(new URL(`./dashboard/${name}`, import.meta.url)),
    })),
  )
}
