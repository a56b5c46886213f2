import { brotliCompressSync, gzipSync } from 'node:zlib'
import { readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import react from '@vitejs/plugin-react'
import { defineConfig, type Plugin } from 'vite'

/** Each file of the result gets two compressed forms beside it: the binary holds only those. */
function compressed(): Plugin {
  let folder = 'dist'
  const walk = (dir: string) => {
    for (const name of readdirSync(dir)) {
      const path = join(dir, name)
      if (statSync(path).isDirectory()) walk(path)
      else if (!/\.(gz|br)$/.test(name)) {
        writeFileSync(`${path}.gz`, gzipSync(readFileSync(path), { level: 9 }))
        writeFileSync(`${path}.br`, brotliCompressSync(readFileSync(path)))
      }
    }
  }
  return {
    name: 'compressed',
    apply: 'build',
    configResolved: (config) => void (folder = config.build.outDir),
    writeBundle: () => walk(folder),
  }
}

// `npm run dev` shows the page as it is edited, in front of a tanebi that runs: TANEBI=http://127.0.0.1:7070.
const target = process.env.TANEBI ?? 'http://127.0.0.1:7070'
const port = new URL(target).port
const own = { target, changeOrigin: false, headers: { host: `console.localhost:${port}`, origin: `http://console.localhost:${port}` } }

export default defineConfig({
  plugins: [react(), compressed()],
  build: { target: 'es2022', modulePreload: { polyfill: false }, assetsInlineLimit: 0, chunkSizeWarningLimit: 1000 },
  server: { host: '127.0.0.1', proxy: { '/api': own, '/_console': own } },
})
