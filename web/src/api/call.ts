// Calls of the server: Google's APIs below /api/HOST/, the console's own methods below /_console/v1/.
import { signedOut } from '../session'

/** An error in Google's shape. */
export class ApiError extends Error {
  constructor(
    readonly http: number,
    readonly status: string,
    message: string,
  ) {
    super(message)
  }
}

type Method = 'GET' | 'POST' | 'PUT' | 'PATCH' | 'DELETE'

export async function send(method: Method, url: string, body?: BodyInit | null, kind?: string, signal?: AbortSignal): Promise<Response> {
  const headers: Record<string, string> = { 'x-tanebi-console': '1' }
  if (kind) headers['content-type'] = kind
  let response: Response
  try {
    response = await fetch(url, { method, headers, body: body ?? null, redirect: 'error', signal: signal ?? null })
  } catch (error) {
    if (signal?.aborted) throw error
    throw new ApiError(0, 'UNAVAILABLE', '')
  }
  if (response.ok) return response
  const text = await response.text()
  let status = response.statusText
  let message = text || response.statusText
  try {
    const error = JSON.parse(text).error
    status = error.status ?? status
    message = error.message ?? message
  } catch {
    // Not every server in between speaks JSON: what it said is shown as it is.
  }
  if (response.status === 401 && url !== '/_console/v1/session') signedOut()
  throw new ApiError(response.status, status, message)
}

export async function call<T>(method: Method, url: string, body?: unknown): Promise<T> {
  const response = await send(method, url, body === undefined ? null : JSON.stringify(body), body === undefined ? undefined : 'application/json')
  const text = await response.text()
  return (text ? JSON.parse(text) : {}) as T
}

/** A path with each value escaped. */
export function at(host: string) {
  return (parts: TemplateStringsArray, ...values: (string | number)[]) =>
    `/api/${host}` + parts.reduce((path, part, i) => path + encodeURIComponent(values[i - 1] ?? '') + part)
}

/** All pages of a list. */
export async function all<T>(url: string, items: string): Promise<T[]> {
  const list: T[] = []
  let token = ''
  do {
    const next: Record<string, unknown> = await call('GET', `${url}${url.includes('?') ? '&' : '?'}pageSize=1000${token ? `&pageToken=${encodeURIComponent(token)}` : ''}`)
    list.push(...((next[items] as T[] | undefined) ?? []))
    token = (next.nextPageToken as string | undefined) ?? ''
  } while (token)
  return list
}
