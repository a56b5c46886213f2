'use strict';

const functions = require('@google-cloud/functions-framework');

/** A message came: greets whom it names. */
functions.cloudEvent('helloPubSub', event => {
  const name = Buffer.from(event.data.message.data ?? '', 'base64').toString();
  console.log(`Hello, ${name || 'World'}!`);
});
