import { useCell, useNow } from './cell.ts'
import { count, relative } from './format.ts'
import type { Live } from './live.ts'
import { type Egress, STATES } from './model.ts'
import { usePolled } from './pages.ts'
import { Badge, Empty } from './parts.tsx'
import { link } from './route.ts'

/** Which credentials leave by which egress, and what upstreams see of them. */
export function EgressView({ live }: { live: Live }) {
  const pools = useCell(live.pools)
  const { value, error } = usePolled<{ egresses: Egress[] }>(live, 'egress', '/api/egresses')
  const now = useNow()
  const egresses = value?.egresses.filter(
    // `direct` is always there; where nothing leaves by it, it says nothing.
    (egress) => egress.name !== 'direct' || egress.pools.length > 0 || value.egresses.length === 1,
  )
  const shared = addressesShared(egresses ?? [])
  return (
    <div class="page">
      <section aria-labelledby="egress-title">
        <h2 id="egress-title">Egress map</h2>
        <p class="faint lead">
          Each credential leaves by its own egress only. The visible address is what upstreams see
          behind it; an egress without a probe has none.
        </p>
        {error && <p class="bad">{error}</p>}
        {!egresses && !error && <Empty>Reading…</Empty>}
        <ol class="egress-map">
          {egresses?.map((egress) => (
            <EgressRow
              key={egress.name}
              egress={egress}
              now={now}
              shared={shared.get(egress.address ?? '') ?? []}
              known={pools !== undefined}
            />
          ))}
        </ol>
      </section>
    </div>
  )
}

function EgressRow(props: {
  egress: Egress
  now: number
  shared: readonly string[]
  known: boolean
}) {
  const { egress, now, shared } = props
  const { name, up, address, drift, reason, since, pools } = egress
  const others = shared.filter((other) => other !== name)
  return (
    <li class="egress-row" data-up={up} data-drift={drift !== null}>
      <div class="node">
        <h3>{name}</h3>
        <Badge text={up ? 'up' : 'down'} />
        {!up && reason && (
          <p class="bad">
            {reason}
            {since && <span class="faint">, {relative(since, now)}</span>}
          </p>
        )}
      </div>
      <div class="node">
        <span class="label">visible as</span>
        {address ? <code>{address}</code> : <span class="faint">not probed</span>}
        {drift && (
          <p class="warn">
            drifted {relative(drift.time, now)}: {drift.from} → {drift.to}
          </p>
        )}
        {others.length > 0 && <p class="warn">the same as {others.join(', ')}</p>}
        {up && reason && address && <p class="faint">{reason}</p>}
      </div>
      <div class="node">
        {pools.length === 0 && <span class="faint">no credential</span>}
        <ul class="plain">
          {pools.map(({ pool, ...states }) => {
            const all = STATES.reduce((sum, state) => sum + states[state], 0)
            const rest = STATES.filter((state) => state !== 'active' && states[state] > 0)
            return (
              <li key={pool}>
                <a href={`${link('credentials', pool)}?egress=${encodeURIComponent(name)}`}>
                  {pool}
                </a>{' '}
                {count(all, 'credential')}
                {rest.length > 0 && (
                  <span class="faint">
                    {' '}
                    ({rest.map((state) => `${states[state]} ${state}`).join(', ')})
                  </span>
                )}
              </li>
            )
          })}
        </ul>
      </div>
    </li>
  )
}

/** Address → the egresses that show it: two of one address are one identity to upstream. */
function addressesShared(egresses: readonly Egress[]): Map<string, string[]> {
  const shared = new Map<string, string[]>()
  for (const { address, name } of egresses) {
    if (address !== null) shared.set(address, [...(shared.get(address) ?? []), name])
  }
  return shared
}
