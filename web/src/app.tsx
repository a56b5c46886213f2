// The frame around every page, and which page an address shows.
import { lazy, Suspense, useEffect, useState, type ReactNode } from 'react'
import { sessionEnd } from './api/console'
import { IconButton, Waiting } from './parts/basic'
import { Icon, type IconName } from './parts/icons'
import { Toasts } from './parts/toast'
import { go, Link, usePlace } from './route'
import { setSession, useSession } from './session'
import { choose, t, useLanguage, type Key } from './texts'
import { themeChoose, useTheme } from './theme'
import { Services } from './pages/services'
import { SignIn } from './pages/sign-in'

const Create = lazy(() => import('./pages/create').then((page) => ({ default: page.Create })))
const ServicePage = lazy(() => import('./pages/service').then((page) => ({ default: page.ServicePage })))
const Topics = lazy(() => import('./pages/topics').then((page) => ({ default: page.Topics })))
const Topic = lazy(() => import('./pages/topics').then((page) => ({ default: page.TopicPage })))
const Buckets = lazy(() => import('./pages/buckets').then((page) => ({ default: page.Buckets })))
const Bucket = lazy(() => import('./pages/buckets').then((page) => ({ default: page.BucketPage })))
const Schedules = lazy(() => import('./pages/schedules').then((page) => ({ default: page.Schedules })))
const Events = lazy(() => import('./pages/events').then((page) => ({ default: page.Events })))
const Access = lazy(() => import('./pages/access').then((page) => ({ default: page.Access })))
const Doctor = lazy(() => import('./pages/doctor').then((page) => ({ default: page.DoctorPage })))
const Settings = lazy(() => import('./pages/settings').then((page) => ({ default: page.Settings })))

const PLACES: { to: string; icon: IconName; text: Key; group: Key }[] = [
  { to: '/services', icon: 'function', text: 'nav.services', group: 'nav.run' },
  { to: '/topics', icon: 'topic', text: 'nav.topics', group: 'nav.triggers' },
  { to: '/buckets', icon: 'bucket', text: 'nav.buckets', group: 'nav.triggers' },
  { to: '/schedules', icon: 'clock', text: 'nav.schedules', group: 'nav.triggers' },
  { to: '/events', icon: 'event', text: 'nav.events', group: 'nav.triggers' },
  { to: '/access', icon: 'person', text: 'nav.access', group: 'nav.project' },
  { to: '/doctor', icon: 'pulse', text: 'nav.doctor', group: 'nav.project' },
  { to: '/settings', icon: 'gear', text: 'nav.settings', group: 'nav.project' },
]

export function App() {
  const language = useLanguage()
  const session = useSession()
  if (session === undefined) return null
  return (
    <>
      {session ? <Frame key={language} /> : <SignIn key={language} />}
      <Toasts />
    </>
  )
}

function Frame() {
  const { path } = usePlace()
  const session = useSession()
  const [open, setOpen] = useState(false)
  useEffect(() => setOpen(false), [path])
  useEffect(() => {
    if (path === '/') go('/services', 'replace')
  }, [path])
  useEffect(() => {
    document.title = titleOf(path)
  }, [path])
  const signOut = async () => {
    await sessionEnd().catch(() => undefined)
    setSession(null)
  }
  return (
    <div className="frame">
      <a className="skip" href="#content">{t('skip')}</a>
      <header className="bar">
        <span className="menu-button">
          <IconButton icon="menu" label={t('menu')} aria-expanded={open} onClick={() => setOpen(!open)} />
        </span>
        <Link to="/services" className="brand">
          <img src="/tanebi.svg" alt="" />
          tanebi
        </Link>
        <span className="project" title={t('project')}>{session?.project}</span>
        <span className="space" />
        <LanguageAndTheme />
        <span className="who soft small">{session?.email}</span>
        <IconButton icon="out" label={t('signOut')} onClick={signOut} />
      </header>
      <nav className={`side ${open ? 'open' : ''}`} aria-label={t('menu')}>
        {[...new Set(PLACES.map((place) => place.group))].map((group) => (
          <div key={group}>
            <h2>{t(group)}</h2>
            {PLACES.filter((place) => place.group === group).map((place) => (
              <Link key={place.to} to={place.to} aria-current={path === place.to || path.startsWith(`${place.to}/`) ? 'page' : undefined}>
                <Icon name={place.icon} />
                {t(place.text)}
              </Link>
            ))}
          </div>
        ))}
      </nav>
      <main id="content" tabIndex={-1}>
        <Suspense fallback={<Waiting />}>{pageOf(path)}</Suspense>
      </main>
    </div>
  )
}

/** What the browser's tab says. */
function titleOf(path: string): string {
  const [first = '', second = '', third = '', tab = ''] = path.split('/').slice(1).map(decodeURIComponent)
  const place = PLACES.find((one) => one.to === `/${first}`)
  const parts = [first === 'services' ? third : second, tab && t(`tab.${tab}` as Key), second === 'new' ? t('create.title') : place ? t(place.text) : '', 'tanebi']
  return parts.filter((part) => part && part !== 'new').join(' – ')
}

export function LanguageAndTheme() {
  const language = useLanguage()
  const theme = useTheme()
  return (
    <>
      <span className="segments" role="group" aria-label={t('language')}>
        <button type="button" lang="ja" aria-pressed={language === 'ja'} onClick={() => choose('ja')}>日本語</button>
        <button type="button" lang="en" aria-pressed={language === 'en'} onClick={() => choose('en')}>English</button>
      </span>
      <IconButton icon={theme === 'dark' ? 'sun' : 'moon'} label={t(theme === 'dark' ? 'theme.light' : 'theme.dark')} onClick={() => themeChoose(theme === 'dark' ? 'light' : 'dark')} />
    </>
  )
}

function pageOf(path: string): ReactNode {
  const [first = '', second = '', third = '', fourth = ''] = path.split('/').slice(1).map(decodeURIComponent)
  switch (first) {
    case 'services':
      if (second === 'new') return <Create />
      if (second && third) return <ServicePage key={`${second}/${third}`} region={second} name={third} tab={fourth} />
      return <Services />
    case 'topics':
      return second ? <Topic key={second} name={second} /> : <Topics />
    case 'buckets':
      return second ? <Bucket key={second} name={second} /> : <Buckets />
    case 'schedules':
      return <Schedules />
    case 'events':
      return <Events />
    case 'access':
      return <Access />
    case 'doctor':
      return <Doctor />
    case 'settings':
      return <Settings />
    case '':
      return null
    default:
      return <h1>{t('nothingHere')}</h1>
  }
}
