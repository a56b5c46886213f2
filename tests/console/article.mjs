// The article in the browser, from an empty installation: create, save, test, ingress, authentication, invoker.
//
// node article.mjs LANGUAGE LINK COMMAND: COMMAND opens a shell in the environment of the running server and reads a script.
import { execFileSync } from 'node:child_process'
import { check, end, open } from './browser.mjs'

const [language, link, shell] = process.argv.slice(2)
const run = (script) => execFileSync('bash', ['-c', shell], { input: script, encoding: 'utf8', timeout: 120_000 })
const play = await open({ language })
const { page, label, context } = play
const button = (name, where = page) => where.getByRole('button', { name: label(name), exact: true })
const tab = (name) => page.getByRole('link', { name: label(name), exact: true })
const radio = (name) => page.getByRole('radio', { name: label(name), exact: true })
const toast = () => page.locator('.toasts .notice')

// Signing in by the link: no password, and the secret is gone from the address.
await page.goto(link)
await page.getByRole('heading', { name: label('services'), exact: true }).waitFor()
check(!page.url().includes('link='), 'the secret is not kept in the address')
check((await context.cookies()).every((cookie) => cookie.httpOnly && cookie.sameSite === 'Strict'), 'the cookie is HttpOnly and Strict')

const painted = await page.evaluate(() => performance.getEntriesByName('first-contentful-paint')[0]?.startTime ?? 0)
console.log(`first paint: ${Math.round(painted)} ms`)

// The form, label for label, with the article's defaults.
await button('writeFunction').first().click()
await page.getByLabel(label('name'), { exact: true }).fill('sample-function-1')
const region = page.getByLabel(label('region'), { exact: true })
check((await region.locator('option:checked').textContent()) === label('tokyo'), 'the region is Tokyo')
await page.getByText(label('endpoint'), { exact: true }).waitFor()
check(await page.getByText(/^https:\/\/sample-function-1-\d+\.asia-northeast1\.run\.app$/).isVisible(), 'the URL is shown before it is there')
const runtime = page.getByLabel(label('runtime'), { exact: true })
await runtime.selectOption({ label: 'Python 3.12' })
await page.getByRole('heading', { name: label('trigger'), exact: true }).waitFor()
for (const legend of ['authentication', 'billing', 'scaling', 'ingress']) await page.getByRole('group', { name: label(legend), exact: true }).waitFor()
check(!(await radio('public').isChecked()) && !(await radio('required').isChecked()), 'authentication is not chosen')
check(await radio('byRequest').isChecked(), 'billing is by request')
check(await radio('automatic').isChecked(), 'scaling is automatic')
check((await page.getByLabel(label('minimum'), { exact: true }).inputValue()) === '0', 'no instance at least')
check(await radio('all').isChecked(), 'ingress is all')
await button('create').click()
check(await page.getByRole('alert').first().isVisible(), 'without a choice of authentication nothing is created')
await radio('public').check()
await button('create').click()

// The source tab shows the sample; the URL answers a placeholder.
await page.waitForURL('**/services/asia-northeast1/sample-function-1/source')
await page.locator('.cm-content').filter({ hasText: 'def hello_http' }).waitFor()
check((await page.getByLabel(label('baseImage'), { exact: true }).inputValue()) === 'python312', 'the base image is what was chosen')
check((await page.getByLabel(label('entryPoint'), { exact: true }).inputValue()) === 'hello_http', 'the entry point is the sample\'s')
const url = page.locator('.service-facts a')
const address = await url.getAttribute('href')
check(/^http:\/\/sample-function-1-\d+\.asia-northeast1\.run\.localhost:\d+\/$/.test(address), `the link is for this machine: ${address}`)
const visit = async () => {
  const other = await context.newPage()
  const answer = await other.goto(address)
  const text = await other.locator('body').innerText()
  await other.close()
  return { status: answer.status(), text }
}
/** Visits until the answer is `wanted`: a change holds within a second of being saved, and saving takes a while. */
const visited = async (wanted, what) => {
  const deadline = Date.now() + 10_000
  for (;;) {
    const answer = await visit()
    if (wanted(answer)) return
    check(Date.now() < deadline, `${what}: ${answer.status} ${answer.text}`)
    await page.waitForTimeout(200)
  }
}
check((await visit()).text.includes(label('saveAndRedeploy')), 'the placeholder says what to press')

// Save: the build's log beside it, then the endpoint answers.
await button('saveAndRedeploy').click()
await page.locator('.steps .done').filter({ hasText: 'sample-function-1-00002' }).waitFor({ timeout: 180_000 })
check((await page.locator('.build-log').innerText()).length > 20, 'the build log is shown')
const [opened] = await Promise.all([context.waitForEvent('page'), url.click()])
await opened.getByText('Hello World!').waitFor()
await opened.close()

// An edit, saved by the keyboard, is a third revision.
await page.locator('.cm-content').click()
await page.keyboard.press('Control+End')
await page.keyboard.type('\n# edited in the console\n')
const began = Date.now()
await page.keyboard.press('Control+s')
await page.locator('.steps .done').filter({ hasText: 'sample-function-1-00003' }).waitFor({ timeout: 180_000 })
console.log(`save to new revision serving: ${Date.now() - began} ms (${(await page.locator('.steps').innerText()).replace(/\s+/g, ' ')})`)

// What does not compile is marked, and what served before still does.
await page.getByRole('button', { name: /main\.py$/ }).first().click()
await page.locator('.cm-content').click()
await page.keyboard.press('Control+End')
await page.keyboard.type('def broken(:\n')
await button('saveAndRedeploy').click()
await page.locator('.steps .failed').waitFor({ timeout: 180_000 })
await page.locator('.cm-lint-marker-error').first().waitFor()
check((await visit()).text === 'Hello World!', 'what served before still serves')
await page.locator('.cm-content').click()
await page.keyboard.press('Control+z')
for (let i = 0; i < 3 && (await page.locator('.cm-content').innerText()).includes('broken'); i++) await page.keyboard.press('Control+z')
await button('saveAndRedeploy').click()
await page.locator('.steps .done').filter({ hasText: /serves|応答しています/ }).waitFor({ timeout: 180_000 })

// Test: the reply, and both command lines in real shells.
await button('test').click()
const dialog = page.getByRole('dialog')
await dialog.getByRole('button', { name: /Run test|テストを実行/ }).click()
await dialog.locator('.reply').getByText('Hello Developer!').waitFor()
const lines = await dialog.locator('.command pre').allInnerTexts()
check(lines[0].startsWith('curl -X POST "https://sample-function-1-') && lines[0].includes('-H "Authorization: bearer $(gcloud auth print-identity-token)"') && lines[0].includes(`-d '{ "name": "Developer" }'`), `the article's line: ${lines[0]}`)
check(run(`set -e\n${lines[0]}`).endsWith('Hello Developer!'), 'the article\'s line works in a tanebi shell')
check(run(`unset https_proxy http_proxy HTTPS_PROXY HTTP_PROXY CURL_CA_BUNDLE SSL_CERT_FILE\n${lines[1]}`).endsWith('Hello Developer!'), `the other line works in any terminal: ${lines[1]}`)
await page.keyboard.press('Escape')

// Ingress.
await tab('networking').click()
await radio('internal').check()
await button('save').click()
await toast().last().waitFor()
await visited((answer) => answer.status === 404 && answer.text.includes('Error: Page not found') && answer.text.includes('The requested URL was not found on this server.'), 'internal')
await radio('all').check()
await button('save').click()
await visited((answer) => answer.text === 'Hello World!', 'all again')

// Authentication.
await tab('security').click()
await radio('required').check()
await button('save').first().click()
await page.waitForFunction(() => document.querySelector('form') !== null && document.querySelector('section button.main:disabled') !== null)
await visited((answer) => answer.status === 403 && answer.text.includes('Error: Forbidden') && answer.text.includes('Your client does not have permission to get URL / from this server.'), 'required')
check(run(`set -e\n${lines[0]}`).endsWith('Hello Developer!'), 'with a token it still answers')
await page.getByLabel(/New principal|新しいプリンシパル/).fill('allUsers')
await page.getByRole('button', { name: /^(Grant|付与)$/ }).click()
await page.getByRole('cell', { name: 'allUsers', exact: true }).waitFor()
await visited((answer) => answer.text === 'Hello World!', 'allUsers may invoke')

// Every tab is there by its name, and the logs have the requests.
for (const name of ['metrics', 'logs', 'revisions', 'source', 'triggers', 'networking', 'security', 'yaml']) await tab(name).waitFor()
await tab('logs').click()
await page.locator('.log-list li').filter({ hasText: 'GET /' }).first().waitFor()
await tab('revisions').click()
await page.getByRole('link', { name: /^sample-function-1-00004/ }).waitFor()
await tab('yaml').click()
await page.locator('.cm-content').filter({ hasText: 'serving.knative.dev/v1' }).waitFor()
await end(play)
console.log(`played in ${language}`)
