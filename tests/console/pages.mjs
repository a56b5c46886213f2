// Every page, with things on it and with what a stranger may have written: nothing runs, nothing is hidden, everyone can use it.
//
// node pages.mjs LANGUAGE LINK SHELL [FOLDER]: with a folder, a picture of each page in both themes is left there.
import { createRequire } from 'node:module'
import { readFileSync } from 'node:fs'
import { check, end, open } from './browser.mjs'

const [language, link, , folder] = process.argv.slice(2)
const axe = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8')
const play = await open({ language })
const { page } = play
const origin = new URL(link).origin
const EVIL = '<img src=x onerror=alert(1)><script>alert(2)</script>'
const ESCAPES = 'red \u001b[31m bell \u0007 turned \u202e txt'

await page.goto(link)
await page.locator('.frame').waitFor()
const api = (method, path, body) =>
  page.evaluate(
    async ([method, path, body]) => {
      const response = await fetch(path, { method, headers: { 'x-tanebi-console': '1', 'content-type': 'application/json' }, body: body === undefined ? undefined : typeof body === 'string' ? body : JSON.stringify(body) })
      return { status: response.status, text: await response.text() }
    },
    [method, path, body],
  )
const { project, region } = JSON.parse((await api('GET', '/_console/v1/session')).text)
const NAME = 'sample-function-1'

// Things to look at.
const entry = (text, severity) => ({ logName: `projects/${project}/logs/run.googleapis.com%2Fstdout`, severity, textPayload: text, resource: { type: 'cloud_run_revision', labels: { project_id: project, location: region, service_name: NAME, revision_name: `${NAME}-00001-abc`, configuration_name: NAME } } })
const written = await api('POST', '/api/logging.googleapis.com/v2/entries:write', { entries: [entry(EVIL, 'ERROR'), entry(ESCAPES, 'WARNING'), entry('an ordinary line', 'INFO')] })
check(written.status === 200, `entries are written: ${written.text}`)
await api('PUT', `/api/pubsub.googleapis.com/v1/projects/${project}/topics/orders`, {})
await api('PUT', `/api/pubsub.googleapis.com/v1/projects/${project}/subscriptions/orders-pull`, { topic: `projects/${project}/topics/orders` })
await api('POST', `/api/pubsub.googleapis.com/v1/projects/${project}/topics/orders:publish`, { messages: [{ data: Buffer.from(EVIL + ESCAPES).toString('base64'), attributes: { evil: EVIL } }] })
await api('POST', `/api/storage.googleapis.com/storage/v1/b?project=${project}`, { name: `${project}-pictures`, location: region })
for (const object of [EVIL.replaceAll('/', '|'), 'turned \u202e txt.exe', 'folder/one.txt', 'two.txt']) {
  const put = await api('POST', `/api/storage.googleapis.com/upload/storage/v1/b/${project}-pictures/o?uploadType=media&name=${encodeURIComponent(object)}`, EVIL)
  check(put.status === 200, `an object is made: ${put.text}`)
}
const uri = JSON.parse((await api('GET', `/api/run.googleapis.com/v2/projects/${project}/locations/${region}/services/${NAME}`)).text).uri
await api('POST', `/api/cloudscheduler.googleapis.com/v1/projects/${project}/locations/${region}/jobs`, { name: `projects/${project}/locations/${region}/jobs/every-morning`, schedule: '0 9 * * *', timeZone: 'Asia/Tokyo', description: EVIL, httpTarget: { uri, httpMethod: 'POST', headers: { 'x-evil': EVIL }, body: Buffer.from(JSON.stringify({ name: EVIL })).toString('base64') } })
await api('POST', `/api/cloudscheduler.googleapis.com/v1/projects/${project}/locations/${region}/jobs/every-morning:run`, {})

const service = `/services/${region}/${NAME}`
const pages = {
  services: ['/services', '.name-cell'],
  create: ['/services/new', 'select'],
  'service-metrics': [`${service}/metrics`, '.tile'],
  'service-logs': [`${service}/logs`, '.log-list li'],
  'service-revisions': [`${service}/revisions`, '.name-cell'],
  'service-source': [`${service}/source`, '.cm-content'],
  'service-triggers': [`${service}/triggers`, 'td'],
  'service-networking': [`${service}/networking`, 'fieldset'],
  'service-security': [`${service}/security`, 'form'],
  'service-yaml': [`${service}/yaml`, '.cm-content'],
  topics: ['/topics', '.name-cell'],
  topic: ['/topics/orders', '.name-cell'],
  buckets: ['/buckets', '.name-cell'],
  bucket: [`/buckets/${project}-pictures`, '.name-cell'],
  schedules: ['/schedules', '.name-cell'],
  events: ['/events', 'li details'],
  access: ['/access', 'td'],
  doctor: ['/doctor', 'td'],
  settings: ['/settings', 'td'],
}

const serious = []
for (const theme of ['light', 'dark']) {
  await page.emulateMedia({ colorScheme: theme })
  for (const [name, [path, ready]] of Object.entries(pages)) {
    await page.goto(origin + path)
    await page.locator(ready).first().waitFor()
    if (name === 'service-metrics') {
      await page.locator('.bar-parts, .notice').first().waitFor()
      for (let i = 0; i < 4; i++) await page.waitForResponse((response) => response.url().endsWith('/meters'))
    }
    await look(name, theme)
  }
  await page.goto(`${origin}${service}/source`)
  await page.getByRole('button', { name: /^(Test|テスト)$/ }).click()
  await page.getByRole('button', { name: /Run test|テストを実行/ }).click()
  await page.locator('.reply').waitFor()
  await look('test', theme)
  await page.goto(`${origin}${service}/revisions`)
  await page.getByRole('button', { name: /^(Difference|差分)$/ }).first().click()
  await page.locator('.difference').first().waitFor()
  await page.getByRole('heading', { name: /^(Dependencies|依存関係)$/ }).waitFor()
  await look('difference', theme)
  await page.getByRole('button', { name: /^(Side by side|左右に並べる)$/ }).click()
  await page.locator('.difference.split').first().waitFor()
  await look('difference-split', theme)
  await page.getByRole('button', { name: /^(Close|閉じる)$/ }).click()
  await page.getByRole('button', { name: /^(Compare replies|応答を比較)$/ }).first().click()
  await page.locator('.comparisons summary').first().click()
  await look('compared', theme)
  await page.getByRole('button', { name: /^(Manage traffic|トラフィックを管理)$/ }).click()
  await page.getByRole('dialog').waitFor()
  await look('traffic', theme)
  await page.goto(`${origin}/topics/orders`)
  await page.getByRole('button', { name: /^Pull$/ }).first().click()
  await page.getByRole('dialog').getByRole('button', { name: /^Pull$/ }).click()
  await page.getByRole('dialog').locator('li, .body > p').first().waitFor()
  await look('pull', theme)
  await page.goto(`${origin}/services/new`)
  await page.getByRole('button', { name: /^(Create|作成)$/ }).click()
  await page.locator('.wrong').first().waitFor()
  await page.getByRole('button', { name: /^Cloud Scheduler$/ }).click()
  await page.locator('details.more summary').click()
  await look('create-wrong', theme)
  await page.goto(`${origin}/services/${region}/not-there`)
  await page.locator('.empty').waitFor()
  await look('missing', theme)
}

// What a stranger wrote is text.
await page.goto(`${origin}${service}/logs?q=onerror`)
await page.locator('.log-list .what').filter({ hasText: EVIL }).first().waitFor()
await page.goto(`${origin}${service}/logs?q=turned`)
await page.locator('.log-list .what').filter({ hasText: 'red \\u001b[31m bell \\u0007 turned \\u202e txt' }).first().waitFor()
await page.goto(`${origin}/buckets/${project}-pictures`)
await page.getByRole('cell', { name: EVIL.replaceAll('/', '|'), exact: true }).waitFor()
check((await page.locator('main img, main script').count()) === 0, 'no element came of a name')

// Narrow screens: nothing is wider than the screen.
await page.setViewportSize({ width: 390, height: 844 })
for (const name of ['services', 'create', 'service-source', 'service-logs']) {
  await page.goto(origin + pages[name][0])
  await page.locator(pages[name][1]).first().waitFor()
  await look(`narrow-${name}`, 'dark')
  const wide = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth)
  check(wide <= 0, `${name} is ${wide} pixels wider than a narrow screen`)
}

// Signing out ends the session, and the page says how to come back.
await page.setViewportSize({ width: 1360, height: 900 })
await page.goto(`${origin}/services`)
const cookies = await play.context.cookies()
await page.getByRole('button', { name: /^(Sign out|ログアウト)$/ }).click()
await page.locator('.sign-in').waitFor()
await look('sign-in', 'dark')
await play.context.addCookies(cookies)
check((await api('GET', '/_console/v1/session')).status === 401, 'a session that was ended stays ended')

check(serious.length === 0, `axe finds nothing serious:\n${serious.join('\n')}`)
await end(play)
console.log(`${Object.keys(pages).length + 9} pages in ${language}, both themes`)

async function look(name, theme) {
  // Fonts and pictures are there, and the bar on top.
  await page.evaluate(() => scrollTo(0, 0))
  await page.evaluate(() => document.fonts.ready)
  if (folder) await page.screenshot({ path: `${folder}/${name}-${language}-${theme}.png`, fullPage: true })
  // As the browser's own tools do: the page's policy lets no script in.
  await page.evaluate(axe)
  const found = await page.evaluate(async () => {
    const { violations } = await globalThis.axe.run(document, { resultTypes: ['violations'] })
    return violations.filter((one) => one.impact === 'serious' || one.impact === 'critical').map((one) => `${one.id}: ${one.nodes.map((node) => node.target.join(' ')).slice(0, 3).join(', ')} ${one.nodes[0]?.any?.[0]?.message ?? ''}`)
  })
  for (const one of found) serious.push(`${name} ${theme}: ${one}`)
}
