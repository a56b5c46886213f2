// "Revisions": which revision gets which share of the requests, their tags, and what differs between two.
import { useMemo, useState } from 'react'
import { browserUrl, PLACEHOLDER, revisionDelete, revisionList, serviceUpdate, shortName, type Revision, type Service, type Traffic } from '../../api/run'
import { requestsShadow, type Compared } from '../../api/console'
import { gcloud } from '../../commands'
import { Button, Chip, Confirm, Dialog, Failure, IconButton, SameByCommand, useAction, Waiting } from '../../parts/basic'
import { toast } from '../../parts/toast'
import { useQuery } from '../../query'
import { Link, setQuery, usePlace } from '../../route'
import { ago, t, time } from '../../texts'
import type { TabProps } from '../service'
import { ComparedCard } from './compared'
import { Difference } from './difference'

export function Revisions({ region, name, service, again }: TabProps) {
  const found = useQuery(`revisions/${region}/${name}/${service.generation}/${service.latestReadyRevision}`, () => revisionList(region, name), 3000)
  const { query } = usePlace()
  const [dialog, setDialog] = useState<'traffic' | { remove: Revision } | null>(null)
  const revisions = useMemo(() => [...(found.data ?? [])].sort((one, other) => (one.name < other.name ? 1 : -1)), [found.data])
  const [one, other] = [query.get('of'), query.get('with')]
  const back = useAction(async (revision: string) => {
    await serviceUpdate(region, name, { traffic: [{ type: 'TRAFFIC_TARGET_ALLOCATION_TYPE_REVISION', revision, percent: 100 }, ...tagged(service, revision)] }, ['traffic'])
    await again()
    toast(t('revisions.moved', { revision }))
  })
  const [compared, setCompared] = useState<Compared | null>(null)
  const compare = useAction(async (revision: string) => setCompared(await requestsShadow({ region, service: name, revision })))
  const percentOf = (revision: string) => (service.trafficStatuses ?? []).filter((target) => shortName(target.revision) === revision).reduce((sum, target) => sum + (target.percent ?? 0), 0)
  const tagsOf = (revision: string) => (service.trafficStatuses ?? []).filter((target) => shortName(target.revision) === revision && target.tag)
  return (
    <>
      <section className="card" aria-label={t('tab.revisions')}>
        <header>
          <h2 className="grow">{t('tab.revisions')}</h2>
          <Button icon="pen" onClick={() => setDialog('traffic')} disabled={revisions.length === 0}>{t('revisions.traffic')}</Button>
        </header>
        <Failure error={found.error ?? back.error ?? compare.error} />
        {found.waiting && <div className="pad"><Waiting /></div>}
        <div className="table-box">
          <table>
            <thead>
              <tr>
                <th scope="col">{t('services.name')}</th>
                <th scope="col" className="number">{t('revisions.share')}</th>
                <th scope="col">{t('revisions.tags')}</th>
                <th scope="col">{t('services.deployed')}</th>
                <th scope="col">{t('services.state')}</th>
                <th scope="col" className="fit"><span className="hidden-text">{t('revisions.actions')}</span></th>
              </tr>
            </thead>
            <tbody>
              {revisions.map((revision, i) => {
                const short = shortName(revision.name)
                const percent = percentOf(short)
                const before = revisions[i + 1]
                return (
                  <tr key={revision.name}>
                    <td className="name-cell">
                      <Link to={`/services/${region}/${name}/logs?revision=${short}`}>{short}</Link>
                    </td>
                    <td className="number">{percent > 0 ? <strong>{percent} %</strong> : <span className="soft">0 %</span>}</td>
                    <td>
                      {tagsOf(short).map((target) => (
                        <a key={target.tag} className="chip info" href={browserUrl(target.uri)} target="_blank" rel="noopener noreferrer">{target.tag}</a>
                      ))}
                    </td>
                    <td title={time(revision.createTime)}>{ago(revision.createTime)}</td>
                    <td><RevisionState revision={revision} /></td>
                    <td className="fit actions">
                      {before && (
                        <Button kind="quiet small" onClick={() => { setQuery('of', shortName(before.name)); setQuery('with', short) }}>{t('revisions.difference')}</Button>
                      )}
                      {percent === 0 && ready(revision) && !isPlaceholderImage(revision) && (
                        <Button kind="quiet small" busy={compare.busy} onClick={() => compare.run(short)}>{t('compared.do')}</Button>
                      )}
                      {percent < 100 && ready(revision) && (
                        <Button kind="quiet small" busy={back.busy} onClick={() => back.run(short)}>{t('revisions.back')}</Button>
                      )}
                      {percent === 0 && shortName(service.latestCreatedRevision) !== short && (
                        <IconButton icon="bin" label={t('revisions.delete', { revision: short })} onClick={() => setDialog({ remove: revision })} />
                      )}
                    </td>
                  </tr>
                )
              })}
            </tbody>
          </table>
        </div>
      </section>
      {one && other && found.data && <Difference region={region} service={service} revisions={revisions} of={one} with={other} />}
      {compared && <ComparedCard region={region} name={name} compared={compared} revisions={revisions} onClose={() => setCompared(null)} />}
      <SameByCommand text={gcloud.traffic(name, region, '--to-latest')} />
      {dialog === 'traffic' && <TrafficDialog region={region} name={name} service={service} revisions={revisions} again={again} onClose={() => setDialog(null)} />}
      {dialog && dialog !== 'traffic' && (
        <Confirm
          title={t('revisions.delete', { revision: shortName(dialog.remove.name) })}
          text={t('revisions.delete.text')}
          action={() => revisionDelete(dialog.remove.name)}
          onDone={() => { setDialog(null); void found.again() }}
          onClose={() => setDialog(null)}
        />
      )}
    </>
  )
}

const isPlaceholderImage = (revision: Revision) => revision.containers?.[0]?.image === PLACEHOLDER
const readyOf = (revision: Revision) => revision.conditions?.find((condition) => condition.type === 'Ready')
const ready = (revision: Revision) => readyOf(revision)?.state === 'CONDITION_SUCCEEDED'

function RevisionState({ revision }: { revision: Revision }) {
  const condition = readyOf(revision)
  if (condition?.state === 'CONDITION_FAILED') {
    return (
      <details>
        <summary><Chip tone="bad" icon="warning">{t('state.failed')}</Chip></summary>
        <p className="small" style={{ whiteSpace: 'pre-wrap' }}>{condition.message}</p>
      </details>
    )
  }
  return ready(revision) ? <Chip tone="good" icon="check">{t('state.ready')}</Chip> : <Chip tone="info">{t('state.deploying')}</Chip>
}

/** Targets that only give a revision a name of its own stay. */
const tagged = (service: Service, not: string): Traffic[] =>
  (service.traffic ?? []).filter((target) => target.tag && shortName(target.revision) !== not).map((target) => ({ ...target, percent: 0 }))

interface Share {
  /** Empty: the latest. */
  revision: string
  percent: number
  tag: string
}

function TrafficDialog({ region, name, service, revisions, again, onClose }: { region: string; name: string; service: Service; revisions: Revision[]; again: () => Promise<void>; onClose: () => void }) {
  const [shares, setShares] = useState<Share[]>(() =>
    (service.traffic ?? []).map((target) => ({ revision: target.type === 'TRAFFIC_TARGET_ALLOCATION_TYPE_LATEST' ? '' : shortName(target.revision), percent: target.percent ?? 0, tag: target.tag ?? '' })),
  )
  const sum = shares.reduce((all, share) => all + share.percent, 0)
  const save = useAction(async () => {
    const traffic = shares.map((share): Traffic => ({
      type: share.revision ? 'TRAFFIC_TARGET_ALLOCATION_TYPE_REVISION' : 'TRAFFIC_TARGET_ALLOCATION_TYPE_LATEST',
      ...(share.revision ? { revision: share.revision } : {}),
      percent: share.percent,
      ...(share.tag ? { tag: share.tag } : {}),
    }))
    await serviceUpdate(region, name, { traffic }, ['traffic'])
    await again()
    toast(t('saved'))
    onClose()
  })
  const change = (at: number, next: Partial<Share>) => setShares(shares.map((share, i) => (i === at ? { ...share, ...next } : share)))
  const good = revisions.filter(ready)
  return (
    <Dialog
      title={t('revisions.traffic')}
      onClose={onClose}
      foot={
        <>
          <Button kind="quiet" onClick={onClose}>{t('cancel')}</Button>
          <Button kind="main" busy={save.busy} disabled={sum !== 100} onClick={() => save.run()}>{t('save')}</Button>
        </>
      }
    >
      {shares.map((share, i) => (
        <div key={i} className="row">
          <select className="input" style={{ width: 'auto' }} aria-label={t('revisions.one')} value={share.revision} onChange={(event) => change(i, { revision: event.target.value })}>
            <option value="">{t('revisions.latest')}</option>
            {good.map((revision) => <option key={revision.name} value={shortName(revision.name)}>{shortName(revision.name)}</option>)}
          </select>
          <input className="grow" type="range" min={0} max={100} aria-label={t('revisions.share')} value={share.percent} onChange={(event) => change(i, { percent: Number(event.target.value) })} />
          <input className="input" style={{ width: '5rem' }} type="number" min={0} max={100} aria-label={t('revisions.percent')} value={share.percent} onChange={(event) => change(i, { percent: Number(event.target.value) })} />
          <input className="input" style={{ width: '8rem' }} aria-label={t('revisions.tag')} placeholder={t('revisions.tag')} value={share.tag} spellCheck={false} onChange={(event) => change(i, { tag: event.target.value })} />
          <IconButton icon="bin" label={t('delete')} onClick={() => setShares(shares.filter((_, at) => at !== i))} />
        </div>
      ))}
      <div className="row apart">
        <Button kind="small" icon="plus" onClick={() => setShares([...shares, { revision: shortName(good[0]?.name), percent: 0, tag: '' }])}>{t('revisions.add')}</Button>
        <strong className={sum === 100 ? '' : 'wrong'} role="status">{t('revisions.sum', { sum })}</strong>
      </div>
      <Failure error={save.error} />
      <SameByCommand text={gcloud.traffic(name, region, `--to-revisions=${shares.map((share) => `${share.revision || 'LATEST'}=${share.percent}`).join(',')}`)} />
    </Dialog>
  )
}
