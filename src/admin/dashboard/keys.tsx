import { useEffect, useRef } from 'preact/hooks'
import { go, link, readRoute, VIEWS } from './route.ts'

const KEYS = [
  ['1 … 5', 'views'],
  ['/', 'search'],
  ['↑ ↓ Home End', 'move in a list'],
  ['Enter', 'open'],
  ['p', 'hold or follow the traces'],
  ['Esc', 'close, or leave the search'],
  ['?', 'this'],
] as const

/** The keys that work everywhere but where text is typed. */
export function useKeys(onHelp: () => void): void {
  useEffect(() => {
    const pressed = (event: KeyboardEvent) => {
      if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector('dialog[open]'))
        return
      const target = event.target as HTMLElement
      if (event.key === 'Escape') leave(target)
      else if (target.matches('input, select, textarea')) return
      else if (event.key === '/') take(event, document.querySelector<HTMLElement>('.search'))
      else if (event.key === 'p') document.querySelector<HTMLElement>('[data-key="p"]')?.click()
      else if (event.key === '?') onHelp()
      else {
        const view = VIEWS[Number(event.key) - 1]
        if (view) go(link(view))
      }
    }
    addEventListener('keydown', pressed)
    return () => removeEventListener('keydown', pressed)
  }, [onHelp])
}

function take(event: KeyboardEvent, node: HTMLElement | null): void {
  if (!node) return
  event.preventDefault()
  node.focus()
}

function leave(target: HTMLElement): void {
  if (target.matches('.search')) {
    document.querySelector<HTMLElement>('.list')?.focus()
    return
  }
  const close = document.querySelector<HTMLElement>('.panel .close')
  if (close) close.click()
  else if (readRoute(location.hash).view === 'pools') target.blur()
}

export function Help({ onClose }: { onClose: () => void }) {
  const dialog = useRef<HTMLDialogElement>(null)
  useEffect(() => {
    dialog.current?.showModal()
  }, [])
  return (
    <dialog ref={dialog} aria-labelledby="help-title" onClose={onClose}>
      <h2 id="help-title">Keys</h2>
      <dl class="keys">
        {KEYS.map(([key, what]) => (
          <div key={key}>
            <dt>
              <kbd>{key}</kbd>
            </dt>
            <dd>{what}</dd>
          </div>
        ))}
      </dl>
      <div class="dialog-actions">
        <button type="button" onClick={onClose}>
          Close
        </button>
      </div>
    </dialog>
  )
}
