// What the compiler leaves behind: the dashboard's files, and the mode of the command.
import { chmodSync, cpSync } from 'node:fs'

cpSync('src/admin/dashboard', 'dist/admin/dashboard', { recursive: true })
chmodSync('dist/cli/main.js', 0o755)
