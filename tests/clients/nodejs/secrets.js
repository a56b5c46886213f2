import {SecretManagerServiceClient} from '@google-cloud/secret-manager';

import {check, refused} from './checks.js';

/** Secrets and their versions. */
export async function secrets({project}) {
  const client = new SecretManagerServiceClient();
  const [secret] = await client.createSecret({parent: `projects/${project}`, secretId: 'node-secret', secret: {replication: {automatic: {}}}});
  for (const text of ['first', 'second']) await client.addSecretVersion({parent: secret.name, payload: {data: Buffer.from(text)}});
  const read = async version => (await client.accessSecretVersion({name: `${secret.name}/versions/${version}`}))[0].payload.data.toString();
  check('versions by number and name', [await read(1), await read('latest')], ['first', 'second']);
  check('versions', (await client.listSecretVersions({parent: secret.name}))[0].map(v => v.state), ['ENABLED', 'ENABLED']);
  check('secrets', (await client.listSecrets({parent: `projects/${project}`}))[0].map(s => s.name), [secret.name]);
  const [disabled] = await client.disableSecretVersion({name: `${secret.name}/versions/2`});
  check('disabled', disabled.state, 'DISABLED');
  await refused('what is disabled', 9, () => read(2));
  check('destroyed', (await client.destroySecretVersion({name: `${secret.name}/versions/1`}))[0].state, 'DESTROYED');
  await client.deleteSecret({name: secret.name});
  await refused('deleted', 5, () => client.getSecret({name: secret.name}));
}
