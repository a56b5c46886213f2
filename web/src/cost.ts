// What Google would charge for what a service used, by its price list (cloud.google.com/run/pricing), before the free tier and discounts.
import type { Meter } from './api/console'
import type { Container } from './api/run'

/** Regions of tier 2; all others are of tier 1. */
const TIER_2 = new Set([
  'africa-south1', 'asia-east2', 'asia-northeast3', 'asia-south2', 'asia-southeast1', 'asia-southeast2', 'asia-southeast3', 'australia-southeast1',
  'australia-southeast2', 'europe-central2', 'europe-west10', 'europe-west12', 'europe-west2', 'europe-west3', 'europe-west6', 'me-central1',
  'me-central2', 'northamerica-northeast1', 'northamerica-northeast2', 'southamerica-east1', 'southamerica-west1', 'us-west2', 'us-west3', 'us-west4',
])

const PRICES = {
  request: { 1: { cpu: 0.000024, memory: 0.0000025 }, 2: { cpu: 0.0000336, memory: 0.0000035 } },
  instance: { 1: { cpu: 0.000018, memory: 0.000002 }, 2: { cpu: 0.0000216, memory: 0.0000024 } },
} as const
const PER_MILLION_REQUESTS = 0.4

export function costOf(meters: Meter[], region: string, isByRequest: boolean) {
  const price = PRICES[isByRequest ? 'request' : 'instance'][TIER_2.has(region) ? 2 : 1]
  const sum = (of: (meter: Meter) => number) => meters.reduce((all, meter) => all + of(meter), 0)
  const vcpuSeconds = sum((meter) => meter.vcpuSeconds)
  const gibSeconds = sum((meter) => meter.gibSeconds)
  const requests = sum((meter) => meter.requestsByClass.reduce((all, one) => all + one, 0))
  const requestPrice = isByRequest ? PER_MILLION_REQUESTS : 0
  const [cpu, memory, request] = [vcpuSeconds * price.cpu, gibSeconds * price.memory, (requests * requestPrice) / 1e6]
  return { vcpuSeconds, gibSeconds, requests, cpuPrice: price.cpu, memoryPrice: price.memory, requestPrice, cpu, memory, request, whole: cpu + memory + request }
}

/** What a million requests cost that take `latencyMs` each, one after the other in instances that are never idle between. */
export function millionCost(latencyMs: number, container: Container, region: string): number {
  const isByRequest = container.resources?.cpuIdle !== false
  const price = PRICES[isByRequest ? 'request' : 'instance'][TIER_2.has(region) ? 2 : 1]
  const { cpu = '1', memory = '512Mi' } = container.resources?.limits ?? {}
  const vcpu = cpu.endsWith('m') ? Number(cpu.slice(0, -1)) / 1000 : Number(cpu)
  const seconds = (latencyMs / 1000) * 1e6
  return seconds * (vcpu * price.cpu + gib(memory) * price.memory) + (isByRequest ? PER_MILLION_REQUESTS : 0)
}

function gib(memory: string): number {
  const units: Record<string, number> = { Ki: 2 ** 10, Mi: 2 ** 20, Gi: 2 ** 30, K: 1e3, k: 1e3, M: 1e6, G: 1e9 }
  const [, digits = '0', unit = ''] = /^([\d.]+)(\w*)$/.exec(memory) ?? []
  return (Number(digits) * (units[unit] ?? 1)) / 2 ** 30
}
