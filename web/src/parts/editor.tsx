// The editor: CodeMirror with the language of a file's name, in the console's colours.
import { autocompletion, closeBrackets, closeBracketsKeymap, completionKeymap } from '@codemirror/autocomplete'
import { defaultKeymap, history, historyKeymap, indentWithTab } from '@codemirror/commands'
import { bracketMatching, HighlightStyle, indentOnInput, indentUnit, syntaxHighlighting } from '@codemirror/language'
import { lintGutter, setDiagnostics } from '@codemirror/lint'
import { highlightSelectionMatches, searchKeymap } from '@codemirror/search'
import { Compartment, EditorState, type Extension } from '@codemirror/state'
import { drawSelection, EditorView, highlightActiveLine, highlightActiveLineGutter, keymap, lineNumbers } from '@codemirror/view'
import { tags } from '@lezer/highlight'
import { useEffect, useRef } from 'react'

const nonce = document.querySelector('meta[name="nonce"]')?.getAttribute('content') ?? ''

/** Languages are read when a file of theirs is opened. */
async function languageOf(name: string): Promise<Extension> {
  const ending = name.split('.').pop() ?? ''
  switch (ending) {
    case 'py':
      return (await import('@codemirror/lang-python')).python()
    case 'js':
    case 'mjs':
    case 'cjs':
      return (await import('@codemirror/lang-javascript')).javascript()
    case 'ts':
      return (await import('@codemirror/lang-javascript')).javascript({ typescript: true })
    case 'go':
      return (await import('@codemirror/lang-go')).go()
    case 'java':
      return (await import('@codemirror/lang-java')).java()
    case 'json':
      return (await import('@codemirror/lang-json')).json()
    case 'yaml':
    case 'yml':
      return (await import('@codemirror/lang-yaml')).yaml()
    default:
      return []
  }
}

const colours = HighlightStyle.define([
  { tag: [tags.keyword, tags.modifier, tags.operatorKeyword], color: 'var(--fire)', fontWeight: '600' },
  { tag: [tags.string, tags.special(tags.string)], color: 'var(--good)' },
  { tag: [tags.comment, tags.lineComment, tags.blockComment, tags.docString], color: 'var(--soft)', fontStyle: 'italic' },
  { tag: [tags.number, tags.bool, tags.null, tags.atom], color: 'var(--warn)' },
  { tag: [tags.function(tags.variableName), tags.function(tags.propertyName), tags.definition(tags.function(tags.variableName))], color: 'var(--info)' },
  { tag: [tags.typeName, tags.className, tags.namespace], color: 'var(--info)', fontWeight: '600' },
  { tag: [tags.propertyName, tags.attributeName, tags.meta], color: 'var(--info)' },
])

const look = EditorView.theme({
  '&': { color: 'var(--ink)', backgroundColor: 'var(--card)' },
  '.cm-content': { caretColor: 'var(--fire)', padding: '10px 0' },
  '.cm-cursor': { borderLeftColor: 'var(--fire)', borderLeftWidth: '2px' },
  '.cm-gutters': { backgroundColor: 'var(--card)', color: 'var(--soft)', border: 'none', paddingLeft: '6px' },
  '.cm-activeLine': { backgroundColor: 'color-mix(in srgb, var(--sunk) 70%, transparent)' },
  '.cm-activeLineGutter': { backgroundColor: 'var(--sunk)', color: 'var(--ink)' },
  '&.cm-focused': { outline: 'none' },
  '&.cm-focused .cm-selectionBackground, .cm-selectionBackground': { backgroundColor: 'color-mix(in srgb, var(--fire) 24%, transparent) !important' },
  '.cm-selectionMatch': { backgroundColor: 'var(--warn-soft)' },
  '.cm-panels, .cm-tooltip': { backgroundColor: 'var(--card)', color: 'var(--ink)', borderColor: 'var(--line)' },
  '.cm-tooltip-autocomplete ul li[aria-selected]': { backgroundColor: 'var(--fire-soft)', color: 'var(--fire)' },
})

export interface Mark {
  line: number
  message: string
}

/** Shows the text of `name`; another name is another document, with its own history. */
export function Editor({ name, text, onChange, onSave, marks = [], readOnly, label }: {
  name: string
  text: string
  onChange?: (text: string) => void
  onSave?: () => void
  marks?: Mark[]
  readOnly?: boolean
  label: string
}) {
  const box = useRef<HTMLDivElement>(null)
  const view = useRef<EditorView>(null)
  const handlers = useRef({ onChange, onSave })
  handlers.current = { onChange, onSave }

  useEffect(() => {
    if (!box.current) return
    const language = new Compartment()
    const editor = new EditorView({
      parent: box.current,
      state: EditorState.create({
        doc: text,
        extensions: [
          EditorView.cspNonce.of(nonce),
          lineNumbers(), highlightActiveLineGutter(), highlightActiveLine(), history(), drawSelection(), indentOnInput(), bracketMatching(), closeBrackets(),
          autocompletion(), highlightSelectionMatches(), lintGutter(), syntaxHighlighting(colours), look,
          indentUnit.of(name.endsWith('.py') || name.endsWith('.java') ? '    ' : name.endsWith('.go') ? '\t' : '  '),
          EditorState.readOnly.of(readOnly ?? false),
          EditorView.contentAttributes.of({ 'aria-label': label, tabindex: '0' }),
          keymap.of([
            { key: 'Mod-s', preventDefault: true, run: () => (handlers.current.onSave?.(), true) },
            ...closeBracketsKeymap, ...defaultKeymap, ...searchKeymap, ...historyKeymap, ...completionKeymap, indentWithTab,
          ]),
          language.of([]),
          EditorView.updateListener.of((update) => {
            if (update.docChanged) handlers.current.onChange?.(update.state.doc.toString())
          }),
        ],
      }),
    })
    view.current = editor
    let gone = false
    void languageOf(name).then((extension) => {
      if (!gone) editor.dispatch({ effects: language.reconfigure(extension) })
    })
    return () => {
      gone = true
      editor.destroy()
      view.current = null
    }
    // The text is the editor's own from here on: only another file begins anew.
  }, [name, readOnly, label])

  useEffect(() => {
    const editor = view.current
    if (!editor) return
    const known = marks.filter((mark) => mark.line >= 1 && mark.line <= editor.state.doc.lines)
    const found = known.map((mark) => {
      const line = editor.state.doc.line(mark.line)
      return { from: line.from, to: line.to, severity: 'error' as const, message: mark.message }
    })
    editor.dispatch(setDiagnostics(editor.state, found))
    const first = found[0]
    if (first) editor.dispatch({ effects: EditorView.scrollIntoView(first.from, { y: 'center' }) })
  }, [marks, name])

  return <div className="editor" ref={box} />
}
