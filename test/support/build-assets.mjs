// What the compiler leaves behind: the dashboard, which is bundled for browsers, and the mode of the command.
import { chmodSync, existsSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { build } from 'vite'

const path = (name) => fileURLToPath(new URL(`../../${name}`, import.meta.url))

/** Where to put the dashboard; a private build names another folder. */
const dist = process.argv[2] ?? path('dist')

await build({
  configFile: false,
  root: path('src/admin/dashboard'),
  logLevel: 'warn',
  oxc: { jsx: { runtime: 'automatic', importSource: 'preact' } },
  build: {
    outDir: `${dist}/admin/dashboard`,
    emptyOutDir: true,
    target: 'es2022',
    // The page's policy lets nothing run or load that is not a file of its own.
    modulePreload: false,
    assetsInlineLimit: 0,
    rolldownOptions: {
      output: {
        codeSplitting: false,
        entryFileNames: 'assets/app.js',
        assetFileNames: 'assets/app[extname]',
      },
    },
  },
})
const command = `${dist}/cli/main.js`
if (existsSync(command)) chmodSync(command, 0o755)
