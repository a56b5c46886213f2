// The list of services.
import { useEffect, useMemo, useRef, useState } from 'react'
import { meterList } from '../api/console'
import { isPlaceholder, kindOf, regionOf, runtimeOf, serviceList, shortName, type Service } from '../api/run'
import { Button, Chip, Empty, Failure, Waiting } from '../parts/basic'
import { useQuery } from '../query'
import { go, Link, setQuery, usePlace } from '../route'
import { own } from '../session'
import { ago, number, t, time } from '../texts'

/** Nobody reads more rows: the filter finds the others. */
const SHOWN_MAX = 100

export const deployCommand = () =>
  `gcloud run deploy sample-function-1 --source . --function hello_http --base-image python312 --region ${own().region} --no-invoker-iam-check`

export function Services() {
  // Thousands are not read again every few seconds.
  const [every, setEvery] = useState(3000)
  const services = useQuery('services', serviceList, every)
  const count = services.data?.length ?? 0
  useEffect(() => setEvery(count > 300 ? 30_000 : 3000), [count])
  const rates = useRates()
  const wanted = usePlace().query.get('q') ?? ''
  // Sorted and lowered once, not at each key: names are ASCII.
  const list = useMemo(() => {
    const all = (services.data ?? []).filter((service) => !service.deleteTime)
    const written = all.map((service) => ({ service, name: shortName(service.name), text: `${shortName(service.name)} ${regionOf(service.name)} ${runtimeOf(service)}`.toLowerCase() }))
    return written.sort((one, other) => (one.name < other.name ? -1 : one.name > other.name ? 1 : 0))
  }, [services.data])
  const found = useMemo(() => {
    const words = wanted.toLowerCase().split(/\s+/).filter(Boolean)
    return list.filter(({ text }) => words.every((word) => text.includes(word)))
  }, [list, wanted])
  const isEmpty = services.data !== undefined && count === 0
  return (
    <>
      <div className="head">
        <h1>{t('services.title')}</h1>
        <span className="space" />
        <Button kind="main" icon="plus" onClick={() => go('/services/new')}>{t('create.open')}</Button>
      </div>
      <Failure error={services.error} />
      {services.waiting && <Waiting />}
      {isEmpty && (
        <section className="card">
          <Empty icon="function" title={t('services.none')} text={t('services.teach')} command={deployCommand()}>
            <Button kind="main" icon="plus" onClick={() => go('/services/new')}>{t('create.open')}</Button>
          </Empty>
        </section>
      )}
      {services.data && !isEmpty && (
        <section className="card" aria-label={t('services.title')}>
          <header>
            <input className="input grow" type="search" aria-label={t('services.search')} placeholder={t('services.search')} defaultValue={wanted} onChange={(event) => setQuery('q', event.target.value)} />
            <span className="soft small" role="status">{t('services.count', { count: found.length })}</span>
          </header>
          <div className="table-box">
            <table>
              <thead>
                <tr>
                  <th scope="col">{t('services.name')}</th>
                  <th scope="col">{t('services.kind')}</th>
                  <th scope="col" className="number">{t('services.rate')}</th>
                  <th scope="col">{t('services.region')}</th>
                  <th scope="col">{t('services.authentication')}</th>
                  <th scope="col">{t('services.ingress')}</th>
                  <th scope="col">{t('services.deployed')}</th>
                  <th scope="col">{t('services.state')}</th>
                </tr>
              </thead>
              <tbody>
                {found.slice(0, SHOWN_MAX).map(({ service }) => (
                  <Row key={service.name} service={service} rate={rates[`${regionOf(service.name)}/${shortName(service.name)}`]} />
                ))}
              </tbody>
            </table>
          </div>
          {found.length > SHOWN_MAX && <p className="pad soft small">{t('services.more', { count: found.length - SHOWN_MAX })}</p>}
        </section>
      )}
    </>
  )
}

function Row({ service, rate }: { service: Service; rate: number | undefined }) {
  const name = shortName(service.name)
  const region = regionOf(service.name)
  const runtime = runtimeOf(service)
  return (
    <tr>
      <td className="name-cell"><Link to={`/services/${region}/${name}`}>{name}</Link></td>
      <td className="fit">
        {t(`kind.${kindOf(service)}`)}
        {runtime && <span className="soft small"> · {runtime}</span>}
      </td>
      <td className="number">{rate === undefined ? '0' : number(rate, rate < 10 ? 2 : 0)}</td>
      <td className="fit">{region}</td>
      <td className="fit">{service.invokerIamDisabled ? t('authentication.public.short') : t('authentication.required.short')}</td>
      <td className="fit">{t(ingressKey(service.ingress))}</td>
      <td className="fit" title={time(service.updateTime)}>{ago(service.updateTime)}</td>
      <td className="fit"><StateChip service={service} /></td>
    </tr>
  )
}

export function StateChip({ service }: { service: Service }) {
  if (service.reconciling) return <Chip tone="info">{t('state.deploying')}</Chip>
  if (service.terminalCondition?.state === 'CONDITION_FAILED') return <Chip tone="bad" icon="warning">{t('state.failed')}</Chip>
  if (isPlaceholder(service)) return <Chip tone="warn">{t('state.noSource')}</Chip>
  return <Chip tone="good" icon="check">{t('state.ready')}</Chip>
}

export function ingressKey(ingress: Service['ingress']) {
  switch (ingress) {
    case 'INGRESS_TRAFFIC_INTERNAL_ONLY':
      return 'ingress.internal'
    case 'INGRESS_TRAFFIC_INTERNAL_LOAD_BALANCER':
      return 'ingress.balancer.short'
    case 'INGRESS_TRAFFIC_NONE':
      return 'ingress.none'
    default:
      return 'ingress.all'
  }
}

/** Requests a second of each service, between the last two looks. */
function useRates(): Record<string, number> {
  const last = useRef<{ at: number; counts: Map<string, number>; rates: Record<string, number> }>({ at: 0, counts: new Map(), rates: {} })
  useQuery(
    'meters.rates',
    async () => {
      const counts = new Map<string, number>()
      for (const meter of await meterList()) {
        const key = `${meter.region}/${meter.service}`
        counts.set(key, (counts.get(key) ?? 0) + meter.requestsByClass.reduce((sum, one) => sum + one, 0))
      }
      const now = performance.now()
      const { at, counts: before } = last.current
      const rates: Record<string, number> = {}
      if (at) for (const [key, count] of counts) rates[key] = Math.max(0, count - (before.get(key) ?? 0)) / ((now - at) / 1000)
      last.current = { at: now, counts, rates }
      return now
    },
    2000,
  )
  return last.current.rates
}
