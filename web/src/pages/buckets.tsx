// Cloud Storage: buckets and what is in them.
import { useRef, useState } from 'react'
import { bucketCreate, bucketDelete, bucketList, objectDelete, objectDownload, objectList, objectUpload } from '../api/events'
import { Button, Confirm, Empty, Failure, IconButton, SameByCommand, useAction, Waiting } from '../parts/basic'
import { ListCard } from '../parts/table'
import { toast } from '../parts/toast'
import { useQuery } from '../query'
import { go, Link, setQuery, usePlace } from '../route'
import { own } from '../session'
import { ago, number, t, time } from '../texts'
import { CreateDialog } from './topics'
import { visible } from './service/logs'

export function Buckets() {
  const buckets = useQuery('buckets', bucketList, 4000)
  const [making, setMaking] = useState(false)
  return (
    <>
      <div className="head">
        <h1>{t('nav.buckets')}</h1>
        <span className="space" />
        <Button kind="main" icon="plus" onClick={() => setMaking(true)}>{t('buckets.create')}</Button>
      </div>
      <ListCard
        label={t('nav.buckets')}
        query={buckets}
        rows={(all) => all}
        empty={{ icon: 'bucket', title: t('buckets.none'), text: t('buckets.none.text'), command: `gcloud storage buckets create gs://my-bucket --location ${own().region}` }}
        keyOf={(bucket) => bucket.name}
        columns={[
          { head: t('services.name'), kind: 'name', cell: (bucket) => <Link to={`/buckets/${bucket.name}`}>{bucket.name}</Link> },
          { head: t('buckets.location'), cell: (bucket) => bucket.location?.toLowerCase() },
          { head: t('buckets.class'), cell: (bucket) => bucket.storageClass },
          { head: t('buckets.created'), title: (bucket) => time(bucket.timeCreated), cell: (bucket) => ago(bucket.timeCreated) },
        ]}
      />
      {making && <CreateDialog title={t('buckets.create')} label={t('buckets.name')} hint={t('buckets.name.hint')} action={(name) => bucketCreate(name, own().region)} command={(name) => `gcloud storage buckets create gs://${name} --location ${own().region}`} onClose={() => setMaking(false)} onDone={(name) => go(`/buckets/${name}`)} />}
    </>
  )
}

export function BucketPage({ name }: { name: string }) {
  const prefix = usePlace().query.get('prefix') ?? ''
  const objects = useQuery(`objects/${name}/${prefix}`, () => objectList(name, prefix), 4000)
  const input = useRef<HTMLInputElement>(null)
  const [dialog, setDialog] = useState<'delete' | { remove: string } | null>(null)
  const upload = useAction(async (files: FileList) => {
    for (const file of files) await objectUpload(name, prefix + file.name, file)
    toast(t('buckets.uploaded', { count: files.length }))
    await objects.again()
  })
  const download = useAction((object: string) => objectDownload(name, object))
  const parts = prefix.split('/').filter(Boolean)
  const shown = (object: string) => visible(object.slice(prefix.length))
  return (
    <>
      <nav className="crumbs" aria-label={t('path')}>
        <Link to="/buckets">{t('nav.buckets')}</Link>
        <span aria-hidden="true">/</span>
        <Link to={`/buckets/${name}`}>{name}</Link>
        {parts.map((part, i) => <span key={i}><span aria-hidden="true">/ </span><Link to={`/buckets/${name}?prefix=${encodeURIComponent(`${parts.slice(0, i + 1).join('/')}/`)}`}>{visible(part)}</Link></span>)}
      </nav>
      <div className="head">
        <h1>{name}</h1>
        <span className="space" />
        <input ref={input} type="file" multiple hidden onChange={(event) => { if (event.target.files?.length) void upload.run(event.target.files); event.target.value = '' }} />
        <Button kind="main" icon="upload" busy={upload.busy} onClick={() => input.current?.click()}>{t('buckets.upload')}</Button>
        <Button kind="quiet danger" icon="bin" onClick={() => setDialog('delete')}>{t('delete')}</Button>
      </div>
      <div className="stack">
        <Failure error={objects.error ?? upload.error ?? download.error} />
        {objects.waiting && <Waiting />}
        {objects.data && (
          <section className="card" aria-label={t('buckets.objects')}>
            {objects.data.items.length + objects.data.prefixes.length === 0 ? (
              <Empty icon="bucket" title={t('buckets.empty')} text={t('buckets.empty.text')} command={`gcloud storage cp FILE gs://${name}/`} />
            ) : (
              <div className="table-box">
                <table>
                  <thead><tr><th scope="col">{t('services.name')}</th><th scope="col" className="number">{t('buckets.size')}</th><th scope="col">{t('buckets.kind')}</th><th scope="col">{t('buckets.updated')}</th><th scope="col" className="fit"><span className="hidden-text">{t('revisions.actions')}</span></th></tr></thead>
                  <tbody>
                    {objects.data.prefixes.map((one) => (
                      <tr key={one}><td className="name-cell" colSpan={5}><a href={`?prefix=${encodeURIComponent(one)}`} onClick={(event) => { event.preventDefault(); setQuery('prefix', one) }}>{shown(one)}</a></td></tr>
                    ))}
                    {objects.data.items.map((object) => (
                      <tr key={object.name}>
                        <td>{shown(object.name)}</td>
                        <td className="number fit">{bytes(Number(object.size ?? 0))}</td>
                        <td>{visible(object.contentType ?? '')}</td>
                        <td className="fit" title={time(object.updated)}>{ago(object.updated)}</td>
                        <td className="fit actions">
                          <IconButton icon="download" label={t('buckets.download', { name: shown(object.name) })} onClick={() => download.run(object.name)} />
                          <IconButton icon="bin" label={t('deleteNamed', { name: shown(object.name) })} onClick={() => setDialog({ remove: object.name })} />
                        </td>
                      </tr>
                    ))}
                  </tbody>
                </table>
              </div>
            )}
          </section>
        )}
        <SameByCommand text={`gcloud storage ls gs://${name}/${prefix}`} />
      </div>
      {dialog === 'delete' && <Confirm title={t('deleteNamed', { name })} text={t('buckets.delete.text')} action={() => bucketDelete(name)} onClose={() => setDialog(null)} onDone={() => go('/buckets')} />}
      {dialog && dialog !== 'delete' && <Confirm title={t('deleteNamed', { name: visible(dialog.remove) })} text={t('buckets.object.delete.text')} action={() => objectDelete(name, dialog.remove)} onClose={() => setDialog(null)} onDone={() => { setDialog(null); void objects.again() }} />}
    </>
  )
}

function bytes(count: number): string {
  for (const [unit, size] of [['GiB', 1 << 30], ['MiB', 1 << 20], ['KiB', 1 << 10]] as const) if (count >= size) return `${number(count / size, 1)} ${unit}`
  return `${number(count)} B`
}
