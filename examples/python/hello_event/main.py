"""A background function, as they were before CloudEvents: deploy it with the signature type "event"."""

import base64


def hello_event(data, context):
    """Logs the event's type and id, and of a Pub/Sub message its text."""
    print(f"type: {context.event_type}, id: {context.event_id}")
    if context.event_type == "google.pubsub.topic.publish":
        text = base64.b64decode(data.get("data", "")).decode()
        print(f"text: {text}")
