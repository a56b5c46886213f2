// "Networking": from where the service is reached, and its URLs.
import { useState } from 'react'
import { browserUrl, serviceUpdate, type Ingress } from '../../api/run'
import { gcloud } from '../../commands'
import { Button, Check, Copy, Failure, SameByCommand, useAction } from '../../parts/basic'
import { toast } from '../../parts/toast'
import { t } from '../../texts'
import { IngressChoice } from '../create'
import type { TabProps } from '../service'

export function Networking({ region, name, service, again }: TabProps) {
  const balanced = service.ingress === 'INGRESS_TRAFFIC_INTERNAL_LOAD_BALANCER'
  const [ingress, setIngress] = useState<string>(balanced ? 'INGRESS_TRAFFIC_INTERNAL_ONLY' : (service.ingress ?? 'INGRESS_TRAFFIC_ALL'))
  const [balancer, setBalancer] = useState(balanced)
  const [hasUrl, setHasUrl] = useState(!service.defaultUriDisabled)
  const wanted = (ingress === 'INGRESS_TRAFFIC_INTERNAL_ONLY' && balancer ? 'INGRESS_TRAFFIC_INTERNAL_LOAD_BALANCER' : ingress) as Ingress
  const isSame = wanted === (service.ingress ?? 'INGRESS_TRAFFIC_ALL') && hasUrl === !service.defaultUriDisabled
  const save = useAction(async () => {
    await serviceUpdate(region, name, { ingress: wanted, defaultUriDisabled: !hasUrl }, ['ingress', 'default_uri_disabled'])
    await again()
    toast(t('saved'))
  })
  const flag = { INGRESS_TRAFFIC_ALL: 'all', INGRESS_TRAFFIC_INTERNAL_ONLY: 'internal', INGRESS_TRAFFIC_INTERNAL_LOAD_BALANCER: 'internal-and-cloud-load-balancing', INGRESS_TRAFFIC_NONE: 'none' }[wanted]
  return (
    <>
      <section className="card pad stack">
        <IngressChoice ingress={ingress} onIngress={setIngress} balancer={balancer} onBalancer={setBalancer} />
        <SameByCommand text={gcloud.ingress(name, region, flag)} />
      </section>
      <section className="card pad stack">
        <h2>{t('networking.endpoints')}</h2>
        <Check label={t('networking.default')} hint={t('networking.default.hint')} checked={hasUrl} onChange={setHasUrl} />
        <ul className="stack tight">
          {(service.urls ?? []).map((url) => (
            <li key={url} className="row">
              <a href={browserUrl(url)} target="_blank" rel="noopener noreferrer">{url}</a>
              <Copy text={url} />
            </li>
          ))}
        </ul>
      </section>
      <Failure error={save.error} />
      <div className="row">
        <Button kind="main" busy={save.busy} disabled={isSame} onClick={() => save.run()}>{t('save')}</Button>
      </div>
    </>
  )
}
