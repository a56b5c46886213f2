import {PubSub} from '@google-cloud/pubsub';

import {check, eventually, refused} from './checks.js';

/** Topics and subscriptions, both ways of delivery, order. */
export async function messages({project, url, account}) {
  const client = new PubSub();
  const [topic] = await client.createTopic({name: 'node-top', labels: {by: 'node'}});
  check('a topic', topic.name, `projects/${project}/topics/node-top`);
  check('its labels', (await topic.getMetadata())[0].labels, {by: 'node'});
  check('topics', (await client.getTopics())[0].map(t => t.name), [topic.name]);
  const twice = await refused('a topic twice', 6, () => client.createTopic('node-top'));
  check("in Google's words", twice.details, 'Resource already exists in the project (resource=node-top).');
  await refused('no topic', 5, () => client.topic('none').publishMessage({data: Buffer.from('x')}));

  // A stream, with attributes; what is refused once comes again.
  const [subscription] = await topic.createSubscription('node-sub', {ackDeadlineSeconds: 20});
  check('an ack deadline', (await subscription.getMetadata())[0].ackDeadlineSeconds, 20);
  const id = await topic.publishMessage({data: Buffer.from('夏の星'), attributes: {k: 'v'}});
  const seen = [];
  const first = received => {
    seen.push(received);
    seen.length === 1 ? received.nack() : received.ack();
  };
  subscription.on('message', first);
  await eventually('twice', () => seen.length === 2);
  check('a message', [seen[1].id, seen[1].data.toString(), seen[1].attributes], [id, '夏の星', {k: 'v'}]);

  // Many, few at a time.
  subscription.removeListener('message', first);
  await subscription.close();
  const slow = client.subscription('node-sub', {flowControl: {maxMessages: 5, allowExcessMessages: false}});
  let [held, most, texts] = [0, 0, []];
  slow.on('message', async received => {
    most = Math.max(most, (held += 1));
    await new Promise(resolve => setTimeout(resolve, 5));
    texts.push(Number(received.data));
    held -= 1;
    received.ack();
  });
  const numbers = Array.from({length: 200}, (_, n) => n);
  await Promise.all(numbers.map(n => topic.publishMessage({data: Buffer.from(`${n}`)})));
  await eventually('all', () => texts.length >= numbers.length);
  check('each once', texts.sort((a, b) => a - b), numbers);
  check('flow control', most <= 5);
  await slow.close();

  // In order by key.
  const [ordered] = await topic.createSubscription('node-ordered', {enableMessageOrdering: true});
  const publisher = client.topic('node-top', {messageOrdering: true});
  const byKey = {a: [], b: []};
  ordered.on('message', received => {
    byKey[received.orderingKey].push(Number(received.data));
    received.ack();
  });
  await Promise.all(numbers.map(n => publisher.publishMessage({data: Buffer.from(`${n}`), orderingKey: n % 2 ? 'a' : 'b'})));
  await eventually('all of both keys', () => byKey.a.length + byKey.b.length >= numbers.length);
  check('in order', byKey, {a: numbers.filter(n => n % 2), b: numbers.filter(n => n % 2 === 0)});
  await ordered.close();

  // Pushed; that it came is seen from outside.
  await topic.createSubscription('node-push', {pushConfig: {pushEndpoint: url, oidcToken: {serviceAccountEmail: account, audience: url}}});
  await topic.publishMessage({json: {name: 'pushed'}});
  const names = (await topic.getSubscriptions())[0].map(s => s.name.split('/').pop());
  check('subscriptions', names.sort(), ['node-ordered', 'node-push', 'node-sub']);
  await slow.delete();
  await refused('deleted', 5, () => slow.getMetadata());
  await client.close();
}
