import { Cell } from './cell.ts'

const STORAGE_KEY = 'cupbearer-theme'

export type Theme = 'auto' | 'light' | 'dark'

/** What was chosen here; `auto` goes by the system. */
export const theme = new Cell<Theme>(stored())
/** Grows when colours have changed: what is drawn on a canvas has to be drawn anew. */
export const colours = new Cell(0)

/** Puts the choice into force, and keeps it. */
export function chooseTheme(choice: Theme): void {
  theme.set(choice)
  localStorage.setItem(STORAGE_KEY, choice)
  apply()
}

export function startTheme(): void {
  apply()
  matchMedia('(prefers-color-scheme: dark)').addEventListener('change', apply)
}

/** A colour of the style sheet as it is now, for a canvas. */
export function colourOf(name: string): string {
  const probe = document.createElement('span')
  probe.style.color = `var(--${name})`
  document.body.append(probe)
  const { color } = getComputedStyle(probe)
  probe.remove()
  return color
}

function apply(): void {
  const choice = theme.value
  if (choice === 'auto') delete document.documentElement.dataset.theme
  else document.documentElement.dataset.theme = choice
  colours.set(colours.value + 1)
}

function stored(): Theme {
  const kept = localStorage.getItem(STORAGE_KEY)
  return kept === 'light' || kept === 'dark' ? kept : 'auto'
}
