// Cloud Scheduler: jobs, when they fire next, and running one now.
import { useState } from 'react'
import { jobDelete, jobDo, jobList, type Job } from '../api/events'
import { regionOf, serviceList, shortName } from '../api/run'
import { Button, Chip, Confirm, Failure, IconButton, useAction } from '../parts/basic'
import { ListCard } from '../parts/table'
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
        <Failure error={act.error} />
        <ListCard
          label={t('nav.schedules')}
          query={jobs}
          rows={(all) => all}
          empty={{ icon: 'clock', title: t('schedules.none'), text: t('schedules.none.text'), command: `gcloud scheduler jobs create http every-morning --location ${own().region} --schedule "0 9 * * *" --time-zone Asia/Tokyo --uri "https://SERVICE-${own().projectNumber}.${own().region}.run.app"` }}
          keyOf={(job) => job.name}
          columns={[
            { head: t('services.name'), kind: 'name', cell: (job) => shortName(job.name) },
            { head: t('trigger.schedule'), kind: 'fit', cell: (job) => <><code>{job.schedule}</code><div className="soft small">{job.timeZone}</div></> },
            { head: t('schedules.target'), cell: (job) => <span className="small">{job.httpTarget?.uri ?? shortName(job.pubsubTarget?.topicName)}</span> },
            { head: t('schedules.next'), cell: (job) => (job.state === 'PAUSED' ? t('none') : time(job.scheduleTime)) },
            { head: t('schedules.last'), title: (job) => time(job.lastAttemptTime), cell: (job) => <LastRun job={job} /> },
            { head: t('services.state'), kind: 'fit', cell: (job) => <Chip tone={job.state === 'ENABLED' ? 'good' : 'warn'}>{job.state}</Chip> },
          ]}
          actions={(job) => (
            <>
              <Button kind="quiet small" icon="play" onClick={() => act.run(job, 'run')}>{t('schedules.run')}</Button>
              {job.state === 'PAUSED' ? (
                <Button kind="quiet small" onClick={() => act.run(job, 'resume')}>{t('schedules.resume')}</Button>
              ) : (
                <Button kind="quiet small" onClick={() => act.run(job, 'pause')}>{t('schedules.pause')}</Button>
              )}
              <IconButton icon="bin" label={t('deleteNamed', { name: shortName(job.name) })} onClick={() => setRemoving(job)} />
            </>
          )}
        />
      </div>
      {removing && <Confirm title={t('deleteNamed', { name: shortName(removing.name) })} text={t('schedules.delete.text')} action={() => jobDelete(removing.name)} onClose={() => setRemoving(null)} onDone={() => { setRemoving(null); void jobs.again() }} />}
    </>
  )
}

function LastRun({ job }: { job: Job }) {
  if (!job.lastAttemptTime) return t('none')
  return <>{ago(job.lastAttemptTime)} {job.status?.code ? <Chip tone="bad">{t('state.failed')}</Chip> : <Chip tone="good" icon="check">OK</Chip>}</>
}
