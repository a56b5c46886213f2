// IAM: who has which role on the project, and its service accounts.
import { useState } from 'react'
import { accountList, projectPolicyGet, projectPolicySet, type Policy } from '../api/run'
import { Button, Failure, IconButton, SameByCommand, TextField, useAction, Waiting } from '../parts/basic'
import { Table } from '../parts/table'
import { toast } from '../parts/toast'
import { useQuery } from '../query'
import { own } from '../session'
import { t } from '../texts'
import { granted, memberOf, without } from './service/security'
import { WhyDenied } from './why-denied'

const ROLES = ['roles/viewer', 'roles/editor', 'roles/owner', 'roles/run.invoker', 'roles/run.viewer', 'roles/run.developer', 'roles/run.admin', 'roles/pubsub.publisher', 'roles/pubsub.editor', 'roles/storage.objectViewer', 'roles/storage.objectAdmin', 'roles/cloudscheduler.admin', 'roles/logging.viewer', 'roles/secretmanager.secretAccessor']

export function Access() {
  const policy = useQuery('policy', projectPolicyGet)
  const accounts = useQuery('accounts', accountList)
  const [member, setMember] = useState('')
  const [role, setRole] = useState('roles/run.invoker')
  const change = useAction(async (next: (policy: Policy) => Policy) => {
    await projectPolicySet(next(await projectPolicyGet()))
    await policy.again()
    toast(t('saved'))
  })
  const rows = (policy.data?.bindings ?? []).flatMap((binding) => binding.members.map((one) => ({ role: binding.role, member: one }))).sort((one, other) => one.member.localeCompare(other.member))
  const wanted = memberOf(member)
  return (
    <>
      <div className="head"><h1>{t('nav.access')}</h1></div>
      <div className="stack">
        <section className="card" aria-label={t('access.policy')}>
          <header><h2>{t('access.policy')}</h2></header>
          <Failure error={policy.error} />
          {policy.waiting && <div className="pad"><Waiting /></div>}
          <Table
            rows={rows}
            keyOf={(row) => `${row.role} ${row.member}`}
            columns={[
              { head: t('security.principal'), cell: (row) => row.member },
              { head: t('security.role'), cell: (row) => <code>{row.role}</code> },
            ]}
            actions={(row) => <IconButton icon="bin" label={t('security.revoke', { member: row.member })} disabled={row.role === 'roles/owner' && row.member === `user:${own().email}`} onClick={() => change.run((now) => without(now, row.role, row.member))} />}
          />
          <div className="pad stack">
            <form className="row" onSubmit={async (event) => { event.preventDefault(); if (wanted && role && (await change.run((now) => granted(now, role, wanted)))) setMember('') }}>
              <div className="grow"><TextField label={t('security.add')} value={member} onChange={setMember} placeholder="user:alice@example.com" spellCheck={false} /></div>
              <div className="field">
                <label htmlFor="role">{t('security.role')}</label>
                <input id="role" className="input" list="roles" value={role} spellCheck={false} onChange={(event) => setRole(event.target.value)} />
                <datalist id="roles">{ROLES.map((one) => <option key={one} value={one} />)}</datalist>
              </div>
              <div style={{ alignSelf: 'end' }}><Button type="submit" kind="main" disabled={!wanted || !role} busy={change.busy}>{t('security.grant')}</Button></div>
            </form>
            <Failure error={change.error} />
            <SameByCommand text={`gcloud projects add-iam-policy-binding ${own().project} --member=${wanted || 'user:alice@example.com'} --role=${role}`} />
          </div>
        </section>
        <section className="card" aria-label={t('access.accounts')}>
          <header><h2>{t('access.accounts')}</h2></header>
          <Failure error={accounts.error} />
          <Table
            rows={accounts.data ?? []}
            keyOf={(account) => account.email}
            columns={[
              { head: t('signIn.email'), cell: (account) => account.email },
              { head: t('services.name'), cell: (account) => account.displayName },
            ]}
          />
          <div className="pad"><SameByCommand text="gcloud iam service-accounts create my-account" /></div>
        </section>
        <WhyDenied />
      </div>
    </>
  )
}
