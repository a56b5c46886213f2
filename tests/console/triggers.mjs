// Triggers made in the browser fire: a message, a file where Eventarc is served, a schedule that is run now; and an event is sent again.
//
// node triggers.mjs LANGUAGE LINK: after the article's play, whose function is called.
import { check, end, open } from './browser.mjs'

const [language, link] = process.argv.slice(2)
const play = await open({ language })
const { page, label } = play
const origin = new URL(link).origin
const service = '/services/asia-northeast1/sample-function-1'
const dialog = page.getByRole('dialog')
const button = (name, where = page) => where.getByRole('button', { name })
await page.goto(link)
await page.locator('.frame').waitFor()

const events = async () => {
  await page.goto(`${origin}/events?service=sample-function-1`)
  return page.locator('main li > details')
}
const add = async (kind) => {
  await page.goto(`${origin}${service}/triggers`)
  await button(/^(Add trigger|トリガーを追加)$/).click()
  await dialog.waitFor()
  const made = button(kind, dialog)
  if (await made.isDisabled()) return false
  await made.click()
  return true
}
const finish = async () => {
  await button(label('save'), dialog).click()
  await dialog.waitFor({ state: 'detached' })
}

// A message.
await add(/^Pub\/Sub$/)
await dialog.getByLabel(/^(Topic|トピック)$/).fill('greetings')
await finish()
await page.goto(`${origin}/topics/greetings`)
await page.getByLabel(/^(Message body|メッセージ本文)$/).fill('{"name":"Message"}')
await button(/^(Publish|パブリッシュ)$/).click()
await page.locator('.toasts .notice').waitFor()
await (await events()).filter({ hasText: /pubsub|eventarc/ }).filter({ has: page.locator('.chip.good', { hasText: '200' }) }).first().waitFor()

// A file: only Eventarc can say so.
if (await add(/^Cloud Storage$/)) {
  const bucket = dialog.getByLabel(/^(Bucket|バケット)$/)
  const name = await bucket.locator('option').nth(1).getAttribute('value')
  await bucket.selectOption(name)
  await finish()
  await page.goto(`${origin}/buckets/${name}`)
  await page.locator('input[type=file]').setInputFiles({ name: 'picture.txt', mimeType: 'text/plain', buffer: Buffer.from('hello') })
  await page.getByRole('cell', { name: 'picture.txt', exact: true }).waitFor()
  await (await events()).filter({ hasText: /storage|eventarc/ }).filter({ has: page.locator('.chip.good', { hasText: '200' }) }).first().waitFor()
}

// Every day at 9, and now.
await add(/^Cloud Scheduler$/)
check((await dialog.getByLabel(/^(Frequency|頻度)$/).inputValue()) === '0 9 * * *', 'every day at 9')
await dialog.getByLabel(/^(Body \(JSON\)|本文（JSON）)$/).fill('{"name":"Schedule"}')
await finish()
await page.locator('tr').filter({ hasText: '0 9 * * *' }).filter({ hasText: /^sample-function-1-/ }).getByRole('button', { name: /^(Force run|強制実行)$/ }).click()
await page.locator('.toasts .notice').filter({ hasText: /runs now|を実行しました/ }).waitFor()
const scheduled = (await events()).filter({ hasText: 'scheduler' }).filter({ hasText: /sample-function-1-\w+/ }).first()
await scheduled.locator('.chip.good', { hasText: '200' }).waitFor()

// Sent again by hand.
await scheduled.locator('summary').click()
await scheduled.getByText('Hello Schedule!').waitFor()
await scheduled.getByRole('button', { name: /^(Send again|再送信)$/ }).click()
await scheduled.getByText(/^(by hand|手動)$/).waitFor()
await end(play)
console.log(`triggers fired in ${language}`)
