export {
  type Cupbearer,
  type CupbearerEvents,
  type CupbearerOptions,
  createCupbearer,
  type ProxyAgentOptions,
} from './app/embedded.ts'
export type { ConfigInput } from './config/schema.ts'
export { ConfigError, type ConfigIssue, CupbearerError } from './errors.ts'
export type { Logger, LogLevel } from './lib/log.ts'
export type { Trace, TraceAttempt } from './trace/trace.ts'
