// Two texts and where they differ: in one column or side by side, long stretches of the same lines folded.
import { useMemo, useState, type ReactNode } from 'react'
import { visible } from '../pages/service/logs'
import { t } from '../texts'

export interface DifferenceLine {
  sign: ' ' | '+' | '-'
  text: string
}

/** Lines around a change that are shown. */
const AROUND = 3
/** A table of more cells is not made: then all lines that are not at the ends of both are told as changed. */
const CELLS_MAX = 4_000_000

/** Lines of both texts by their longest common subsequence. */
export function differenceOf(one: string, other: string): DifferenceLine[] {
  const [a, b] = [one.split('\n'), other.split('\n')]
  let [begin, endA, endB] = [0, a.length, b.length]
  while (begin < endA && begin < endB && a[begin] === b[begin]) begin++
  while (endA > begin && endB > begin && a[endA - 1] === b[endB - 1]) {
    endA--
    endB--
  }
  const lines = (sign: DifferenceLine['sign'], texts: string[]) => texts.map((text): DifferenceLine => ({ sign, text }))
  return [...lines(' ', a.slice(0, begin)), ...between(a.slice(begin, endA), b.slice(begin, endB)), ...lines(' ', a.slice(endA))]
}

function between(a: string[], b: string[]): DifferenceLine[] {
  const isLarge = (a.length + 1) * (b.length + 1) > CELLS_MAX
  const lengths = isLarge ? [] : Array.from({ length: a.length + 1 }, () => new Uint32Array(b.length + 1))
  const at = (i: number, j: number) => lengths[i]?.[j] ?? 0
  if (!isLarge) {
    for (let i = a.length - 1; i >= 0; i--) {
      for (let j = b.length - 1; j >= 0; j--) (lengths[i] as Uint32Array)[j] = a[i] === b[j] ? at(i + 1, j + 1) + 1 : Math.max(at(i + 1, j), at(i, j + 1))
    }
  }
  const lines: DifferenceLine[] = []
  let [i, j] = [0, 0]
  while (i < a.length || j < b.length) {
    if (!isLarge && i < a.length && j < b.length && a[i] === b[j]) {
      lines.push({ sign: ' ', text: a[i++] as string })
      j++
    } else if (i < a.length && (j >= b.length || at(i + 1, j) >= at(i, j + 1))) lines.push({ sign: '-', text: a[i++] as string })
    else lines.push({ sign: '+', text: b[j++] as string })
  }
  return lines
}

/** One in one column, one after the other; `null` is a fold. */
function folded(lines: DifferenceLine[]): (DifferenceLine | null)[] {
  const near = new Set<number>()
  lines.forEach((line, i) => {
    if (line.sign !== ' ') for (let at = i - AROUND; at <= i + AROUND; at++) near.add(at)
  })
  const shown: (DifferenceLine | null)[] = []
  lines.forEach((line, i) => {
    if (near.has(i)) shown.push(line)
    else if (shown.at(-1) !== null) shown.push(null)
  })
  return shown
}

/** Removed lines stand beside those that were added in their place. */
function paired(lines: (DifferenceLine | null)[]): ([DifferenceLine | undefined, DifferenceLine | undefined] | null)[] {
  const rows: ([DifferenceLine | undefined, DifferenceLine | undefined] | null)[] = []
  let [removed, added]: [DifferenceLine[], DifferenceLine[]] = [[], []]
  const flush = () => {
    for (let i = 0; i < Math.max(removed.length, added.length); i++) rows.push([removed[i], added[i]])
    ;[removed, added] = [[], []]
  }
  for (const line of lines) {
    if (line?.sign === '-') removed.push(line)
    else if (line?.sign === '+') added.push(line)
    else {
      flush()
      rows.push(line && [line, line])
    }
  }
  flush()
  return rows
}

export type Way = 'unified' | 'split'

/** How differences are shown, for all on a page. */
export function useWay(): [Way, ReactNode] {
  const [way, setWay] = useState<Way>('unified')
  return [
    way,
    <span key="way" className="segments" role="group" aria-label={t('difference.way')}>
      {(['unified', 'split'] as const).map((one) => (
        <button key={one} type="button" aria-pressed={way === one} onClick={() => setWay(one)}>{t(`difference.${one}`)}</button>
      ))}
    </span>,
  ]
}

export function TextDifference({ one, other, way, label }: { one: string; other: string; way: Way; label: string }) {
  const lines = useMemo(() => folded(differenceOf(one, other)), [one, other])
  const kind = (line: DifferenceLine | undefined) => (line === undefined ? 'absent' : line.sign === '+' ? 'added' : line.sign === '-' ? 'removed' : '')
  if (way === 'unified') {
    return (
      <div className="difference" role="group" aria-label={label} tabIndex={0}>
        {lines.map((line, i) => (line ? <div key={i} className={kind(line)}>{line.sign} {visible(line.text)}</div> : <div key={i} className="fold">…</div>))}
      </div>
    )
  }
  return (
    <div className="difference split" role="group" aria-label={label} tabIndex={0}>
      {paired(lines).map((row, i) =>
        row ? [<div key={`${i}a`} className={`left ${kind(row[0])}`}>{visible(row[0]?.text ?? '')}</div>, <div key={`${i}b`} className={kind(row[1])}>{visible(row[1]?.text ?? '')}</div>] : <div key={i} className="fold whole">…</div>,
      )}
    </div>
  )
}
