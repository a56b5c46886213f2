// "Save and redeploy": pack, upload, build, new revision, and copies of recent requests to it where that is wished. What was begun is
// remembered in this tab, so that a reload goes on with it.
import { useSyncExternalStore } from 'react'
import { buildLog, buildSubmit, buildWait, repositoryEnsure, sourceUpload } from './api/build'
import { requestCount, requestsShadow, type Compared } from './api/console'
import { serviceGet, serviceUpdate, shortName } from './api/run'
import { textOf } from './api/logging'
import { hold, isHeld, shadowOf } from './shadow'
import { pack, type Files } from './source'

export const STEPS = ['upload', 'build', 'revision', 'shadow', 'done'] as const
/** The build's log is read again after so long while it runs. */
const LOG_ROUND_MS = 150
export type Step = (typeof STEPS)[number]

export interface Deploy {
  region: string
  service: string
  step: Step
  began: number
  /** How long each step took, in milliseconds. */
  took: Partial<Record<Step, number>>
  failed?: string
  log: string[]
  /** What the server needs again after a reload. */
  build?: { id: string; name: string; imageUri: string; baseImageUri: string; sourceLocation: string }
  runtime: string
  target: string
  revision?: string
  /** Whether copies of recent requests go to it first. */
  isShadowed?: boolean
  compared?: Compared
  /** It was wished, and there was no request to copy. */
  isUncompared?: boolean
}

const KEPT = 'deploy/'
const running = new Map<string, Deploy>()
const told = new Set<() => void>()
const keyOf = (region: string, service: string) => `${region}/${service}`

function set(deploy: Deploy) {
  const key = keyOf(deploy.region, deploy.service)
  running.set(key, deploy)
  if (deploy.step === 'done' || deploy.failed) sessionStorage.removeItem(KEPT + key)
  else sessionStorage.setItem(KEPT + key, JSON.stringify({ ...deploy, log: [], compared: undefined }))
  told.forEach((one) => one())
}

export function useDeploy(region: string, service: string): Deploy | undefined {
  return useSyncExternalStore(
    (changed) => {
      told.add(changed)
      return () => told.delete(changed)
    },
    () => running.get(keyOf(region, service)),
  )
}

export const isRunning = (deploy: Deploy | undefined) => deploy !== undefined && deploy.step !== 'done' && !deploy.failed

export async function deploy(region: string, service: string, files: Files, runtime: string, target: string) {
  const begun: Deploy = { region, service, step: 'upload', began: Date.now(), took: {}, log: [], runtime, target }
  set(begun)
  await guarded(begun, async () => {
    const [source] = await Promise.all([sourceUpload(region, service, pack(files)), repositoryEnsure(region)])
    const { build, baseImageUri, imageUri } = await buildSubmit(region, service, source, runtime, target)
    const sourceLocation = `gs://${source.bucket}/${source.object}#${source.generation}`
    await follow({ ...next(begun, 'build'), build: { id: build.id, name: build.name, imageUri, baseImageUri, sourceLocation } })
  })
}

/** Goes on with what a reload has interrupted. */
export async function deployResume(region: string, service: string) {
  const key = keyOf(region, service)
  const kept = sessionStorage.getItem(KEPT + key)
  if (!kept || running.has(key)) return
  const begun = JSON.parse(kept) as Deploy
  if (!begun.build) {
    sessionStorage.removeItem(KEPT + key)
    return
  }
  await guarded(begun, () => (begun.step === 'shadow' ? compare(begun) : follow({ ...begun, step: 'build' })))
}

async function follow(begun: Deploy) {
  let now = begun
  const { id, name, imageUri, baseImageUri, sourceLocation } = now.build as NonNullable<Deploy['build']>
  set(now)
  const counted = requestCount(now.region, now.service).catch(() => ({ allowed: 0 }))
  let isBuilding = true
  const reading = (async () => {
    while (isBuilding) {
      const log = await lines(id).catch(() => now.log)
      if (isBuilding) set((now = { ...now, log }))
      await new Promise((done) => setTimeout(done, LOG_ROUND_MS))
    }
  })()
  const build = await buildWait(now.region, id).finally(() => (isBuilding = false))
  const digest = build.results?.images?.[0]?.digest
  if (build.status !== 'SUCCESS' || !digest) {
    await reading
    now = { ...now, log: await lines(id) }
    throw Object.assign(new Error(build.failureInfo?.detail || build.statusDetail || build.status), { deploy: now })
  }
  now = next(now, 'revision')
  set(now)
  // Log lines of the build's end are written within a second of it.
  void lines(id).then((log) => set({ ...(running.get(keyOf(now.region, now.service)) ?? now), log }), () => undefined)
  const before = await serviceGet(now.region, now.service)
  // As gcloud does: a save is a new revision, also of what was deployed before.
  const labels = { ...before.template.labels, 'client.knative.dev/nonce': crypto.randomUUID().slice(0, 8) }
  const template = { ...before.template, labels, containers: [{ ...before.template.containers[0], image: `${imageUri}@${digest}`, ...(baseImageUri ? { baseImageUri } : {}) }] }
  // A revision's name is used once.
  delete template.revision
  const buildConfig = { ...before.buildConfig, name, sourceLocation, imageUri, functionTarget: now.target, baseImage: baseImageUri || now.runtime, enableAutomaticUpdates: true }
  const isShadowed = shadowOf(before) !== 'off'
  // Without a request to copy nothing is held: there is nothing to wait for. What is held already is not let go by that.
  const isComparable = isShadowed && ((await counted).allowed > 0 || isHeld(before))
  const held = isComparable ? hold(before) : null
  const after = await serviceUpdate(now.region, now.service, { template, buildConfig, ...held }, ['template', 'build_config', ...(held ? ['traffic', 'annotations'] : [])])
  if (after.terminalCondition?.state === 'CONDITION_FAILED') throw Object.assign(new Error(after.terminalCondition.message ?? ''), { deploy: now })
  const revision = shortName(after.latestReadyRevision)
  if (!held) return end({ ...next(now, 'done'), isUncompared: isShadowed && !isComparable }, revision)
  await compare({ ...next(now, 'shadow'), revision, isShadowed: true })
}

/** Copies of recent requests go to the new revision, which takes traffic when it does not fail. */
async function compare(now: Deploy) {
  set(withLog(now))
  const compared = await requestsShadow({ region: now.region, service: now.service, revision: now.revision ?? '', promote: true })
  end({ ...next(now, 'done'), compared }, now.revision ?? '')
}

const end = (now: Deploy, revision: string) => set(withLog({ ...now, revision }))
/** The log may have come after `now` was made. */
const withLog = (now: Deploy): Deploy => ({ ...now, log: running.get(keyOf(now.region, now.service))?.log ?? now.log })

const lines = async (id: string) => (await buildLog(id)).flatMap((entry) => textOf(entry).split('\n'))

function next(deploy: Deploy, step: Step): Deploy {
  const before = Object.values(deploy.took).reduce((sum, one) => sum + one, 0)
  return { ...deploy, step, took: { ...deploy.took, [deploy.step]: Date.now() - deploy.began - before } }
}

async function guarded(begun: Deploy, work: () => Promise<void>) {
  try {
    await work()
  } catch (error) {
    const known = (error as { deploy?: Deploy }).deploy ?? running.get(keyOf(begun.region, begun.service)) ?? begun
    set({ ...known, failed: error instanceof Error ? error.message : String(error) })
  }
}

/** Where a compiler or interpreter says that a file is wrong: `main.py", line 3`, `./function.go:12:5`, `HelloHttp.java:[10,3]`. */
export function marksOf(text: string, files: string[]): { file: string; line: number; message: string }[] {
  const marks: { file: string; line: number; message: string }[] = []
  const lines = text.split('\n')
  lines.forEach((line, at) => {
    const found = /([\w./-]+\.\w+)(?:", line |:\[?)(\d+)(?:[:,]\d+)?\]?:?\s*(.*)$/.exec(line)
    const file = found && files.find((name) => found[1] === name || found[1]?.endsWith(`/${name}`) || found[1]?.replace(/^\.\//, '') === name)
    if (!found || !file) return
    // Python says what is wrong some lines below.
    const below = lines.slice(at + 1, at + 6).find((other) => /^\w*(Error|Exception)\b/.test(other.trim()))
    marks.push({ file, line: Number(found[2]), message: found[3] || below?.trim() || line.trim() })
  })
  return marks
}
