// "Test": a request to the service, the command line that does the same, and what came back.
import { useState } from 'react'
import { trial, type Trial } from '../../api/console'
import type { Service } from '../../api/run'
import { curlAnywhere, curlArticle } from '../../commands'
import { Button, Chip, Command, Dialog, Failure, Notice, SelectField, TextField, useAction } from '../../parts/basic'
import { number, t } from '../../texts'

const PAYLOAD = '{ "name": "Developer" }'

export function TestDialog({ region, name, service, onClose }: { region: string; name: string; service: Service; onClose: () => void }) {
  const [method, setMethod] = useState('POST')
  const [path, setPath] = useState('/')
  const [payload, setPayload] = useState(PAYLOAD)
  const [kind, setKind] = useState('application/json')
  const [reply, setReply] = useState<Trial | null>(null)
  const hasBody = method !== 'GET' && method !== 'HEAD'
  const body = hasBody ? payload : ''
  const url = `${service.uri ?? ''}${path === '/' ? '' : path}`
  const jsonWrong = hasBody && kind === 'application/json' && payload.trim() !== '' && !isJson(payload)
  const run = useAction(async () => {
    setReply(null)
    setReply(await trial({ region, service: name, method, path: path || '/', headers: hasBody ? { 'content-type': kind } : {}, body, authenticate: true }))
  })
  return (
    <Dialog
      title={t('test.title', { name })}
      onClose={onClose}
      foot={
        <>
          <Button kind="quiet" onClick={onClose}>{t('close')}</Button>
          <Button kind="main" icon="play" busy={run.busy} onClick={() => run.run()}>{t('test.run')}</Button>
        </>
      }
    >
      <div className="columns">
        <SelectField label={t('test.method')} value={method} onChange={setMethod} options={['POST', 'GET', 'PUT', 'PATCH', 'DELETE', 'HEAD', 'OPTIONS'].map((value) => ({ value, label: value }))} />
        <TextField label={t('test.path')} value={path} onChange={setPath} spellCheck={false} />
        <TextField label="Content-Type" value={kind} onChange={setKind} spellCheck={false} />
      </div>
      {hasBody && (
        <div className="field">
          <label htmlFor="payload">{t('test.payload')}</label>
          <textarea id="payload" className="input" rows={4} spellCheck={false} value={payload} onChange={(event) => setPayload(event.target.value)} />
          {jsonWrong && <p className="wrong">{t('test.notJson')}</p>}
        </div>
      )}
      <div className="stack tight">
        <h3>{t('test.command')}</h3>
        <p className="hint">{t('test.command.shell')}</p>
        <Command text={curlArticle(url, method, body, kind)} label={t('test.command')} />
        <p className="hint">{t('test.command.anywhere')}</p>
        <Command text={curlAnywhere(url, method, body, kind)} label={t('test.command.anywhere')} />
      </div>
      <Failure error={run.error} />
      {reply && <Reply reply={reply} />}
    </Dialog>
  )
}

function Reply({ reply }: { reply: Trial }) {
  const tone = reply.status < 300 ? 'good' : reply.status < 500 ? 'warn' : 'bad'
  const cold = reply.headers.find(([name]) => name === 'tanebi-cold-start')?.[1]
  return (
    <section className="stack tight" aria-live="polite">
      <h3>{t('test.reply')}</h3>
      <div className="reply">
        <header>
          <Chip tone={tone}>{reply.status}</Chip>
          <span className="soft small">{t('test.took', { ms: number(reply.wholeMs, 1) })}</span>
          {cold && <span className="soft small">{t('test.cold')}: {cold}</span>}
        </header>
        <pre tabIndex={0}>{reply.text ?? reply.base64 ?? ''}</pre>
      </div>
      {reply.isCut && <Notice tone="warn">{t('test.cut')}</Notice>}
      {reply.status === 403 && <p className="hint">{t('test.forbidden')}</p>}
      {reply.status === 404 && <p className="hint">{t('test.missing')}</p>}
      <details>
        <summary className="soft">{t('test.headers', { count: reply.headers.length })}</summary>
        <dl className="facts small">
          {reply.headers.map(([name, value], i) => [<dt key={`${i}n`}><code>{name}</code></dt>, <dd key={`${i}v`}><code>{value}</code></dd>])}
        </dl>
      </details>
    </section>
  )
}

function isJson(text: string): boolean {
  try {
    JSON.parse(text)
    return true
  } catch {
    return false
  }
}
