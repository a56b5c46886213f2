// Cloud Run v2: services, revisions, builds, policies. Shapes: google/cloud/run/v2/*.proto, as far as the console reads them.
import { own } from '../session'
import { all, at, call } from './call'

const run = at('run.googleapis.com')
/** What the server takes for a function that has no source yet. */
export const PLACEHOLDER = 'us-docker.pkg.dev/cloudrun/container/placeholder'

export type Ingress = 'INGRESS_TRAFFIC_ALL' | 'INGRESS_TRAFFIC_INTERNAL_ONLY' | 'INGRESS_TRAFFIC_INTERNAL_LOAD_BALANCER' | 'INGRESS_TRAFFIC_NONE'

export interface Condition {
  type: string
  state: 'CONDITION_SUCCEEDED' | 'CONDITION_FAILED' | 'CONDITION_RECONCILING' | 'CONDITION_PENDING'
  message?: string
  lastTransitionTime?: string
}

export interface Container {
  image?: string
  baseImageUri?: string
  command?: string[]
  args?: string[]
  env?: { name: string; value?: string; valueSource?: { secretKeyRef: { secret: string; version: string } } }[]
  resources?: { limits?: Record<string, string>; cpuIdle?: boolean; startupCpuBoost?: boolean }
  ports?: { name?: string; containerPort?: number }[]
}

export interface Template {
  revision?: string
  labels?: Record<string, string>
  annotations?: Record<string, string>
  scaling?: { minInstanceCount?: number; maxInstanceCount?: number }
  timeout?: string
  serviceAccount?: string
  containers: Container[]
  maxInstanceRequestConcurrency?: number
  executionEnvironment?: string
  sessionAffinity?: boolean
}

export interface BuildConfig {
  name?: string
  sourceLocation?: string
  functionTarget?: string
  imageUri?: string
  baseImage?: string
  enableAutomaticUpdates?: boolean
  environmentVariables?: Record<string, string>
}

export interface Traffic {
  type: 'TRAFFIC_TARGET_ALLOCATION_TYPE_LATEST' | 'TRAFFIC_TARGET_ALLOCATION_TYPE_REVISION'
  revision?: string
  percent?: number
  tag?: string
  uri?: string
}

export interface Service {
  name: string
  uid?: string
  generation?: string
  observedGeneration?: string
  description?: string
  annotations?: Record<string, string>
  createTime?: string
  updateTime?: string
  deleteTime?: string
  creator?: string
  lastModifier?: string
  client?: string
  ingress?: Ingress
  invokerIamDisabled?: boolean
  defaultUriDisabled?: boolean
  template: Template
  traffic?: Traffic[]
  trafficStatuses?: Traffic[]
  scaling?: { minInstanceCount?: number; maxInstanceCount?: number; scalingMode?: string; manualInstanceCount?: number }
  uri?: string
  urls?: string[]
  buildConfig?: BuildConfig
  terminalCondition?: Condition
  conditions?: Condition[]
  latestReadyRevision?: string
  latestCreatedRevision?: string
  reconciling?: boolean
  etag?: string
}

export interface Revision {
  name: string
  createTime?: string
  generation?: string
  scaling?: { minInstanceCount?: number; maxInstanceCount?: number }
  timeout?: string
  serviceAccount?: string
  containers?: Container[]
  maxInstanceRequestConcurrency?: number
  conditions?: Condition[]
  annotations?: Record<string, string>
  executionEnvironment?: string
  sessionAffinity?: boolean
  creator?: string
}

export interface Policy {
  version?: number
  etag?: string
  bindings?: { role: string; members: string[] }[]
}

export const shortName = (name: string | undefined) => name?.split('/').pop() ?? ''
export const regionOf = (name: string) => name.split('/')[3] ?? ''

const servicePath = (region: string, service: string) => run`/v2/projects/${own().project}/locations/${region}/services/${service}`

export const serviceList = () => all<Service>(run`/v2/projects/${own().project}/locations/-/services`, 'services')
export const serviceGet = (region: string, service: string) => call<Service>('GET', servicePath(region, service))

export async function serviceCreate(region: string, id: string, service: Omit<Service, 'name'>) {
  await call('POST', `${run`/v2/projects/${own().project}/locations/${region}/services`}?serviceId=${encodeURIComponent(id)}`, { ...service, client: 'console' })
}

interface Operation {
  name: string
  done?: boolean
}

/** Changes fields of a service and waits until it is as asked, or has failed. */
export async function serviceUpdate(region: string, id: string, service: Partial<Service>, mask: string[]): Promise<Service> {
  let operation = await call<Operation>('PATCH', `${servicePath(region, id)}?updateMask=${mask.join(',')}`, { ...service, client: 'console' })
  // Answered when it has ended: no time is lost between two looks.
  while (!operation.done) operation = await call<Operation>('POST', `/api/run.googleapis.com/v2/${operation.name}:wait`, { timeout: '30s' })
  return serviceSettled(region, id)
}

export const serviceDelete = (region: string, service: string) => call('DELETE', servicePath(region, service))

/** Waits until what was asked for last has become true, or has failed. */
export async function serviceSettled(region: string, id: string): Promise<Service> {
  for (;;) {
    const service = await serviceGet(region, id)
    if (!service.reconciling) return service
    await new Promise((done) => setTimeout(done, 80))
  }
}

export const revisionList = (region: string, service: string) => all<Revision>(`${servicePath(region, service)}/revisions`, 'revisions')
export const revisionDelete = (name: string) => call('DELETE', `/api/run.googleapis.com/v2/${name}`)

export const policyGet = (region: string, service: string) =>
  call<Policy>('GET', `${servicePath(region, service)}:getIamPolicy?options.requestedPolicyVersion=3`)

export const policySet = (region: string, service: string, policy: Policy) =>
  call<Policy>('POST', `${servicePath(region, service)}:setIamPolicy`, { policy: { ...policy, version: 3 } })

export const projectPolicyGet = () =>
  call<Policy>('POST', `/api/cloudresourcemanager.googleapis.com/v1/projects/${own().project}:getIamPolicy`, { options: { requestedPolicyVersion: 3 } })
export const projectPolicySet = (policy: Policy) =>
  call<Policy>('POST', `/api/cloudresourcemanager.googleapis.com/v1/projects/${own().project}:setIamPolicy`, { policy: { ...policy, version: 3 } })

/** The service as run v1 has it, which is what people know as its YAML. */
const knative = (region: string, service: string) =>
  `/api/${region}-run.googleapis.com/apis/serving.knative.dev/v1/namespaces/${own().project}/services/${encodeURIComponent(service)}`
export const manifestGet = (region: string, service: string) => call<Record<string, unknown>>('GET', knative(region, service))
export const manifestPut = (region: string, service: string, manifest: unknown) => call('PUT', knative(region, service), manifest)

export interface Runtime {
  name: string
  displayName: string
  stage: string
  warnings?: string[]
}

export async function runtimeList(region: string): Promise<Runtime[]> {
  const list = await call<{ runtimes?: Runtime[] }>('GET', at('cloudfunctions.googleapis.com')`/v2/projects/${own().project}/locations/${region}/runtimes`)
  return list.runtimes ?? []
}

export interface Account {
  email: string
  displayName?: string
}

export const accountList = () => all<Account>(at('iam.googleapis.com')`/v1/projects/${own().project}/serviceAccounts`, 'accounts')

/** The address that a browser on this machine opens. */
export function browserUrl(uri: string | undefined): string {
  if (!uri) return ''
  const url = new URL(uri)
  return `${location.protocol}//${url.hostname.replace(/\.run\.app$/, '.run.localhost')}:${location.protocol === 'https:' ? location.port : own().port}/`
}

export const hostOf = (service: string, region: string) => `${service}-${own().projectNumber}.${region}.run.app`

export const isPlaceholder = (service: Service) => service.template.containers[0]?.image === PLACEHOLDER

export type Kind = 'function' | 'source' | 'container'
export function kindOf(service: Service): Kind {
  if (service.buildConfig?.functionTarget) return 'function'
  return service.buildConfig?.sourceLocation ? 'source' : 'container'
}

/** python312 of python312, or of a whole image name. */
export const runtimeOf = (service: Service) => shortName(service.buildConfig?.baseImage).split(':')[0] ?? ''
