import { useState } from 'preact/hooks'
import type { Credential, Pool } from './model.ts'
import { Confirm } from './parts.tsx'
import { post } from './session.ts'

type Action = 'refresh' | 'quarantine' | 'release'

const DONE: Readonly<Record<Action, string>> = {
  refresh: 'has a new token',
  quarantine: 'is quarantined',
  release: 'is released',
}

/** What can be done to one credential, asked about first where it hurts, and what came of it. */
export function Actions(props: { pool: Pool; credential: Credential; onDone: () => void }) {
  const { pool, credential, onDone } = props
  const [asking, setAsking] = useState<Action>()
  const [busy, setBusy] = useState<Action>()
  const [told, setTold] = useState<{ text: string; failed: boolean }>()
  const { id, state } = credential
  const away = state === 'quarantined' || state === 'revoked'

  const act = async (action: Action) => {
    setAsking(undefined)
    setBusy(action)
    setTold(undefined)
    try {
      const path = [pool.name, 'credentials', id, action].map(encodeURIComponent).join('/')
      await post(`/api/pools/${path}`)
      setTold({ text: `${id} ${DONE[action]}.`, failed: false })
    } catch (error) {
      setTold({ text: `Could not ${action} ${id}: ${(error as Error).message}`, failed: true })
    }
    setBusy(undefined)
    onDone()
  }
  const button = (action: Action, asks: boolean, disabled: boolean, why: string) => (
    <button
      type="button"
      disabled={disabled || busy !== undefined}
      title={disabled ? why : undefined}
      aria-busy={busy === action}
      onClick={() => (asks ? setAsking(action) : act(action))}
    >
      {busy === action ? 'Working…' : `${action[0]?.toUpperCase()}${action.slice(1)}`}
    </button>
  )
  return (
    <div class="actions">
      <fieldset class="action-row" aria-label={`Actions on ${id}`}>
        {button('refresh', false, state === 'revoked', 'It is revoked: release it first')}
        {button('quarantine', true, away, 'It is out of the pool already')}
        {button('release', state === 'revoked', !away && state !== 'cooling', 'Nothing holds it')}
      </fieldset>
      <p class={told?.failed ? 'told bad' : 'told'} role="status">
        {told?.text}
      </p>
      {asking && (
        <Confirm
          title={`${asking === 'quarantine' ? 'Quarantine' : 'Release'} ${id}?`}
          action={asking === 'quarantine' ? 'Quarantine' : 'Release'}
          onAnswer={(yes) => (yes ? void act(asking) : setAsking(undefined))}
        >
          {asking === 'quarantine' ? (
            <Quarantine pool={pool} credential={credential} />
          ) : (
            <Release />
          )}
        </Confirm>
      )}
    </div>
  )
}

function Quarantine({ pool, credential }: { pool: Pool; credential: Credential }) {
  const others = pool.tokens.active - (credential.state === 'active' ? 1 : 0)
  return (
    <>
      <p>No further request gets this token until its back-off is over or you release it.</p>
      {others === 0 && (
        <p class="bad">
          It is the last active one of {pool.name}: requests will wait, then fail with
          POOL_EXHAUSTED.
        </p>
      )}
    </>
  )
}

function Release() {
  return (
    <p>
      Its issuer has refused to renew it for good. Released, it tries again with what it has; a new
      login is most often what it needs.
    </p>
  )
}
