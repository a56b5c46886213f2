// "Metrics": what the service does now and since the server started, and what that costs at Google.
import { useEffect, useRef, type CSSProperties } from 'react'
import uPlot from 'uplot'
import 'uplot/dist/uPlot.min.css'
import { utilizationList } from '../../api/monitoring'
import { coldStartList, meterList, type ColdStart, type Meter } from '../../api/console'
import { costOf } from '../../cost'
import { Failure, Notice, Waiting } from '../../parts/basic'
import { useQuery } from '../../query'
import { number, t, time, type Key } from '../../texts'
import { useTheme } from '../../theme'
import type { TabProps } from '../service'

const ROUND_MS = 1000
const KEPT_MAX = 900
/** Of CPU and memory, which the server keeps. */
const HISTORY_MINUTES = 60

interface Point {
  at: number
  requests: number
  errors: number
  p50: number
  p99: number
  active: number
  idle: number
  billable: number
}

/** What was seen while the console was open, by service: a reload of the page goes on with it. */
const seen = new Map<string, Point[]>()
const KEPT = 'metrics/'
/** One look in so many is written down for a reload. */
const KEPT_EVERY = 5

function pointsOf(key: string): Point[] {
  const known = seen.get(key)
  if (known) return known
  let kept: Point[] = []
  try {
    kept = JSON.parse(sessionStorage.getItem(KEPT + key) ?? '[]') as Point[]
  } catch {
    // Written by an older version of the page: begun anew.
  }
  seen.set(key, kept)
  return kept
}

function pointAdd(key: string, point: Point) {
  const before = pointsOf(key)
  // The server began anew: its counts are no continuation.
  const points = [...(point.requests < (before.at(-1)?.requests ?? 0) ? [] : before), point].slice(-KEPT_MAX)
  seen.set(key, points)
  if (points.length % KEPT_EVERY !== 0 && points.length !== KEPT_MAX) return
  try {
    sessionStorage.setItem(KEPT + key, JSON.stringify(points))
  } catch {
    // No room in the browser: then a reload begins anew.
  }
}

export function Metrics({ region, name, service }: TabProps) {
  const key = `${region}/${name}`
  const meters = useQuery(
    `meters/${key}`,
    async () => {
      const list = (await meterList()).filter((meter) => meter.region === region && meter.service === name)
      pointAdd(key, pointOf(list))
      return list
    },
    ROUND_MS,
  )
  const starts = useQuery(`coldStarts/${key}`, async () => (await coldStartList()).filter((one) => one.region === region && one.service === name), 3000)
  const cpu = useQuery(`cpu/${key}`, () => utilizationList(region, name, 'cpu', HISTORY_MINUTES), 10_000)
  const memory = useQuery(`memory/${key}`, () => utilizationList(region, name, 'memory', HISTORY_MINUTES), 10_000)
  if (meters.error) return <Failure error={meters.error} />
  if (!meters.data) return <Waiting />
  const points = pointsOf(key)
  const now = points.at(-1) ?? pointOf([])
  const cost = costOf(meters.data, region, service.template.containers[0]?.resources?.cpuIdle !== false)
  const rates = perSecond(points)
  return (
    <>
      <div className="tiles">
        <Tile label={t('metrics.requests')} value={number(now.requests)} />
        <Tile label={t('metrics.errors')} value={number(now.errors)} />
        <Tile label={t('metrics.p50')} value={number(now.p50, 1)} unit="ms" />
        <Tile label={t('metrics.p99')} value={number(now.p99, 1)} unit="ms" />
        <Tile label={t('metrics.instances')} value={number(now.active + now.idle)} unit={t('metrics.active', { count: now.active })} />
        <Tile label={t('metrics.billable')} value={number(now.billable, 1)} unit="s" />
        <Tile label={t('metrics.cost')} value={`$${number(cost.whole, 6)}`} unit={t('metrics.cost.unit')} />
      </div>
      <p className="soft small">{t('metrics.since')}</p>
      <div className="charts">
        <Chart title={t('metrics.rate')} series={[[t('metrics.requests'), rates.requests, 'fire'], [t('metrics.errors'), rates.errors, 'bad']]} at={rates.at} />
        <Chart title={t('metrics.latency')} series={[['p50', points.map((p) => p.p50), 'info'], ['p99', points.map((p) => p.p99), 'warn']]} at={points.map((p) => p.at)} />
        <Chart title={t('metrics.instances')} series={[[t('metrics.state.active'), points.map((p) => p.active), 'fire'], [t('metrics.state.idle'), points.map((p) => p.idle), 'info']]} at={points.map((p) => p.at)} />
        <Share title={t('metrics.cpu')} points={cpu.data} colour="fire" />
        <Share title={t('metrics.memory')} points={memory.data} colour="info" />
      </div>
      <section className="card pad stack tight">
        <h2>{t('metrics.cost.title')}</h2>
        <p className="soft">{t('metrics.cost.text')}</p>
        <dl className="facts">
          <dt>{t('metrics.cost.cpu')}</dt><dd className="mono">{number(cost.vcpuSeconds, 2)} vCPU-s × ${cost.cpuPrice} = ${number(cost.cpu, 6)}</dd>
          <dt>{t('metrics.cost.memory')}</dt><dd className="mono">{number(cost.gibSeconds, 2)} GiB-s × ${cost.memoryPrice} = ${number(cost.memory, 6)}</dd>
          {cost.requestPrice > 0 && <><dt>{t('metrics.requests')}</dt><dd className="mono">{number(cost.requests)} × ${cost.requestPrice} / 1,000,000 = ${number(cost.request, 6)}</dd></>}
        </dl>
      </section>
      <ColdStarts list={starts.data ?? []} />
    </>
  )
}

/** A share of the limit, by minute; nothing where nobody has measured it. */
function Share({ title, points, colour }: { title: string; points: [number, number][] | undefined; colour: Line[2] }) {
  if (!points) return null
  return <Chart title={title} series={[['%', points.map(([, share]) => share * 100), colour]]} at={points.map(([at]) => at)} />
}

function pointOf(meters: Meter[]): Point {
  const sum = (of: (meter: Meter) => number) => meters.reduce((all, meter) => all + of(meter), 0)
  const busiest = [...meters].sort((one, other) => total(other) - total(one))[0]
  return {
    at: Date.now() / 1000,
    requests: sum(total),
    errors: sum((meter) => (meter.requestsByClass[5] ?? 0) + (meter.requestsByClass[0] ?? 0)),
    p50: busiest?.latencyMsP50 ?? 0,
    p99: busiest?.latencyMsP99 ?? 0,
    active: sum((meter) => meter.instancesActive),
    idle: sum((meter) => meter.instancesIdle),
    billable: sum((meter) => meter.billableSeconds),
  }
}

const total = (meter: Meter) => meter.requestsByClass.reduce((all, one) => all + one, 0)

function perSecond(points: Point[]) {
  const rates = { at: [] as number[], requests: [] as number[], errors: [] as number[] }
  for (let i = 1; i < points.length; i++) {
    const [before, now] = [points[i - 1] as Point, points[i] as Point]
    const span = Math.max(0.001, now.at - before.at)
    rates.at.push(now.at)
    rates.requests.push(Math.max(0, now.requests - before.requests) / span)
    rates.errors.push(Math.max(0, now.errors - before.errors) / span)
  }
  return rates
}

function Tile({ label, value, unit }: { label: string; value: string; unit?: string }) {
  return (
    <div className="card tile">
      <p className="label">{label}</p>
      <p className="value">{value} {unit && <small>{unit}</small>}</p>
    </div>
  )
}

function lastMinute(min: number | null, max: number | null): [number, number] {
  const end = max ?? Date.now() / 1000
  return [Math.min(min ?? end, end - 60), end]
}

const clock = (at: number) => new Date(at * 1000).toTimeString().slice(0, 8)

type Line = [string, number[], 'fire' | 'bad' | 'info' | 'warn']

function Chart({ title, series, at }: { title: string; series: Line[]; at: number[] }) {
  // One point is no line, and no axis can be made of it.
  const data = at.length < 2 ? [[], ...series.map(() => [])] : [at, ...series.map(([, values]) => values)]
  const box = useRef<HTMLDivElement>(null)
  const plot = useRef<uPlot>(null)
  const theme = useTheme()
  const names = series.map(([name]) => name).join('|')
  useEffect(() => {
    const element = box.current
    if (!element) return
    const colour = (name: string) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim()
    const axis = { stroke: colour('soft'), grid: { stroke: colour('line'), width: 1 }, ticks: { stroke: colour('line'), width: 1 }, font: '11px system-ui' }
    const made = new uPlot(
      {
        width: element.clientWidth,
        height: 170,
        series: [{}, ...series.map(([label, , name]) => ({ label, stroke: colour(name), width: 1.6, points: { show: false } }))],
        legend: { show: false },
        cursor: { drag: { x: false, y: false } },
        axes: [{ ...axis, values: (_: uPlot, ticks: number[]) => ticks.map(clock) }, { ...axis, size: 46 }],
        // A minute at least, so that the first points stand where they will stay.
        scales: { x: { range: (_: uPlot, min: number | null, max: number | null) => lastMinute(min, max) }, y: { range: (_: uPlot, __: number, max: number) => [0, Math.max(max * 1.1, 1)] } },
      },
      data as uPlot.AlignedData,
      element,
    )
    plot.current = made
    const watch = new ResizeObserver(() => made.setSize({ width: element.clientWidth, height: 170 }))
    watch.observe(element)
    return () => {
      watch.disconnect()
      made.destroy()
      plot.current = null
    }
    // The data follows below: only another look makes another plot.
  }, [theme, names])
  useEffect(() => plot.current?.setData(data as uPlot.AlignedData))
  return (
    <figure className="card pad">
      <figcaption>
        <h2>{title}</h2>
        <span className="row">
        {series.map(([name, values, colour]) => (
          <span key={name} className="legend-dot" style={{ '--dot': `var(--${colour})` } as CSSProperties}>
            {name} <span className="mono">{number(values.at(-1) ?? 0, 2)}</span>
          </span>
        ))}
        </span>
      </figcaption>
      <div className="chart" ref={box} role="img" aria-label={`${title}: ${series.map(([name, values]) => `${name} ${number(values.at(-1) ?? 0, 2)}`).join(', ')}`} />
    </figure>
  )
}

const PART_COLOURS = ['var(--faint)', 'var(--line-strong)', 'var(--info)', 'var(--good)', 'var(--warn)', 'var(--fire)', 'var(--bad)']

/** Where each cold start's milliseconds went. */
function ColdStarts({ list }: { list: ColdStart[] }) {
  const newest = [...list].reverse().slice(0, 20)
  return (
    <section className="card" aria-label={t('cold.title')}>
      <header><h2>{t('cold.title')}</h2></header>
      {newest.length === 0 ? (
        <div className="pad"><Notice>{t('cold.none')}</Notice></div>
      ) : (
        <>
          <p className="pad row small">
            {(newest[0]?.partsUs ?? []).map(([part], i) => (
              <span key={part} className="row" style={{ gap: '.3rem' }}>
                <span style={{ width: 10, height: 10, borderRadius: 3, background: PART_COLOURS[i] }} />
                {t(`cold.${part}` as Key)}
              </span>
            ))}
          </p>
          <div className="table-box">
            <table>
              <thead>
                <tr><th scope="col">{t('cold.when')}</th><th scope="col">{t('revisions.one')}</th><th scope="col">{t('cold.rung')}</th><th scope="col" className="number">{t('cold.whole')}</th><th scope="col" style={{ width: '45%' }}>{t('cold.parts')}</th></tr>
              </thead>
              <tbody>
                {newest.map((one, i) => (
                  <tr key={i}>
                    <td className="fit">{time(one.time)}</td>
                    <td className="fit">{one.revision}</td>
                    <td className="fit">{one.rung}</td>
                    <td className="number fit">{number(one.wholeUs / 1000, 1)} ms</td>
                    <td>
                      <div className="bar-parts" role="img" aria-label={one.partsUs.map(([part, us]) => `${t(`cold.${part}` as Key)} ${number(us / 1000, 1)} ms`).join(', ')} title={one.partsUs.map(([part, us]) => `${part} ${number(us / 1000, 1)} ms`).join(' · ')}>
                        {one.partsUs.map(([part, us], at) => <div key={part} style={{ width: `${(us / Math.max(1, one.wholeUs)) * 100}%`, background: PART_COLOURS[at] }} />)}
                      </div>
                    </td>
                  </tr>
                ))}
              </tbody>
            </table>
          </div>
        </>
      )}
    </section>
  )
}
