// What was read from an API: shown at once when it was read before, read again when asked or from time to time.
import { useCallback, useEffect, useRef, useState } from 'react'

const known = new Map<string, unknown>()

export interface Query<T> {
  data: T | undefined
  error: unknown
  /** Nothing is known yet. */
  waiting: boolean
  again: () => Promise<void>
}

/** Reads `key` by `read`; every `every` milliseconds while the page is seen. `null` reads nothing. */
export function useQuery<T>(key: string | null, read: () => Promise<T>, every?: number): Query<T> {
  const [, redraw] = useState(0)
  const [failed, setFailed] = useState<{ key: string; error: unknown } | null>(null)
  const reader = useRef(read)
  reader.current = read
  const again = useCallback(async () => {
    if (!key) return
    try {
      known.set(key, await reader.current())
      setFailed(null)
    } catch (error) {
      setFailed({ key, error })
    }
    redraw((n) => n + 1)
  }, [key])
  useEffect(() => {
    if (!key) return
    let gone = false
    let timer = 0
    const round = async () => {
      if (!document.hidden || !known.has(key)) await again()
      if (!gone && every) timer = setTimeout(round, every)
    }
    void round()
    return () => {
      gone = true
      clearTimeout(timer)
    }
  }, [key, every, again])
  const data = key ? (known.get(key) as T | undefined) : undefined
  const error = failed && failed.key === key ? failed.error : null
  return { data, error, waiting: data === undefined && !error, again }
}

/** What is known changes by what the person did: shown before the next reading. */
export function remember(key: string, value: unknown) {
  known.set(key, value)
}
