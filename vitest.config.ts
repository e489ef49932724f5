import { defineConfig } from 'vitest/config'

export default defineConfig({
  test: {
    include: ['test/**/*.test.ts'],
    setupFiles: ['test/support/seed.ts', 'test/support/standstill.ts'],
    // For tests whose process stood still; test/support/standstill.ts decides.
    retry: 1,
    // Bounds on hanging alone, which no test may need: a busy machine can be many times slower than an idle one.
    testTimeout: 60_000,
    hookTimeout: 60_000,
    expect: { poll: { timeout: 20_000 } },
    // Files are processes of their own; two cores carry two at a time without starving the proxy under test.
    pool: 'forks',
    maxWorkers: 2,
  },
})
