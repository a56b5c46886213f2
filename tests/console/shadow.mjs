// Before it takes traffic: a saved revision answers copies of recent requests, takes traffic when it does well and none when it fails;
// and what differs between two revisions.
//
// node shadow.mjs LANGUAGE LINK: after the article's play, whose function is edited.
import { check, end, open } from './browser.mjs'

const [language, link] = process.argv.slice(2)
const play = await open({ language })
const { page, label, context } = play
const origin = new URL(link).origin
const service = '/services/asia-northeast1/sample-function-1'
const button = (name, where = page) => where.getByRole('button', { name })
await page.goto(link)
await page.locator('.frame').waitFor()
await page.goto(`${origin}${service}/source`)
await page.locator('.cm-content').filter({ hasText: 'hello_http' }).waitFor()

// Some requests; the browser's own cookies and headers are with them.
const address = await page.locator('.service-facts a').getAttribute('href')
const visit = async (path = '') => {
  const other = await context.newPage()
  const answer = await other.goto(address + path)
  const text = await other.locator('body').innerText()
  await other.close()
  return { status: answer.status(), text }
}
for (const path of ['?name=Alice', '?name=Bob', 'some/where']) {
  check((await visit(path)).status === 200, `${path} is answered`)
  await page.waitForTimeout(150)
}

// Off until it is chosen, and remembered with the service.
const choice = page.getByRole('checkbox', { name: /^(Before it takes traffic|トラフィックを流す前に)/ })
check(!(await choice.isChecked()), 'nothing is compared unless someone wants it')
await choice.click()
await page.getByRole('checkbox', { name: /^(Also copies of POST|POST、PUT)/ }).waitFor()
await page.reload()
await choice.waitFor()
check(await choice.isChecked(), 'the choice is kept with the service')
check(!(await page.getByRole('checkbox', { name: /^(Also copies of POST|POST、PUT)/ }).isChecked()), 'copies of reads only')

const lastLine = async (text, isNew) => {
  await page.locator('.cm-content').click()
  await page.keyboard.press('Control+End')
  if (isNew) await page.keyboard.press('Enter')
  else await page.keyboard.press('Shift+Home')
  await page.keyboard.insertText(text)
}
const save = async () => {
  const began = Date.now()
  await button(label('saveAndRedeploy')).click()
  await page.locator('.steps .done').filter({ hasText: /sample-function-1-0000/ }).waitFor({ timeout: 180_000 })
  return Date.now() - began
}

// Replies differ: it is shown, and the revision takes traffic.
await page.locator('.cm-content').filter({ hasText: 'hello_http' }).waitFor()
await lastLine('first = hello_http', true)
await lastLine("hello_http = lambda request: first(request).replace('Hello', 'Hi')", true)
console.log(`save, compared, serving: ${await save()} ms`)
await page.locator('.notice.warn').filter({ hasText: /Replies that differ|応答の差異/ }).filter({ hasText: /takes traffic now|トラフィックが流れています/ }).waitFor()
const row = page.locator('.comparisons li').filter({ hasText: 'GET /?name=Alice' })
await row.locator('summary').click()
await row.locator('.difference .removed').filter({ hasText: 'Hello Alice!' }).waitFor()
await row.locator('.difference .added').filter({ hasText: 'Hi Alice!' }).waitFor()
check((await visit('?name=Alice')).text === 'Hi Alice!', 'the new revision serves')

// A revision that fails takes none, and it is said.
await lastLine('hello_http = lambda request: 1 / 0')
await save()
await page.locator('.notice.bad').filter({ hasText: /still serves|引き続き/ }).waitFor()
check((await visit('?name=Alice')).text === 'Hi Alice!', 'what served before still does')

// The next one that does well takes what was held from it.
await lastLine("hello_http = lambda request: first(request).replace('Hello', 'Good day')")
await save()
await page.locator('.notice').filter({ hasText: /takes traffic now|トラフィックが流れています/ }).waitFor()
check((await visit('?name=Alice')).text === 'Good day Alice!', 'and serves')

// Two revisions: source, dependencies, configuration, figures.
await page.goto(`${origin}${service}/revisions`)
await button(/^(Difference|差分)$/).first().click()
await page.locator('.difference .removed').filter({ hasText: '1 / 0' }).waitFor()
await page.locator('.difference .added').filter({ hasText: "'Good day'" }).waitFor()
for (const heading of [/^(Dependencies|依存関係)$/, /^(Configuration|構成)$/, /^(Latency, errors, cost|レイテンシ、エラー、料金)$/]) await page.getByRole('heading', { name: heading }).waitFor()
await button(/^(Side by side|左右に並べる)$/).click()
await page.locator('.difference.split .removed').filter({ hasText: '1 / 0' }).waitFor()
const before = page.getByLabel(/^(Before|変更前)$/)
await before.selectOption({ index: (await before.locator('option').count()) - 2 })
await page.locator('.difference.split .added').filter({ hasText: 'first = hello_http' }).waitFor()

// And off again: a save does not wait for copies.
await page.goto(`${origin}${service}/source`)
await choice.click()
await page.getByRole('checkbox', { name: /^(Also copies of POST|POST、PUT)/ }).waitFor({ state: 'detached' })
await end(play)
console.log(`compared in ${language}`)
