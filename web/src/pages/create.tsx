// "Write a function": the form that the article begins with.
import { useState } from 'react'
import { accountList, hostOf, PLACEHOLDER, runtimeList, serviceCreate, serviceSettled, type Service } from '../api/run'
import { sampleOf } from '../samples'
import { gcloud, word } from '../commands'
import { Button, Check, Choices, Command, Failure, SelectField, TextField, useAction, Waiting } from '../parts/basic'
import { useQuery } from '../query'
import { regionText } from '../regions'
import { go, Link } from '../route'
import { own } from '../session'
import { t } from '../texts'
import { TriggerPanes, triggersMake, type TriggerWish } from './triggers'

export function nameWrong(name: string): string | undefined {
  if (!name) return t('create.name.empty')
  return /^[a-z]([a-z0-9-]{0,47}[a-z0-9])?$/.test(name) ? undefined : t('create.name.rule')
}

export function Create() {
  const session = own()
  const [name, setName] = useState('')
  const [region, setRegion] = useState(session.region)
  const [chosen, setRuntime] = useState('')
  const [triggers, setTriggers] = useState<TriggerWish[]>([])
  const [authentication, setAuthentication] = useState('')
  const [billing, setBilling] = useState('request')
  const [scaling, setScaling] = useState('automatic')
  const [min, setMin] = useState('0')
  const [max, setMax] = useState('')
  const [manual, setManual] = useState('1')
  const [ingress, setIngress] = useState<string>('INGRESS_TRAFFIC_ALL')
  const [balancer, setBalancer] = useState(false)
  const [more, setMore] = useState({ memory: '512Mi', cpu: '1', timeout: '300', concurrency: '80', boost: true, account: '', environment: '' })
  const [asked, setAsked] = useState(false)
  const runtimes = useQuery(`runtimes/${region}`, () => runtimeList(region))
  const accounts = useQuery('accounts', accountList)

  const usable = (runtimes.data ?? []).filter((runtime) => sampleOf(runtime.name, 'http'))
  const runtime = chosen || usable.find((one) => one.name === 'python312')?.name || usable[0]?.name || ''
  const sort = triggers.some((wish) => wish.kind !== 'scheduler') ? 'event' : 'http'
  const target = sampleOf(runtime, sort)?.target ?? ''
  const wrong = { name: nameWrong(name), authentication: authentication ? undefined : t('create.authentication.choose'), runtime: runtime ? undefined : t('create.runtime.none') }
  const variables = more.environment.split('\n').map((line) => line.trim()).filter(Boolean)
  const environmentWrong = variables.find((line) => !/^[A-Za-z_][A-Za-z0-9_]*=/.test(line))

  const create = useAction(async () => {
    const service: Omit<Service, 'name'> = {
      ingress: (ingress === 'INGRESS_TRAFFIC_INTERNAL_ONLY' && balancer ? 'INGRESS_TRAFFIC_INTERNAL_LOAD_BALANCER' : ingress) as Service['ingress'] & string,
      invokerIamDisabled: authentication === 'public',
      scaling:
        scaling === 'manual'
          ? { scalingMode: 'MANUAL', manualInstanceCount: Number(manual) }
          : { minInstanceCount: Number(min), ...(max ? { maxInstanceCount: Number(max) } : {}) },
      template: {
        timeout: `${Number(more.timeout)}s`,
        maxInstanceRequestConcurrency: Number(more.concurrency),
        ...(more.account ? { serviceAccount: more.account } : {}),
        containers: [
          {
            image: PLACEHOLDER,
            resources: { limits: { memory: more.memory, cpu: more.cpu }, cpuIdle: billing === 'request', startupCpuBoost: more.boost },
            env: variables.map((line) => ({ name: line.slice(0, line.indexOf('=')), value: line.slice(line.indexOf('=') + 1) })),
          },
        ],
      },
      // The first save finds here what was chosen.
      buildConfig: { functionTarget: target, baseImage: runtime, enableAutomaticUpdates: true },
    }
    await serviceCreate(region, name, service)
    await serviceSettled(region, name)
    await triggersMake(triggers, region, name, authentication !== 'public')
    go(`/services/${region}/${name}/source`)
  })
  const submit = () => {
    setAsked(true)
    if (!Object.values(wrong).some(Boolean) && !environmentWrong) void create.run()
    else document.querySelector<HTMLElement>('[aria-invalid="true"], .wrong')?.scrollIntoView({ block: 'center' })
  }
  const flags = [
    authentication === 'public' ? '--no-invoker-iam-check' : '--invoker-iam-check',
    ingress === 'INGRESS_TRAFFIC_INTERNAL_ONLY' ? `--ingress ${balancer ? 'internal-and-cloud-load-balancing' : 'internal'}` : '',
    billing === 'instance' ? '--no-cpu-throttling' : '',
    scaling === 'manual' ? `--scaling ${manual}` : `${Number(min) ? `--min ${min} ` : ''}${max ? `--max ${max}` : ''}`.trim(),
    variables.length ? `--set-env-vars ${word(variables.join(','))}` : '',
  ].filter(Boolean)

  return (
    <>
      <nav className="crumbs" aria-label={t('path')}>
        <Link to="/services">{t('services.title')}</Link>
        <span aria-hidden="true">/</span>
        <span>{t('create.title')}</span>
      </nav>
      <div className="head"><h1>{t('create.title')}</h1></div>
      <form
        className="form"
        noValidate
        onSubmit={(event) => {
          event.preventDefault()
          submit()
        }}
      >
        <section className="card pad stack">
          <h2>{t('create.configure')}</h2>
          <TextField label={t('create.name')} value={name} onChange={setName} wrong={asked ? wrong.name : undefined} placeholder="sample-function-1" hint={t('create.name.hint')} autoFocus spellCheck={false} />
          <SelectField label={t('create.region')} value={region} onChange={setRegion} options={session.regions.map((one) => ({ value: one, label: regionText(one) }))} />
          <div className="field">
            <span className="legend">{t('create.url')}</span>
            <code>https://{hostOf(name || 'sample-function-1', region)}</code>
          </div>
          {runtimes.waiting ? (
            <Waiting />
          ) : (
            <SelectField
              label={t('create.runtime')}
              value={runtime}
              onChange={setRuntime}
              wrong={asked ? wrong.runtime : undefined}
              hint={t('create.runtime.hint')}
              options={usable.map((one) => ({ value: one.name, label: one.displayName }))}
            />
          )}
          <Failure error={runtimes.error} />
        </section>

        <section className="card pad stack">
          <h2>{t('create.trigger')}</h2>
          <TriggerPanes wishes={triggers} onChange={setTriggers} region={region} />
        </section>

        <section className="card pad stack">
          <Choices
            legend={t('authentication')}
            value={authentication}
            onChange={setAuthentication}
            wrong={asked ? wrong.authentication : undefined}
            options={[
              { value: 'public', label: t('authentication.public'), hint: t('authentication.public.hint') },
              { value: 'required', label: t('authentication.required'), hint: t('authentication.required.hint') },
            ]}
          />
          {authentication === 'required' && <IamAndIap />}
        </section>

        <section className="card pad stack">
          <Choices
            legend={t('billing')}
            value={billing}
            onChange={setBilling}
            options={[
              { value: 'request', label: t('billing.request'), hint: t('billing.request.hint') },
              { value: 'instance', label: t('billing.instance'), hint: t('billing.instance.hint') },
            ]}
          />
        </section>

        <section className="card pad stack">
          <Choices
            legend={t('scaling')}
            value={scaling}
            onChange={setScaling}
            options={[
              { value: 'automatic', label: t('scaling.automatic') },
              { value: 'manual', label: t('scaling.manual') },
            ]}
          />
          <div className="columns">
            {scaling === 'automatic' ? (
              <>
                <TextField label={t('scaling.min')} type="number" min={0} value={min} onChange={setMin} hint={t('scaling.min.hint')} />
                <TextField label={t('scaling.max')} type="number" min={1} value={max} onChange={setMax} placeholder="100" />
              </>
            ) : (
              <TextField label={t('scaling.count')} type="number" min={0} value={manual} onChange={setManual} />
            )}
          </div>
        </section>

        <section className="card pad stack">
          <IngressChoice ingress={ingress} onIngress={setIngress} balancer={balancer} onBalancer={setBalancer} />
        </section>

        <details className="card more">
          <summary>{t('create.more')}</summary>
          <div className="pad stack">
            <h3>{t('create.containers')}</h3>
            <div className="columns">
              <SelectField label={t('create.memory')} value={more.memory} onChange={(memory) => setMore({ ...more, memory })} options={['128Mi', '256Mi', '512Mi', '1Gi', '2Gi', '4Gi', '8Gi'].map((value) => ({ value, label: value.replace('Mi', ' MiB').replace('Gi', ' GiB') }))} />
              <SelectField label="CPU" value={more.cpu} onChange={(cpu) => setMore({ ...more, cpu })} options={['1', '2', '4'].map((value) => ({ value, label: value }))} />
              <TextField label={t('create.timeout')} type="number" min={1} max={3600} value={more.timeout} onChange={(timeout) => setMore({ ...more, timeout })} />
              <TextField label={t('create.concurrency')} type="number" min={1} max={1000} value={more.concurrency} onChange={(concurrency) => setMore({ ...more, concurrency })} />
            </div>
            <Check label={t('create.boost')} hint={t('create.boost.hint')} checked={more.boost} onChange={(boost) => setMore({ ...more, boost })} />
            <div className="field">
              <label htmlFor="environment">{t('create.environment')}</label>
              <textarea id="environment" className="input" rows={3} spellCheck={false} placeholder="NAME=value" value={more.environment} onChange={(event) => setMore({ ...more, environment: event.target.value })} aria-invalid={environmentWrong ? true : undefined} />
              <p className="hint">{t('create.environment.hint')}</p>
              {environmentWrong && <p className="wrong" role="alert">{t('create.environment.wrong', { line: environmentWrong })}</p>}
            </div>
            <h3>{t('create.security')}</h3>
            <SelectField
              label={t('security.account')}
              value={more.account}
              onChange={(account) => setMore({ ...more, account })}
              options={[{ value: '', label: t('create.account.default') }, ...(accounts.data ?? []).map((account) => ({ value: account.email, label: account.email }))]}
            />
          </div>
        </details>

        <Failure error={create.error} title={t('create.failed')} />
        <details>
          <summary className="soft">{t('sameByCommand')}</summary>
          <Command text={[gcloud.deploy(name || 'sample-function-1', region, target, runtime), ...flags].join(' ')} />
        </details>
        <div className="form-foot">
          <Button kind="main" type="submit" busy={create.busy}>{t('create.do')}</Button>
          <Button kind="quiet" onClick={() => go('/services')}>{t('cancel')}</Button>
        </div>
      </form>
    </>
  )
}

/** Which identities are let in: IAM here; IAP is a preview of Google's that is not offered. */
export function IamAndIap() {
  return (
    <div className="stack tight">
      <Check label={t('authentication.iam')} hint={t('authentication.iam.hint')} checked disabled onChange={() => undefined} />
      <Check label={t('authentication.iap')} hint={t('authentication.iap.hint')} checked={false} disabled onChange={() => undefined} />
    </div>
  )
}

export function IngressChoice({ ingress, onIngress, balancer, onBalancer }: { ingress: string; onIngress: (ingress: string) => void; balancer: boolean; onBalancer: (on: boolean) => void }) {
  return (
    <>
      <Choices
        legend={t('ingress')}
        value={ingress}
        onChange={onIngress}
        options={[
          { value: 'INGRESS_TRAFFIC_INTERNAL_ONLY', label: t('ingress.internal'), hint: t('ingress.internal.hint') },
          { value: 'INGRESS_TRAFFIC_ALL', label: t('ingress.all'), hint: t('ingress.all.hint') },
        ]}
      />
      {ingress === 'INGRESS_TRAFFIC_INTERNAL_ONLY' && <Check label={t('ingress.balancer')} checked={balancer} onChange={onBalancer} />}
    </>
  )
}

