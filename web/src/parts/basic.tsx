// The console's own components: each is a plain element with the console's classes.
import { useEffect, useId, useRef, useState, type ButtonHTMLAttributes, type ReactNode } from 'react'
import { ApiError } from '../api/call'
import { t } from '../texts'
import { Icon, type IconName } from './icons'

export function Button({ kind = '', icon, busy, children, ...rest }: { kind?: string; icon?: IconName; busy?: boolean } & ButtonHTMLAttributes<HTMLButtonElement>) {
  return (
    <button type="button" {...rest} className={`button ${kind}`} disabled={rest.disabled || busy}>
      {busy ? <span className="spin" /> : icon && <Icon name={icon} />}
      {children}
    </button>
  )
}

export function IconButton({ icon, label, ...rest }: { icon: IconName; label: string } & ButtonHTMLAttributes<HTMLButtonElement>) {
  return (
    <button type="button" {...rest} className={`icon-button ${rest.className ?? ''}`} aria-label={label} title={label}>
      <Icon name={icon} />
    </button>
  )
}

/** Copies a text and says so for a moment. */
export function Copy({ text, className }: { text: string; className?: string }) {
  const [done, setDone] = useState(false)
  useEffect(() => {
    if (!done) return
    const timer = setTimeout(() => setDone(false), 1500)
    return () => clearTimeout(timer)
  }, [done])
  const copy = async () => {
    await navigator.clipboard.writeText(text)
    setDone(true)
  }
  return <IconButton icon={done ? 'check' : 'copy'} label={t(done ? 'copied' : 'copy')} onClick={copy} className={className ?? ''} />
}

/** A command line to look at and to copy. */
export function Command({ text, label }: { text: string; label?: string }) {
  return (
    <div className="command">
      <pre tabIndex={0} role="group" aria-label={label ?? t('commandLine')}>
        {text}
      </pre>
      <Copy text={text} className="copy" />
    </div>
  )
}

export type Tone = 'info' | 'good' | 'warn' | 'bad'
const TONE_ICONS: Record<Tone, IconName> = { info: 'info', good: 'check', warn: 'warning', bad: 'warning' }

export function Notice({ tone = 'info', title, children }: { tone?: Tone; title?: string; children?: ReactNode }) {
  return (
    <div className={`notice ${tone}`} role={tone === 'bad' ? 'alert' : 'status'}>
      <Icon name={TONE_ICONS[tone]} />
      <div className="stack tight grow">
        {title && <strong>{title}</strong>}
        {typeof children === 'string' ? <p>{children}</p> : children}
      </div>
    </div>
  )
}

/** What went wrong in the server's words, and what to do about it. */
export function Failure({ error, title }: { error: unknown; title?: string }) {
  if (!error) return null
  const known = error instanceof ApiError ? error : null
  const help = known ? { 0: t('failure.unreachable'), 403: t('failure.forbidden'), 404: t('failure.missing'), 409: t('failure.conflict') }[known.http] : undefined
  return (
    <Notice tone="bad" title={title ?? t('failure.title')}>
      <p>{error instanceof Error ? error.message : String(error)}</p>
      {help && <p className="soft">{help}</p>}
    </Notice>
  )
}

export function Chip({ tone = '', icon, children }: { tone?: Tone | ''; icon?: IconName; children: ReactNode }) {
  return (
    <span className={`chip ${tone}`}>
      {icon && <Icon name={icon} />}
      {children}
    </span>
  )
}

export function Waiting() {
  return (
    <p className="row soft" role="status">
      <span className="spin" />
      {t('waiting')}
    </p>
  )
}

/** Nothing is here yet: what it would be, how to make one, and the command that does the same. */
export function Empty({ icon, title, text, command, children }: { icon: IconName; title: string; text: string; command?: string; children?: ReactNode }) {
  return (
    <div className="empty">
      <Icon name={icon} />
      <h2>{title}</h2>
      <p>{text}</p>
      {children}
      {command && <Command text={command} />}
    </div>
  )
}

export function Field({ label, hint, wrong, children, id }: { label: string; hint?: ReactNode; wrong?: string | undefined; children: (id: string) => ReactNode; id?: string }) {
  const made = useId()
  const own = id ?? made
  return (
    <div className="field">
      <label htmlFor={own}>{label}</label>
      {children(own)}
      {hint && <p className="hint">{hint}</p>}
      {wrong && (
        <p className="wrong" role="alert">
          {wrong}
        </p>
      )}
    </div>
  )
}

export function TextField({ label, value, onChange, hint, wrong, ...rest }: {
  label: string
  value: string
  onChange: (value: string) => void
  hint?: ReactNode
  wrong?: string | undefined
  type?: string
  placeholder?: string
  autoComplete?: string
  min?: number
  max?: number
  required?: boolean
  autoFocus?: boolean
  spellCheck?: boolean
}) {
  return (
    <Field label={label} hint={hint} wrong={wrong}>
      {(id) => <input id={id} className="input" {...rest} value={value} aria-invalid={wrong ? true : undefined} onChange={(event) => onChange(event.target.value)} />}
    </Field>
  )
}

export interface Option {
  value: string
  label: string
  hint?: string
  disabled?: boolean
}

export function SelectField({ label, value, onChange, options, hint, wrong }: {
  label: string
  value: string
  onChange: (value: string) => void
  options: Option[]
  hint?: ReactNode
  wrong?: string | undefined
}) {
  return (
    <Field label={label} hint={hint} wrong={wrong}>
      {(id) => (
        <select id={id} className="input" value={value} onChange={(event) => onChange(event.target.value)}>
          {options.map((option) => (
            <option key={option.value} value={option.value} disabled={option.disabled}>
              {option.label}
            </option>
          ))}
        </select>
      )}
    </Field>
  )
}

export function Choices({ legend, value, onChange, options, wrong, hint }: {
  legend: string
  value: string
  onChange: (value: string) => void
  options: Option[]
  wrong?: string | undefined
  hint?: string
}) {
  const name = useId()
  return (
    <fieldset>
      <legend className="legend">{legend}</legend>
      {hint && <p className="hint">{hint}</p>}
      {options.map((option) => (
        <div className="choice" key={option.value}>
          <input
            type="radio"
            id={`${name}-${option.value}`}
            name={name}
            value={option.value}
            checked={value === option.value}
            disabled={option.disabled}
            aria-describedby={option.hint ? `${name}-${option.value}-hint` : undefined}
            onChange={() => onChange(option.value)}
          />
          <label htmlFor={`${name}-${option.value}`}>{option.label}</label>
          {option.hint && <p className="hint" id={`${name}-${option.value}-hint`}>{option.hint}</p>}
        </div>
      ))}
      {wrong && (
        <p className="wrong" role="alert">
          {wrong}
        </p>
      )}
    </fieldset>
  )
}

export function Check({ label, hint, checked, onChange, disabled }: { label: string; hint?: string; checked: boolean; onChange: (checked: boolean) => void; disabled?: boolean }) {
  const id = useId()
  return (
    <div className="choice">
      <input type="checkbox" id={id} checked={checked} disabled={disabled} aria-describedby={hint ? `${id}-hint` : undefined} onChange={(event) => onChange(event.target.checked)} />
      <label htmlFor={id}>{label}</label>
      {hint && <p className="hint" id={`${id}-hint`}>{hint}</p>}
    </div>
  )
}

/** A dialog over the page; Escape closes it. */
export function Dialog({ title, onClose, children, foot, narrow }: { title: string; onClose: () => void; children: ReactNode; foot?: ReactNode; narrow?: boolean }) {
  const box = useRef<HTMLDialogElement>(null)
  const heading = useId()
  useEffect(() => {
    const dialog = box.current
    dialog?.showModal()
    return () => dialog?.close()
  }, [])
  return (
    <dialog
      ref={box}
      className={narrow ? 'narrow' : ''}
      aria-labelledby={heading}
      onCancel={(event) => {
        event.preventDefault()
        onClose()
      }}
    >
      <header>
        <h2 id={heading}>{title}</h2>
        <IconButton icon="cross" label={t('close')} onClick={onClose} />
      </header>
      <div className="body">{children}</div>
      {foot && <footer>{foot}</footer>}
    </dialog>
  )
}

/** Asks before something is gone. */
export function Confirm({ title, text, action, onDone, onClose }: { title: string; text: string; action: () => Promise<unknown>; onDone: () => void; onClose: () => void }) {
  const [busy, setBusy] = useState(false)
  const [error, setError] = useState<unknown>(null)
  const run = async () => {
    setBusy(true)
    try {
      await action()
      onDone()
    } catch (other) {
      setError(other)
      setBusy(false)
    }
  }
  return (
    <Dialog
      narrow
      title={title}
      onClose={onClose}
      foot={
        <>
          <Button kind="quiet" onClick={onClose}>{t('cancel')}</Button>
          <Button kind="danger" icon="bin" busy={busy} onClick={run}>{t('delete')}</Button>
        </>
      }
    >
      <p>{text}</p>
      <Failure error={error} />
    </Dialog>
  )
}

/** "The same by gcloud", closed at first. */
export function SameByCommand({ text }: { text: string }) {
  return (
    <details>
      <summary className="soft">{t('sameByCommand')}</summary>
      <div className="stack tight" style={{ marginTop: '.5rem' }}>
        <Command text={text} />
      </div>
    </details>
  )
}

/** Runs an action; knows whether it runs and how it failed. */
export function useAction<A extends unknown[]>(action: (...args: A) => Promise<unknown>) {
  const [busy, setBusy] = useState(false)
  const [error, setError] = useState<unknown>(null)
  const run = async (...args: A) => {
    setBusy(true)
    setError(null)
    try {
      await action(...args)
      return true
    } catch (other) {
      setError(other)
      return false
    } finally {
      setBusy(false)
    }
  }
  return { run, busy, error, setError }
}
