// The texts, in the person's language: texts/en.json and texts/ja.json have the same keys (tests/console checks that).
import i18next from 'i18next'
import { useSyncExternalStore } from 'react'
import type en from './texts/en.json'

export type Key = keyof typeof en
export type Language = 'ja' | 'en'
type Values = Record<string, string | number>

const KEPT = 'language'

export async function begin() {
  const kept = localStorage.getItem(KEPT)
  const own = navigator.languages.map((tag) => tag.slice(0, 2)).find((tag) => tag === 'ja' || tag === 'en')
  await i18next.init({ fallbackLng: false, keySeparator: false, nsSeparator: false, interpolation: { escapeValue: false }, resources: {} })
  await speak(kept === 'ja' || kept === 'en' ? kept : (own as Language | undefined) ?? 'en')
}

export async function speak(language: Language) {
  if (!i18next.hasResourceBundle(language, 'translation')) {
    const texts = language === 'ja' ? await import('./texts/ja.json') : await import('./texts/en.json')
    i18next.addResourceBundle(language, 'translation', texts.default)
  }
  await i18next.changeLanguage(language)
  document.documentElement.lang = language
}

export function choose(language: Language) {
  localStorage.setItem(KEPT, language)
  return speak(language)
}

export const language = () => i18next.language as Language

export function t(key: Key, values?: Values): string {
  return i18next.t(key, values)
}

/** Renders again when the language changes. */
export function useLanguage(): Language {
  return useSyncExternalStore(
    (changed) => {
      i18next.on('languageChanged', changed)
      return () => i18next.off('languageChanged', changed)
    },
    () => i18next.language as Language,
  )
}

/** Formats are slow to make and quick to use: one of each language and kind is kept. */
export function kept<T>(make: (language: Language) => T): () => T {
  const made = new Map<Language, T>()
  return () => {
    const known = made.get(language()) ?? make(language())
    made.set(language(), known)
    return known
  }
}

const numbers = new Map<number, () => Intl.NumberFormat>()
const times = kept((language) => new Intl.DateTimeFormat(language, { dateStyle: 'medium', timeStyle: 'medium' }))
const spans = kept((language) => new Intl.RelativeTimeFormat(language, { numeric: 'auto' }))

export function number(value: number, digits = 0): string {
  const format = numbers.get(digits) ?? kept((language) => new Intl.NumberFormat(language, { maximumFractionDigits: digits }))
  numbers.set(digits, format)
  return format().format(value)
}

export function time(when: string | undefined): string {
  return when ? times().format(new Date(when)) : ''
}

/** "3 minutes ago"; the whole time is the title beside it. */
export function ago(when: string | undefined): string {
  if (!when) return ''
  const seconds = (new Date(when).getTime() - Date.now()) / 1000
  for (const [unit, size] of [['day', 86400], ['hour', 3600], ['minute', 60]] as const) {
    if (Math.abs(seconds) >= size) return spans().format(Math.round(seconds / size), unit)
  }
  return spans().format(Math.min(0, Math.round(seconds)), 'second')
}
