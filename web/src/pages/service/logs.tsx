// "Logs": the service's newest entries, followed as they come.
import { useEffect, useMemo, useRef, useState } from 'react'
import { entryList, quoted, textOf, type Entry } from '../../api/logging'
import { gcloud } from '../../commands'
import { Button, Chip, Empty, Failure, SameByCommand, Waiting } from '../../parts/basic'
import { Link, setQuery, usePlace } from '../../route'
import { kept, number, t } from '../../texts'
import type { TabProps } from '../service'

const SHOWN_MAX = 1000
const FIRST = 200
const SEVERITIES = ['DEFAULT', 'DEBUG', 'INFO', 'NOTICE', 'WARNING', 'ERROR', 'CRITICAL'] as const
/** How often the tail asks. */
const ROUND_MS = 150

export function Logs({ region, name }: TabProps) {
  const { query } = usePlace()
  const severity = query.get('severity') ?? 'DEFAULT'
  const text = query.get('q') ?? ''
  const trace = query.get('trace') ?? ''
  const revision = query.get('revision') ?? ''
  const [live, setLive] = useState(true)
  const filter = useMemo(
    () =>
      [
        'resource.type="cloud_run_revision"',
        `resource.labels.service_name=${quoted(name)}`,
        `resource.labels.location=${quoted(region)}`,
        severity !== 'DEFAULT' ? `severity>=${severity}` : '',
        revision ? `resource.labels.revision_name=${quoted(revision)}` : '',
        trace ? `trace=${quoted(trace)}` : '',
        text ? quoted(text) : '',
      ]
        .filter(Boolean)
        .join(' AND '),
    [name, region, severity, text, trace, revision],
  )
  const { entries, error } = useTail(filter, live)
  return (
    <>
      <section className="card" aria-label={t('tab.logs')}>
        <header>
          <select className="input" style={{ width: 'auto' }} aria-label={t('logs.severity')} value={severity} onChange={(event) => setQuery('severity', event.target.value === 'DEFAULT' ? null : event.target.value)}>
            {SEVERITIES.map((one) => (
              <option key={one} value={one}>{one === 'DEFAULT' ? t('logs.every') : t('logs.from', { severity: one })}</option>
            ))}
          </select>
          <input className="input grow" type="search" aria-label={t('logs.search')} placeholder={t('logs.search')} defaultValue={text} onChange={(event) => setQuery('q', event.target.value)} />
          {trace && <Button kind="small" icon="cross" onClick={() => setQuery('trace', null)}>{t('logs.oneRequest')}</Button>}
          {revision && <Button kind="small" icon="cross" onClick={() => setQuery('revision', null)}>{revision}</Button>}
          <Button kind="small" icon={live ? 'pause' : 'play'} aria-pressed={live} onClick={() => setLive(!live)}>{t(live ? 'logs.pause' : 'logs.follow')}</Button>
        </header>
        <Failure error={error} />
        {!entries && !error && <div className="pad"><Waiting /></div>}
        {entries?.length === 0 && <Empty icon="file" title={t('logs.none')} text={t('logs.none.text')} command={gcloud.logs(name, region)} />}
        <ol className="log-list" aria-live="off">
          {entries?.map((entry) => <Line key={entry.insertId + entry.timestamp} entry={entry} chosen={trace !== '' && entry.trace === trace} />)}
        </ol>
      </section>
      <SameByCommand text={gcloud.logs(name, region)} />
    </>
  )
}

/** The newest entries of a filter, newest first, and from then on what is new. */
function useTail(filter: string, live: boolean): { entries: Entry[] | null; error: unknown } {
  const [entries, setEntries] = useState<Entry[] | null>(null)
  const [error, setError] = useState<unknown>(null)
  const known = useRef(new Set<string>())
  useEffect(() => {
    let gone = false
    let timer = 0
    let newest = ''
    known.current = new Set()
    setEntries(null)
    const take = (list: Entry[]) => {
      const fresh = list.filter((entry) => !known.current.has(entry.insertId + entry.timestamp))
      for (const entry of fresh) {
        known.current.add(entry.insertId + entry.timestamp)
        if (entry.timestamp > newest) newest = entry.timestamp
      }
      if (gone) return
      if (fresh.length) setEntries((before) => [...fresh, ...(before ?? [])].sort((one, other) => (one.timestamp < other.timestamp ? 1 : -1)).slice(0, SHOWN_MAX))
      else setEntries((before) => before ?? [])
    }
    const round = async () => {
      try {
        if (!document.hidden || !newest) {
          // An entry may be written a moment after a later one: the last seconds are read again.
          const since = newest ? ` AND timestamp>=${quoted(new Date(new Date(newest).getTime() - 3000).toISOString())}` : ''
          take(await entryList(filter + since, newest ? SHOWN_MAX : FIRST, 'desc'))
          if (!gone) setError(null)
        }
      } catch (other) {
        if (!gone) setError(other)
      }
      if (!gone && live) timer = setTimeout(round, ROUND_MS)
    }
    // While a search is typed, not every letter is asked for.
    timer = setTimeout(round, 120)
    return () => {
      gone = true
      clearTimeout(timer)
    }
  }, [filter, live])
  return { entries, error }
}

const TONES: Record<string, string> = { WARNING: 'warning', ERROR: 'error', CRITICAL: 'error', ALERT: 'error', EMERGENCY: 'error' }

function Line({ entry, chosen }: { entry: Entry; chosen: boolean }) {
  const [open, setOpen] = useState(false)
  const request = entry.httpRequest
  return (
    <li className={`${TONES[entry.severity ?? ''] ?? ''} ${chosen ? 'chosen' : ''}`}>
      <details onToggle={(event) => setOpen(event.currentTarget.open)}>
        <summary>
          <time className="when" dateTime={entry.timestamp}>{clock(entry.timestamp)}</time>
          {request ? (
            <span className="what request">
              <Chip tone={(request.status ?? 0) >= 500 ? 'bad' : (request.status ?? 0) >= 400 ? 'warn' : 'good'}>{request.status ?? '-'}</Chip>
              <span>{request.requestMethod} {pathOf(request.requestUrl)}</span>
              <span className="soft">{milliseconds(request.latency)}</span>
              <span className="soft">{visible(textOf(entry))}</span>
            </span>
          ) : (
            <span className="what">
              {entry.severity && entry.severity !== 'DEFAULT' && entry.severity !== 'INFO' && <span className="hidden-text">{entry.severity}: </span>}
              {visible(textOf(entry))}
            </span>
          )}
        </summary>
        {open && (
          <div className="whole">
            {entry.trace && (
              <p className="row">
                <Button kind="small" onClick={() => setQuery('trace', entry.trace ?? null)}>{t('logs.ofRequest')}</Button>
                {[401, 403, 404].includes(request?.status ?? 0) && <Link className="button small" to={`/access?request=${encodeURIComponent(entry.trace)}`}>{t('logs.whyDenied')}</Link>}
              </p>
            )}
            {visible(JSON.stringify(entry, null, 2))}
          </div>
        )}
      </details>
    </li>
  )
}

/** Control characters, escapes of terminals and marks that turn text around are shown as signs. */
export function visible(text: string): string {
  return text.replace(/[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u200e\u200f\u202a-\u202e\u2066-\u2069]/g, (c) => {
    return `\\u${c.charCodeAt(0).toString(16).padStart(4, '0')}`
  })
}

const days = kept((language) => new Intl.DateTimeFormat(language, { month: '2-digit', day: '2-digit' }))
const moments = kept(() => new Intl.DateTimeFormat('en-GB', { hour: '2-digit', minute: '2-digit', second: '2-digit', fractionalSecondDigits: 3 }))

function clock(when: string): string {
  const date = new Date(when)
  return `${days().format(date)} ${moments().format(date)}`
}

function pathOf(url: string | undefined): string {
  const path = (url ?? '').replace(/^https?:\/\/[^/]*/, '')
  return visible(path || '/')
}

const milliseconds = (latency: string | undefined) => (latency ? `${number(parseFloat(latency) * 1000, 1)} ms` : '')
