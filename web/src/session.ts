// Who has signed in. The secret of a one-time link stands behind # and is taken out of the address before anything else.
import { useSyncExternalStore } from 'react'

export interface Session {
  email: string
  project: string
  projectNumber: string
  region: string
  regions: string[]
  port: number
  proxy: string
  caFile: string
  version: string
}

let session: Session | null | undefined
const told = new Set<() => void>()

export function setSession(next: Session | null) {
  session = next
  for (const one of told) one()
}

export function signedOut() {
  setSession(null)
}

/** `undefined` while it is not known. */
export function useSession(): Session | null | undefined {
  return useSyncExternalStore(
    (changed) => {
      told.add(changed)
      return () => told.delete(changed)
    },
    () => session,
  )
}

/** Of whoever has signed in; only where that is certain. */
export function own(): Session {
  if (!session) throw new Error('nobody has signed in')
  return session
}

export function linkTake(): string | null {
  const link = new URLSearchParams(location.hash.slice(1)).get('link')
  if (link) history.replaceState(null, '', location.pathname + location.search)
  return link
}
