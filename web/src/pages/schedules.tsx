// Cloud Scheduler: jobs, when they fire next, and running one now.
import { useState } from 'react'
import { jobDelete, jobDo, jobList, type Job } from '../api/events'
import { regionOf, serviceList, shortName } from '../api/run'
import { Button, Chip, Confirm, Empty, Failure, IconButton, useAction, Waiting } from '../parts/basic'
import { toast } from '../parts/toast'
import { useQuery } from '../query'
import { own } from '../session'
import { ago, t, time } from '../texts'

export function Schedules() {
  const jobs = useQuery('jobs', async () => jobList((await serviceList()).map((service) => regionOf(service.name))), 3000)
  const [removing, setRemoving] = useState<Job | null>(null)
  const act = useAction(async (job: Job, verb: 'run' | 'pause' | 'resume') => {
    await jobDo(job.name, verb)
    if (verb === 'run') toast(t('schedules.ran', { name: shortName(job.name) }))
    await jobs.again()
  })
  return (
    <>
      <div className="head"><h1>{t('nav.schedules')}</h1></div>
      <div className="stack">
        <Failure error={jobs.error ?? act.error} />
        {jobs.waiting && <Waiting />}
        {jobs.data && (
          <section className="card" aria-label={t('nav.schedules')}>
            {jobs.data.length === 0 ? (
              <Empty icon="clock" title={t('schedules.none')} text={t('schedules.none.text')} command={`gcloud scheduler jobs create http every-morning --location ${own().region} --schedule "0 9 * * *" --time-zone Asia/Tokyo --uri "https://SERVICE-${own().projectNumber}.${own().region}.run.app"`} />
            ) : (
              <div className="table-box">
                <table>
                  <thead>
                    <tr><th scope="col">{t('services.name')}</th><th scope="col">{t('trigger.schedule')}</th><th scope="col">{t('schedules.target')}</th><th scope="col">{t('schedules.next')}</th><th scope="col">{t('schedules.last')}</th><th scope="col">{t('services.state')}</th><th scope="col" className="fit"><span className="hidden-text">{t('revisions.actions')}</span></th></tr>
                  </thead>
                  <tbody>
                    {jobs.data.map((job) => (
                      <tr key={job.name}>
                        <td className="name-cell">{shortName(job.name)}</td>
                        <td className="fit"><code>{job.schedule}</code><div className="soft small">{job.timeZone}</div></td>
                        <td className="small">{job.httpTarget?.uri ?? shortName(job.pubsubTarget?.topicName)}</td>
                        <td className="fit">{job.state === 'PAUSED' ? t('none') : time(job.scheduleTime)}</td>
                        <td className="fit" title={time(job.lastAttemptTime)}>
                          {job.lastAttemptTime ? ago(job.lastAttemptTime) : t('none')}{' '}
                          {job.lastAttemptTime && (job.status?.code ? <Chip tone="bad">{t('state.failed')}</Chip> : <Chip tone="good" icon="check">OK</Chip>)}
                        </td>
                        <td className="fit"><Chip tone={job.state === 'ENABLED' ? 'good' : 'warn'}>{job.state}</Chip></td>
                        <td className="fit actions">
                          <Button kind="quiet small" icon="play" onClick={() => act.run(job, 'run')}>{t('schedules.run')}</Button>
                          {job.state === 'PAUSED' ? (
                            <Button kind="quiet small" onClick={() => act.run(job, 'resume')}>{t('schedules.resume')}</Button>
                          ) : (
                            <Button kind="quiet small" onClick={() => act.run(job, 'pause')}>{t('schedules.pause')}</Button>
                          )}
                          <IconButton icon="bin" label={t('deleteNamed', { name: shortName(job.name) })} onClick={() => setRemoving(job)} />
                        </td>
                      </tr>
                    ))}
                  </tbody>
                </table>
              </div>
            )}
          </section>
        )}
      </div>
      {removing && <Confirm title={t('deleteNamed', { name: shortName(removing.name) })} text={t('schedules.delete.text')} action={() => jobDelete(removing.name)} onClose={() => setRemoving(null)} onDone={() => { setRemoving(null); void jobs.again() }} />}
    </>
  )
}
