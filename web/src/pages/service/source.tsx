// "Source": the function's files in an editor, what it is run by, and the build beside it.
import { useEffect, useMemo, useRef, useState } from 'react'
import { sourceDownload } from '../../api/build'
import { browserUrl, isPlaceholder, runtimeList, runtimeOf } from '../../api/run'
import { gcloud } from '../../commands'
import { deploy, deployResume, isRunning, marksOf, STEPS, useDeploy, type Deploy } from '../../deploy'
import { Button, Dialog, Empty, Failure, IconButton, Notice, SameByCommand, SelectField, TextField, Waiting } from '../../parts/basic'
import { Editor } from '../../parts/editor'
import { Icon } from '../../parts/icons'
import { useQuery } from '../../query'
import { setQuery, usePlace } from '../../route'
import { languageOf, sampleOf, type Sort } from '../../samples'
import { isText, nameFault, toBytes, toText, unpack, type Files } from '../../source'
import { number, t } from '../../texts'
import type { TabProps } from '../service'
import { ComparedAfterSave, ShadowChoice } from './compared'

/** Edits that were not saved, by service: leaving the tab keeps them. */
const drafts = new Map<string, { files: Files; base: Files; runtime: string; target: string; from: string }>()

export function Source({ region, name, service, again }: TabProps) {
  const key = `${region}/${name}`
  const location = service.buildConfig?.sourceLocation ?? ''
  const runtimes = useQuery(`runtimes/${region}`, () => runtimeList(region))
  const [, redraw] = useState(0)
  const [error, setError] = useState<unknown>(null)
  const [naming, setNaming] = useState<{ from: string | null } | null>(null)
  const asked = usePlace().query.get('file')
  const running = useDeploy(region, name)
  const draft = drafts.get(key)

  useEffect(() => {
    void deployResume(region, name)
  }, [region, name])

  // The source that is deployed, or the sample of a function that has none yet.
  useEffect(() => {
    const known = drafts.get(key)
    if (known && (known.from === location || isChanged(known))) return
    let gone = false
    const runtime = runtimeOf(service) || 'python312'
    const target = service.buildConfig?.functionTarget ?? ''
    const begin = (files: Files) => {
      if (gone) return
      drafts.set(key, { files, base: files, runtime, target, from: location })
      setError(null)
      redraw((n) => n + 1)
    }
    if (location) {
      sourceDownload(location).then((archive) => begin(unpack(archive)), (other: unknown) => gone || setError(other))
    } else if (isPlaceholder(service)) {
      begin(sampleFiles(runtime, sortOf(runtime, target)))
    } else {
      begin({})
    }
    return () => {
      gone = true
    }
  }, [key, location, service])

  const files = draft?.files
  const names = useMemo(() => Object.keys(files ?? {}).sort(), [files])
  const open = asked && files && asked in files ? asked : (names.find((one) => /^(main\.py|index\.m?js|function\.go)$|Function|Hello\w+\.java$/.test(one)) ?? names[0] ?? '')
  const marks = useMemo(() => (running?.failed ? marksOf(`${running.failed}\n${running.log.join('\n')}`, names) : []), [running?.failed, running?.log, names])
  const openMarks = useMemo(() => marks.filter((mark) => mark.file === open), [marks, open])

  if (error) return <Failure error={error} title={t('source.unreadable')} />
  if (!draft || !files) return <Waiting />

  const change = (next: Partial<typeof draft>) => {
    drafts.set(key, { ...draft, ...next })
    redraw((n) => n + 1)
  }
  const save = async () => {
    if (isRunning(running)) return
    const saved = { ...draft }
    await deploy(region, name, saved.files, saved.runtime, saved.target)
    const now = drafts.get(key)
    if (now) drafts.set(key, { ...now, base: saved.files })
    await again()
  }
  const options = (runtimes.data ?? []).map((one) => ({ value: one.name, label: one.displayName }))
  if (!options.some((one) => one.value === draft.runtime)) options.push({ value: draft.runtime, label: draft.runtime })
  const chooseRuntime = (runtime: string) => {
    // Another language gets its own sample, as long as nothing of one's own would be lost.
    const isSample = isPlaceholder(service) && !isChanged(draft)
    if (!isSample || languageOf(runtime) === languageOf(draft.runtime)) return change({ runtime })
    const sort = sortOf(draft.runtime, draft.target)
    const sample = sampleFiles(runtime, sort)
    change({ runtime, files: sample, base: sample, target: sampleOf(runtime, sort)?.target ?? draft.target })
  }
  const bytes = files[open]

  return (
    <>
      {isPlaceholder(service) && !running && <Notice title={t('source.first')}>{t('source.first.text')}</Notice>}
      <section className="card" aria-label={t('tab.source')}>
        <div className="source-bar">
          <SelectField label={t('source.baseImage')} value={draft.runtime} onChange={chooseRuntime} options={options} />
          <TextField label={t('source.entryPoint')} value={draft.target} onChange={(target) => change({ target })} spellCheck={false} />
          <span className="space" />
          {isChanged(draft) && <span className="soft small">{t('source.unsaved')}</span>}
          <Button kind="main" icon="upload" busy={isRunning(running)} disabled={names.length === 0 || !draft.target} onClick={save}>
            {t('source.save')}
          </Button>
        </div>
        <div className="source">
          <div className="files" role="group" aria-label={t('source.files')}>
            {names.map((one) => (
              <div key={one} className={`file ${one === open ? 'open' : ''}`}>
                <button type="button" className={`name ${files[one] !== draft.base[one] ? 'changed' : ''}`} aria-current={one === open ? 'true' : undefined} title={one} onClick={() => setQuery('file', one)}>
                  {one}
                </button>
                {one === open && (
                  <>
                    <IconButton icon="pen" label={t('source.rename', { name: one })} onClick={() => setNaming({ from: one })} />
                    <IconButton
                      icon="bin"
                      label={t('source.remove', { name: one })}
                      onClick={() => {
                        const { [one]: _, ...rest } = files
                        change({ files: rest })
                        setQuery('file', null)
                      }}
                    />
                  </>
                )}
              </div>
            ))}
            <Button kind="quiet small" icon="plus" onClick={() => setNaming({ from: null })}>{t('source.new')}</Button>
          </div>
          {bytes === undefined ? (
            <Empty icon="file" title={t('source.none')} text={t('source.none.text')} command={gcloud.deploy(name, region, draft.target, draft.runtime)} />
          ) : isText(bytes) ? (
            <Editor key={`${open}/${draft.from}`} name={open} text={toText(bytes)} label={t('source.editor', { name: open })} marks={openMarks} onSave={save} onChange={(text) => change({ files: { ...(drafts.get(key) ?? draft).files, [open]: toBytes(text) } })} />
          ) : (
            <Empty icon="file" title={open} text={t('source.binary', { count: bytes.length })} />
          )}
        </div>
        {!isPlaceholder(service) && <ShadowChoice region={region} name={name} service={service} again={again} />}
        {running && <Progress running={running} url={browserUrl(service.uri)} marks={marks} />}
        {running?.isUncompared && <div className="pad"><Notice tone="info" title={t('compared.nothing')} /></div>}
        {running?.compared && <ComparedAfterSave region={region} name={name} service={service} compared={running.compared} />}
      </section>
      <SameByCommand text={gcloud.deploy(name, region, draft.target, draft.runtime)} />
      {naming && (
        <FileName
          from={naming.from}
          files={files}
          onClose={() => setNaming(null)}
          onName={(to) => {
            const next = { ...files }
            next[to] = naming.from === null ? toBytes('') : (files[naming.from] as Uint8Array)
            if (naming.from !== null) delete next[naming.from]
            change({ files: next })
            setQuery('file', to)
            setNaming(null)
          }}
        />
      )}
    </>
  )
}

function isChanged(draft: { files: Files; base: Files }): boolean {
  const [now, before] = [Object.keys(draft.files), Object.keys(draft.base)]
  return now.length !== before.length || now.some((name) => draft.files[name] !== draft.base[name])
}

const sortOf = (runtime: string, target: string): Sort => (sampleOf(runtime, 'event')?.target === target ? 'event' : 'http')

function sampleFiles(runtime: string, sort: Sort): Files {
  return Object.fromEntries(Object.entries(sampleOf(runtime, sort)?.files ?? {}).map(([name, text]) => [name, toBytes(text)]))
}

function FileName({ from, files, onName, onClose }: { from: string | null; files: Files; onName: (name: string) => void; onClose: () => void }) {
  const [name, setName] = useState(from ?? '')
  const fault = name === from ? '' : nameFault(name, files)
  const finish = () => {
    if (name && !fault && name !== from) onName(name)
  }
  return (
    <Dialog
      narrow
      title={from === null ? t('source.new') : t('source.rename', { name: from })}
      onClose={onClose}
      foot={
        <>
          <Button kind="quiet" onClick={onClose}>{t('cancel')}</Button>
          <Button kind="main" disabled={!name || fault !== '' || name === from} onClick={finish}>{t('apply')}</Button>
        </>
      }
    >
      <form
        onSubmit={(event) => {
          event.preventDefault()
          finish()
        }}
      >
        <TextField label={t('source.fileName')} value={name} onChange={setName} autoFocus spellCheck={false} wrong={fault && fault !== 'empty' ? t(`source.name.${fault}`) : undefined} />
      </form>
    </Dialog>
  )
}

/** The steps of a deploy, and what the build says. */
function Progress({ running, url, marks }: { running: Deploy; url: string; marks: { file: string; line: number; message: string }[] }) {
  const log = useRef<HTMLPreElement>(null)
  const [now, setNow] = useState(Date.now())
  useEffect(() => {
    if (!isRunning(running)) return
    const timer = setInterval(() => setNow(Date.now()), 200)
    return () => clearInterval(timer)
  }, [running])
  useEffect(() => {
    log.current?.scrollTo(0, log.current.scrollHeight)
  }, [running.log])
  const at = STEPS.indexOf(running.step)
  const before = Object.values(running.took).reduce((sum, one) => sum + one, 0)
  const seconds = (ms: number) => `${number(ms / 1000, 1)} s`
  return (
    <>
      <div className="deploying" aria-live="polite">
        <ol className="steps">
          {STEPS.filter((step) => step !== 'done' && (step !== 'shadow' || running.isShadowed)).map((step) => {
            const i = STEPS.indexOf(step)
            const state = i < at ? 'done' : i > at ? '' : running.failed ? 'failed' : 'now'
            const took = running.took[step]
            return (
              <li key={step} className={state}>
                {state === 'done' ? <Icon name="check" /> : state === 'failed' ? <Icon name="cross" /> : state === 'now' ? <span className="spin" /> : <span className="dot">·</span>}
                <span className="grow">{t(`deploy.${step}`)}</span>
                <span className="small soft">{took !== undefined ? seconds(took) : state === 'now' ? seconds(Math.max(0, now - running.began - before)) : ''}</span>
              </li>
            )
          })}
          {running.step === 'done' && (
            <li className="done">
              <Icon name="check" />
              <span>{t(running.compared && !running.compared.promoted ? 'deploy.held' : 'deploy.done', { revision: running.revision ?? '', took: seconds(before) })}</span>
            </li>
          )}
          {running.step === 'done' && url && (
            <li>
              <a className="button small" href={url} target="_blank" rel="noopener noreferrer">
                <Icon name="open" />
                {t('deploy.open')}
              </a>
            </li>
          )}
        </ol>
        <pre className="build-log" ref={log} tabIndex={0} role="log" aria-label={t('deploy.log')}>
          {running.log.length ? running.log.join('\n') : t('deploy.log.none')}
        </pre>
      </div>
      {running.failed && (
        <div className="pad">
          <Notice tone="bad" title={t('deploy.failed')}>
            <p>{running.failed}</p>
            {marks.map((mark, i) => (
              <button type="button" key={i} className="button small" onClick={() => setQuery('file', mark.file)}>
                {t('deploy.mark', { file: mark.file, line: mark.line })}
              </button>
            ))}
            <p className="soft">{t('deploy.failed.text')}</p>
          </Notice>
        </div>
      )}
    </>
  )
}
