import { milliseconds } from './format.ts'
import type { Trace } from './model.ts'
import { type Lane, PHASES, timelineOf } from './timeline.ts'

const TICKS = [0, 0.25, 0.5, 0.75, 1]

/** A request's attempts and what they waited for, to scale. */
export function Waterfall({ trace }: { trace: Trace }) {
  const { lanes, total } = timelineOf(trace)
  const phases = new Set(lanes.flatMap(({ spans }) => spans.map(({ phase }) => phase)))
  return (
    <div class="waterfall">
      <div class="scale" aria-hidden="true">
        {TICKS.map((share) => (
          <span key={share} style={{ left: `${share * 100}%` }}>
            {milliseconds(total * share)}
          </span>
        ))}
      </div>
      <ol aria-label="Waterfall">
        {lanes.map((lane) => (
          <LaneRow key={`${lane.name} ${lane.start}`} lane={lane} total={total} />
        ))}
      </ol>
      <ul class="legend" aria-hidden="true">
        {[...phases].map((phase) => (
          <li key={phase} data-phase={phase}>
            {PHASES[phase]}
          </li>
        ))}
      </ul>
    </div>
  )
}

function LaneRow({ lane, total }: { lane: Lane; total: number }) {
  const { attempt, spans } = lane
  const words = spans.map(({ phase, ms }) => `${PHASES[phase]} ${milliseconds(ms)}`).join(', ')
  return (
    <li>
      <div class="lane-head">
        <b>{lane.name}</b> <span>{lane.note}</span>
        <span class="faint">{milliseconds(lane.ms)}</span>
      </div>
      <div class="lane" role="img" aria-label={words} title={words}>
        {spans.map(({ phase, start, ms }) => (
          <span
            key={phase}
            data-phase={phase}
            style={{ left: `${(start / total) * 100}%`, width: `${(ms / total) * 100}%` }}
          />
        ))}
      </div>
      {attempt && (
        <p class="faint">
          by {attempt.egress}
          {attempt.address && ` to ${attempt.address}`}
          {attempt.protocol && ` · ${attempt.protocol}`} ·{' '}
          {attempt.reused ? 'kept connection · ' : ''}
          {words}
        </p>
      )}
    </li>
  )
}
