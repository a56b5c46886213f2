// A source becomes an image: the same calls as those of gcloud run deploy --source.
import { own } from '../session'
import { all, ApiError, at, call, send } from './call'
import { entryList, type Entry } from './logging'

const REPOSITORY = 'cloud-run-source-deploy'
const storage = at('storage.googleapis.com')

export interface Build {
  id: string
  name: string
  status: 'QUEUED' | 'PENDING' | 'WORKING' | 'SUCCESS' | 'FAILURE' | 'INTERNAL_ERROR' | 'TIMEOUT' | 'CANCELLED'
  statusDetail?: string
  results?: { images?: { name: string; digest: string }[] }
  failureInfo?: { detail?: string }
  source?: { storageSource?: Partial<Uploaded> }
}

export interface Uploaded {
  bucket: string
  object: string
  generation: string
}

/** Puts an archive where gcloud puts it; the bucket is made when it is not there. */
export async function sourceUpload(region: string, service: string, archive: Uint8Array): Promise<Uploaded> {
  const bucket = `run-sources-${own().project}-${region}`
  const object = `services/${service}/${Date.now() / 1000}-${crypto.randomUUID().replaceAll('-', '')}.zip`
  const put = () =>
    send('POST', `${storage`/upload/storage/v1/b/${bucket}/o`}?uploadType=media&name=${encodeURIComponent(object)}`, archive as BodyInit, 'application/zip')
  let response: Response
  try {
    response = await put()
  } catch (error) {
    if (!(error instanceof ApiError) || error.http !== 404) throw error
    await call('POST', `/api/storage.googleapis.com/storage/v1/b?project=${own().project}`, {
      name: bucket,
      location: region,
      iamConfiguration: { uniformBucketLevelAccess: { enabled: true } },
    })
    response = await put()
  }
  const { generation } = (await response.json()) as { generation: string }
  return { bucket, object, generation }
}

/** The archive that a service was made of. */
export async function sourceDownload(location: string): Promise<Uint8Array> {
  const [, bucket = '', object = '', generation] = /^gs:\/\/([^/]+)\/([^#]+)(?:#(\d+))?$/.exec(location) ?? []
  const response = await send('GET', `${storage`/storage/v1/b/${bucket}/o/${object}`}?alt=media${generation ? `&generation=${generation}` : ''}`)
  return new Uint8Array(await response.arrayBuffer())
}

export interface Submitted {
  build: Build
  baseImageUri: string
  imageUri: string
}

export async function buildSubmit(region: string, service: string, source: Uploaded, baseImage: string, functionTarget: string): Promise<Submitted> {
  const imageUri = `${region}-docker.pkg.dev/${own().project}/${REPOSITORY}/${service}`
  const answer = await call<{ buildOperation: { metadata: { build: Build } }; baseImageUri?: string }>(
    'POST',
    at('run.googleapis.com')`/v2/projects/${own().project}/locations/${region}/builds:submit`,
    { storageSource: source, imageUri, buildpackBuild: { baseImage, functionTarget, enableAutomaticUpdates: true }, tags: [`service_${service}`] },
  )
  return { build: answer.buildOperation.metadata.build, baseImageUri: answer.baseImageUri ?? '', imageUri }
}

/** Regions whose repository was seen: it is asked for once. */
const ensured = new Set<string>()

export async function repositoryEnsure(region: string) {
  if (ensured.has(region)) return
  const path = at('artifactregistry.googleapis.com')`/v1/projects/${own().project}/locations/${region}/repositories`
  try {
    await call('GET', `${path}/${REPOSITORY}`)
  } catch (error) {
    if (!(error instanceof ApiError) || error.http !== 404) throw error
    await call('POST', `${path}?repositoryId=${REPOSITORY}`, { format: 'DOCKER' }).catch((other: unknown) => {
      if (!(other instanceof ApiError) || other.http !== 409) throw other
    })
  }
  ensured.add(region)
}

/** The build's end: its operation is answered when it is there, or after some seconds. */
export async function buildWait(region: string, id: string): Promise<Build> {
  for (;;) {
    const { metadata } = await call<{ metadata: { build: Build } }>('GET', at('cloudbuild.googleapis.com')`/v1/projects/${own().project}/locations/${region}/operations/${id}`)
    if (!isUnderWay(metadata.build)) return metadata.build
  }
}

/** The source that an image was built from; `undefined` when no build here has made it. */
export async function sourceOfImage(region: string, digest: string): Promise<string | undefined> {
  const builds = await all<Build>(at('cloudbuild.googleapis.com')`/v1/projects/${own().project}/locations/${region}/builds`, 'builds')
  const build = builds.find((one) => one.results?.images?.some((image) => image.digest === digest))
  const source = build?.source?.storageSource
  return source?.bucket && source.object ? `gs://${source.bucket}/${source.object}${source.generation ? `#${source.generation}` : ''}` : undefined
}

export const buildLog = (id: string): Promise<Entry[]> => entryList(`resource.type="build" AND resource.labels.build_id="${id}"`, 1000, 'asc')

export const isUnderWay = (build: Build) => build.status === 'QUEUED' || build.status === 'PENDING' || build.status === 'WORKING'
