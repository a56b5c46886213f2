// The console's own methods.
import { call } from './call'
import type { Session } from '../session'

export const sessionGet = () => call<Session>('GET', '/_console/v1/session')
export const sessionBegin = (credentials: { link: string } | { email: string; password: string }) => call<Session>('POST', '/_console/v1/session', credentials)
export const sessionEnd = () => call('DELETE', '/_console/v1/session')

export interface Trial {
  status: number
  headers: [string, string][]
  text?: string
  base64?: string
  isCut: boolean
  headMs: number
  wholeMs: number
}

export interface TrialRequest {
  region: string
  service: string
  tag?: string
  method: string
  path: string
  headers: Record<string, string>
  body: string
  authenticate: boolean
}

export const trial = (request: TrialRequest) => call<Trial>('POST', '/_console/v1/trial', request)

export interface Meter {
  region: string
  service: string
  revision: string
  requestsByClass: number[]
  latencyMsP50: number
  latencyMsP99: number
  instancesActive: number
  instancesIdle: number
  starts: number
  billableSeconds: number
  vcpuSeconds: number
  gibSeconds: number
}

export const meterList = async () => (await call<{ meters: Meter[] }>('GET', '/_console/v1/meters')).meters

export interface ColdStart {
  time: string
  service: string
  region: string
  revision: string
  rung: string
  wholeUs: number
  partsUs: [string, number][]
}

export const coldStartList = async () => (await call<{ coldStarts: ColdStart[] }>('GET', '/_console/v1/coldStarts')).coldStarts

export interface Event {
  id: number
  sender: string
  from: string
  method: string
  target: string
  headers: Record<string, string>
  body: string
  isWhole: boolean
  attemptsAll: number
  attempts: { began: string; latencyUs: number; status: number | null; failure: string | null; answer: string; isReplay: boolean }[]
}

export const eventList = async () => (await call<{ events: Event[] }>('GET', '/_console/v1/events')).events
export const eventReplay = (id: number) => call<Event>('POST', '/_console/v1/events:replay', { id })

/** How many recent requests are kept, and of how many copies may be sent. */
export const requestCount = (region: string, service: string) => call<{ recorded: number; allowed: number }>('POST', '/_console/v1/requests:count', { region, service })

export interface Replied {
  /** 0: no reply in time. */
  status: number
  latencyMs: number
  isCold: boolean
  bytes: number
  isCut: boolean
  /** Only of what is shown. */
  text?: string
}

export interface Side {
  latencyMsP50: number | null
  latencyMsP99: number | null
  latencyMsMean: number | null
  coldStarts: number
  errors: number
}

export interface Comparison {
  method: string
  target: string
  failed: boolean
  serving: Replied
  candidate: Replied
  /** `isNoise`: the serving revision differs so from itself. */
  differences: { what: 'status' | 'header' | 'body'; where: string; serving?: string; candidate?: string; isNoise: boolean }[]
}

/** What a revision answered to copies of recent requests, beside the one that serves. */
export interface Compared {
  revision: string
  against: string
  recorded: number
  compared: number
  failures: number
  differing: number
  /** Whether who asks may see what was answered. */
  isShown: boolean
  /** It takes traffic now. */
  promoted: boolean
  serving: Side
  candidate: Side
  comparisons: Comparison[]
}

export const requestsShadow = (asked: { region: string; service: string; revision: string; against?: string; promote?: boolean }) =>
  call<Compared>('POST', '/_console/v1/requests:shadow', asked)

export interface Doctor {
  walls: { id: string; value: boolean | number }[]
  runtimes: { language: string; version: string; path: string }[]
  skipped: string[]
  processor: { name: string; state: string }[]
  missing: string[]
}

export const doctorGet = () => call<Doctor>('GET', '/_console/v1/doctor')
