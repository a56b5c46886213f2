"""A message came: a function for a topic of Pub/Sub."""

import base64

import functions_framework


@functions_framework.cloud_event
def hello_pubsub(event):
    """Greets whom the message names."""
    name = base64.b64decode(event.data["message"].get("data", "")).decode()
    print(f"Hello, {name or 'World'}!")
