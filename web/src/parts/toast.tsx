// What was done, for some seconds, in a corner.
import { useSyncExternalStore } from 'react'
import { Notice } from './basic'

let list: { id: number; text: string }[] = []
const told = new Set<() => void>()
let last = 0

export function toast(text: string) {
  const id = ++last
  list = [...list, { id, text }]
  told.forEach((one) => one())
  setTimeout(() => {
    list = list.filter((one) => one.id !== id)
    told.forEach((one) => one())
  }, 5000)
}

export function Toasts() {
  const shown = useSyncExternalStore(
    (changed) => {
      told.add(changed)
      return () => told.delete(changed)
    },
    () => list,
  )
  return (
    <div className="toasts" aria-live="polite">
      {shown.map((one) => (
        <Notice key={one.id} tone="good">
          {one.text}
        </Notice>
      ))}
    </div>
  )
}
