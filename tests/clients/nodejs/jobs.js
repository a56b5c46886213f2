import {CloudSchedulerClient} from '@google-cloud/scheduler';

import {check, eventually, refused} from './checks.js';

/** Jobs of Cloud Scheduler that call `hello`. */
export async function jobs({parent, url, account}) {
  const client = new CloudSchedulerClient();
  const name = `${parent}/jobs/node-job`;
  const httpTarget = {uri: url, httpMethod: 'POST', body: Buffer.from('{"name":"job"}'), headers: {'Content-Type': 'application/json'},
    oidcToken: {serviceAccountEmail: account, audience: url}};
  const [job] = await client.createJob({parent, job: {name, httpTarget, schedule: '0 9 * * *', timeZone: 'Asia/Tokyo'}});
  check('a job', [job.name, job.state, Number(job.attemptDeadline.seconds)], [name, 'ENABLED', 180]);
  check('due at nine in Tokyo', Number(job.scheduleTime.seconds) % 86_400, 0);
  check('jobs', (await client.listJobs({parent}))[0].map(j => j.name), [name]);
  await refused('a job twice', 6, () => client.createJob({parent, job}));
  await refused('a bad schedule', 3, () => client.createJob({parent, job: {httpTarget, schedule: '61 * * * *'}}));
  check('paused', (await client.pauseJob({name}))[0].state, 'PAUSED');
  await refused('paused twice', 9, () => client.pauseJob({name}));
  check('resumed', (await client.resumeJob({name}))[0].state, 'ENABLED');
  await client.runJob({name});
  const ran = await eventually('it runs', async () => {
    const [seen] = await client.getJob({name});
    return seen.status && seen.lastAttemptTime ? seen : undefined;
  });
  check('it ran well', ran.status.code, 0);
  const [changed] = await client.updateJob({job: {name, schedule: 'every monday 09:00'}, updateMask: {paths: ['schedule']}});
  check('only what is named changes', [changed.schedule, changed.timeZone], ['every monday 09:00', 'Asia/Tokyo']);
  await client.deleteJob({name});
  await refused('deleted', 5, () => client.getJob({name}));
}
