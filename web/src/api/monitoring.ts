// Cloud Monitoring v3: time series, a point a minute.
import { own } from '../session'
import { all } from './call'

interface Series {
  metric: { type: string; labels?: Record<string, string> }
  resource: { labels: Record<string, string> }
  points?: { interval: { endTime: string }; value: { distributionValue?: { count?: string; mean?: number }; int64Value?: string } }[]
}

export type Utilization = 'cpu' | 'memory'

/** By minute, as a share of the limit, of all instances together: [seconds since 1970, share]. */
export async function utilizationList(region: string, service: string, what: Utilization, minutes: number): Promise<[number, number][]> {
  const filter = `metric.type="run.googleapis.com/container/${what}/utilizations" AND resource.labels.service_name="${service}" AND resource.labels.location="${region}"`
  const now = Date.now()
  const query = new URLSearchParams({ filter, 'interval.startTime': new Date(now - minutes * 60_000).toISOString(), 'interval.endTime': new Date(now).toISOString() })
  const series = await all<Series>(`/api/monitoring.googleapis.com/v3/projects/${own().project}/timeSeries?${query.toString()}`, 'timeSeries')
  // Revisions of a service together, each with as many samples as it has.
  const sums = new Map<number, { count: number; sum: number }>()
  for (const point of series.flatMap((one) => one.points ?? [])) {
    const { count = '0', mean = 0 } = point.value.distributionValue ?? {}
    const at = new Date(point.interval.endTime).getTime() / 1000
    const known = sums.get(at) ?? { count: 0, sum: 0 }
    sums.set(at, { count: known.count + Number(count), sum: known.sum + Number(count) * mean })
  }
  return [...sums].filter(([, one]) => one.count > 0).map(([at, one]): [number, number] => [at, one.sum / one.count]).sort(([one], [other]) => one - other)
}
