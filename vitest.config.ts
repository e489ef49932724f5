import { defineConfig } from 'vitest/config'

export default defineConfig({
  test: {
    include: ['test/**/*.test.ts'],
    setupFiles: ['test/support/seed.ts'],
    testTimeout: 20_000,
    hookTimeout: 20_000,
    // Files are processes of their own; two cores carry two at a time without starving the proxy under test.
    pool: 'forks',
    maxWorkers: 2,
  },
})
