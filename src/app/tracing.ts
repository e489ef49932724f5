import { setImmediate } from 'node:timers/promises'
import type { Config } from '../config/schema.ts'
import type { Events } from '../events.ts'
import type { Logger } from '../lib/log.ts'
import { startExporters } from '../trace/exporters.ts'
import { type RecorderOptions, TraceRecorder } from '../trace/recorder.ts'
import { injectedParameters } from './derive.ts'

/** The recorder with all that the configuration has it feed, and the end of both. */
export async function startTracing(
  config: () => Config,
  events: Events,
  log: Logger,
  options: Pick<RecorderOptions, 'egressAddress' | 'proxy'>,
): Promise<{ recorder: TraceRecorder; close: () => Promise<void> }> {
  const { trace } = config()
  const recorder = new TraceRecorder(events, {
    ...options,
    capacity: trace.capacity,
    ...(trace.bodies && { maxText: trace.bodies.total }),
    secretParameters: () => injectedParameters(config()),
  })
  const stopExporters = await startExporters(trace, recorder, log)
  return {
    recorder,
    async close() {
      // What was cut a moment ago has its record in this turn.
      await setImmediate()
      await stopExporters()
      recorder.close()
    },
  }
}
