'use strict';

const functions = require('@google-cloud/functions-framework');
const {PubSub} = require('@google-cloud/pubsub');
const {CloudSchedulerClient} = require('@google-cloud/scheduler');
const {SecretManagerServiceClient} = require('@google-cloud/secret-manager');
const {Storage} = require('@google-cloud/storage');
const {GoogleAuth} = require('google-auth-library');

/** Google's libraries, with no configuration. */
class Clients {
  auth = new GoogleAuth();
  storage = new Storage();
  pubsub = new PubSub();
  secrets = new SecretManagerServiceClient();
  scheduler = new CloudSchedulerClient();
}

const shared = new Clients();

/** The clients are made while it loads; with ?new they are made in the call. */
functions.http('inside', async (req, res) => {
  if (req.query.google) {
    const answer = await fetch(`https://${req.query.google}/`);
    res.status(answer.status).send(await answer.text());
    return;
  }
  const clients = 'new' in req.query ? new Clients() : shared;
  const {name, bucket, other} = req.query;
  const project = await clients.auth.getProjectId();
  const file = clients.storage.bucket(bucket).file(name);
  await file.save(`by ${name}`, {resumable: false});
  await clients.pubsub.topic('inside').publishMessage({data: Buffer.from(name), attributes: {by: 'nodejs'}});
  const [secret] = await clients.secrets.accessSecretVersion({name: `projects/${project}/secrets/inside/versions/latest`});
  const [jobs] = await clients.scheduler.listJobs({parent: `projects/${project}/locations/asia-northeast1`});
  const caller = await clients.auth.getIdTokenClient(other);
  const greeting = await caller.request({url: other, responseType: 'text'});
  res.json({
    object: (await file.download())[0].toString(),
    secret: secret.payload.data.toString(),
    jobs: jobs.map(job => job.name.split('/').pop()),
    greeting: greeting.data,
  });
});
