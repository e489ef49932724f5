import { useEffect, useLayoutEffect, useRef } from 'preact/hooks'
import uPlot from 'uplot'
import { useCell } from './cell.ts'
import { colourOf, colours } from './theme.ts'

const HEIGHT = 132

export interface Line {
  readonly name: string
  /** Name of a colour of the style sheet. */
  readonly colour: string
  readonly values: readonly (number | null)[]
  readonly filled?: boolean
}

interface ChartProps {
  readonly title: string
  /** What the figures mean, below the title. */
  readonly note: string
  /** Seconds since the epoch. */
  readonly times: readonly number[]
  readonly lines: readonly Line[]
  readonly format: (value: number) => string
  /** A value not to go beyond. */
  readonly target?: number
  /** The scale reaches up to here at least. */
  readonly top?: number
}

/** One chart over time, with the latest values in words. */
export function Chart(props: ChartProps) {
  const { title, lines, times, format } = props
  const holder = useRef<HTMLDivElement>(null)
  const plot = useRef<uPlot | undefined>(undefined)
  const painted = useCell(colours)
  const names = lines.map(({ name }) => name).join('\n')

  useEffect(() => {
    const node = holder.current
    if (!node) return
    const made = new uPlot(optionsFor(props, node.clientWidth), dataOf(props), node)
    plot.current = made
    const observer = new ResizeObserver(() => {
      if (node.clientWidth > 0) made.setSize({ width: node.clientWidth, height: HEIGHT })
    })
    observer.observe(node)
    return () => {
      observer.disconnect()
      made.destroy()
      plot.current = undefined
    }
  }, [names, painted])
  useLayoutEffect(() => {
    plot.current?.setData(dataOf(props))
  }, [times, lines])

  const latest = lines.map(({ name, colour, values }) => ({ name, colour, value: values.at(-1) }))
  const summary = latest.map(({ name, value }) => `${name} ${shown(value, format)}`).join(', ')
  return (
    <figure class="chart">
      <figcaption>
        <h3>{title}</h3>
        <span class="faint">{props.note}</span>
        <ul class="legend" aria-label={`${title}, latest`}>
          {latest.map(({ name, colour, value }) => (
            <li key={name} data-colour={colour}>
              {name} <b>{shown(value, format)}</b>
            </li>
          ))}
        </ul>
      </figcaption>
      <div class="plot" role="img" aria-label={`${title} over the last hour; latest: ${summary}`}>
        <div ref={holder} />
        {times.length < 2 && <p class="empty">The first figures come within 20 seconds.</p>}
      </div>
    </figure>
  )
}

const shown = (value: number | null | undefined, format: (value: number) => string) =>
  value === null || value === undefined ? '–' : format(value)

function dataOf({ times, lines }: ChartProps): uPlot.AlignedData {
  return [[...times], ...lines.map(({ values }) => [...values])] as uPlot.AlignedData
}

function optionsFor(props: ChartProps, width: number): uPlot.Options {
  const { lines, format, target, top = 0 } = props
  const faint = colourOf('faint')
  const rule = colourOf('rule')
  const axis = {
    stroke: faint,
    font: '11px system-ui, sans-serif',
    grid: { stroke: rule, width: 1 },
    ticks: { show: false },
  }
  return {
    width: Math.max(width, 100),
    height: HEIGHT,
    legend: { show: false },
    cursor: { y: false, drag: { x: false, y: false }, points: { size: 6 } },
    padding: [8, 8, 0, 0],
    scales: {
      y: {
        range: (_plot, _low, high) => [0, Math.max((high ?? 0) * 1.1, target ?? 0, top, 1e-9)],
      },
    },
    axes: [
      { ...axis, size: 24, space: 60, values: (_plot, times) => times.map(minuteOf) },
      { ...axis, size: 46, space: 32, values: (_plot, values) => values.map(format) },
    ],
    series: [
      {},
      ...lines.map(({ colour, filled, name }) => ({
        label: name,
        stroke: colourOf(colour),
        width: 1.5,
        points: { show: false },
        ...(filled && { fill: faded(colourOf(colour)) }),
      })),
    ],
    hooks: {
      draw: [
        (plot) => {
          if (target === undefined) return
          const { ctx, bbox } = plot
          const y = Math.round(plot.valToPos(target, 'y', true))
          ctx.save()
          ctx.strokeStyle = colourOf('bad')
          ctx.setLineDash([4, 4])
          ctx.beginPath()
          ctx.moveTo(bbox.left, y)
          ctx.lineTo(bbox.left + bbox.width, y)
          ctx.stroke()
          ctx.restore()
        },
      ],
    },
  }
}

const minuteOf = (seconds: number) =>
  new Date(seconds * 1000).toLocaleTimeString(undefined, {
    hour: '2-digit',
    minute: '2-digit',
    hour12: false,
  })

/** The colour, nearly transparent. */
const faded = (colour: string) => `color-mix(in srgb, ${colour} 16%, transparent)`
