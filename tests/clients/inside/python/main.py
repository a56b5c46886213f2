"""Google's libraries in a function, with no configuration. Its clients are made while it loads; with ?new they are made in the call."""

import functions_framework
import google.auth
import google.auth.transport.requests
import google.oauth2.id_token
import requests
from google.cloud import pubsub_v1, scheduler_v1, secretmanager, storage


class Clients:
    def __init__(self):
        _, self.project = google.auth.default()
        self.storage = storage.Client()
        self.publisher = pubsub_v1.PublisherClient()
        self.secrets = secretmanager.SecretManagerServiceClient()
        self.scheduler = scheduler_v1.CloudSchedulerClient()


SHARED = Clients()


@functions_framework.http
def inside(request):
    if "google" in request.args:
        answer = requests.get(f"https://{request.args['google']}/", timeout=20)
        return answer.text, answer.status_code
    clients = Clients() if "new" in request.args else SHARED
    project, name, other = clients.project, request.args["name"], request.args["other"]
    blob = clients.storage.bucket(request.args["bucket"]).blob(name)
    blob.upload_from_string(f"by {name}")
    topic = clients.publisher.topic_path(project, "inside")
    clients.publisher.publish(topic, name.encode(), by="python").result(30)
    secret = clients.secrets.access_secret_version(name=f"projects/{project}/secrets/inside/versions/latest")
    jobs = clients.scheduler.list_jobs(parent=f"projects/{project}/locations/asia-northeast1")
    token = google.oauth2.id_token.fetch_id_token(google.auth.transport.requests.Request(), other)
    greeting = requests.get(other, headers={"Authorization": f"Bearer {token}"}, timeout=20)
    return {
        "object": blob.download_as_text(),
        "secret": secret.payload.data.decode(),
        "jobs": [job.name.rsplit("/", 1)[1] for job in jobs],
        "greeting": greeting.text,
    }
