"""A function for CloudEvents: logs what happened."""

import base64

import functions_framework


@functions_framework.cloud_event
def hello_cloudevent(event):
    """Logs the event's type and id, and of a Pub/Sub message its text."""
    print(f"type: {event['type']}, id: {event['id']}")
    if event["type"] == "google.cloud.pubsub.topic.v1.messagePublished":
        text = base64.b64decode(event.data["message"].get("data", "")).decode()
        print(f"text: {text}")
