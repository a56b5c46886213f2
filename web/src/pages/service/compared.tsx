// What a revision answered to copies of recent requests, beside the one that serves; and whether copies are sent before it takes traffic.
import { useState } from 'react'
import { requestCount, type Compared, type Comparison, type Side } from '../../api/console'
import { revisionList, serviceUpdate, shortName, type Revision, type Service } from '../../api/run'
import { millionCost } from '../../cost'
import { Check, Chip, Failure, IconButton, Notice, useAction } from '../../parts/basic'
import { TextDifference, useWay, type Way } from '../../parts/difference'
import { useQuery } from '../../query'
import { Link } from '../../route'
import { shadowOf, withShadow, type Shadow } from '../../shadow'
import { number, t } from '../../texts'
import type { TabProps } from '../service'
import { visible } from './logs'

/** Chosen for this service, and kept with it. */
export function ShadowChoice({ region, name, service, again }: TabProps) {
  const counted = useQuery(`requests/${region}/${name}`, () => requestCount(region, name), 5000)
  const choose = useAction(async (shadow: Shadow) => {
    await serviceUpdate(region, name, withShadow(service, shadow), ['annotations'])
    await again()
    await counted.again()
  })
  const chosen = shadowOf(service)
  return (
    <div className="pad shadow-choice">
      <Check
        label={t('shadow.choose')}
        hint={t('shadow.choose.hint', { count: counted.data?.allowed ?? 0 })}
        checked={chosen !== 'off'}
        disabled={choose.busy}
        onChange={(on) => void choose.run(on ? 'reads' : 'off')}
      />
      {chosen !== 'off' && (
        <Check label={t('shadow.all')} hint={t('shadow.all.hint')} checked={chosen === 'all'} disabled={choose.busy} onChange={(on) => void choose.run(on ? 'all' : 'reads')} />
      )}
      <Failure error={choose.error} />
    </div>
  )
}

/** The same after a save, beneath its steps. */
export function ComparedAfterSave({ region, name, service, compared }: { region: string; name: string; service: Service; compared: Compared }) {
  const revisions = useQuery(`revisions/${region}/${name}/${service.generation}/${service.latestReadyRevision}`, () => revisionList(region, name))
  return (
    <>
      <Verdict region={region} name={name} compared={compared} isSave />
      <Body region={region} compared={compared} revisions={revisions.data ?? []} />
    </>
  )
}

export function ComparedCard({ region, name, compared, revisions, onClose }: { region: string; name: string; compared: Compared; revisions: Revision[]; onClose: () => void }) {
  return (
    <section className="card" aria-label={t('compared.title')}>
      <header>
        <h2 className="grow">{t('compared.title')}</h2>
        <IconButton icon="cross" label={t('close')} onClick={onClose} />
      </header>
      <Verdict region={region} name={name} compared={compared} />
      <Body region={region} compared={compared} revisions={revisions} />
    </section>
  )
}

function Verdict({ region, name, compared, isSave }: { region: string; name: string; compared: Compared; isSave?: boolean }) {
  const { revision, against, failures, differing, compared: count } = compared
  const [tone, title] =
    count === 0 ? (['info', t('compared.nothing')] as const)
    : failures > 0 ? (['bad', t('compared.failed', { count: failures, revision, against })] as const)
    : differing > 0 ? (['warn', t('compared.differs', { count: differing, all: count })] as const)
    : (['good', t('compared.same', { count })] as const)
  return (
    <div className="pad">
      <Notice tone={tone} title={title}>
        {isSave && (
          <p>
            {compared.promoted ? t('compared.promoted', { revision }) : t('compared.held', { revision, against })}{' '}
            {!compared.promoted && <Link to={`/services/${region}/${name}/revisions`}>{t('revisions.traffic')}</Link>}
          </p>
        )}
      </Notice>
    </div>
  )
}

function Body({ region, compared, revisions }: { region: string; compared: Compared; revisions: Revision[] }) {
  const [way, wayChoice] = useWay()
  if (compared.compared === 0) return null
  const cost = (name: string, side: Side) => {
    const container = revisions.find((revision) => shortName(revision.name) === name)?.containers?.[0]
    return container && side.latencyMsMean !== null ? `$${number(millionCost(side.latencyMsMean, container, region), 2)}` : t('none')
  }
  const ms = (value: number | null) => (value === null ? t('none') : `${number(value, 1)} ms`)
  const rows: [string, (side: Side, name: string) => string][] = [
    [t('metrics.p50'), (side) => ms(side.latencyMsP50)],
    [t('metrics.p99'), (side) => ms(side.latencyMsP99)],
    [t('metrics.errors'), (side) => number(side.errors)],
    [t('compared.cold'), (side) => number(side.coldStarts)],
    [t('compared.million'), (side, name) => cost(name, side)],
  ]
  return (
    <>
      <div className="table-box">
        <table>
          <thead><tr><th scope="col"><span className="hidden-text">{t('difference.figure')}</span></th><th scope="col" className="number">{compared.against}</th><th scope="col" className="number">{compared.revision}</th></tr></thead>
          <tbody>
            {rows.map(([label, show]) => (
              <tr key={label}><th scope="row">{label}</th><td className="number">{show(compared.serving, compared.against)}</td><td className="number">{show(compared.candidate, compared.revision)}</td></tr>
            ))}
          </tbody>
        </table>
      </div>
      <div className="pad row apart">
        <span className="soft small">{t('compared.count', { count: compared.compared, all: compared.recorded })}</span>
        {wayChoice}
      </div>
      {!compared.isShown && <p className="pad soft small">{t('compared.hidden')}</p>}
      <ul className="comparisons">
        {compared.comparisons.map((one, i) => <Row key={i} one={one} way={way} />)}
      </ul>
    </>
  )
}

function Row({ one, way }: { one: Comparison; way: Way }) {
  const [open, setOpen] = useState(false)
  const told = one.differences.filter((difference) => !difference.isNoise)
  const noise = one.differences.length - told.length
  const status = (status: number) => (status === 0 ? t('compared.noReply') : status)
  return (
    <li>
      <details onToggle={(toggle) => setOpen(toggle.currentTarget.open)}>
        <summary className="pad row">
          {one.failed ? <Chip tone="bad" icon="warning">{t('state.failed')}</Chip> : told.length ? <Chip tone="warn">{t('compared.chip.differs')}</Chip> : <Chip tone="good" icon="check">{t('compared.chip.same')}</Chip>}
          <code className="grow">{one.method} {visible(one.target)}</code>
          <span className="small">{status(one.serving.status)} → {status(one.candidate.status)}</span>
          <span className="small soft">{number(one.serving.latencyMs, 1)} → {number(one.candidate.latencyMs, 1)} ms</span>
        </summary>
        {open && (
          <div className="pad stack">
            {told.length > 0 && (
              <div className="table-box">
                <table>
                  <thead><tr><th scope="col">{t('compared.where')}</th><th scope="col">{t('compared.serving')}</th><th scope="col">{t('compared.candidate')}</th></tr></thead>
                  <tbody>
                    {told.map((difference, i) => (
                      <tr key={i}><td>{t(`compared.what.${difference.what}`)} <code>{visible(difference.where)}</code></td><td><code>{visible(difference.serving ?? '')}</code></td><td><code>{visible(difference.candidate ?? '')}</code></td></tr>
                    ))}
                  </tbody>
                </table>
              </div>
            )}
            {noise > 0 && <p className="soft small">{t('compared.noise', { count: noise })}</p>}
            {one.serving.text !== undefined && one.candidate.text !== undefined && one.serving.text !== one.candidate.text && <TextDifference one={readable(one.serving.text)} other={readable(one.candidate.text)} way={way} label={t('compared.what.body')} />}
            {(one.serving.isCut || one.candidate.isCut) && <p className="soft small">{t('test.cut')}</p>}
            {told.length === 0 && one.candidate.text !== undefined && one.serving.text === one.candidate.text && <pre className="build-log">{visible(one.candidate.text)}</pre>}
          </div>
        )}
      </details>
    </li>
  )
}

/** JSON by its lines, other texts as they are. */
function readable(text: string): string {
  try {
    return JSON.stringify(JSON.parse(text), null, 2)
  } catch {
    return text
  }
}
