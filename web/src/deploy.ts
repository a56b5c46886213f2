// "Save and redeploy": pack, upload, build, new revision. What was begun is remembered in this tab, so that a reload goes on with it.
import { useSyncExternalStore } from 'react'
import { buildGet, buildLog, buildSubmit, isUnderWay, sourceUpload } from './api/build'
import { serviceGet, serviceUpdate, shortName } from './api/run'
import { textOf } from './api/logging'
import { pack, type Files } from './source'

export const STEPS = ['upload', 'build', 'revision', 'done'] as const
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
}

const KEPT = 'deploy/'
const running = new Map<string, Deploy>()
const told = new Set<() => void>()
const keyOf = (region: string, service: string) => `${region}/${service}`

function set(deploy: Deploy) {
  const key = keyOf(deploy.region, deploy.service)
  running.set(key, deploy)
  if (deploy.step === 'done' || deploy.failed) sessionStorage.removeItem(KEPT + key)
  else sessionStorage.setItem(KEPT + key, JSON.stringify({ ...deploy, log: [] }))
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
    const source = await sourceUpload(region, service, pack(files))
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
  await guarded(begun, () => follow({ ...begun, step: 'build' }))
}

async function follow(begun: Deploy) {
  let now = begun
  const { id, name, imageUri, baseImageUri, sourceLocation } = now.build as NonNullable<Deploy['build']>
  set(now)
  let build = await buildGet(now.region, id)
  while (isUnderWay(build)) {
    await new Promise((done) => setTimeout(done, 100))
    const [next, log] = await Promise.all([buildGet(now.region, id), lines(id)])
    build = next
    now = { ...now, log }
    set(now)
  }
  now = { ...now, log: await lines(id) }
  const digest = build.results?.images?.[0]?.digest
  if (build.status !== 'SUCCESS' || !digest) throw Object.assign(new Error(build.failureInfo?.detail || build.statusDetail || build.status), { deploy: now })
  now = next(now, 'revision')
  set(now)
  const before = await serviceGet(now.region, now.service)
  // As gcloud does: a save is a new revision, also of what was deployed before.
  const labels = { ...before.template.labels, 'client.knative.dev/nonce': crypto.randomUUID().slice(0, 8) }
  const template = { ...before.template, labels, containers: [{ ...before.template.containers[0], image: `${imageUri}@${digest}`, ...(baseImageUri ? { baseImageUri } : {}) }] }
  // A revision's name is used once.
  delete template.revision
  const buildConfig = { ...before.buildConfig, name, sourceLocation, imageUri, functionTarget: now.target, baseImage: baseImageUri || now.runtime, enableAutomaticUpdates: true }
  const after = await serviceUpdate(now.region, now.service, { template, buildConfig }, ['template', 'build_config'])
  // Log lines of the build's end are written within a second of it.
  void lines(id).then((log) => set({ ...(running.get(keyOf(now.region, now.service)) ?? now), log }))
  if (after.terminalCondition?.state === 'CONDITION_FAILED') throw Object.assign(new Error(after.terminalCondition.message ?? ''), { deploy: now })
  set({ ...next(now, 'done'), revision: shortName(after.latestReadyRevision) })
}

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
