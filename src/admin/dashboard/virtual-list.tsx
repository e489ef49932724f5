import type { ComponentChildren } from 'preact'
import { useEffect, useLayoutEffect, useRef, useState } from 'preact/hooks'

/** Rows drawn beyond what is seen, so that a scroll shows no gap. */
const OVERSCAN = 6
/** So many rows may arrive above between two drawings; after more the place is lost. */
const MOST_MOVED = 5000

interface VirtualListProps {
  readonly label: string
  readonly id: string
  readonly count: number
  readonly rowHeight: number
  /** The columns' names, drawn above the rows. */
  readonly head?: readonly string[] | undefined
  readonly keyOf: (index: number) => string
  /** The cells of a row: each a `gridcell`. */
  readonly row: (index: number) => ComponentChildren
  readonly rowClass?: (index: number) => string
  /** The row that the keyboard stands on, by index; -1 for none. */
  readonly active: number
  readonly onActive: (index: number) => void
  readonly onOpen: (index: number) => void
  /** Which rows are drawn, told when they change. */
  readonly onRange?: (first: number, end: number) => void
  /** Keeps the rows that are read in place while others arrive above them. */
  readonly anchored?: boolean
}

/**
 * A grid of which only the rows in sight are drawn, however many there are. One stop for the tab key: arrows, Home,
 * End and the page keys move over the rows (`aria-activedescendant`), Enter opens one.
 */
export function VirtualList(props: VirtualListProps) {
  const { count, rowHeight, active, keyOf } = props
  const scroller = useRef<HTMLDivElement>(null)
  const [view, setView] = useState({ top: 0, height: 600 })
  /** The first row in sight, as it was drawn last. */
  const seen = useRef({ key: '', index: 0 })

  const measure = () => {
    const node = scroller.current
    if (node) setView({ top: node.scrollTop, height: node.clientHeight })
  }
  useEffect(() => {
    const node = scroller.current
    if (!node) return
    const observer = new ResizeObserver(measure)
    observer.observe(node)
    return () => observer.disconnect()
  }, [])
  useLayoutEffect(() => {
    const node = scroller.current
    if (!node || !props.anchored) return
    const { key, index } = seen.current
    let place = index
    while (place < count && place - index < MOST_MOVED && keyOf(place) !== key) place += 1
    const found = place < count && keyOf(place) === key
    if (found && place > index && node.scrollTop > 0) node.scrollTop += (place - index) * rowHeight
    const top = Math.floor(node.scrollTop / rowHeight)
    seen.current = { key: top < count ? keyOf(top) : '', index: top }
  })
  useLayoutEffect(() => {
    const node = scroller.current
    if (!node || active < 0) return
    const head = node.querySelector<HTMLElement>('.list-head')?.offsetHeight ?? 0
    const top = active * rowHeight
    if (top < node.scrollTop) node.scrollTop = top
    else if (top + rowHeight > node.scrollTop + node.clientHeight - head) {
      node.scrollTop = top + rowHeight - node.clientHeight + head
    }
  }, [active, rowHeight])

  const first = Math.max(0, Math.floor(view.top / rowHeight) - OVERSCAN)
  const end = Math.min(count, Math.ceil((view.top + view.height) / rowHeight) + OVERSCAN)
  useEffect(() => props.onRange?.(first, end), [first, end, props.onRange])

  const rows = []
  for (let index = first; index < end; index++)
    rows.push(<Row key={props.keyOf(index)} {...props} index={index} />)
  const shown = active >= first && active < end
  return (
    // biome-ignore lint/a11y/useSemanticElements: a table cannot leave out the rows that are not in sight
    <div
      class="list"
      role="grid"
      id={props.id}
      ref={scroller}
      tabIndex={0}
      aria-label={props.label}
      aria-rowcount={count}
      {...(shown && { 'aria-activedescendant': `${props.id}-${active}` })}
      onScroll={measure}
      onKeyDown={(event) =>
        onKey(event, props, Math.max(1, Math.floor(view.height / rowHeight) - 1))
      }
    >
      {props.head && (
        // biome-ignore lint/a11y/useSemanticElements: as above
        // biome-ignore lint/a11y/useFocusableInteractive: the grid has the focus for its rows
        <div class={`list-head ${props.rowClass?.(-1) ?? ''}`} role="row">
          {props.head.map((name) => (
            // biome-ignore lint/a11y/useSemanticElements: as above
            // biome-ignore lint/a11y/useFocusableInteractive: as above
            <span key={name} class="cell" role="columnheader">
              {name}
            </span>
          ))}
        </div>
      )}
      <div class="list-body" style={{ height: `${count * rowHeight}px` }}>
        {rows}
      </div>
    </div>
  )
}

function Row(props: VirtualListProps & { index: number }) {
  const { index, id, active, rowHeight } = props
  return (
    // biome-ignore lint/a11y/useSemanticElements: a table cannot leave out the rows that are not in sight
    // biome-ignore lint/a11y/useFocusableInteractive: the grid has the focus for its rows
    // biome-ignore lint/a11y/useKeyWithClickEvents: the grid takes the keys
    <div
      id={`${id}-${index}`}
      class={`list-row ${props.rowClass?.(index) ?? ''}`}
      role="row"
      aria-rowindex={index + 1}
      aria-selected={index === active}
      style={{ height: `${rowHeight}px`, transform: `translateY(${index * rowHeight}px)` }}
      onPointerDown={(event) => {
        // A row may move on between press and release, which is no click then: a mouse selects when it is pressed.
        if (event.pointerType !== 'mouse' || event.button !== 0 || isControl(event)) return
        props.onActive(index)
        props.onOpen(index)
      }}
      onClick={(event) => {
        if ((event as unknown as PointerEvent).pointerType === 'mouse' || isControl(event)) return
        props.onActive(index)
        props.onOpen(index)
      }}
    >
      {props.row(index)}
    </div>
  )
}

/** One cell of a row; `name` is its place in the style sheet. */
export function Cell(props: { name: string; title?: string; children: ComponentChildren }) {
  return (
    // biome-ignore lint/a11y/useSemanticElements: a table cannot leave out the rows that are not in sight
    // biome-ignore lint/a11y/useFocusableInteractive: the grid has the focus for its cells
    <span class={`cell ${props.name}`} role="gridcell" title={props.title}>
      {props.children}
    </span>
  )
}

const isControl = ({ target }: Event) => (target as Element).closest('button, a') !== null

function onKey(event: KeyboardEvent, props: VirtualListProps, page: number): void {
  const { active, count } = props
  const last = count - 1
  const to = {
    ArrowDown: active + 1,
    ArrowUp: active < 0 ? 0 : active - 1,
    PageDown: active + page,
    PageUp: active - page,
    Home: 0,
    End: last,
  }[event.key]
  if (count === 0 || event.ctrlKey || event.metaKey || event.altKey) return
  if (event.key === 'Enter' && active >= 0 && event.target === event.currentTarget) {
    event.preventDefault()
    props.onOpen(active)
  } else if (to !== undefined) {
    event.preventDefault()
    props.onActive(Math.max(0, Math.min(last, to)))
  }
}
