// Who are you: by the one-time link, or by e-mail and password.
import { useState } from 'react'
import { sessionBegin } from '../api/console'
import { LanguageAndTheme } from '../app'
import { Button, Command, Failure, TextField, useAction } from '../parts/basic'
import { setSession } from '../session'
import { t } from '../texts'

export function SignIn() {
  const [email, setEmail] = useState('')
  const [password, setPassword] = useState('')
  const signIn = useAction(async () => setSession(await sessionBegin({ email, password })))
  return (
    <main className="sign-in">
      <form
        className="card"
        onSubmit={(event) => {
          event.preventDefault()
          void signIn.run()
        }}
      >
        <div className="row apart">
          <span className="brand">
            <img src="/tanebi.svg" alt="" />
            tanebi
          </span>
          <span className="row"><LanguageAndTheme /></span>
        </div>
        <h1>{t('signIn.title')}</h1>
        <p className="soft">{t('signIn.link')}</p>
        <Command text="tanebi env --format json" />
        <TextField label={t('signIn.email')} type="email" autoComplete="username" value={email} onChange={setEmail} required />
        <TextField label={t('signIn.password')} type="password" autoComplete="current-password" value={password} onChange={setPassword} required />
        <Failure error={signIn.error} title={t('signIn.refused')} />
        <Button kind="main" type="submit" busy={signIn.busy}>{t('signIn.do')}</Button>
        <p className="soft small">{t('signIn.notice')}</p>
      </form>
    </main>
  )
}
