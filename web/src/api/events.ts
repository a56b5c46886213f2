// What sends events: Pub/Sub v1, Eventarc v1, Cloud Scheduler v1, Cloud Storage v1.
import { own } from '../session'
import { all, ApiError, at, call, send } from './call'
import { regionOf, shortName, type Service } from './run'

const pubsub = at('pubsub.googleapis.com')
const scheduler = at('cloudscheduler.googleapis.com')
const eventarc = at('eventarc.googleapis.com')
const storage = at('storage.googleapis.com')

export interface Topic {
  name: string
  labels?: Record<string, string>
  messageRetentionDuration?: string
}

export interface Subscription {
  name: string
  topic: string
  ackDeadlineSeconds?: number
  messageRetentionDuration?: string
  filter?: string
  enableMessageOrdering?: boolean
  pushConfig?: { pushEndpoint?: string; oidcToken?: { serviceAccountEmail?: string; audience?: string } }
  deadLetterPolicy?: { deadLetterTopic?: string; maxDeliveryAttempts?: number }
}

export interface Message {
  data?: string
  attributes?: Record<string, string>
  messageId?: string
  publishTime?: string
}

const topicName = (topic: string) => (topic.startsWith('projects/') ? topic : `projects/${own().project}/topics/${topic}`)

export const topicList = () => all<Topic>(pubsub`/v1/projects/${own().project}/topics`, 'topics')
export const topicCreate = (topic: string) => call('PUT', pubsub`/v1/projects/${own().project}/topics/${topic}`, {})
export const topicDelete = (topic: string) => call('DELETE', pubsub`/v1/projects/${own().project}/topics/${topic}`)
export const topicPublish = (topic: string, messages: Message[]) =>
  call<{ messageIds: string[] }>('POST', pubsub`/v1/projects/${own().project}/topics/${topic}:publish`, { messages })
export const subscriptionList = () => all<Subscription>(pubsub`/v1/projects/${own().project}/subscriptions`, 'subscriptions')
export const subscriptionCreate = (id: string, subscription: Omit<Subscription, 'name'>) => call('PUT', pubsub`/v1/projects/${own().project}/subscriptions/${id}`, subscription)
export const subscriptionDelete = (id: string) => call('DELETE', pubsub`/v1/projects/${own().project}/subscriptions/${id}`)
export const subscriptionPull = (id: string) =>
  call<{ receivedMessages?: { ackId: string; message: Message }[] }>('POST', pubsub`/v1/projects/${own().project}/subscriptions/${id}:pull`, { maxMessages: 20, returnImmediately: true })
export const subscriptionAck = (id: string, ackIds: string[]) => call('POST', pubsub`/v1/projects/${own().project}/subscriptions/${id}:acknowledge`, { ackIds })

/** UTF-8 text as Pub/Sub and Scheduler carry it. */
export function toBase64(text: string): string {
  return btoa(String.fromCharCode(...new TextEncoder().encode(text)))
}

export function fromBase64(data: string | undefined): string {
  if (!data) return ''
  return new TextDecoder().decode(Uint8Array.from(atob(data), (c) => c.charCodeAt(0)))
}

export interface Job {
  name: string
  schedule?: string
  timeZone?: string
  state?: string
  scheduleTime?: string
  lastAttemptTime?: string
  status?: { code?: number; message?: string }
  description?: string
  httpTarget?: { uri?: string; httpMethod?: string; body?: string; headers?: Record<string, string>; oidcToken?: { serviceAccountEmail?: string; audience?: string } }
  pubsubTarget?: { topicName?: string; data?: string }
}

/** Of the regions that services are in, and the default one: a list is of one region. */
export async function jobList(regions: string[]): Promise<Job[]> {
  const lists = await Promise.all([...new Set([own().region, ...regions])].map((region) => all<Job>(scheduler`/v1/projects/${own().project}/locations/${region}/jobs`, 'jobs')))
  return lists.flat()
}

export const jobCreate = (region: string, job: Omit<Job, 'name'> & { id: string }) => {
  const { id, ...rest } = job
  return call('POST', scheduler`/v1/projects/${own().project}/locations/${region}/jobs`, { ...rest, name: `projects/${own().project}/locations/${region}/jobs/${id}` })
}
export const jobDo = (name: string, verb: 'run' | 'pause' | 'resume') => call<Job>('POST', `/api/cloudscheduler.googleapis.com/v1/${name}:${verb}`, {})
export const jobDelete = (name: string) => call('DELETE', `/api/cloudscheduler.googleapis.com/v1/${name}`)

export interface Trigger {
  name: string
  eventFilters: { attribute: string; value: string; operator?: string }[]
  serviceAccount?: string
  destination?: { cloudRun?: { service: string; region: string; path?: string }; cloudFunction?: string }
  transport?: { pubsub?: { topic?: string; subscription?: string } }
}

/** `null` when this server does not serve Eventarc. */
export async function triggerList(region: string): Promise<Trigger[] | null> {
  try {
    return await all<Trigger>(eventarc`/v1/projects/${own().project}/locations/${region}/triggers`, 'triggers')
  } catch (error) {
    if (error instanceof ApiError && (error.http === 404 || error.http === 501)) return null
    throw error
  }
}

export const triggerCreate = (region: string, id: string, trigger: Omit<Trigger, 'name'>) =>
  call('POST', `${eventarc`/v1/projects/${own().project}/locations/${region}/triggers`}?triggerId=${encodeURIComponent(id)}`, trigger)
export const triggerDelete = (name: string) => call('DELETE', `/api/eventarc.googleapis.com/v1/${name}`)

export interface Bucket {
  name: string
  location?: string
  storageClass?: string
  timeCreated?: string
  versioning?: { enabled?: boolean }
}

export interface StoredObject {
  name: string
  size?: string
  contentType?: string
  updated?: string
  generation?: string
}

export async function bucketList(): Promise<Bucket[]> {
  const list = await call<{ items?: Bucket[] }>('GET', `/api/storage.googleapis.com/storage/v1/b?project=${own().project}&maxResults=1000`)
  return list.items ?? []
}

export const bucketCreate = (name: string, location: string) =>
  call('POST', `/api/storage.googleapis.com/storage/v1/b?project=${own().project}`, { name, location, iamConfiguration: { uniformBucketLevelAccess: { enabled: true } } })
export const bucketDelete = (name: string) => call('DELETE', storage`/storage/v1/b/${name}`)

export async function objectList(bucket: string, prefix: string): Promise<{ prefixes: string[]; items: StoredObject[] }> {
  const list = await call<{ prefixes?: string[]; items?: StoredObject[] }>('GET', `${storage`/storage/v1/b/${bucket}/o`}?delimiter=/&maxResults=1000&prefix=${encodeURIComponent(prefix)}`)
  return { prefixes: list.prefixes ?? [], items: list.items ?? [] }
}

export const objectUpload = (bucket: string, name: string, file: Blob) =>
  send('POST', `${storage`/upload/storage/v1/b/${bucket}/o`}?uploadType=media&name=${encodeURIComponent(name)}`, file, file.type || 'application/octet-stream')
export const objectDelete = (bucket: string, name: string) => call('DELETE', storage`/storage/v1/b/${bucket}/o/${name}`)

/** Gives a file to the browser to keep. */
export async function objectDownload(bucket: string, name: string) {
  const response = await send('GET', `${storage`/storage/v1/b/${bucket}/o/${name}`}?alt=media`)
  // Never as what it says it is: it must not run here.
  const url = URL.createObjectURL(new Blob([await response.arrayBuffer()], { type: 'application/octet-stream' }))
  const link = document.createElement('a')
  link.href = url
  link.download = name.split('/').pop() ?? name
  link.click()
  URL.revokeObjectURL(url)
}

/** Whether an address is one of the service's. */
export function leadsTo(address: string | undefined, service: Service): boolean {
  if (!address) return false
  try {
    const host = new URL(address).host
    return (service.urls ?? []).some((url) => new URL(url).host === host)
  } catch {
    return false
  }
}

export const isTriggerOf = (trigger: Trigger, service: Service) =>
  trigger.destination?.cloudRun?.service === shortName(service.name) && trigger.destination.cloudRun.region === regionOf(service.name)

export { topicName }
