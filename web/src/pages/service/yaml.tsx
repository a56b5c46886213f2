// "YAML": the service as gcloud run services describe --format export shows it; edited and replaced as a whole.
import { useEffect, useMemo, useState } from 'react'
import { dump, load } from 'js-yaml'
import { manifestGet, manifestPut, serviceSettled } from '../../api/run'
import { gcloud } from '../../commands'
import { Button, Copy, Failure, SameByCommand, useAction, Waiting } from '../../parts/basic'
import { Editor } from '../../parts/editor'
import { toast } from '../../parts/toast'
import { useQuery } from '../../query'
import { t } from '../../texts'
import type { TabProps } from '../service'

/** Without what the server alone sets: as `--format export` of gcloud. */
function exported(manifest: Record<string, unknown>): Record<string, unknown> {
  const { status: _, metadata, ...rest } = manifest
  const own = Object.entries((metadata ?? {}) as Record<string, unknown>).filter(([name]) => !SERVERS.has(name))
  const { apiVersion, kind, ...spec } = rest
  return { apiVersion, kind, metadata: Object.fromEntries(own), ...spec }
}

const SERVERS = new Set(['creationTimestamp', 'generation', 'resourceVersion', 'selfLink', 'uid'])

export function Yaml({ region, name, service, again }: TabProps) {
  const manifest = useQuery(`manifest/${region}/${name}/${service.etag}`, () => manifestGet(region, name))
  const [text, setText] = useState<string | null>(null)
  const shown = useMemo(() => (manifest.data ? dump(exported(manifest.data), { lineWidth: -1 }) : ''), [manifest.data])
  useEffect(() => setText(null), [shown])
  const save = useAction(async () => {
    await manifestPut(region, name, load(text ?? shown))
    await serviceSettled(region, name)
    await again()
    await manifest.again()
    toast(t('saved'))
  })
  if (manifest.error) return <Failure error={manifest.error} />
  if (!manifest.data) return <Waiting />
  return (
    <>
      <section className="card">
        <header>
          <h2 className="grow">{name}.yaml</h2>
          <Copy text={text ?? shown} />
          <Button kind="main" disabled={text === null || text === shown} busy={save.busy} onClick={() => save.run()}>{t('yaml.save')}</Button>
        </header>
        <Editor key={shown} name={`${name}.yaml`} text={shown} label={`${name}.yaml`} onChange={setText} onSave={() => void save.run()} />
      </section>
      <Failure error={save.error} />
      <SameByCommand text={gcloud.replace(region)} />
    </>
  )
}
