// One service: its head and its tabs.
import { lazy, Suspense, useState } from 'react'
import { browserUrl, isPlaceholder, serviceDelete, serviceGet, type Service } from '../api/run'
import { ApiError } from '../api/call'
import { Button, Confirm, Copy, Empty, Failure, Notice, Waiting } from '../parts/basic'
import { Icon } from '../parts/icons'
import { useQuery } from '../query'
import { regionText } from '../regions'
import { go, Link } from '../route'
import { ago, t, time, type Key } from '../texts'
import { StateChip } from './services'
import { TestDialog } from './service/test'

const PAGES = {
  metrics: lazy(() => import('./service/metrics').then((page) => ({ default: page.Metrics }))),
  logs: lazy(() => import('./service/logs').then((page) => ({ default: page.Logs }))),
  revisions: lazy(() => import('./service/revisions').then((page) => ({ default: page.Revisions }))),
  source: lazy(() => import('./service/source').then((page) => ({ default: page.Source }))),
  triggers: lazy(() => import('./triggers').then((page) => ({ default: page.Triggers }))),
  networking: lazy(() => import('./service/networking').then((page) => ({ default: page.Networking }))),
  security: lazy(() => import('./service/security').then((page) => ({ default: page.Security }))),
  yaml: lazy(() => import('./service/yaml').then((page) => ({ default: page.Yaml }))),
} as const

export interface TabProps {
  region: string
  name: string
  service: Service
  /** Reads the service again. */
  again: () => Promise<void>
}

export function ServicePage({ region, name, tab }: { region: string; name: string; tab: string }) {
  const shown = tab in PAGES ? (tab as keyof typeof PAGES) : 'source'
  const found = useQuery(`service/${region}/${name}`, () => serviceGet(region, name), 2000)
  const [dialog, setDialog] = useState<'test' | 'delete' | null>(null)
  const service = found.data
  const Tab = PAGES[shown]
  if (found.error instanceof ApiError && found.error.http === 404) {
    return (
      <section className="card">
        <Empty icon="function" title={t('service.gone', { name })} text={t('service.gone.text')}>
          <Button onClick={() => go('/services')}>{t('services.title')}</Button>
        </Empty>
      </section>
    )
  }
  return (
    <>
      <nav className="crumbs" aria-label={t('path')}>
        <Link to="/services">{t('services.title')}</Link>
        <span aria-hidden="true">/</span>
        <span>{name}</span>
      </nav>
      <div className="service-head">
        <h1>{name}</h1>
        {service && <StateChip service={service} />}
        <span className="grow" />
        <Button icon="flask" onClick={() => setDialog('test')} disabled={!service}>{t('test')}</Button>
        <Button kind="quiet danger" icon="bin" onClick={() => setDialog('delete')} disabled={!service}>{t('delete')}</Button>
      </div>
      <div className="service-facts">
        <span>{t('services.region')}: {regionText(region)}</span>
        {service && <Endpoint service={service} />}
        {service && <span title={time(service.updateTime)}>{t('services.deployed')}: {ago(service.updateTime)}</span>}
      </div>
      <Failure error={found.error} />
      <nav className="tabs" aria-label={t('service.tabs')}>
        {(Object.keys(PAGES) as (keyof typeof PAGES)[]).map((one) => (
          <Link key={one} to={`/services/${region}/${name}/${one}`} aria-current={one === shown ? 'page' : undefined}>
            {t(`tab.${one}` as Key)}
          </Link>
        ))}
      </nav>
      {found.waiting && <Waiting />}
      {service && (
        <Suspense fallback={<Waiting />}>
          <div className="stack">
            {service.terminalCondition?.state === 'CONDITION_FAILED' && shown !== 'source' && (
              <Notice tone="bad" title={t('service.failed')}>{service.terminalCondition.message ?? ''}</Notice>
            )}
            <Tab region={region} name={name} service={service} again={found.again} />
          </div>
        </Suspense>
      )}
      {dialog === 'test' && service && <TestDialog region={region} name={name} service={service} onClose={() => setDialog(null)} />}
      {dialog === 'delete' && (
        <Confirm
          title={t('service.delete', { name })}
          text={t('service.delete.text')}
          action={() => serviceDelete(region, name)}
          onDone={() => go('/services')}
          onClose={() => setDialog(null)}
        />
      )}
    </>
  )
}

/** The URL as Google writes it; the link opens the same service in this browser. */
function Endpoint({ service }: { service: Service }) {
  if (!service.uri) return <span>{t('service.noUrl')}</span>
  return (
    <span className="url">
      {t('create.url')}:{' '}
      <a href={browserUrl(service.uri)} target="_blank" rel="noopener noreferrer">
        {service.uri}
      </a>
      <Icon name="open" />
      <Copy text={service.uri} />
      {isPlaceholder(service) && <span className="soft small">{t('service.placeholder')}</span>}
    </span>
  )
}
