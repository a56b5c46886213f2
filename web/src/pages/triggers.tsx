// What calls a function besides people: the panes that make a trigger, and the service's "Triggers" tab.
import { useState } from 'react'
import { ApiError } from '../api/call'
import {
  bucketList, isTriggerOf, jobCreate, jobDelete, jobDo, jobList, leadsTo, subscriptionCreate, subscriptionDelete, subscriptionList, toBase64, topicCreate, topicList, topicName,
  triggerCreate, triggerDelete, triggerList,
} from '../api/events'
import { accountList, policyGet, policySet, serviceGet, shortName } from '../api/run'
import { Button, Chip, Confirm, Dialog, Empty, Failure, IconButton, Notice, SelectField, TextField, useAction, Waiting } from '../parts/basic'
import { toast } from '../parts/toast'
import { useQuery } from '../query'
import { Link } from '../route'
import { own } from '../session'
import { t, time, type Key } from '../texts'
import { granted } from './service/security'
import type { TabProps } from './service'

const TYPES = ['finalized', 'deleted', 'archived', 'metadataUpdated'] as const

export type TriggerWish =
  | { kind: 'pubsub'; topic: string; account: string }
  | { kind: 'storage'; bucket: string; type: (typeof TYPES)[number]; account: string }
  | { kind: 'scheduler'; schedule: string; zone: string; body: string; account: string }

const computeAccount = () => `${own().projectNumber}-compute@developer.gserviceaccount.com`

function fresh(kind: TriggerWish['kind']): TriggerWish {
  const account = computeAccount()
  if (kind === 'pubsub') return { kind, topic: '', account }
  if (kind === 'storage') return { kind, bucket: '', type: 'finalized', account }
  return { kind, schedule: '0 9 * * *', zone: Intl.DateTimeFormat().resolvedOptions().timeZone || 'Asia/Tokyo', body: '', account }
}

const isWhole = (wish: TriggerWish) => (wish.kind === 'pubsub' ? wish.topic !== '' : wish.kind === 'storage' ? wish.bucket !== '' : wish.schedule !== '')

/** Makes what was wished for; who sends may call the service then. */
export async function triggersMake(wishes: TriggerWish[], region: string, name: string, grants: boolean) {
  for (const wish of wishes.filter(isWhole)) {
    if (grants) await policySet(region, name, granted(await policyGet(region, name), 'roles/run.invoker', `serviceAccount:${wish.account}`))
    const suffix = Math.random().toString(36).slice(2, 8)
    const service = await serviceGet(region, name)
    const isServed = (await triggerList(region)) !== null
    const destination = { cloudRun: { service: name, region, path: '/' } }
    const type = (value: string) => ({ attribute: 'type', value })
    if (wish.kind === 'pubsub') {
      await topicCreate(wish.topic).catch(already)
      if (isServed) {
        const eventFilters = [type('google.cloud.pubsub.topic.v1.messagePublished')]
        await triggerCreate(region, `${name}-${suffix}`, { eventFilters, destination, serviceAccount: wish.account, transport: { pubsub: { topic: topicName(wish.topic) } } })
      } else {
        const pushConfig = { pushEndpoint: service.uri ?? '', oidcToken: { serviceAccountEmail: wish.account, audience: service.uri ?? '' } }
        await subscriptionCreate(`${name}-${suffix}`, { topic: topicName(wish.topic), pushConfig })
      }
    } else if (wish.kind === 'storage') {
      const eventFilters = [type(`google.cloud.storage.object.v1.${wish.type}`), { attribute: 'bucket', value: wish.bucket }]
      await triggerCreate(region, `${name}-${suffix}`, { eventFilters, destination, serviceAccount: wish.account })
    } else {
      const httpTarget = {
        uri: service.uri ?? '',
        httpMethod: 'POST',
        body: toBase64(wish.body),
        headers: { 'Content-Type': 'application/json' },
        oidcToken: { serviceAccountEmail: wish.account, audience: service.uri ?? '' },
      }
      await jobCreate(region, { id: `${name}-${suffix}`, schedule: wish.schedule, timeZone: wish.zone, httpTarget })
    }
  }
}

function already(error: unknown) {
  if (!(error instanceof ApiError) || error.http !== 409) throw error
}

/** The buttons that add a trigger and a pane for each that was added. */
export function TriggerPanes({ wishes, onChange, region }: { wishes: TriggerWish[]; onChange: (wishes: TriggerWish[]) => void; region: string }) {
  const served = useQuery(`eventarc/${region}`, async () => (await triggerList(region)) !== null)
  const change = (at: number, next: TriggerWish) => onChange(wishes.map((wish, i) => (i === at ? next : wish)))
  return (
    <>
      <p className="soft">{t('trigger.text')}</p>
      {wishes.map((wish, i) => (
        <div key={i} className="card pad stack">
          <div className="row apart">
            <h3>{t(`trigger.${wish.kind}` as Key)}</h3>
            <IconButton icon="bin" label={t('trigger.remove')} onClick={() => onChange(wishes.filter((_, at) => at !== i))} />
          </div>
          <Pane wish={wish} onChange={(next) => change(i, next)} />
        </div>
      ))}
      <div className="row">
        <Button kind="small" icon="plus" onClick={() => onChange([...wishes, fresh('pubsub')])}>{t('trigger.add.pubsub')}</Button>
        <Button kind="small" icon="plus" disabled={!served.data} title={served.data ? undefined : t('trigger.notServed')} onClick={() => onChange([...wishes, fresh('storage')])}>{t('trigger.add.storage')}</Button>
        <Button kind="small" icon="plus" onClick={() => onChange([...wishes, fresh('scheduler')])}>{t('trigger.add.scheduler')}</Button>
      </div>
    </>
  )
}

function Pane({ wish, onChange }: { wish: TriggerWish; onChange: (wish: TriggerWish) => void }) {
  const accounts = useQuery('accounts', accountList)
  const topics = useQuery(wish.kind === 'pubsub' ? 'topics' : null, topicList)
  const buckets = useQuery(wish.kind === 'storage' ? 'buckets' : null, bucketList)
  const emails = [...new Set([wish.account, ...(accounts.data ?? []).map((one) => one.email)])]
  return (
    <>
      <div className="columns">
        {wish.kind === 'pubsub' && (
          <div className="field">
            <label htmlFor="topic">{t('trigger.topic')}</label>
            <input id="topic" className="input" list="topics" spellCheck={false} value={wish.topic} onChange={(event) => onChange({ ...wish, topic: event.target.value })} />
            <datalist id="topics">{(topics.data ?? []).map((topic) => <option key={topic.name} value={shortName(topic.name)} />)}</datalist>
            <p className="hint">{t('trigger.topic.hint')}</p>
          </div>
        )}
        {wish.kind === 'storage' && (
          <>
            <SelectField label={t('trigger.type')} value={wish.type} onChange={(type) => onChange({ ...wish, type: type as (typeof TYPES)[number] })} options={TYPES.map((value) => ({ value, label: `google.cloud.storage.object.v1.${value}` }))} />
            <SelectField label={t('trigger.bucket')} value={wish.bucket} onChange={(bucket) => onChange({ ...wish, bucket })} options={[{ value: '', label: t('choose') }, ...(buckets.data ?? []).map((bucket) => ({ value: bucket.name, label: bucket.name }))]} />
          </>
        )}
        {wish.kind === 'scheduler' && (
          <>
            <TextField label={t('trigger.schedule')} value={wish.schedule} onChange={(schedule) => onChange({ ...wish, schedule })} hint={t('trigger.schedule.hint')} spellCheck={false} />
            <TextField label={t('trigger.zone')} value={wish.zone} onChange={(zone) => onChange({ ...wish, zone })} spellCheck={false} />
            <TextField label={t('trigger.body')} value={wish.body} onChange={(body) => onChange({ ...wish, body })} spellCheck={false} />
          </>
        )}
        <SelectField label={t('security.account')} value={wish.account} onChange={(account) => onChange({ ...wish, account })} options={emails.map((email) => ({ value: email, label: email }))} />
      </div>
    </>
  )
}

/** The service's tab. */
export function Triggers({ region, name, service }: TabProps) {
  const [making, setMaking] = useState(false)
  const [removing, setRemoving] = useState<{ text: string; action: () => Promise<unknown> } | null>(null)
  const found = useQuery(
    `triggers/${region}/${name}`,
    async () => {
      const [triggers, subscriptions, jobs] = await Promise.all([triggerList(region), subscriptionList(), jobList([region])])
      return {
        triggers: (triggers ?? []).filter((trigger) => isTriggerOf(trigger, service)),
        subscriptions: subscriptions.filter((subscription) => leadsTo(subscription.pushConfig?.pushEndpoint, service)),
        jobs: jobs.filter((job) => leadsTo(job.httpTarget?.uri, service)),
      }
    },
    3000,
  )
  const run = useAction(async (job: string) => {
    await jobDo(job, 'run')
    toast(t('schedules.ran', { name: shortName(job) }))
    await found.again()
  })
  const isEmpty = found.data && !found.data.triggers.length && !found.data.subscriptions.length && !found.data.jobs.length
  // A subscription that a trigger has made is the trigger's own.
  const owned = new Set((found.data?.triggers ?? []).map((trigger) => trigger.transport?.pubsub?.subscription))
  return (
    <>
      <section className="card" aria-label={t('tab.triggers')}>
        <header>
          <h2 className="grow">{t('tab.triggers')}</h2>
          <Button kind="main" icon="plus" onClick={() => setMaking(true)}>{t('trigger.add')}</Button>
        </header>
        <Failure error={found.error ?? run.error} />
        {found.waiting && <div className="pad"><Waiting /></div>}
        {isEmpty && <Empty icon="event" title={t('trigger.none')} text={t('trigger.none.text')} command={`gcloud scheduler jobs create http ${name}-daily --location ${region} --schedule "0 9 * * *" --time-zone Asia/Tokyo --uri "${service.uri ?? ''}" --oidc-service-account-email ${computeAccount()}`} />}
        {found.data && !isEmpty && (
          <div className="table-box">
            <table>
              <thead><tr><th scope="col">{t('services.name')}</th><th scope="col">{t('trigger.sort')}</th><th scope="col">{t('trigger.what')}</th><th scope="col">{t('services.state')}</th><th scope="col" className="fit"><span className="hidden-text">{t('revisions.actions')}</span></th></tr></thead>
              <tbody>
                {found.data.triggers.map((trigger) => (
                  <tr key={trigger.name}>
                    <td className="name-cell">{shortName(trigger.name)}</td>
                    <td className="fit">Eventarc</td>
                    <td>{trigger.eventFilters.map((filter) => <div key={filter.attribute}><code>{filter.attribute}={filter.value}</code></div>)}{trigger.transport?.pubsub?.topic && <code>{shortName(trigger.transport.pubsub.topic)}</code>}</td>
                    <td><Chip tone="good">{t('state.ready')}</Chip></td>
                    <td className="fit actions"><IconButton icon="bin" label={t('deleteNamed', { name: shortName(trigger.name) })} onClick={() => setRemoving({ text: shortName(trigger.name), action: () => triggerDelete(trigger.name) })} /></td>
                  </tr>
                ))}
                {found.data.subscriptions.filter((one) => !owned.has(one.name)).map((subscription) => (
                  <tr key={subscription.name}>
                    <td className="name-cell">{shortName(subscription.name)}</td>
                    <td className="fit">Pub/Sub</td>
                    <td><Link to={`/topics/${shortName(subscription.topic)}`}>{shortName(subscription.topic)}</Link></td>
                    <td><Chip tone="good">{t('state.ready')}</Chip></td>
                    <td className="fit actions"><IconButton icon="bin" label={t('deleteNamed', { name: shortName(subscription.name) })} onClick={() => setRemoving({ text: shortName(subscription.name), action: () => subscriptionDelete(shortName(subscription.name)) })} /></td>
                  </tr>
                ))}
                {found.data.jobs.map((job) => (
                  <tr key={job.name}>
                    <td className="name-cell">{shortName(job.name)}</td>
                    <td className="fit">Scheduler</td>
                    <td><code>{job.schedule}</code> {job.timeZone} <div className="soft small">{t('schedules.next')}: {time(job.scheduleTime)}</div></td>
                    <td><Chip tone={job.state === 'ENABLED' ? 'good' : 'warn'}>{job.state}</Chip></td>
                    <td className="fit actions">
                      <Button kind="quiet small" icon="play" busy={run.busy} onClick={() => run.run(job.name)}>{t('schedules.run')}</Button>
                      <IconButton icon="bin" label={t('deleteNamed', { name: shortName(job.name) })} onClick={() => setRemoving({ text: shortName(job.name), action: () => jobDelete(job.name) })} />
                    </td>
                  </tr>
                ))}
              </tbody>
            </table>
          </div>
        )}
      </section>
      <p><Link to={`/events?service=${name}`}>{t('trigger.events')}</Link></p>
      {making && <AddTrigger region={region} name={name} grants={!service.invokerIamDisabled} onClose={() => setMaking(false)} onDone={() => { setMaking(false); void found.again() }} />}
      {removing && <Confirm title={t('deleteNamed', { name: removing.text })} text={t('trigger.delete.text')} action={removing.action} onClose={() => setRemoving(null)} onDone={() => { setRemoving(null); void found.again() }} />}
    </>
  )
}

function AddTrigger({ region, name, grants, onClose, onDone }: { region: string; name: string; grants: boolean; onClose: () => void; onDone: () => void }) {
  const [wishes, setWishes] = useState<TriggerWish[]>([])
  const make = useAction(async () => {
    await triggersMake(wishes, region, name, grants)
    toast(t('saved'))
    onDone()
  })
  return (
    <Dialog
      title={t('trigger.add')}
      onClose={onClose}
      foot={<><Button kind="quiet" onClick={onClose}>{t('cancel')}</Button><Button kind="main" busy={make.busy} disabled={!wishes.some(isWhole)} onClick={() => make.run()}>{t('save')}</Button></>}
    >
      <TriggerPanes wishes={wishes} onChange={setWishes} region={region} />
      {grants && <Notice>{t('trigger.grants')}</Notice>}
      <Failure error={make.error} />
    </Dialog>
  )
}

