"""Google's Python library of Eventarc against the server that this shell is set up for; the service `watch` is there."""

import google.auth
from google.api_core import exceptions
from google.cloud import eventarc_v1, pubsub_v1
from google.iam.v1.iam_policy_pb2 import GetIamPolicyRequest, SetIamPolicyRequest, TestIamPermissionsRequest
from google.iam.v1.policy_pb2 import Binding, Policy

REGION = "asia-northeast1"
credentials, project = google.auth.default()
parent = f"projects/{project}/locations/{REGION}"
passed = 0


def check(what, seen, expect=True):
    global passed
    assert seen == expect, f"{what}: {seen!r}, not {expect!r}"
    passed += 1


def refused(what, kind, call, part=""):
    try:
        call()
    except kind as error:
        check(what, part in str(error))
    else:
        check(what, "answered", kind.__name__)


PUBLISHED = eventarc_v1.EventFilter(attribute="type", value="google.cloud.pubsub.topic.v1.messagePublished")
topics = pubsub_v1.PublisherClient()
topics.create_topic(name=f"projects/{project}/topics/given")

for transport in ("grpc", "rest"):
    client = eventarc_v1.EventarcClient(transport=transport)
    name = f"{parent}/triggers/from-python"

    def trigger(**more):
        service = eventarc_v1.CloudRun(service="watch", region=REGION, path="/in")
        return eventarc_v1.Trigger(**{"name": name, "event_filters": [PUBLISHED], "destination": eventarc_v1.Destination(cloud_run=service), **more})

    def create(it, **more):
        return client.create_trigger(request={"parent": parent, "trigger_id": "from-python", "trigger": it, **more})

    checked = create(trigger(), validate_only=True).result(timeout=60)
    check("only checked", (checked.name, list(client.list_triggers(parent=parent))), (name, []))
    made = create(trigger(labels={"a": "b"})).result(timeout=60)
    check("made", (made.name, made.destination.cloud_run.service, dict(made.labels), bool(made.uid)), (name, "watch", {"a": "b"}, True))
    check("its transport", made.transport.pubsub.topic.startswith(f"projects/{project}/topics/eventarc-{REGION}-from-python-"))
    check("tried for a day", made.retry_policy.max_attempts, 0)
    refused("twice", exceptions.Conflict, lambda: create(trigger()))
    check("get", client.get_trigger(name=name), made)
    check("list", [t.name for t in client.list_triggers(parent=f"projects/{project}/locations/-")], [name])
    check("filtered", list(client.list_triggers(request={"parent": parent, "filter": 'labels.a="c"'})), [])

    change = trigger(labels={"c": "d"}, retry_policy=eventarc_v1.Trigger.RetryPolicy(max_attempts=1), service_account="nobody@example.com")
    changed = client.update_trigger(trigger=change, update_mask={"paths": ["labels", "retry_policy"]}, allow_missing=False).result(timeout=60)
    check("only what is named changes", (dict(changed.labels), changed.retry_policy.max_attempts, changed.service_account), ({"c": "d"}, 1, ""))
    check("the etag is another", changed.etag != made.etag)
    refused("an old etag", exceptions.Aborted if transport == "grpc" else exceptions.Conflict, lambda: client.delete_trigger(request={"name": name, "etag": made.etag}), "etag")
    refused("another type", exceptions.InvalidArgument if transport == "grpc" else exceptions.BadRequest, lambda: client.update_trigger(
        trigger=trigger(event_filters=[eventarc_v1.EventFilter(attribute="type", value="google.cloud.storage.object.v1.deleted"), eventarc_v1.EventFilter(attribute="bucket", value="b")]),
        update_mask={"paths": ["event_filters"]}, allow_missing=False))
    for field, value in [
        ("channel", f"{parent}/channels/c"),
        ("event_data_content_type", "application/protobuf"),
        ("destination", eventarc_v1.Destination(workflow=f"{parent}/workflows/w")),
        ("destination", eventarc_v1.Destination(cloud_function=f"{parent}/functions/f")),
        ("destination", eventarc_v1.Destination(http_endpoint=eventarc_v1.HttpEndpoint(uri="http://10.0.0.1/"))),
        ("retry_policy", eventarc_v1.Trigger.RetryPolicy(max_attempts=2)),
        ("event_filters", []),
    ]:
        refused(field, exceptions.BadRequest, lambda: create(trigger(**{field: value})), "type" if field == "event_filters" else field.split("_")[0])

    policy = Policy(bindings=[Binding(role="roles/eventarc.viewer", members=["user:guest@example.com"])])
    client.set_iam_policy(request=SetIamPolicyRequest(resource=name, policy=policy))
    check("policy", list(client.get_iam_policy(request=GetIamPolicyRequest(resource=name)).bindings), list(policy.bindings))
    asked = TestIamPermissionsRequest(resource=name, permissions=["eventarc.triggers.delete"])
    check("permissions", list(client.test_iam_permissions(request=asked).permissions), ["eventarc.triggers.delete"])

    check("deleted", client.delete_trigger(name=name, allow_missing=False).result(timeout=60).name, name)
    refused("gone", exceptions.NotFound, lambda: client.get_trigger(name=name))
    check("gone twice is well when it may be missing", client.delete_trigger(name=name, allow_missing=True).done())
    given = trigger(transport=eventarc_v1.Transport(pubsub=eventarc_v1.Pubsub(topic=f"projects/{project}/topics/given")))
    check("a given topic", create(given).result(timeout=60).transport.pubsub.topic, f"projects/{project}/topics/given")
    client.delete_trigger(name=name, allow_missing=False).result(timeout=60)
    check("it stays", topics.get_topic(topic=f"projects/{project}/topics/given").name, f"projects/{project}/topics/given")

    providers = [p.name.rsplit("/", 1)[1] for p in client.list_providers(parent=parent)]
    check("providers", providers, ["cloudaudit.googleapis.com", "pubsub.googleapis.com", "storage.googleapis.com"])
    check("provider", len(client.get_provider(name=f"{parent}/providers/storage.googleapis.com").event_types), 4)
    check("channels", list(client.list_channels(parent=parent)), [])
    refused("a channel", exceptions.NotFound, lambda: client.get_channel(name=f"{parent}/channels/c"))
    refused("a channel's making", exceptions.BadRequest, lambda: client.create_channel(parent=parent, channel=eventarc_v1.Channel(), channel_id="c"))
    check("config", client.get_google_channel_config(name=f"{parent}/googleChannelConfig").name, f"{parent}/googleChannelConfig")

print(f"{passed} checks passed")
