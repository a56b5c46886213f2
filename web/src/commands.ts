// The command lines that do what the page does.
import { own } from './session'

/** A word of a shell. */
export const word = (text: string) => (/^[\w@%+=:,./-]+$/.test(text) ? text : `'${text.replaceAll("'", `'\\''`)}'`)

const body = (text: string) => `'${text.replaceAll("'", `'\\''`)}'`

/** In the article's quotes where they hold it together. */
const address = (url: string) => (/^[\w@%+=:,./?&~-]+$/.test(url) ? `"${url}"` : word(url))
const contentType = (kind: string) => (kind === 'application/json' ? '"Content-Type: application/json"' : word(`Content-Type: ${kind}`))

/** The article's line: in a shell that `tanebi env` has set up. */
export function curlArticle(url: string, method: string, payload: string, kind: string): string {
  const lines = [`curl -X ${method} ${address(url)}`, '-H "Authorization: bearer $(gcloud auth print-identity-token)"']
  if (payload) lines.push(`-H ${contentType(kind)}`, `-d ${body(payload)}`)
  return lines.join(' \\\n')
}

/** The same in any terminal of this machine. */
export function curlAnywhere(url: string, method: string, payload: string, kind: string): string {
  const { proxy, caFile } = own()
  const folder = caFile.replace(/\/ca\/ca\.pem$/, '')
  const lines = [
    `curl -X ${method} ${address(url)}`,
    `--proxy ${word(proxy)} --cacert ${word(caFile)}`,
    `-H "Authorization: bearer $(tanebi exec --data-dir ${word(folder)} -- gcloud auth print-identity-token)"`,
  ]
  if (payload) lines.push(`-H ${contentType(kind)}`, `-d ${body(payload)}`)
  return lines.join(' \\\n')
}

export const gcloud = {
  ingress: (service: string, region: string, ingress: string) => `gcloud run services update ${service} --region ${region} --ingress ${ingress}`,
  invoker: (service: string, region: string, isPublic: boolean) =>
    `gcloud run services update ${service} --region ${region} --${isPublic ? 'no-' : ''}invoker-iam-check`,
  grant: (service: string, region: string, member: string) =>
    `gcloud run services add-iam-policy-binding ${service} --region ${region} --member=${word(member)} --role="roles/run.invoker"`,
  account: (service: string, region: string, account: string) => `gcloud run services update ${service} --region ${region} --service-account ${word(account)}`,
  traffic: (service: string, region: string, parts: string) => `gcloud run services update-traffic ${service} --region ${region} ${parts}`,
  logs: (service: string, region: string) => `gcloud run services logs read ${service} --region ${region}`,
  replace: (region: string) => `gcloud run services replace service.yaml --region ${region}`,
  deploy: (service: string, region: string, target: string, runtime: string) =>
    `gcloud run deploy ${service} --source . --function ${target || 'ENTRY_POINT'} --base-image ${runtime} --region ${region}`,
}
