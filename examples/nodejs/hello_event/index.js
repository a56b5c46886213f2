'use strict';

/** Logs the event's type and id, and of a Pub/Sub message its text; deploy it with the signature type "event". */
exports.helloEvent = (data, context) => {
  console.log(`type: ${context.eventType}, id: ${context.eventId}`);
  if (context.eventType === 'google.pubsub.topic.publish') {
    const text = Buffer.from(data.data ?? '', 'base64').toString();
    console.log(`text: ${text}`);
  }
};
