// Why somebody was not let in: the server's own method beside Google's Policy Troubleshooter.
import { own } from '../session'
import { call } from './call'

export interface Why {
  allowed: boolean
  /** Of a request that was refused: whether it would be let in now. */
  allowedNow?: boolean
  principal: string
  permission: string
  resource: string
  time?: string
  invokerIamDisabled?: boolean
  grants?: { role: string; policy: string }[]
  reasons: { kind: string; message: string; fix?: string }[]
}

export const accessWhy = (asked: Record<string, string>) =>
  call<Why>('GET', `/api/policytroubleshooter.googleapis.com/tanebi/v1/projects/${own().project}:whyDenied?${new URLSearchParams(asked).toString()}`)
