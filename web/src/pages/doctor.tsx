// Doctor: which walls stand around functions on this host, what is missing, and what would give it.
import { doctorGet } from '../api/console'
import { Chip, Command, Failure, Notice, Waiting } from '../parts/basic'
import { Table } from '../parts/table'
import { useQuery } from '../query'
import { t, type Key } from '../texts'
import { visible } from './service/logs'

export function DoctorPage() {
  const found = useQuery('doctor', doctorGet)
  return (
    <>
      <div className="head"><h1>{t('nav.doctor')}</h1></div>
      <div className="stack">
        <Failure error={found.error} />
        {found.waiting && <Waiting />}
        {found.data && (
          <>
            {found.data.missing.length === 0 ? (
              <Notice tone="good" title={t('doctor.whole')} />
            ) : (
              <Notice tone="warn" title={t('doctor.missing')}>
                <ul className="stack tight">{found.data.missing.map((line) => <li key={line}>{visible(line)}</li>)}</ul>
              </Notice>
            )}
            <section className="card" aria-label={t('doctor.walls')}>
              <header><h2>{t('doctor.walls')}</h2></header>
              <Table
                rows={found.data.walls}
                keyOf={(wall) => wall.id}
                columns={[
                  { head: t('doctor.wall'), cell: (wall) => t(`doctor.wall.${wall.id}` as Key) },
                  { head: t('services.state'), cell: (wall) => <Wall value={wall.value} /> },
                ]}
              />
            </section>
            <section className="card" aria-label={t('settings.runtimes')}>
              <header><h2>{t('settings.runtimes')}</h2></header>
              <Table
                rows={found.data.runtimes}
                keyOf={(one) => one.path}
                columns={[
                  { head: t('create.runtime'), kind: 'fit', cell: (one) => one.language },
                  { head: t('settings.version'), kind: 'fit', cell: (one) => one.version },
                  { head: t('doctor.where'), cell: (one) => <code>{visible(one.path)}</code> },
                ]}
              />
              {found.data.skipped.length > 0 && (
                <details>
                  <summary className="pad soft">{t('doctor.skipped', { count: found.data.skipped.length })}</summary>
                  <ul className="pad stack tight small">{found.data.skipped.map((line, i) => <li key={i}>{visible(line)}</li>)}</ul>
                </details>
              )}
            </section>
            {found.data.processor.length > 0 && (
              <section className="card" aria-label={t('doctor.processor')}>
                <header><h2>{t('doctor.processor')}</h2></header>
                <p className="pad soft">{t('doctor.processor.text')}</p>
                <Table
                  rows={found.data.processor}
                  keyOf={(one) => one.name}
                  columns={[
                    { head: t('services.name'), kind: 'fit', cell: (one) => one.name },
                    { head: t('services.state'), cell: (one) => one.state },
                  ]}
                />
              </section>
            )}
            <Command text="tanebi doctor" />
          </>
        )}
      </div>
    </>
  )
}

function Wall({ value }: { value: boolean | number }) {
  if (!value) return <Chip tone="warn" icon="warning">{t('doctor.no')}</Chip>
  return <Chip tone="good" icon="check">{value === true ? t('doctor.yes') : t('doctor.versionOf', { version: value })}</Chip>
}
