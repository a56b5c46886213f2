import {createHash, randomBytes} from 'node:crypto';
import {pipeline} from 'node:stream/promises';
import {Readable, Writable} from 'node:stream';

import {Storage} from '@google-cloud/storage';
import {request} from 'gaxios';

import {check, refused} from './checks.js';

const BIG_BYTES = 20 << 20;

/** Buckets and objects: up, down, conditions, lists, signed URLs. */
export async function objects({project, region, keyFile}) {
  const client = new Storage();
  const [bucket] = await client.createBucket(`${project}-node`, {location: region, labels: {by: 'node'}});
  check('a bucket', [bucket.metadata.location, bucket.metadata.labels], [region.toUpperCase(), {by: 'node'}]);
  check('buckets', (await client.getBuckets())[0].map(b => b.name).includes(bucket.name));
  await refused('a bucket twice', 409, () => client.createBucket(bucket.name));

  const text = bucket.file('a/text');
  await text.save('夏の星', {resumable: false, contentType: 'text/plain', metadata: {metadata: {k: 'v'}}});
  check('down', (await text.download())[0].toString(), '夏の星');
  const [metadata] = await text.getMetadata();
  check('metadata', [metadata.contentType, metadata.size, metadata.metadata], ['text/plain', '9', {k: 'v'}]);
  await text.setMetadata({metadata: {k: null, l: 'w'}, cacheControl: 'no-store'});
  check('other metadata', [(await text.getMetadata())[0].metadata, text.metadata.metageneration], [{l: 'w'}, '2']);
  await refused('a generation', 412, () => text.save('x', {preconditionOpts: {ifGenerationMatch: 0}}));
  await text.save('two', {preconditionOpts: {ifGenerationMatch: metadata.generation}});
  check('as it was', (await text.download())[0].toString(), 'two');

  // In chunks, as a stream, checked by its hash.
  const content = randomBytes(BIG_BYTES);
  const big = bucket.file('big');
  await pipeline(Readable.from(content), big.createWriteStream({resumable: true, chunkSize: 4 << 20, validation: 'crc32c'}));
  const hash = createHash('md5');
  await pipeline(big.createReadStream(), new Writable({write: (part, _, done) => done(null, void hash.update(part))}));
  check('as it went up', hash.digest('base64'), createHash('md5').update(content).digest('base64'));
  check('its hash', (await big.getMetadata())[0].md5Hash, createHash('md5').update(content).digest('base64'));
  check('a range', (await big.download({start: 10, end: 19}))[0], content.subarray(10, 20));
  check('the end', (await big.download({start: BIG_BYTES - 3}))[0], content.subarray(BIG_BYTES - 3));

  await text.copy(bucket.file('a/copy'));
  await bucket.combine([text, bucket.file('a/copy')], bucket.file('both'));
  check('composed', (await bucket.file('both').download())[0].toString(), 'twotwo');
  check('a list', (await bucket.getFiles({prefix: 'a/'}))[0].map(f => f.name), ['a/copy', 'a/text']);
  const [below, , answer] = await bucket.getFiles({delimiter: '/', autoPaginate: false});
  check('folders', [below.map(f => f.name), answer.prefixes], [['big', 'both'], ['a/']]);
  await bucket.file('a/copy').move('moved');
  check('moved', [(await bucket.file('a/copy').exists())[0], (await bucket.file('moved').exists())[0]], [false, true]);
  await bucket.file('moved').moveFileAtomic('moved/again', {preconditionOpts: {ifGenerationMatch: 0}});
  check('moved in one step', [(await bucket.file('moved').exists())[0], (await bucket.file('moved/again').exists())[0]], [false, true]);

  // Signed by a key of an account, used by whoever has them.
  const signed = new Storage({keyFilename: keyFile}).bucket(bucket.name).file('signed');
  const sign = (action, more) => signed.getSignedUrl({version: 'v4', action, expires: Date.now() + 3_600_000, ...more}).then(([url]) => url);
  const put = {method: 'PUT', url: await sign('write', {contentType: 'text/plain'}), headers: {'content-type': 'text/plain'}, data: 'by URL'};
  check('PUT by a URL', (await request(put)).status, 200);
  const url = await sign('read');
  check('GET by a URL', (await request({url, responseType: 'text'})).data, 'by URL');
  check('another object', (await request({url: url.replace('/signed?', '/big?'), validateStatus: () => true, responseType: 'text'})).status, 403);

  await refused('not empty', 409, () => bucket.delete());
  await bucket.deleteFiles({force: true});
  await bucket.delete();
  check('deleted', (await bucket.exists())[0], false);
}
