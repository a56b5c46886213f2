'use strict';

const {setTimeout} = require('node:timers/promises');
const functions = require('@google-cloud/functions-framework');

/** Sends five lines, one every 200 ms. */
functions.http('streaming', async (req, res) => {
  res.type('text/plain');
  for (let number = 1; number <= 5; number++) {
    res.write(`line ${number}\n`);
    await setTimeout(200);
  }
  res.end();
});
