import {eventarc_v1} from 'googleapis/build/src/apis/eventarc/v1.js';
import {GoogleAuth} from 'googleapis-common';

import {check, eventually, refused} from './checks.js';

/**
 * Triggers of Eventarc that call `hello`, and the providers of events: by Google's client for all its REST APIs, as the one for Eventarc
 * alone was not to be had from the registry.
 */
export async function triggers({parent, project}) {
  const auth = new GoogleAuth({scopes: ['https://www.googleapis.com/auth/cloud-platform']});
  const {triggers, operations, providers, channels} = new eventarc_v1.Eventarc({auth}).projects.locations;
  const name = `${parent}/triggers/from-node`;
  const destination = {cloudRun: {service: 'hello', region: 'asia-northeast1', path: '/in'}};
  const eventFilters = [{attribute: 'type', value: 'google.cloud.pubsub.topic.v1.messagePublished'}];
  const trigger = {name, destination, eventFilters, labels: {a: 'b'}};
  const done = async ({data}) => {
    const operation = await eventually('it is done', async () => {
      const seen = (await operations.get({name: data.name})).data;
      return seen.done ? seen : undefined;
    });
    check('no error', operation.error === undefined);
    return operation.response;
  };
  const create = requestBody => triggers.create({parent, triggerId: 'from-node', requestBody});
  const made = await done(await create(trigger));
  check('a trigger', [made.name, made.destination.cloudRun.service, made.labels], [name, 'hello', {a: 'b'}]);
  check('its transport', made.transport.pubsub.topic.startsWith(`projects/${project}/topics/eventarc-asia-northeast1-from-node-`));
  await refused('a trigger twice', 409, () => create(trigger));
  await refused('no type', 400, () => create({...trigger, eventFilters: []}));
  check('it is there', (await triggers.get({name})).data.uid, made.uid);
  check('triggers', (await triggers.list({parent})).data.triggers.map(t => t.name), [name]);
  const changed = await done(await triggers.patch({name, updateMask: 'labels', requestBody: {labels: {c: 'd'}}}));
  check('only what is named changes', [changed.labels, changed.destination.cloudRun.path], [{c: 'd'}, '/in']);
  await refused('an old etag', 409, () => triggers.delete({name, etag: made.etag}));
  check('deleted', (await done(await triggers.delete({name}))).name, name);
  await refused('it is gone', 404, () => triggers.get({name}));

  const found = (await providers.list({parent})).data.providers.map(p => p.name.split('/').pop());
  check('providers', found, ['cloudaudit.googleapis.com', 'pubsub.googleapis.com', 'storage.googleapis.com']);
  check('a provider', (await providers.get({name: `${parent}/providers/storage.googleapis.com`})).data.eventTypes.length, 4);
  check('channels', (await channels.list({parent})).data.channels ?? [], []);
  await refused('no channel', 404, () => channels.get({name: `${parent}/channels/c`}));
  await refused('a channel', 400, () => channels.create({parent, channelId: 'c', requestBody: {name: `${parent}/channels/c`}}));
}
