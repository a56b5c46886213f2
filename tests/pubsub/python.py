"""Google's Pub/Sub library against the server that this shell is set up for: both ways of pulling, order, exactly once, flow control."""

import datetime
import threading
import time

import google.auth
from google.api_core import exceptions
from google.cloud import pubsub_v1
from google.cloud.pubsub_v1.subscriber import exceptions as subscriber_exceptions
from google.protobuf import duration_pb2, field_mask_pb2

credentials, project = google.auth.default()
publisher = pubsub_v1.PublisherClient(publisher_options=pubsub_v1.types.PublisherOptions(enable_message_ordering=True))
subscriber = pubsub_v1.SubscriberClient()
PATIENCE = 60
passed = 0


def check(what, seen, expect=True):
    global passed
    assert seen == expect, f"{what}: {seen!r}, not {expect!r}"
    passed += 1


def refused(what, kind, call):
    try:
        call()
    except kind as error:
        check(what, True)
        return error
    raise AssertionError(f"{what}: answered, not {kind.__name__}")


def topic_new(name):
    return publisher.create_topic(name=publisher.topic_path(project, name)).name


def subscription_new(name, topic, **settings):
    path = subscriber.subscription_path(project, name)
    return subscriber.create_subscription(request={"name": path, "topic": topic, **settings}).name


def pull(subscription, count):
    """Messages in the order in which they came, until there are so many."""
    got = []
    end = time.monotonic() + PATIENCE
    while len(got) < count and time.monotonic() < end:
        got += subscriber.pull(subscription=subscription, max_messages=count - len(got), timeout=PATIENCE).received_messages
    return got


# Resources.
topic = topic_new("py-top")
check("the topic", publisher.get_topic(topic=topic).name, topic)
check("topics", topic in [t.name for t in publisher.list_topics(project=f"projects/{project}")])
error = refused("a topic twice", exceptions.AlreadyExists, lambda: topic_new("py-top"))
check("in Google's words", error.message, "Resource already exists in the project (resource=py-top).")
error = refused("no topic", exceptions.NotFound, lambda: publisher.publish(publisher.topic_path(project, "none"), b"x").result(PATIENCE))
check("in Google's words", error.message, "Resource not found (resource=none).")
refused("a bad name", exceptions.InvalidArgument, lambda: topic_new("1"))
plain = subscription_new("py-plain", topic)
check("defaults", (lambda s: (s.ack_deadline_seconds, s.message_retention_duration, s.expiration_policy.ttl))(subscriber.get_subscription(subscription=plain)), (10, datetime.timedelta(days=7), datetime.timedelta(days=31)))
updated = subscriber.update_subscription(subscription={"name": plain, "ack_deadline_seconds": 60}, update_mask=field_mask_pb2.FieldMask(paths=["ack_deadline_seconds"]))
check("an update", updated.ack_deadline_seconds, 60)
refused("an immutable field", exceptions.InvalidArgument, lambda: subscriber.update_subscription(subscription={"name": plain, "filter": "attributes:x"}, update_mask=field_mask_pb2.FieldMask(paths=["filter"])))
check("subscriptions of the topic", list(publisher.list_topic_subscriptions(topic=topic)), [plain])

# One by one and in batches, pulled and acknowledged.
ids = [future.result(PATIENCE) for future in [publisher.publish(topic, f"m{n}".encode(), n=str(n)) for n in range(250)]]
check("ids", len(set(ids)), 250)
got = pull(plain, 250)
check("messages", sorted(m.message.message_id for m in got), sorted(ids))
check("attributes", sorted(int(m.message.attributes["n"]) for m in got), list(range(250)))
subscriber.acknowledge(subscription=plain, ack_ids=[m.ack_id for m in got])
check("nothing is left", len(subscriber.pull(request={"subscription": plain, "max_messages": 10, "return_immediately": True}).received_messages), 0)
large = bytes(5_000_000)
publisher.publish(topic, large).result(PATIENCE)
got = pull(plain, 1)
check("a large message", got[0].message.data, large)
subscriber.acknowledge(subscription=plain, ack_ids=[m.ack_id for m in got])
refused("a bad ack id", exceptions.InvalidArgument, lambda: subscriber.acknowledge(subscription=plain, ack_ids=["x"]))

# A stream, with more messages than may be out at a time, some of them nacked.
got, all_there, most, out = {}, threading.Event(), 0, 0
lock = threading.Lock()


def on_message(message):
    global most, out
    with lock:
        out += 1
        most = max(most, out)
        got[message.data] = got.get(message.data, 0) + 1
        is_first = got[message.data] == 1
        if len(got) == 500 and sum(got.values()) >= 510:
            all_there.set()
    if is_first and int(message.data[1:]) % 50 == 0:
        message.nack()
    else:
        message.ack()
    with lock:
        out -= 1


stream = subscriber.subscribe(plain, callback=on_message, flow_control=pubsub_v1.types.FlowControl(max_messages=20))
for future in [publisher.publish(topic, f"s{n}".encode()) for n in range(500)]:
    future.result(PATIENCE)
check("the stream brought all, nacked ones again", all_there.wait(PATIENCE))
stream.cancel()
stream.result(PATIENCE)
check("flow control", most <= 20)
check("nothing came twice without a reason", sum(got.values()), 510)

# In order within a key.
ordered = subscription_new("py-ordered", topic, enable_message_ordering=True)
seen, done = {"a": [], "b": []}, threading.Event()


def on_ordered(message):
    seen[message.ordering_key].append(int(message.data))
    message.ack()
    if sum(map(len, seen.values())) >= 200:
        done.set()


stream = subscriber.subscribe(ordered, callback=on_ordered)
for n in range(100):
    for key in seen:
        publisher.publish(topic, str(n).encode(), ordering_key=key)
check("ordered messages came", done.wait(PATIENCE))
stream.cancel()
stream.result(PATIENCE)
check("in order", seen, {key: list(range(100)) for key in seen})

# Exactly once: an ack is confirmed, and a stale one refused.
once = subscription_new("py-once", topic, enable_exactly_once_delivery=True)
publisher.publish(topic, b"once").result(PATIENCE)
stale = pull(once, 1)[0]
subscriber.modify_ack_deadline(subscription=once, ack_ids=[stale.ack_id], ack_deadline_seconds=0)
outcomes, confirmed = [], threading.Event()


def on_once(message):
    outcomes.append(message.ack_with_response().result(PATIENCE))
    confirmed.set()


stream = subscriber.subscribe(once, callback=on_once)
check("an ack is confirmed", confirmed.wait(PATIENCE))
stream.cancel()
stream.result(PATIENCE)
check("as a success", outcomes, [subscriber_exceptions.AcknowledgeStatus.SUCCESS])
error = refused("a stale ack id", exceptions.FailedPrecondition, lambda: subscriber.acknowledge(subscription=once, ack_ids=[stale.ack_id]))
check("with its reason", (error.reason, dict(error.metadata)), ("EXACTLY_ONCE_ACKID_FAILURE", {stale.ack_id: "PERMANENT_FAILURE_INVALID_ACK_ID"}))

# Filters, dead letters, snapshots and seeks.
dead = topic_new("py-dead")
dead_sub = subscription_new("py-dead-sub", dead)
picky = subscription_new("py-picky", topic, filter='attributes.kind = "poison"', dead_letter_policy={"dead_letter_topic": dead, "max_delivery_attempts": 5})
publisher.publish(topic, b"food", kind="food")
publisher.publish(topic, b"poison", kind="poison").result(PATIENCE)
for attempt in range(1, 6):
    message = pull(picky, 1)[0]
    check("an attempt", (message.message.data, message.delivery_attempt), (b"poison", attempt))
    subscriber.modify_ack_deadline(subscription=picky, ack_ids=[message.ack_id], ack_deadline_seconds=0)
message = pull(dead_sub, 1)[0].message
check("a dead letter", (message.data, message.attributes["CloudPubSubDeadLetterSourceSubscription"], message.attributes["CloudPubSubDeadLetterSourceDeliveryCount"]), (b"poison", "py-picky", "5"))
snapshot = subscriber.create_snapshot(name=subscriber.snapshot_path(project, "py-snap"), subscription=dead_sub)
check("snapshots of the topic", list(publisher.list_topic_snapshots(topic=dead)), [snapshot.name])
publisher.publish(dead, b"later").result(PATIENCE)
subscriber.seek(request={"subscription": dead_sub, "time": datetime.datetime(2100, 1, 1, tzinfo=datetime.timezone.utc)})
check("a seek ahead", len(subscriber.pull(request={"subscription": dead_sub, "max_messages": 10, "return_immediately": True}).received_messages), 0)
subscriber.seek(request={"subscription": dead_sub, "snapshot": snapshot.name})
check("a seek to a snapshot", sorted(m.message.data for m in pull(dead_sub, 2)), [b"later", b"poison"])

# Schemas: both languages, both encodings, revisions.
schemas = pubsub_v1.SchemaServiceClient()
from google.pubsub_v1 import types
parent = f"projects/{project}"
order = '{"type":"record","name":"Order","fields":[{"name":"id","type":"int"}]}'
order_next = '{"type":"record","name":"Order","fields":[{"name":"id","type":"int"},{"name":"note","type":"string","default":""}]}'
made = schemas.create_schema(parent=parent, schema=types.Schema(type_=types.Schema.Type.AVRO, definition=order), schema_id="py-avro")
check("a schema", (made.name, made.definition, len(made.revision_id)), (f"{parent}/schemas/py-avro", order, 8))
committed = schemas.commit_schema(name=made.name, schema=types.Schema(name=made.name, type_=types.Schema.Type.AVRO, definition=order_next))
check("its revisions", [s.revision_id for s in schemas.list_schema_revisions(name=made.name)], [made.revision_id, committed.revision_id])
check("an old one", schemas.get_schema(name=f"{made.name}@{made.revision_id}").definition, order)
check("the basic view", [(s.name, s.definition) for s in schemas.list_schemas(parent=parent)], [(made.name, "")])
settings = types.SchemaSettings(schema=made.name, encoding=types.Encoding.BINARY)
checked = publisher.create_topic(request={"name": publisher.topic_path(project, "py-checked"), "schema_settings": settings}).name
readers = subscription_new("py-readers", checked)
# 7, and 7 with a note of one letter.
for data, revision in [(b"\x0e", made.revision_id), (b"\x0e\x02x", committed.revision_id)]:
    publisher.publish(checked, data).result(PATIENCE)
    message = pull(readers, 1)[0]
    subscriber.acknowledge(subscription=readers, ack_ids=[message.ack_id])
    check("its stamps", dict(message.message.attributes), {"googclient_schemaencoding": "BINARY", "googclient_schemaname": made.name, "googclient_schemarevisionid": revision})
error = refused("what does not follow it", exceptions.InvalidArgument, lambda: publisher.publish(checked, b"\x0e\x02").result(PATIENCE))
check("in Google's words", (error.message, error.reason), ("Invalid data in message: Message failed schema validation.", "INVALID_BINARY_AVRO_MESSAGE"))
check("why", "Not enough data to parse for schema." in error.metadata["revisionInfo"] or "Too much data to parse for schema." in error.metadata["revisionInfo"])
proto = types.Schema(type_=types.Schema.Type.PROTOCOL_BUFFER, definition='syntax = "proto3"; message Span { int64 seconds = 1; int32 nanos = 2; }')
schemas.validate_schema(parent=parent, schema=proto)
span = duration_pb2.Duration(seconds=1 << 40, nanos=5)
schemas.validate_message(request={"parent": parent, "schema": proto, "message": span.SerializeToString(), "encoding": types.Encoding.BINARY})
check("a message of protobuf", True)
refused("a field too many", exceptions.InvalidArgument, lambda: schemas.validate_message(request={"parent": parent, "schema": proto, "message": b"\x18\x01", "encoding": types.Encoding.BINARY}))
schemas.rollback_schema(name=made.name, revision_id=made.revision_id)
schemas.delete_schema_revision(name=f"{made.name}@{committed.revision_id}")
check("what is left", [s.definition for s in schemas.list_schema_revisions(request={"name": made.name, "view": types.SchemaView.FULL})], [order, order])
schemas.delete_schema(name=made.name)
check("a deleted schema", publisher.get_topic(topic=checked).schema_settings.schema, "_deleted-schema_")
refused("nothing can be published", exceptions.NotFound, lambda: publisher.publish(checked, b"\x0e").result(PATIENCE))

# Policies.
policy = publisher.get_iam_policy(request={"resource": topic})
policy.bindings.add(role="roles/pubsub.publisher", members=["allAuthenticatedUsers"])
publisher.set_iam_policy(request={"resource": topic, "policy": policy})
check("a policy", [(b.role, list(b.members)) for b in publisher.get_iam_policy(request={"resource": topic}).bindings], [("roles/pubsub.publisher", ["allAuthenticatedUsers"])])
check("permissions", list(publisher.test_iam_permissions(request={"resource": topic, "permissions": ["pubsub.topics.publish"]}).permissions), ["pubsub.topics.publish"])

publisher.delete_topic(topic=dead)
check("a deleted topic", subscriber.get_subscription(subscription=dead_sub).topic, "_deleted-topic_")
print(f"{passed} checks passed")
