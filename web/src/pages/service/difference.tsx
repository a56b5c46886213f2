// What differs between two revisions: source, dependencies, configuration, and how they did so far.
import { useMemo } from 'react'
import { dump } from 'js-yaml'
import { meterList, type Meter } from '../../api/console'
import { sourceDownload, sourceOfImage } from '../../api/build'
import { shortName, type Revision, type Service } from '../../api/run'
import { costOf } from '../../cost'
import { dependenciesOf } from '../../dependencies'
import { Failure, IconButton, Notice, Waiting } from '../../parts/basic'
import { TextDifference, useWay, type Way } from '../../parts/difference'
import { useQuery } from '../../query'
import { setQuery } from '../../route'
import { isText, toText, unpack, type Files } from '../../source'
import { number, t } from '../../texts'

export function Difference({ region, service, revisions, of, with: other }: { region: string; service: Service; revisions: Revision[]; of: string; with: string }) {
  const find = (name: string) => revisions.find((revision) => shortName(revision.name) === name)
  const [one, two] = [find(of), find(other)]
  const [way, wayChoice] = useWay()
  const close = () => {
    setQuery('of', null)
    setQuery('with', null)
  }
  const choice = (name: 'of' | 'with', value: string) => (
    <select className="input" style={{ width: 'auto' }} aria-label={t(`difference.${name}`)} value={value} onChange={(event) => setQuery(name, event.target.value)}>
      {revisions.map((revision) => <option key={revision.name}>{shortName(revision.name)}</option>)}
    </select>
  )
  return (
    <section className="card" aria-label={t('revisions.difference')}>
      <header>
        <h2>{t('revisions.difference')}</h2>
        {choice('of', of)}
        <span aria-hidden="true">→</span>
        {choice('with', other)}
        <span className="grow" />
        {wayChoice}
        <IconButton icon="cross" label={t('close')} onClick={close} />
      </header>
      {one && two ? (
        <>
          <Sources region={region} one={one} two={two} way={way} />
          <Configuration one={one} two={two} way={way} />
          <Figures region={region} service={service} one={one} two={two} />
        </>
      ) : (
        <div className="pad"><Notice>{t('difference.gone')}</Notice></div>
      )}
    </section>
  )
}

/** The files of a revision, by the build that made its image; `null` when none is known here. */
async function filesOf(region: string, revision: Revision): Promise<Files | null> {
  const digest = /@(sha256:[0-9a-f]+)$/.exec(revision.containers?.[0]?.image ?? '')?.[1]
  const location = digest && (await sourceOfImage(region, digest))
  return location ? unpack(await sourceDownload(location)) : null
}

function Sources({ region, one, two, way }: { region: string; one: Revision; two: Revision; way: Way }) {
  const found = useQuery(`sources/${one.name}/${two.name}`, () => Promise.all([filesOf(region, one), filesOf(region, two)]))
  const [before, after] = found.data ?? []
  const changed = useMemo(() => (before && after ? changedNames(before, after) : []), [before, after])
  return (
    <>
      <h3 className="difference-part">{t('tab.source')}</h3>
      <Failure error={found.error} />
      {found.waiting && <div className="pad"><Waiting /></div>}
      {found.data && !(before && after) && <div className="pad"><Notice>{t('difference.noSource')}</Notice></div>}
      {before && after && (
        <>
          {changed.length === 0 && <div className="pad"><Notice>{t('difference.sameSource')}</Notice></div>}
          {changed.map((name) => (
            <details key={name} open>
              <summary className="pad mono">{name}</summary>
              {isShown(before[name]) && isShown(after[name]) ? (
                <TextDifference one={textIn(before, name)} other={textIn(after, name)} way={way} label={name} />
              ) : (
                <p className="pad soft">{t('source.binary', { count: (after[name] ?? before[name])?.length ?? 0 })}</p>
              )}
            </details>
          ))}
          <Dependencies before={before} after={after} />
        </>
      )}
    </>
  )
}

const isShown = (bytes: Uint8Array | undefined) => bytes === undefined || isText(bytes)
const textIn = (files: Files, name: string) => (files[name] ? toText(files[name]) : '')

function changedNames(before: Files, after: Files): string[] {
  const isSame = (name: string) => {
    const [one, other] = [before[name], after[name]]
    return one !== undefined && other !== undefined && one.length === other.length && one.every((byte, i) => byte === other[i])
  }
  return [...new Set([...Object.keys(before), ...Object.keys(after)])].filter((name) => !isSame(name)).sort()
}

function Dependencies({ before, after }: { before: Files; after: Files }) {
  const [one, other] = [dependenciesOf(before), dependenciesOf(after)]
  const names = [...new Set([...one.keys(), ...other.keys()])].filter((name) => one.get(name) !== other.get(name) || one.has(name) !== other.has(name)).sort()
  const version = (of: Map<string, string>, name: string) => (of.has(name) ? of.get(name) || t('difference.anyVersion') : t('none'))
  return (
    <>
      <h3 className="difference-part">{t('difference.dependencies')}</h3>
      {names.length === 0 ? (
        <div className="pad"><Notice>{t('difference.sameDependencies', { count: other.size })}</Notice></div>
      ) : (
        <div className="table-box">
          <table>
            <thead><tr><th scope="col">{t('services.name')}</th><th scope="col">{t('difference.of')}</th><th scope="col">{t('difference.with')}</th></tr></thead>
            <tbody>{names.map((name) => <tr key={name}><td><code>{name}</code></td><td>{version(one, name)}</td><td>{version(other, name)}</td></tr>)}</tbody>
          </table>
        </div>
      )}
    </>
  )
}

function Configuration({ one, two, way }: { one: Revision; two: Revision; way: Way }) {
  const [before, after] = [textOf(one), textOf(two)]
  return (
    <>
      <h3 className="difference-part">{t('difference.configuration')}</h3>
      {before === after ? <div className="pad"><Notice>{t('revisions.same')}</Notice></div> : <TextDifference one={before} other={after} way={way} label={t('difference.configuration')} />}
    </>
  )
}

/** What a revision runs, without what differs in any two: the image is its source's. */
function textOf(revision: Revision): string {
  const { scaling, timeout, serviceAccount, maxInstanceRequestConcurrency, annotations, executionEnvironment, sessionAffinity } = revision
  const containers = revision.containers?.map(({ image: _, ...rest }) => rest)
  return dump({ containers, scaling, timeout, serviceAccount, maxInstanceRequestConcurrency, executionEnvironment, sessionAffinity, annotations }, { lineWidth: -1, skipInvalid: true, sortKeys: true })
}

function Figures({ region, service, one, two }: { region: string; service: Service; one: Revision; two: Revision }) {
  const meters = useQuery('meters', meterList, 2000)
  const isByRequest = service.template.containers[0]?.resources?.cpuIdle !== false
  const of = (revision: Revision) => (meters.data ?? []).find((meter) => meter.revision === shortName(revision.name) && meter.region === region)
  const [a, b] = [of(one), of(two)]
  const total = (meter: Meter) => meter.requestsByClass.reduce((sum, count) => sum + count, 0)
  const rows: [string, (meter: Meter) => string][] = [
    [t('metrics.requests'), (meter) => number(total(meter))],
    [t('metrics.errors'), (meter) => `${number((meter.requestsByClass[5] ?? 0) + (meter.requestsByClass[0] ?? 0))} (${number((100 * ((meter.requestsByClass[5] ?? 0) + (meter.requestsByClass[0] ?? 0))) / Math.max(1, total(meter)), 2)} %)`],
    [t('metrics.p50'), (meter) => `${number(meter.latencyMsP50, 1)} ms`],
    [t('metrics.p99'), (meter) => `${number(meter.latencyMsP99, 1)} ms`],
    [t('difference.starts'), (meter) => number(meter.starts)],
    [t('metrics.billable'), (meter) => `${number(meter.billableSeconds, 1)} s`],
    [t('metrics.cost'), (meter) => `$${number(costOf([meter], region, isByRequest).whole, 6)}`],
    [t('difference.million'), (meter) => (total(meter) ? `$${number((costOf([meter], region, isByRequest).whole / total(meter)) * 1e6, 2)}` : t('none'))],
  ]
  return (
    <>
      <h3 className="difference-part">{t('difference.figures')}</h3>
      <Failure error={meters.error} />
      <div className="table-box">
        <table>
          <thead><tr><th scope="col"><span className="hidden-text">{t('difference.figure')}</span></th><th scope="col" className="number">{shortName(one.name)}</th><th scope="col" className="number">{shortName(two.name)}</th></tr></thead>
          <tbody>
            {rows.map(([name, show]) => (
              <tr key={name}>
                <th scope="row">{name}</th>
                <td className="number">{a ? show(a) : t('none')}</td>
                <td className="number">{b ? show(b) : t('none')}</td>
              </tr>
            ))}
          </tbody>
        </table>
      </div>
      <p className="pad soft small">{t('difference.since')}</p>
    </>
  )
}
