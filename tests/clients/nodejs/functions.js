import {v2} from '@google-cloud/functions';
import {RevisionsClient, ServicesClient} from '@google-cloud/run';

import {check, refused} from './checks.js';

/** Functions and the services behind them; gives the URL of `hello`. */
export async function functions({parent}) {
  const client = new v2.FunctionServiceClient();
  const name = `${parent}/functions/hello`;
  const [listed] = await client.listFunctions({parent});
  check('functions', listed.map(f => f.name), [name]);
  const [one] = await client.getFunction({name});
  check('a function', [one.state, one.buildConfig.entryPoint, one.environment], ['ACTIVE', 'hello_http', 'GEN_2']);
  await refused('no function', 5, () => client.getFunction({name: `${name}x`}));

  const services = new ServicesClient();
  const [service] = await services.getService({name: `${parent}/services/hello`});
  check('its service', service.uri, one.serviceConfig.uri);
  const [revisions] = await new RevisionsClient().listRevisions({parent: service.name});
  check('its revisions', revisions.map(r => r.name).includes(service.latestReadyRevision));
  service.template.timeout = {seconds: 21};
  service.template.revision = '';
  const [operation] = await services.updateService({service});
  const [updated] = await operation.promise();
  check('an update', Number(updated.template.timeout.seconds), 21);
  check('a new revision', updated.latestReadyRevision !== service.latestReadyRevision);
  return service.uri;
}
