import { createRoot } from 'react-dom/client'
import { App } from './app'
import { sessionBegin, sessionGet } from './api/console'
import { linkTake, setSession } from './session'
import './style.css'
import { begin as textsBegin } from './texts'
import { themeBegin } from './theme'

async function start() {
  themeBegin()
  const link = linkTake()
  const signedIn = (link ? sessionBegin({ link }).catch(() => sessionGet()) : sessionGet()).then(setSession, () => setSession(null))
  await Promise.all([textsBegin(), signedIn])
  createRoot(document.getElementById('root') as HTMLElement).render(<App />)
}

void start()
