'use strict';

const crypto = require('crypto');
const os = require('os');

const functions = require('@google-cloud/functions-framework');

console.log('loading');
crypto.randomUUID(); // fills the pool that the next ones come from
const loaded = crypto.randomUUID();
let calls = 0;

/** Draws from every generator that a process seeds while it loads, and says what it shares with other instances. */
functions.http('draw', async (req, res) => {
  calls += 1;
  const key = await crypto.webcrypto.subtle.generateKey({ name: 'AES-GCM', length: 128 }, true, ['encrypt']);
  res.json({
    calls,
    host: os.hostname(),
    same: { loaded },
    differs: {
      random: Math.random(),
      uuid: crypto.randomUUID(),
      bytes: crypto.randomBytes(16).toString('hex'),
      fill: crypto.randomFillSync(Buffer.alloc(16)).toString('hex'),
      int: crypto.randomInt(2 ** 47),
      web: Buffer.from(crypto.webcrypto.getRandomValues(new Uint8Array(16))).toString('hex'),
      webUuid: crypto.webcrypto.randomUUID(),
      key: Buffer.from(await crypto.webcrypto.subtle.exportKey('raw', key)).toString('hex'),
    },
  });
});
