'use strict';

const functions = require('@google-cloud/functions-framework');

/** Logs the event's type and id, and of a Pub/Sub message its text. */
functions.cloudEvent('helloCloudEvent', event => {
  console.log(`type: ${event.type}, id: ${event.id}`);
  if (event.type === 'google.cloud.pubsub.topic.v1.messagePublished') {
    const text = Buffer.from(event.data.message.data ?? '', 'base64').toString();
    console.log(`text: ${text}`);
  }
});
