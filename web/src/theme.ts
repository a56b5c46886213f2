// Light or dark: what the system says until the person chooses.
import { useSyncExternalStore } from 'react'

const KEPT = 'theme'
const system = matchMedia('(prefers-color-scheme: dark)')
const told = new Set<() => void>()

const kept = () => localStorage.getItem(KEPT)
const now = () => (kept() === 'dark' || (kept() !== 'light' && system.matches) ? 'dark' : 'light')

function show() {
  document.documentElement.dataset.theme = now()
  told.forEach((one) => one())
}

export function themeBegin() {
  system.addEventListener('change', show)
  show()
}

export function themeChoose(theme: 'light' | 'dark') {
  localStorage.setItem(KEPT, theme)
  show()
}

export function useTheme(): 'light' | 'dark' {
  return useSyncExternalStore((changed) => {
    told.add(changed)
    return () => told.delete(changed)
  }, now)
}
