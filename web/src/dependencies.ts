// What a source says that it needs, by its own files: names and versions.
import { isText, toText, type Files } from './source'

/** The first of these that is there counts: what was resolved before what was asked for. */
const READERS: [RegExp, (text: string) => [string, string][]][] = [
  [/^requirements\.txt$/, requirements],
  [/^package-lock\.json$/, packageLock],
  [/^package\.json$/, packageJson],
  [/^go\.mod$/, goMod],
  [/^pom\.xml$/, pom],
]

export function dependenciesOf(files: Files): Map<string, string> {
  for (const [name, read] of READERS) {
    const bytes = files[Object.keys(files).find((file) => name.test(file)) ?? '']
    if (!bytes || !isText(bytes)) continue
    try {
      return new Map(read(toText(bytes)))
    } catch {
      // A file that its own package manager would refuse names nothing.
      return new Map()
    }
  }
  return new Map()
}

function requirements(text: string): [string, string][] {
  return text.split('\n').flatMap((line): [string, string][] => {
    const found = /^([A-Za-z0-9][\w.-]*)(?:\[[^\]]*\])?\s*([^;#]*)/.exec(line.trim())
    return found ? [[(found[1] as string).toLowerCase().replace(/[-_.]+/g, '-'), (found[2] ?? '').trim()]] : []
  })
}

function packageLock(text: string): [string, string][] {
  const packages = (JSON.parse(text) as { packages?: Record<string, { version?: string }> }).packages ?? {}
  return Object.entries(packages).flatMap(([path, one]): [string, string][] => (path.startsWith('node_modules/') ? [[path.slice('node_modules/'.length), one.version ?? '']] : []))
}

function packageJson(text: string): [string, string][] {
  return Object.entries((JSON.parse(text) as { dependencies?: Record<string, string> }).dependencies ?? {})
}

function goMod(text: string): [string, string][] {
  return text.split('\n').flatMap((line): [string, string][] => {
    const found = /^(?:require\s+)?([\w.-]+\.[\w.-]+\/\S+)\s+(v\S+)/.exec(line.trim())
    return found ? [[found[1] as string, found[2] as string]] : []
  })
}

function pom(text: string): [string, string][] {
  return [...text.matchAll(/<dependency>([\s\S]*?)<\/dependency>/g)].map((match): [string, string] => {
    const of = (tag: string) => new RegExp(`<${tag}>\\s*([^<]*?)\\s*</${tag}>`).exec(match[1] ?? '')?.[1] ?? ''
    return [`${of('groupId')}:${of('artifactId')}`, of('version')]
  })
}
