// Where the person is: the address bar is the only state that says so, hence every place can be shared.
import { createElement, useSyncExternalStore, type AnchorHTMLAttributes, type MouseEvent } from 'react'

const told = new Set<() => void>()

function tell() {
  for (const one of told) one()
}

addEventListener('popstate', tell)

/** Path and query, as they are now. */
export function usePlace(): { path: string; query: URLSearchParams } {
  const href = useSyncExternalStore(
    (changed) => {
      told.add(changed)
      return () => told.delete(changed)
    },
    () => location.pathname + location.search,
  )
  const url = new URL(href, location.origin)
  return { path: url.pathname, query: url.searchParams }
}

export function go(to: string, how: 'push' | 'replace' = 'push') {
  if (how === 'push') history.pushState(null, '', to)
  else history.replaceState(null, '', to)
  tell()
  if (how === 'push') scrollTo(0, 0)
}

/** Sets or removes one value of the query, without a step in the history. */
export function setQuery(name: string, value: string | null) {
  const url = new URL(location.href)
  if (value) url.searchParams.set(name, value)
  else url.searchParams.delete(name)
  go(url.pathname + url.search, 'replace')
}

/** A link within the console. */
export function Link({ to, ...rest }: { to: string } & AnchorHTMLAttributes<HTMLAnchorElement>) {
  const follow = (event: MouseEvent<HTMLAnchorElement>) => {
    rest.onClick?.(event)
    if (event.defaultPrevented || event.button !== 0 || event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return
    event.preventDefault()
    go(to)
  }
  return createElement('a', { ...rest, href: to, onClick: follow })
}
