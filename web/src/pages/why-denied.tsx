// Why a call was not let in: of a request that was, or of a caller that may come.
import { useState } from 'react'
import { accessWhy, type Why } from '../api/access'
import { serviceList, regionOf, shortName } from '../api/run'
import { Button, Choices, Command, Failure, Notice, SelectField, TextField, useAction } from '../parts/basic'
import { word } from '../commands'
import { useQuery } from '../query'
import { usePlace } from '../route'
import { own } from '../session'
import { t, time } from '../texts'
import { visible } from './service/logs'
import { memberOf } from './service/security'

const INVOKE = 'run.routes.invoke'

export function WhyDenied() {
  const asked = usePlace().query.get('request')
  const [by, setBy] = useState<string>(asked ? 'request' : 'caller')
  const [request, setRequest] = useState(asked ?? '')
  const [caller, setCaller] = useState('')
  const [service, setService] = useState('')
  const [permission, setPermission] = useState(INVOKE)
  const [from, setFrom] = useState('outside')
  const [found, setFound] = useState<Why | null>(null)
  const services = useQuery('services', serviceList)
  const names = (services.data ?? []).map((one) => `${regionOf(one.name)}/${shortName(one.name)}`).sort()
  const principal = memberOf(caller)
  const [region = '', name = ''] = service.split('/')
  const ask = useAction(async () => {
    setFound(null)
    setFound(await accessWhy(by === 'request' ? { request } : { principal, permission, ...(service ? { service: name, region, from } : {}) }))
  })
  const isWhole = by === 'request' ? request !== '' : principal !== '' && permission !== ''
  const command =
    by === 'request'
      ? `tanebi iam why-denied --request ${word(request || 'TRACE')}`
      : `tanebi iam why-denied --principal ${word(principal || 'user:alice@example.com')}${service ? ` --service ${name} --region ${region}${from === 'inside' ? ' --inside' : ''}` : ''}${permission === INVOKE ? '' : ` --permission ${word(permission)}`}`
  return (
    <section className="card" aria-label={t('why.title')}>
      <header><h2>{t('why.title')}</h2></header>
      <form className="pad stack" onSubmit={(event) => { event.preventDefault(); if (isWhole) void ask.run() }}>
        <Choices
          legend={t('why.by')}
          value={by}
          onChange={setBy}
          options={[{ value: 'caller', label: t('why.by.caller') }, { value: 'request', label: t('why.by.request'), hint: t('why.by.request.hint') }]}
        />
        {by === 'request' ? (
          <TextField label={t('why.trace')} value={request} onChange={setRequest} spellCheck={false} />
        ) : (
          <div className="columns">
            <TextField label={t('security.principal')} value={caller} onChange={setCaller} placeholder="user:alice@example.com" spellCheck={false} />
            <SelectField label={t('events.service')} value={service} onChange={setService} options={[{ value: '', label: t('why.project') }, ...names.map((one) => ({ value: one, label: one }))]} />
            <TextField label={t('why.permission')} value={permission} onChange={setPermission} spellCheck={false} />
            <SelectField label={t('why.from')} value={from} onChange={setFrom} options={[{ value: 'outside', label: t('why.from.outside') }, { value: 'inside', label: t('why.from.inside') }]} />
          </div>
        )}
        <div className="row"><Button type="submit" kind="main" disabled={!isWhole} busy={ask.busy}>{t('why.ask')}</Button></div>
        <Failure error={ask.error} />
        {found && <Answer found={found} />}
        <Command text={command} />
      </form>
    </section>
  )
}

function Answer({ found }: { found: Why }) {
  const what = { who: found.principal, permission: found.permission, resource: found.resource.replace(`projects/${own().project}/`, '') }
  const isGood = found.allowed || found.allowedNow === true
  return (
    <Notice tone={isGood ? 'good' : 'warn'} title={found.time ? t('why.was', { ...what, time: time(found.time) }) : t(found.allowed ? 'why.may' : 'why.mayNot', what)}>
      {found.invokerIamDisabled && <p>{t('why.open')}</p>}
      {(found.grants ?? []).map((grant, i) => <p key={i}>{t('why.grant', { role: grant.role, policy: grant.policy })}</p>)}
      {found.reasons.map((reason, i) => (
        <div key={i} className="stack tight">
          <p><code>{reason.kind}</code> {visible(reason.message)}</p>
          {reason.fix && <Command text={visible(reason.fix)} />}
        </div>
      ))}
    </Notice>
  )
}
