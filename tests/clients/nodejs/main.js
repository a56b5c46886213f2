/**
 * Google's Node.js libraries against the server that this shell is set up for; the function `hello` is there.
 * Arguments: a key file of a service account that may read and write objects, and the account that calls services.
 */

import {GoogleAuth} from 'google-auth-library';

import {told} from './checks.js';
import {functions} from './functions.js';
import {jobs} from './jobs.js';
import {messages} from './messages.js';
import {objects} from './objects.js';
import {secrets} from './secrets.js';
import {triggers} from './triggers.js';

const [, , keyFile, account] = process.argv;
const region = 'asia-northeast1';
const project = await new GoogleAuth().getProjectId();
const world = {project, region, keyFile, account, parent: `projects/${project}/locations/${region}`};
world.url = await functions(world);
await messages(world);
await objects(world);
await jobs(world);
await secrets(world);
await triggers(world);
told();
