'use strict';

const functions = require('@google-cloud/functions-framework');

/** A file was uploaded: logs what happened to which object. */
functions.cloudEvent('helloStorage', event => {
  console.log(`${event.type}: gs://${event.data.bucket}/${event.data.name}, ${event.data.size} bytes`);
});
