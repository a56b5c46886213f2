"""A file was uploaded: a function for a bucket of Cloud Storage."""

import functions_framework


@functions_framework.cloud_event
def hello_storage(event):
    """Logs what happened to which object."""
    print(f"{event['type']}: gs://{event.data['bucket']}/{event.data['name']}, {event.data['size']} bytes")
