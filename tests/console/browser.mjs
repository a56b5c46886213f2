// A real Chromium in front of a running console, and what every play of it needs.
import { readFileSync } from 'node:fs'
import { chromium } from 'playwright-core'

const LABELS = JSON.parse(readFileSync(new URL('labels.json', import.meta.url), 'utf8'))

export function check(holds, what) {
  if (!holds) throw new Error(`not so: ${what}`)
}

/** Opens a browser that knows nothing of the shell's proxy. Script errors and refusals of the page's own policy end the play. */
export async function open({ language, theme = 'light', width = 1360, height = 900 }) {
  const browser = await chromium.launch({ executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium', args: ['--no-sandbox', '--no-proxy-server'] })
  const context = await browser.newContext({ locale: language === 'ja' ? 'ja-JP' : 'en-US', colorScheme: theme, viewport: { width, height }, permissions: ['clipboard-read', 'clipboard-write'] })
  const page = await context.newPage()
  page.setDefaultTimeout(30_000)
  const faults = []
  page.on('pageerror', (error) => faults.push(`script: ${error.stack ?? error}`))
  page.on('console', (message) => {
    if (/Content Security Policy|Trusted/.test(message.text())) faults.push(message.text())
  })
  // The console works without any network but loopback: nothing else is asked for.
  page.on('request', (request) => {
    const url = new URL(request.url())
    if (!/^(data|blob|about):$/.test(url.protocol) && !/(^|\.)localhost$|^127\.0\.0\.1$/.test(url.hostname)) faults.push(`a request to ${url.hostname}`)
  })
  page.on('dialog', (dialog) => {
    faults.push(`a dialog: ${dialog.message()}`)
    void dialog.dismiss()
  })
  const label = (name) => LABELS[name][language] ?? (() => { throw new Error(`no label ${name}`) })()
  return { browser, context, page, faults, label }
}

export async function end({ browser, faults }) {
  await browser.close()
  check(faults.length === 0, `no script fails and nothing breaks the page's policy: ${faults.join('\n')}`)
}
