import type { ComponentChildren } from 'preact'
import { useEffect, useRef } from 'preact/hooks'
import { duration, percent } from './format.ts'
import type { Credential } from './model.ts'

/** How good or bad something is: it sets the colour, beside words that say the same. */
export type Tone = 'good' | 'info' | 'warn' | 'bad' | 'mute'

const TONES: Readonly<Record<string, Tone>> = {
  healthy: 'good',
  active: 'good',
  ok: 'good',
  up: 'good',
  degraded: 'warn',
  cooling: 'info',
  limited: 'info',
  expired: 'warn',
  quarantined: 'warn',
  pending: 'mute',
  tunnel: 'mute',
  revoked: 'bad',
  exhausted: 'bad',
  down: 'bad',
}

export function Badge({ text, tone }: { text: string; tone?: Tone }) {
  return (
    <span class="badge" data-tone={tone ?? TONES[text] ?? 'bad'}>
      {text}
    </span>
  )
}

/** A pair of a description list; nothing where there is no value. */
export function Fact(props: { name: string; children?: ComponentChildren; wide?: boolean }) {
  const { children, name, wide } = props
  if (children === null || children === undefined || children === false) return null
  return (
    <div class={wide ? 'fact wide' : 'fact'}>
      <dt>{name}</dt>
      <dd>{children}</dd>
    </div>
  )
}

/** What is left of a token's life, as a bar that runs out. */
export function TtlBar({ credential, now }: { credential: Credential; now: number }) {
  const { expiresAt, issuedAt, generation } = credential
  if (expiresAt === null) {
    return <span class="faint">{generation > 0 ? 'no known end' : 'no token yet'}</span>
  }
  const left = Math.max(0, (Date.parse(expiresAt) - now) / 1000)
  const span = issuedAt === null ? 0 : (Date.parse(expiresAt) - Date.parse(issuedAt)) / 1000
  const share = span > 0 ? Math.min(1, left / span) : left > 0 ? 1 : 0
  const text = left > 0 ? `${duration(left)} left` : 'expired'
  return (
    <Bar
      label={`Lifetime left of ${credential.id}`}
      share={share}
      text={text}
      tone={share > 0.25 ? 'good' : share > 0.1 ? 'warn' : 'bad'}
    />
  )
}

/** How much of the tightest limit is used. */
export function Headroom({ credential }: { credential: Credential }) {
  let tightest: Credential['limits'][number] | undefined
  for (const limit of credential.limits) {
    if (!tightest || limit.used / limit.max > tightest.used / tightest.max) tightest = limit
  }
  if (!tightest) return <span class="faint">no limit</span>
  const { used, max, limit } = tightest
  const share = max > 0 ? Math.max(0, 1 - used / max) : 0
  return (
    <Bar
      label={`Headroom of ${credential.id} under ${limit}`}
      share={share}
      text={`${percent(share)} of ${limit}`}
      tone={share > 0.25 ? 'info' : share > 0 ? 'warn' : 'bad'}
    />
  )
}

function Bar(props: { label: string; share: number; text: string; tone: Tone }) {
  const { label, share, text, tone } = props
  return (
    <span class="meter">
      {/* biome-ignore lint/a11y/useSemanticElements: the looks of a meter element differ by browser */}
      <span
        class="track"
        role="meter"
        aria-label={label}
        aria-valuemin={0}
        aria-valuemax={100}
        aria-valuenow={Math.round(share * 100)}
        aria-valuetext={text}
        data-tone={tone}
      >
        <span style={{ width: `${share * 100}%` }} />
      </span>
      <span class="meter-text">{text}</span>
    </span>
  )
}

export function Empty({ children }: { children: ComponentChildren }) {
  return <p class="empty">{children}</p>
}

/** What `/` puts the focus on. */
export function Search(props: {
  label: string
  value: string
  onValue: (value: string) => void
  placeholder?: string
}) {
  const { label, value, onValue } = props
  return (
    <input
      class="search"
      type="search"
      aria-label={label}
      aria-keyshortcuts="/"
      placeholder={props.placeholder ?? `${label}  ( / )`}
      spellcheck={false}
      autocomplete="off"
      value={value}
      onInput={(event) => onValue(event.currentTarget.value)}
    />
  )
}

/** A list to choose from, with a name before it. */
export function Choice(props: {
  label: string
  value: string
  options: readonly (readonly [value: string, text: string])[]
  onValue: (value: string) => void
}) {
  return (
    <label class="choice">
      <span>{props.label}</span>
      <select value={props.value} onChange={(event) => props.onValue(event.currentTarget.value)}>
        {props.options.map(([value, text]) => (
          <option key={value} value={value} selected={value === props.value}>
            {text}
          </option>
        ))}
      </select>
    </label>
  )
}

/** Beside the list on a wide screen, over it on a small one. It takes the focus when it opens on something else. */
export function Panel(props: {
  label: string
  subject: string
  onClose: () => void
  children: ComponentChildren
}) {
  const node = useRef<HTMLElement>(null)
  useEffect(() => {
    // After a press the browser moves the focus itself; that comes first.
    const timer = setTimeout(() => node.current?.focus({ preventScroll: true }))
    return () => clearTimeout(timer)
  }, [props.subject])
  return (
    <aside class="panel" aria-label={props.label} tabIndex={-1} ref={node}>
      <button type="button" class="close" aria-label="Close" onClick={props.onClose}>
        ×
      </button>
      {props.children}
    </aside>
  )
}

/** Asks before something that hurts; Esc and Cancel give it up. */
export function Confirm(props: {
  title: string
  children: ComponentChildren
  action: string
  onAnswer: (yes: boolean) => void
}) {
  const dialog = useRef<HTMLDialogElement>(null)
  useEffect(() => {
    dialog.current?.showModal()
  }, [])
  return (
    <dialog ref={dialog} aria-labelledby="confirm-title" onClose={() => props.onAnswer(false)}>
      <h2 id="confirm-title">{props.title}</h2>
      <div class="dialog-text">{props.children}</div>
      <div class="dialog-actions">
        <button type="button" onClick={() => props.onAnswer(false)}>
          Cancel
        </button>
        <button type="button" class="danger" onClick={() => props.onAnswer(true)}>
          {props.action}
        </button>
      </div>
    </dialog>
  )
}
