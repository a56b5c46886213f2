// Cloud Logging v2: entries.
import { own } from '../session'
import { call } from './call'

export interface Entry {
  insertId: string
  logName: string
  timestamp: string
  severity?: string
  textPayload?: string
  jsonPayload?: Record<string, unknown>
  protoPayload?: Record<string, unknown>
  trace?: string
  spanId?: string
  labels?: Record<string, string>
  resource?: { type: string; labels: Record<string, string> }
  httpRequest?: {
    requestMethod?: string
    requestUrl?: string
    status?: number
    latency?: string
    responseSize?: string
    userAgent?: string
    remoteIp?: string
  }
}

export async function entryList(filter: string, size: number, order: 'asc' | 'desc'): Promise<Entry[]> {
  const entries: Entry[] = []
  let pageToken: string | undefined
  // A page may be short, or empty, and still name a next one.
  for (let page = 0; page < 20 && entries.length < size; page++) {
    const next = await call<{ entries?: Entry[]; nextPageToken?: string }>('POST', '/api/logging.googleapis.com/v2/entries:list', {
      resourceNames: [`projects/${own().project}`],
      filter,
      orderBy: `timestamp ${order}`,
      pageSize: Math.min(size - entries.length, 1000),
      pageToken,
    })
    entries.push(...(next.entries ?? []))
    if (!next.nextPageToken) break
    pageToken = next.nextPageToken
  }
  return entries
}

/** A text within a filter's quotes. */
export const quoted = (text: string) => `"${text.replaceAll('\\', '\\\\').replaceAll('"', '\\"')}"`

/** What an entry says, in one text. */
export function textOf(entry: Entry): string {
  if (entry.textPayload !== undefined) return entry.textPayload
  if (entry.jsonPayload) {
    const message = entry.jsonPayload.message
    return typeof message === 'string' ? message : JSON.stringify(entry.jsonPayload)
  }
  if (entry.protoPayload) return `${entry.protoPayload.methodName ?? ''} ${entry.protoPayload.resourceName ?? ''}`
  return ''
}
