// A function's source in the browser: files by name, to and from an archive.
import { strFromU8, strToU8, unzipSync, zipSync, type Zippable } from 'fflate'

export type Files = Record<string, Uint8Array>

/** What can be edited; anything else stays as it is. */
export function isText(bytes: Uint8Array): boolean {
  if (bytes.includes(0)) return false
  try {
    new TextDecoder('utf-8', { fatal: true }).decode(bytes)
    return true
  } catch {
    return false
  }
}

export const toText = (bytes: Uint8Array) => strFromU8(bytes)
export const toBytes = (text: string) => strToU8(text)

export function unpack(archive: Uint8Array): Files {
  const files = unzipSync(archive)
  return Object.fromEntries(Object.entries(files).filter(([name]) => !name.endsWith('/')))
}

/** The same files give the same archive, whenever it is made: a build of what was built before is not made again. */
export function pack(files: Files): Uint8Array {
  const made = new Date(1980, 0, 2)
  const all: Zippable = {}
  for (const name of Object.keys(files).sort()) all[name] = [files[name] as Uint8Array, { mtime: made, os: 3, attrs: 0o100644 << 16 }]
  return zipSync(all, { level: 6 })
}

/** Why a file cannot have this name; empty when it can. */
export function nameFault(name: string, files: Files): 'empty' | 'path' | 'taken' | '' {
  if (!name.trim()) return 'empty'
  const parts = name.split('/')
  if (name.length > 255 || /[\\\u0000-\u001f\u007f]/.test(name) || parts.some((part) => part === '' || part === '.' || part === '..')) return 'path'
  if (name in files || Object.keys(files).some((other) => other.startsWith(`${name}/`) || name.startsWith(`${other}/`))) return 'taken'
  return ''
}
