import { expect, test } from 'vitest'
import { checkRuntime, checkUser } from '../../src/cli/doctor/runtime.ts'

const at = (date: string) => Date.parse(date)

test('Node.js that is too old fails, one past its last security release is warned of', () => {
  expect(checkRuntime('v18.20.8', at('2025-01-01')).status).toBe('fail')
  expect(checkRuntime('v20.18.0', at('2025-01-01')).status).toBe('fail')
  expect(checkRuntime('v20.19.0', at('2025-01-01')).status).toBe('ok')
  expect(checkRuntime('v20.20.2', at('2026-06-01')).status).toBe('warn')
  expect(checkRuntime('v24.1.0', at('2026-06-01')).status).toBe('ok')
  expect(checkRuntime('v40.0.0', at('2033-06-01')).status).toBe('ok')
})

test('root is warned of, any other user is not', () => {
  expect(checkUser(0).status).toBe('warn')
  expect(checkUser(65534).status).toBe('ok')
  expect(checkUser(undefined).status).toBe('ok')
})
