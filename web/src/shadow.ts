// Copies of recent requests, before a revision takes traffic: what the service's owner has chosen, and how traffic is held back meanwhile.
import { shortName, type Service, type Traffic } from './api/run'

/** Copies of nothing; of what only reads; of everything. */
export type Shadow = 'off' | 'reads' | 'all'

const SHADOW = 'tanebi.dev/shadow'
const HELD = 'tanebi.dev/shadow-held'

export function shadowOf(service: Service): Shadow {
  const chosen = service.annotations?.[SHADOW]
  return chosen === 'reads' || chosen === 'all' ? chosen : 'off'
}

export const withShadow = (service: Service, shadow: Shadow): Partial<Service> => ({ annotations: { ...service.annotations, [SHADOW]: shadow } })

/** Whether a save that did not do well left it so. */
export function isHeld(service: Service): boolean {
  const held = service.annotations?.[HELD]
  return !!held && (service.traffic ?? []).some((target) => shortName(target.revision) === held && (target.percent ?? 0) > 0)
}

/** The latest revision's share stays with the one that has it now; the server gives it on. `null` when traffic does not follow the latest. */
export function hold(service: Service): Pick<Service, 'traffic' | 'annotations'> | null {
  const latest = shortName(service.latestReadyRevision)
  const traffic = service.traffic ?? []
  const annotations = service.annotations ?? {}
  if (isHeld(service)) return { traffic, annotations }
  if (!latest || !traffic.some((target) => target.type === 'TRAFFIC_TARGET_ALLOCATION_TYPE_LATEST')) return null
  const pinned = (target: Traffic): Traffic => (target.type === 'TRAFFIC_TARGET_ALLOCATION_TYPE_LATEST' ? { ...target, type: 'TRAFFIC_TARGET_ALLOCATION_TYPE_REVISION', revision: latest } : target)
  return { traffic: traffic.map(pinned), annotations: { ...annotations, [HELD]: latest } }
}
