import { Actions } from './actions.tsx'
import { useCell, useNow } from './cell.ts'
import { clockTime, relative, whole } from './format.ts'
import type { Live } from './live.ts'
import type { Credential, Pool } from './model.ts'
import { usePolled } from './pages.ts'
import { Badge, Empty, Fact, Headroom, Panel, TtlBar } from './parts.tsx'
import { link } from './route.ts'

/** All that is known of one credential, and what can be done to it. */
export function CredentialDetail(props: {
  live: Live
  pool: Pool
  id: string
  onClose: () => void
  onDone: () => void
}) {
  const { live, pool, id } = props
  const path = `/api/pools/${encodeURIComponent(pool.name)}/credentials/${encodeURIComponent(id)}`
  const { value, error, again } = usePolled<Credential>(live, pool.name, path)
  const now = useNow()
  const credential = value?.id === id ? value : undefined
  const done = () => {
    again()
    props.onDone()
  }
  return (
    <Panel label={`Credential ${id}`} subject={id} onClose={props.onClose}>
      <h2 class="panel-title">
        {id} {credential && <Badge text={credential.state} />}
      </h2>
      {error && <p class="bad">{error}</p>}
      {!credential && !error && <Empty>Reading…</Empty>}
      {credential && (
        <>
          <Actions key={id} pool={pool} credential={credential} onDone={done} />
          <Trouble pool={pool.name} credential={credential} now={now} />
          <Facts live={live} pool={pool.name} credential={credential} now={now} />
        </>
      )}
    </Panel>
  )
}

/** Why it is not in use, and what helps. */
function Trouble(props: { pool: string; credential: Credential; now: number }) {
  const { state, lastError, cooldownUntil, id } = props.credential
  const until = cooldownUntil ? ` It is tried again ${relative(cooldownUntil, props.now)}.` : ''
  const words = {
    active: undefined,
    pending: 'It waits for its first token.',
    cooling: `Upstream has limited it.${until}`,
    quarantined: `It is out of the pool.${until}`,
    revoked: 'Its issuer will not renew it.',
  }[state]
  if (!words && !lastError) return null
  return (
    <div class="trouble" data-state={state}>
      {words && <p>{words}</p>}
      {lastError && (
        <p>
          Last error: <q>{lastError}</q>
        </p>
      )}
      {state === 'revoked' && (
        <p>
          <code>{`cupbearer login ${props.pool}/${id}`}</code> logs it in anew.
        </p>
      )}
    </div>
  )
}

const LIFETIMES = {
  jwt: 'the token says',
  expires_in: 'its issuer said',
  learned: 'learned from refusals',
  unknown: 'not known',
} as const

function Facts(props: { live: Live; pool: string; credential: Credential; now: number }) {
  const { credential, now, pool } = props
  const { egressAddress, expiresAt, issuedAt, refreshAt, scopes } = credential
  const activity = useCell(props.live.changes)[pool]
  return (
    <dl class="facts" data-version={activity}>
      <Fact name="Lifetime" wide>
        <TtlBar credential={credential} now={now} />
      </Fact>
      <Fact name="Headroom" wide>
        <Headroom credential={credential} />
      </Fact>
      <Fact name="Egress">
        <a href={link('egress')}>{credential.egress}</a>
        {egressAddress && <span class="faint"> seen as {egressAddress}</span>}
      </Fact>
      <Fact name="Next refresh">
        {refreshAt ? `${relative(refreshAt, now)}, ${clockTime(refreshAt)}` : 'none planned'}
      </Fact>
      <Fact name="Issued">{issuedAt && `${relative(issuedAt, now)}, ${clockTime(issuedAt)}`}</Fact>
      <Fact name="Expires">
        {expiresAt && `${relative(expiresAt, now)} (${LIFETIMES[credential.lifetime]})`}
      </Fact>
      <Fact name="Generation">{whole(credential.generation)}</Fact>
      <Fact name="Requests">
        {whole(credential.uses)}
        {credential.inFlight > 0 && (
          <span class="faint"> + {whole(credential.inFlight)} in flight</span>
        )}
      </Fact>
      <Fact name="Subject">{credential.subject}</Fact>
      <Fact name="Scopes">{scopes && (scopes.join(' ') || 'none')}</Fact>
      <Fact name="Limits" wide>
        {credential.limits.length > 0 && (
          <ul class="plain">
            {credential.limits.map(({ limit, used, max }) => (
              <li key={limit}>
                {limit}: {whole(used)} of {whole(max)} used
              </li>
            ))}
          </ul>
        )}
      </Fact>
      <Fact name="Traces" wide>
        <a href={`${link('traces')}?q=${encodeURIComponent(credential.id)}`}>its latest requests</a>
      </Fact>
    </dl>
  )
}
