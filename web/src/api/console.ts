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
