// Delivered events: what was sent to which service, each attempt, and sending one again.
import { useState } from 'react'
import { eventList, eventReplay, type Event } from '../api/console'
import { shortName } from '../api/run'
import { Button, Chip, Empty, Failure, useAction, Waiting } from '../parts/basic'
import { toast } from '../parts/toast'
import { useQuery } from '../query'
import { setQuery, usePlace } from '../route'
import { own } from '../session'
import { number, t, time } from '../texts'
import { visible } from './service/logs'

/** SERVICE of projects/P/locations/R/services/SERVICE/PATH, or of https://SERVICE-NUMBER.REGION.run.app/PATH. */
function serviceOf(target: string): string {
  const ending = `-${own().projectNumber}`
  const label = /^https?:\/\/([^./]+)/.exec(target)?.[1]
  return /\/services\/([^/]+)/.exec(target)?.[1] ?? (label?.endsWith(ending) ? label.slice(0, -ending.length) : target)
}

export function Events() {
  const { query } = usePlace()
  const [service, only] = [query.get('service') ?? '', query.get('only') ?? '']
  const events = useQuery('events', eventList, 2000)
  const list = (events.data ?? []).filter((event) => (!service || serviceOf(event.target) === service) && (only !== 'failed' || !isGood(event)))
  const services = [...new Set((events.data ?? []).map((event) => serviceOf(event.target)))].sort()
  return (
    <>
      <div className="head"><h1>{t('nav.events')}</h1></div>
      <div className="stack">
        <Failure error={events.error} />
        {events.waiting && <Waiting />}
        {events.data?.length === 0 && (
          <section className="card"><Empty icon="event" title={t('events.none')} text={t('events.none.text')} command="gcloud pubsub topics publish my-topic --message=hello" /></section>
        )}
        {events.data && events.data.length > 0 && (
          <section className="card" aria-label={t('nav.events')}>
            <header>
              <select className="input" style={{ width: 'auto' }} aria-label={t('events.service')} value={service} onChange={(event) => setQuery('service', event.target.value)}>
                <option value="">{t('events.every')}</option>
                {services.map((one) => <option key={one}>{one}</option>)}
              </select>
              <Button kind="small" aria-pressed={only === 'failed'} onClick={() => setQuery('only', only === 'failed' ? null : 'failed')}>{t('events.failed')}</Button>
              <span className="grow" />
              <span className="soft small" role="status">{t('events.count', { count: list.length })}</span>
            </header>
            <ul>
              {list.map((event) => <Row key={event.id} event={event} again={events.again} />)}
            </ul>
          </section>
        )}
      </div>
    </>
  )
}

const isGood = (event: Event) => {
  const status = event.attempts.at(-1)?.status
  return status !== null && status !== undefined && status < 300
}

function Row({ event, again }: { event: Event; again: () => Promise<void> }) {
  const [open, setOpen] = useState(false)
  const last = event.attempts.at(-1)
  const replay = useAction(async () => {
    await eventReplay(event.id)
    toast(t('events.replayed', { id: event.id }))
    await again()
  })
  return (
    <li style={{ borderBottom: '1px solid var(--line)' }}>
      <details onToggle={(toggle) => setOpen(toggle.currentTarget.open)}>
        <summary className="pad row" style={{ cursor: 'pointer' }}>
          <Chip tone={isGood(event) ? 'good' : 'bad'}>{last?.status ?? t('state.failed')}</Chip>
          <strong>#{event.id}</strong>
          <span>{event.sender} · {visible(shortName(event.from))}</span>
          <span className="soft">→ {serviceOf(event.target)}</span>
          <span className="grow" />
          <span className="soft small">{t('events.attempts', { count: event.attemptsAll })}</span>
          <span className="soft small">{time(last?.began)}</span>
        </summary>
        {open && (
          <div className="pad stack" style={{ background: 'var(--sunk)' }}>
            <div className="row"><Button icon="again" busy={replay.busy} disabled={!event.isWhole} onClick={() => replay.run()}>{t('events.replay')}</Button></div>
            <Failure error={replay.error} />
            <h3>{t('events.attemptsOf')}</h3>
            <ol className="stack tight">
              {event.attempts.map((attempt, i) => (
                <li key={i} className="row small">
                  <Chip tone={attempt.status !== null && attempt.status < 300 ? 'good' : 'bad'}>{attempt.status ?? visible(attempt.failure ?? '')}</Chip>
                  <span>{time(attempt.began)}</span>
                  <span className="soft">{number(attempt.latencyUs / 1000, 1)} ms</span>
                  {attempt.isReplay && <Chip>{t('events.byHand')}</Chip>}
                  {attempt.answer && <code>{visible(attempt.answer)}</code>}
                </li>
              ))}
            </ol>
            <h3>{t('events.headers')}</h3>
            <dl className="facts small">
              {Object.entries(event.headers).map(([name, value]) => [<dt key={`${name}n`}><code>{name}</code></dt>, <dd key={`${name}v`}><code>{visible(value)}</code></dd>])}
            </dl>
            <h3>{t('events.body')}</h3>
            <pre style={{ margin: 0, whiteSpace: 'pre-wrap', overflowWrap: 'anywhere' }}>{visible(event.body)}</pre>
          </div>
        )}
      </details>
    </li>
  )
}
