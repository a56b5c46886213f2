// "Security": who may call, and who the function is.
import { useState } from 'react'
import { accountList, policyGet, policySet, serviceUpdate, type Policy } from '../../api/run'
import { gcloud } from '../../commands'
import { Button, Chip, Choices, Failure, IconButton, Notice, SameByCommand, SelectField, TextField, useAction, Waiting } from '../../parts/basic'
import { toast } from '../../parts/toast'
import { useQuery } from '../../query'
import { t } from '../../texts'
import { IamAndIap } from '../create'
import type { TabProps } from '../service'

const INVOKER = 'roles/run.invoker'
const ROLES = [INVOKER, 'roles/run.viewer', 'roles/run.developer', 'roles/run.admin']

export function Security({ region, name, service, again }: TabProps) {
  const [authentication, setAuthentication] = useState(service.invokerIamDisabled ? 'public' : 'required')
  const accounts = useQuery('accounts', accountList)
  const [account, setAccount] = useState(service.template.serviceAccount ?? '')
  const isPublic = authentication === 'public'
  const save = useAction(async () => {
    await serviceUpdate(region, name, { invokerIamDisabled: isPublic }, ['invoker_iam_disabled'])
    await again()
    toast(t('saved'))
  })
  const saveAccount = useAction(async () => {
    await serviceUpdate(region, name, { template: { ...service.template, serviceAccount: account, revision: '' } }, ['template.service_account', 'template.revision'])
    await again()
    toast(t('saved'))
  })
  const emails = [...new Set([account, ...(accounts.data ?? []).map((one) => one.email)])].filter(Boolean)
  return (
    <>
      <section className="card pad stack">
        <Choices
          legend={t('authentication')}
          value={authentication}
          onChange={setAuthentication}
          options={[
            { value: 'public', label: t('authentication.public'), hint: t('authentication.public.hint') },
            { value: 'required', label: t('authentication.required'), hint: t('authentication.required.hint') },
          ]}
        />
        {!isPublic && <IamAndIap />}
        <SameByCommand text={gcloud.invoker(name, region, isPublic)} />
        <Failure error={save.error} />
        <div className="row">
          <Button kind="main" busy={save.busy} disabled={isPublic === Boolean(service.invokerIamDisabled)} onClick={() => save.run()}>{t('save')}</Button>
        </div>
      </section>
      <Callers region={region} name={name} isPublic={Boolean(service.invokerIamDisabled)} />
      <section className="card pad stack">
        <h2>{t('security.account')}</h2>
        <p className="soft">{t('security.account.text')}</p>
        <SelectField label={t('security.account')} value={account} onChange={setAccount} options={emails.map((email) => ({ value: email, label: email }))} />
        <SameByCommand text={gcloud.account(name, region, account)} />
        <Failure error={saveAccount.error} />
        <div className="row">
          <Button kind="main" busy={saveAccount.busy} disabled={account === service.template.serviceAccount} onClick={() => saveAccount.run()}>{t('save')}</Button>
        </div>
      </section>
    </>
  )
}

function Callers({ region, name, isPublic }: { region: string; name: string; isPublic: boolean }) {
  const policy = useQuery(`policy/${region}/${name}`, () => policyGet(region, name))
  const [member, setMember] = useState('')
  const [role, setRole] = useState(INVOKER)
  const change = useAction(async (next: (policy: Policy) => Policy) => {
    await policySet(region, name, next(await policyGet(region, name)))
    await policy.again()
    toast(t('saved'))
  })
  const rows = (policy.data?.bindings ?? []).flatMap((binding) => binding.members.map((one) => ({ role: binding.role, member: one })))
  const wanted = memberOf(member)
  return (
    <section className="card" aria-label={t('security.callers')}>
      <header>
        <h2 className="grow">{t('security.callers')}</h2>
      </header>
      <div className="pad stack">
        {isPublic && <Notice tone="warn">{t('security.callers.public')}</Notice>}
        {rows.some((row) => row.member === 'allUsers' && row.role === INVOKER) && !isPublic && <Notice tone="warn">{t('security.callers.all')}</Notice>}
        {policy.waiting && <Waiting />}
        <Failure error={policy.error} />
        {policy.data && rows.length === 0 && <p className="soft">{t('security.callers.none')}</p>}
        {rows.length > 0 && (
          <div className="table-box">
            <table>
              <thead>
                <tr>
                  <th scope="col">{t('security.principal')}</th>
                  <th scope="col">{t('security.role')}</th>
                  <th scope="col" className="fit"><span className="hidden-text">{t('delete')}</span></th>
                </tr>
              </thead>
              <tbody>
                {rows.map((row) => (
                  <tr key={`${row.role} ${row.member}`}>
                    <td>{row.member}</td>
                    <td><code>{row.role}</code>{row.role === INVOKER && <> <Chip>{t('security.invoker')}</Chip></>}</td>
                    <td className="fit actions">
                      <IconButton icon="bin" label={t('security.revoke', { member: row.member })} onClick={() => change.run((now) => without(now, row.role, row.member))} />
                    </td>
                  </tr>
                ))}
              </tbody>
            </table>
          </div>
        )}
        <form
          className="row"
          onSubmit={async (event) => {
            event.preventDefault()
            if (wanted && (await change.run((now) => granted(now, role, wanted)))) setMember('')
          }}
        >
          <div className="grow"><TextField label={t('security.add')} value={member} onChange={setMember} placeholder="user:alice@example.com" hint={t('security.add.hint')} spellCheck={false} /></div>
          <SelectField label={t('security.role')} value={role} onChange={setRole} options={ROLES.map((value) => ({ value, label: value }))} hint={<>&nbsp;</>} />
          <Button type="submit" kind="main" disabled={!wanted} busy={change.busy}>{t('security.grant')}</Button>
        </form>
        <Failure error={change.error} />
        <SameByCommand text={gcloud.grant(name, region, wanted || 'allUsers')} />
      </div>
    </section>
  )
}

/** An address alone is a person's, or a service account's. */
export function memberOf(text: string): string {
  const trimmed = text.trim()
  if (!trimmed || trimmed.includes(':') || trimmed === 'allUsers' || trimmed === 'allAuthenticatedUsers') return trimmed
  return trimmed.endsWith('gserviceaccount.com') ? `serviceAccount:${trimmed}` : `user:${trimmed}`
}

export function granted(policy: Policy, role: string, member: string): Policy {
  const bindings = [...(policy.bindings ?? [])]
  const at = bindings.findIndex((binding) => binding.role === role)
  const found = bindings[at]
  if (!found) bindings.push({ role, members: [member] })
  else if (!found.members.includes(member)) bindings[at] = { ...found, members: [...found.members, member] }
  return { ...policy, bindings }
}

export function without(policy: Policy, role: string, member: string): Policy {
  const bindings = (policy.bindings ?? [])
    .map((binding) => (binding.role === role ? { ...binding, members: binding.members.filter((one) => one !== member) } : binding))
    .filter((binding) => binding.members.length > 0)
  return { ...policy, bindings }
}
