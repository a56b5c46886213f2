// Pub/Sub: topics, their subscriptions, publishing and looking at messages.
import { useState } from 'react'
import { fromBase64, subscriptionAck, subscriptionCreate, subscriptionDelete, subscriptionList, subscriptionPull, toBase64, topicCreate, topicDelete, topicList, topicName, topicPublish, type Message } from '../api/events'
import { shortName } from '../api/run'
import { Button, Chip, Confirm, Dialog, Empty, Failure, IconButton, SameByCommand, TextField, useAction } from '../parts/basic'
import { ListCard, Table } from '../parts/table'
import { toast } from '../parts/toast'
import { useQuery } from '../query'
import { go, Link } from '../route'
import { t, time } from '../texts'
import { visible } from './service/logs'

export function Topics() {
  const topics = useQuery('topics', topicList, 4000)
  const subscriptions = useQuery('subscriptions', subscriptionList, 4000)
  const [making, setMaking] = useState(false)
  return (
    <>
      <div className="head">
        <h1>{t('nav.topics')}</h1>
        <span className="space" />
        <Button kind="main" icon="plus" onClick={() => setMaking(true)}>{t('topics.create')}</Button>
      </div>
      <ListCard
        label={t('nav.topics')}
        query={topics}
        rows={(all) => [...all].sort((one, other) => one.name.localeCompare(other.name))}
        empty={{ icon: 'topic', title: t('topics.none'), text: t('topics.none.text'), command: 'gcloud pubsub topics create my-topic' }}
        keyOf={(topic) => topic.name}
        columns={[
          { head: t('topics.name'), kind: 'name', cell: (topic) => <Link to={`/topics/${shortName(topic.name)}`}>{shortName(topic.name)}</Link> },
          { head: t('topics.subscriptions'), kind: 'number', cell: (topic) => (subscriptions.data ?? []).filter((one) => one.topic === topic.name).length },
          { head: t('topics.retention'), cell: (topic) => topic.messageRetentionDuration ?? t('none') },
        ]}
      />
      {making && <CreateDialog title={t('topics.create')} label={t('topics.name')} action={topicCreate} command={(name) => `gcloud pubsub topics create ${name}`} onClose={() => setMaking(false)} onDone={(name) => go(`/topics/${name}`)} />}
    </>
  )
}

export function TopicPage({ name }: { name: string }) {
  const subscriptions = useQuery('subscriptions', subscriptionList, 4000)
  const [dialog, setDialog] = useState<'subscription' | 'delete' | { pull: string } | { remove: string } | null>(null)
  const [text, setText] = useState('')
  const publish = useAction(async () => {
    const { messageIds } = await topicPublish(name, [{ data: toBase64(text) }])
    toast(t('topics.published', { id: messageIds[0] ?? '' }))
    setText('')
  })
  const own = (subscriptions.data ?? []).filter((one) => one.topic === topicName(name))
  return (
    <>
      <nav className="crumbs" aria-label={t('path')}><Link to="/topics">{t('nav.topics')}</Link><span aria-hidden="true">/</span><span>{name}</span></nav>
      <div className="head">
        <h1>{name}</h1>
        <span className="space" />
        <Button kind="quiet danger" icon="bin" onClick={() => setDialog('delete')}>{t('delete')}</Button>
      </div>
      <div className="stack">
        <section className="card pad stack">
          <h2>{t('topics.publish')}</h2>
          <div className="field">
            <label htmlFor="message">{t('topics.message')}</label>
            <textarea id="message" className="input" rows={3} value={text} spellCheck={false} onChange={(event) => setText(event.target.value)} />
          </div>
          <Failure error={publish.error} />
          <div className="row"><Button kind="main" busy={publish.busy} disabled={!text} onClick={() => publish.run()}>{t('topics.publish.do')}</Button></div>
          <SameByCommand text={`gcloud pubsub topics publish ${name} --message='${text.replaceAll("'", `'\\''`)}'`} />
        </section>
        <section className="card" aria-label={t('topics.subscriptions')}>
          <header>
            <h2 className="grow">{t('topics.subscriptions')}</h2>
            <Button icon="plus" onClick={() => setDialog('subscription')}>{t('topics.subscribe')}</Button>
          </header>
          <Failure error={subscriptions.error} />
          {own.length === 0 ? (
            <Empty icon="topic" title={t('topics.noSubscription')} text={t('topics.noSubscription.text')} command={`gcloud pubsub subscriptions create my-subscription --topic ${name}`} />
          ) : (
            <Table
              rows={own}
              keyOf={(one) => one.name}
              columns={[
                { head: t('services.name'), kind: 'name', cell: (one) => shortName(one.name) },
                { head: t('topics.delivery'), cell: (one) => (one.pushConfig?.pushEndpoint ? <><Chip tone="info">Push</Chip> <span className="small">{one.pushConfig.pushEndpoint}</span></> : <Chip>Pull</Chip>) },
                { head: t('topics.deadline'), kind: 'number', cell: (one) => `${one.ackDeadlineSeconds ?? 10} s` },
              ]}
              actions={(one) => (
                <>
                  {!one.pushConfig?.pushEndpoint && <Button kind="quiet small" onClick={() => setDialog({ pull: shortName(one.name) })}>{t('topics.pull')}</Button>}
                  <IconButton icon="bin" label={t('deleteNamed', { name: shortName(one.name) })} onClick={() => setDialog({ remove: shortName(one.name) })} />
                </>
              )}
            />
          )}
        </section>
      </div>
      {dialog === 'subscription' && (
        <CreateDialog title={t('topics.subscribe')} label={t('topics.subscription')} action={(id) => subscriptionCreate(id, { topic: topicName(name) })} command={(id) => `gcloud pubsub subscriptions create ${id} --topic ${name}`} onClose={() => setDialog(null)} onDone={() => { setDialog(null); void subscriptions.again() }} />
      )}
      {dialog === 'delete' && <Confirm title={t('deleteNamed', { name })} text={t('topics.delete.text')} action={() => topicDelete(name)} onClose={() => setDialog(null)} onDone={() => go('/topics')} />}
      {dialog && typeof dialog === 'object' && 'pull' in dialog && <Pull id={dialog.pull} onClose={() => setDialog(null)} />}
      {dialog && typeof dialog === 'object' && 'remove' in dialog && <Confirm title={t('deleteNamed', { name: dialog.remove })} text={t('topics.unsubscribe.text')} action={() => subscriptionDelete(dialog.remove)} onClose={() => setDialog(null)} onDone={() => { setDialog(null); void subscriptions.again() }} />}
    </>
  )
}

function Pull({ id, onClose }: { id: string; onClose: () => void }) {
  const [messages, setMessages] = useState<{ ackId: string; message: Message }[] | null>(null)
  const pull = useAction(async () => setMessages((await subscriptionPull(id)).receivedMessages ?? []))
  const ack = useAction(async () => {
    await subscriptionAck(id, (messages ?? []).map((one) => one.ackId))
    setMessages([])
  })
  return (
    <Dialog title={t('topics.pull.title', { name: id })} onClose={onClose} foot={<><Button onClick={() => ack.run()} busy={ack.busy} disabled={!messages?.length}>{t('topics.ack')}</Button><Button kind="main" busy={pull.busy} onClick={() => pull.run()}>{t('topics.pull')}</Button></>}>
      <p className="soft">{t('topics.pull.text')}</p>
      <Failure error={pull.error ?? ack.error} />
      {messages?.length === 0 && <p>{t('topics.pull.none')}</p>}
      <ul className="stack tight">
        {messages?.map((one) => (
          <li key={one.ackId} className="card pad stack tight">
            <span className="soft small">{one.message.messageId} · {time(one.message.publishTime)}</span>
            <pre style={{ margin: 0, whiteSpace: 'pre-wrap', overflowWrap: 'anywhere' }}>{visible(fromBase64(one.message.data))}</pre>
            {one.message.attributes && <code className="small">{visible(JSON.stringify(one.message.attributes))}</code>}
          </li>
        ))}
      </ul>
    </Dialog>
  )
}

/** Asks for a name and makes what has it. */
export function CreateDialog({ title, label, action, command, onClose, onDone, hint }: { title: string; label: string; action: (name: string) => Promise<unknown>; command: (name: string) => string; onClose: () => void; onDone: (name: string) => void; hint?: string }) {
  const [name, setName] = useState('')
  const make = useAction(async () => {
    await action(name)
    onDone(name)
  })
  return (
    <Dialog narrow title={title} onClose={onClose} foot={<><Button kind="quiet" onClick={onClose}>{t('cancel')}</Button><Button kind="main" busy={make.busy} disabled={!name} onClick={() => make.run()}>{t('create.do')}</Button></>}>
      <form className="stack" onSubmit={(event) => { event.preventDefault(); if (name) void make.run() }}>
        <TextField label={label} value={name} onChange={setName} autoFocus spellCheck={false} hint={hint} />
      </form>
      <Failure error={make.error} />
      <SameByCommand text={command(name || 'NAME')} />
    </Dialog>
  )
}
