// Settings: how other tools reach this server, and how this page looks.
import { LanguageAndTheme } from '../app'
import { runtimeList } from '../api/run'
import { Chip, Command, Failure, Waiting } from '../parts/basic'
import { Table } from '../parts/table'
import { useQuery } from '../query'
import { own } from '../session'
import { t } from '../texts'

export function Settings() {
  const session = own()
  const runtimes = useQuery(`runtimes/${session.region}`, () => runtimeList(session.region))
  return (
    <>
      <div className="head"><h1>{t('nav.settings')}</h1></div>
      <div className="stack">
        <section className="card pad stack">
          <h2>{t('settings.server')}</h2>
          <dl className="facts">
            <dt>{t('settings.version')}</dt><dd>tanebi {session.version}</dd>
            <dt>{t('project')}</dt><dd>{session.project} ({session.projectNumber})</dd>
            <dt>{t('settings.region')}</dt><dd>{session.region}</dd>
            <dt>{t('settings.who')}</dt><dd>{session.email}</dd>
            <dt>{t('settings.proxy')}</dt><dd><code>{session.proxy}</code></dd>
            <dt>{t('settings.ca')}</dt><dd><code>{session.caFile}</code></dd>
          </dl>
        </section>
        <section className="card pad stack">
          <h2>{t('settings.shell')}</h2>
          <p className="soft">{t('settings.shell.text')}</p>
          <Command text={'eval "$(tanebi env)"\ngcloud run services list'} />
        </section>
        <section className="card pad stack">
          <h2>{t('settings.look')}</h2>
          <div className="row"><LanguageAndTheme /></div>
        </section>
        <section className="card" aria-label={t('settings.runtimes')}>
          <header><h2>{t('settings.runtimes')}</h2></header>
          <Failure error={runtimes.error} />
          {runtimes.waiting && <div className="pad"><Waiting /></div>}
          <Table
            rows={runtimes.data ?? []}
            keyOf={(runtime) => runtime.name}
            columns={[
              { head: t('create.runtime'), cell: (runtime) => runtime.displayName },
              { head: 'ID', cell: (runtime) => <code>{runtime.name}</code> },
              { head: t('services.state'), cell: (runtime) => <><Chip tone={runtime.stage === 'GA' ? 'good' : 'warn'}>{runtime.stage}</Chip> <span className="soft small">{(runtime.warnings ?? []).join(' ')}</span></> },
            ]}
          />
        </section>
      </div>
    </>
  )
}
