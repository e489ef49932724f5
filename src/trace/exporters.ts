import type { Config } from '../config/schema.ts'
import { CupbearerError } from '../errors.ts'
import type { Logger } from '../lib/log.ts'
import { HarFile } from './har-file.ts'
import type { TraceRecorder } from './recorder.ts'

/** Starts what `trace.har` and `trace.otlp` ask for; gives its end. Throws where the file cannot be written. */
export async function startExporters(
  { har, otlp }: Config['trace'],
  recorder: TraceRecorder,
  log: Logger,
): Promise<() => Promise<void>> {
  const open: { close(): Promise<void> }[] = []
  if (har) {
    const file = new HarFile(recorder, har, log)
    open.push(file)
    try {
      await file.begin()
    } catch (cause) {
      await file.close()
      const code = (cause as NodeJS.ErrnoException).code
      throw new CupbearerError(
        'CONFIG_INVALID',
        `trace.har: ${har.path} cannot be written: ${code}`,
        {
          cause,
        },
      )
    }
  }
  if (otlp) {
    // Only who exports spans needs the libraries.
    const { OtlpExporter } = await import('./otlp.ts')
    open.push(new OtlpExporter(recorder, otlp, log))
  }
  return async () => {
    for (const each of open) await each.close()
  }
}
