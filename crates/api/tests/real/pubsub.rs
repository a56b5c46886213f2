//! Pub/Sub v1: every default and every limit, by REST; and who may attach a schema.
//!
//! Sources: google/pubsub/v1/{pubsub,schema}.proto and cloud.google.com/pubsub/quotas. Limits of time (leases, backoffs, ends) are in
//! `crates/events`; that of push endpoints is there too, since no service is here.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use proto::google::pubsub::v1 as pb;
use serde_json::{Value as Json, json};

use crate::world::{PROJECT, World};

const HOST: &str = "pubsub.googleapis.com";
const DAY_S: u64 = 86_400;

fn path(collection: &str, id: &str) -> String {
    format!("/v1/projects/{PROJECT}/{collection}/{id}")
}

fn full(collection: &str, id: &str) -> String {
    format!("projects/{PROJECT}/{collection}/{id}")
}

pub async fn every_default(world: &World) {
    let topic = world.good("PUT", HOST, &path("topics", "defaults"), Some(json!({}))).await;
    assert_eq!(topic, json!({ "name": full("topics", "defaults") }));
    let subscription = world.good("PUT", HOST, &path("subscriptions", "defaults"), Some(json!({ "topic": full("topics", "defaults") }))).await;
    let expect = json!({
        "name": full("subscriptions", "defaults"),
        "topic": full("topics", "defaults"),
        "pushConfig": {},
        "ackDeadlineSeconds": 10,
        "messageRetentionDuration": "604800s",
        "expirationPolicy": { "ttl": "2678400s" },
        "state": "ACTIVE",
    });
    assert_eq!(subscription, expect);
    // Of policies that are set and empty.
    let body = json!({ "topic": full("topics", "defaults"), "retryPolicy": {}, "deadLetterPolicy": { "deadLetterTopic": full("topics", "defaults") } });
    let subscription = world.good("PUT", HOST, &path("subscriptions", "policies"), Some(body)).await;
    assert_eq!(subscription["retryPolicy"], json!({ "minimumBackoff": "10s", "maximumBackoff": "600s" }));
    assert_eq!(subscription["deadLetterPolicy"]["maxDeliveryAttempts"], 5);
    // An expiration policy without a ttl is never.
    let body = json!({ "topic": full("topics", "defaults"), "expirationPolicy": {} });
    let subscription = world.good("PUT", HOST, &path("subscriptions", "never"), Some(body)).await;
    assert_eq!(subscription["expirationPolicy"], json!({}));
    let snapshot = world.good("PUT", HOST, &path("snapshots", "defaults"), Some(json!({ "subscription": full("subscriptions", "defaults") }))).await;
    let expires: model::Timestamp = snapshot["expireTime"].as_str().unwrap().parse().unwrap();
    let left_s = expires.as_second() - model::Clock::now(&crate::world::Clock).as_second();
    assert!((7 * 86_400 - 60..=7 * 86_400).contains(&left_s), "{snapshot}");
    for (collection, id) in
        [("snapshots", "defaults"), ("subscriptions", "never"), ("subscriptions", "policies"), ("subscriptions", "defaults"), ("topics", "defaults")]
    {
        world.good("DELETE", HOST, &path(collection, id), None).await;
    }
}

pub async fn every_limit(world: &World) {
    world.good("PUT", HOST, &path("topics", "all-limits"), Some(json!({}))).await;
    world.good("PUT", HOST, &path("subscriptions", "all-limits"), Some(json!({ "topic": full("topics", "all-limits") }))).await;
    let is_good = async |method: &str, path: &str, body: Json, words: &str| {
        let (status, answer) = world.call(Some(&world.owner), method, HOST, path, Some(body)).await;
        let told = answer["error"]["message"].as_str().unwrap_or_default().to_owned();
        assert_eq!(status.is_success(), words.is_empty(), "{method} {path}: {told}, not {words:?}");
        assert!(told.contains(words), "{method} {path}: {told}, not {words:?}");
    };
    let seconds = |s: u64| json!(format!("{s}s"));
    let labels = |count: usize| -> Json { (0..count).map(|n| (format!("l{n}"), json!("v"))).collect::<serde_json::Map<_, _>>().into() };

    // A topic's.
    let patch = async |field: &str, value: Json, words: &str| {
        is_good("PATCH", &path("topics", "all-limits"), json!({ "topic": { field: value }, "updateMask": field }), words).await;
    };
    for (s, words) in [(599, "10 minutes to 31 days"), (600, ""), (31 * DAY_S, ""), (31 * DAY_S + 1, "10 minutes to 31 days")] {
        patch("messageRetentionDuration", seconds(s), words).await;
    }
    patch("labels", labels(64), "").await;
    patch("labels", labels(65), "at most 64 labels").await;
    for (id, words) in
        [("ab", "Invalid [topics] name"), ("1bc", "Invalid [topics] name"), (&*"a".repeat(256), "Invalid [topics] name"), ("goog-x", "Invalid [topics] name")]
    {
        is_good("PUT", &path("topics", id), json!({}), words).await;
    }
    let longest = path("topics", &"a".repeat(255));
    is_good("PUT", &longest, json!({}), "").await;
    world.good("DELETE", HOST, &longest, None).await;

    // A subscription's.
    let patch = async |change: Json, mask: &str, words: &str| {
        is_good("PATCH", &path("subscriptions", "all-limits"), json!({ "subscription": change, "updateMask": mask }), words).await;
    };
    for (s, words) in [(9, "ack_deadline_seconds"), (600, ""), (601, "ack_deadline_seconds"), (10, "")] {
        patch(json!({ "ackDeadlineSeconds": s }), "ackDeadlineSeconds", words).await;
    }
    for (s, words) in [(599, "message_retention_duration"), (600, ""), (31 * DAY_S, ""), (31 * DAY_S + 1, "message_retention_duration"), (7 * DAY_S, "")] {
        patch(json!({ "messageRetentionDuration": seconds(s) }), "messageRetentionDuration", words).await;
    }
    for (s, words) in [(7 * DAY_S - 1, "expiration_policy.ttl"), (7 * DAY_S, ""), (365 * DAY_S, "")] {
        patch(json!({ "expirationPolicy": { "ttl": seconds(s) } }), "expirationPolicy", words).await;
    }
    for (attempts, words) in [(4, "max_delivery_attempts"), (5, ""), (100, ""), (101, "max_delivery_attempts")] {
        let policy = json!({ "deadLetterTopic": full("topics", "all-limits"), "maxDeliveryAttempts": attempts });
        patch(json!({ "deadLetterPolicy": policy }), "deadLetterPolicy", words).await;
    }
    for (least, most, words) in [(0, 600, ""), (10, 601, "retry_policy.maximum_backoff"), (600, 600, ""), (20, 10, "retry_policy.minimum_backoff")] {
        let policy = json!({ "minimumBackoff": seconds(least), "maximumBackoff": seconds(most) });
        patch(json!({ "retryPolicy": policy }), "retryPolicy", words).await;
    }
    patch(json!({ "filter": "attributes:x" }), "filter", "filter").await;
    let create = async |id: &str, mut body: Json, words: &str| {
        body["topic"] = full("topics", "all-limits").into();
        is_good("PUT", &path("subscriptions", id), body, words).await;
        if words.is_empty() {
            world.good("DELETE", HOST, &path("subscriptions", id), None).await;
        }
    };
    create("filtered", json!({ "filter": format!("attributes.a=\"{}\"", "x".repeat(256 - 15)) }), "").await;
    create("filtered", json!({ "filter": format!("attributes.a=\"{}\"", "x".repeat(257 - 15)) }), "256").await;
    create("short", json!({ "expirationPolicy": { "ttl": seconds(DAY_S - 1) }, "messageRetentionDuration": "600s" }), "expiration_policy.ttl").await;
    create("short", json!({ "expirationPolicy": { "ttl": seconds(DAY_S) }, "messageRetentionDuration": "600s" }), "").await;
    create(
        "once",
        json!({ "enableExactlyOnceDelivery": true, "pushConfig": { "pushEndpoint": format!("https://f-{}.asia-northeast1.run.app", world.number) } }),
        "Exactly once",
    )
    .await;

    // A publish's.
    let publish =
        async |messages: Json, words: &str| is_good("POST", &format!("{}:publish", path("topics", "all-limits")), json!({ "messages": messages }), words).await;
    let data = |bytes: usize| STANDARD.encode(vec![b'x'; bytes]);
    publish(json!([]), "message_count is too small").await;
    publish(json!([{}]), "Each message must contain either non-empty data, or at least one attribute").await;
    publish(json!(vec![json!({ "data": data(1) }); 1000]), "").await;
    publish(json!(vec![json!({ "data": data(1) }); 1001]), "You passed 1001 in the request, but the maximum value is 1000.").await;
    // By gRPC: as JSON it is above what the front takes of any body.
    for (bytes, words) in [(10_000_000, ""), (10_000_001, "request_size")] {
        let messages = vec![pb::PubsubMessage { data: vec![b'x'; bytes], ..Default::default() }];
        let request = pb::PublishRequest { topic: full("topics", "all-limits"), messages };
        let answer = world.grpc::<pb::PublishResponse>(Some(&world.owner), "google.pubsub.v1.Publisher/Publish", &request).await;
        let told = answer.err().map(|(_, message)| message).unwrap_or_default();
        assert!(told.is_empty() == words.is_empty() && told.contains(words), "{bytes}: {told}");
    }
    let attributes = |count: usize, key: usize, value: usize| -> Json {
        let pairs: serde_json::Map<_, _> = (0..count).map(|n| (format!("{n:0key$}"), json!("v".repeat(value)))).collect();
        json!([{ "attributes": pairs }])
    };
    publish(attributes(100, 256, 1024), "").await;
    publish(attributes(101, 3, 1), "attributes_count").await;
    publish(attributes(1, 257, 1), "attribute_key_size").await;
    publish(attributes(1, 1, 1025), "attribute_value_size").await;
    publish(json!([{ "attributes": { "googx": "v" } }]), "goog").await;
    publish(json!([{ "data": data(1), "orderingKey": "o".repeat(1024) }]), "").await;
    publish(json!([{ "data": data(1), "orderingKey": "o".repeat(1025) }]), "ordering_key_size").await;

    // A pull's and an acknowledgement's.
    let of_subscription = |verb: &str| format!("{}:{verb}", path("subscriptions", "all-limits"));
    is_good("POST", &of_subscription("pull"), json!({ "maxMessages": 0 }), "max_messages is too small").await;
    let pulled = world.good("POST", HOST, &of_subscription("pull"), Some(json!({ "maxMessages": 2000 }))).await;
    assert!((1..=1000).contains(&pulled["receivedMessages"].as_array().unwrap().len()));
    let id = &pulled["receivedMessages"][0]["ackId"];
    for (s, words) in [(-1, "ack_deadline_seconds"), (601, "ack_deadline_seconds"), (600, ""), (0, "")] {
        is_good("POST", &of_subscription("modifyAckDeadline"), json!({ "ackIds": [id], "ackDeadlineSeconds": s }), words).await;
    }
    is_good("POST", &of_subscription("acknowledge"), json!({ "ackIds": [] }), "No ack ids specified.").await;
    let long = "x".repeat(1024);
    is_good("POST", &of_subscription("acknowledge"), json!({ "ackIds": vec![&long; 512] }), "invalid ack ID").await;
    is_good("POST", &of_subscription("acknowledge"), json!({ "ackIds": vec![&long; 513] }), "exceeds the limit: 524288 bytes.").await;

    // A schema's.
    let schemas = format!("/v1/projects/{PROJECT}/schemas");
    let avro = |bytes: usize| json!({ "type": "AVRO", "definition": format!("\"string\"{}", " ".repeat(bytes - 8)) });
    is_good("POST", &format!("{schemas}?schemaId=limits"), avro(300_001), "at most 300000 are allowed").await;
    is_good("POST", &format!("{schemas}?schemaId=limits"), avro(300_000), "").await;
    for _ in 1..20 {
        is_good("POST", &format!("{schemas}/limits:commit"), json!({ "schema": avro(8) }), "").await;
    }
    is_good("POST", &format!("{schemas}/limits:commit"), json!({ "schema": avro(8) }), "maximum=20").await;
    let (status, _) = world.call(Some(&world.owner), "POST", HOST, &format!("{schemas}/limits:commit"), Some(json!({ "schema": avro(8) }))).await;
    assert_eq!(status, 429);
    world.good("DELETE", HOST, &format!("{schemas}/limits"), None).await;
    world.good("DELETE", HOST, &path("subscriptions", "all-limits"), None).await;
    world.good("DELETE", HOST, &path("topics", "all-limits"), None).await;
}

/// Who may make topics may not for that put a schema of another's on one; a policy of the schema itself lets one in, to each revision.
pub async fn a_schema_has_a_policy_of_its_own(world: &World) {
    let schema = path("schemas", "guarded");
    let definition = json!({ "type": "AVRO", "definition": "\"string\"" });
    let made = world.good("POST", HOST, &format!("/v1/projects/{PROJECT}/schemas?schemaId=guarded"), Some(definition.clone())).await;
    let revised = format!("{schema}@{}", made["revisionId"].as_str().unwrap());
    let as_stranger = async |method: &str, path: &str, body: Option<Json>| world.call(Some(&world.stranger), method, HOST, path, body).await.0.as_u16();
    for path in [&schema, &revised] {
        assert_eq!(as_stranger("GET", path, None).await, 403);
    }
    assert_eq!(as_stranger("DELETE", &format!("{revised}:deleteRevision"), None).await, 403);
    let policy = json!({ "policy": { "bindings": [{ "role": "roles/pubsub.viewer", "members": ["user:stranger@example.com"] }] } });
    world.good("POST", HOST, &format!("{schema}:setIamPolicy"), Some(policy)).await;
    for path in [&schema, &revised] {
        assert_eq!(as_stranger("GET", path, None).await, 200);
    }
    assert_eq!(as_stranger("GET", &format!("{schema}:listRevisions"), None).await, 200);
    assert_eq!(as_stranger("POST", &format!("{schema}:commit"), Some(json!({ "schema": definition }))).await, 403);
    // The viewer of the project sees topics and schemas, and neither makes nor attaches.
    let body = json!({ "schemaSettings": { "schema": full("schemas", "guarded"), "encoding": "JSON" } });
    let (status, _) = world.call(Some(&world.viewer), "PUT", HOST, &path("topics", "guarded"), Some(body.clone())).await;
    assert_eq!(status, 403);
    let unset = json!({ "schemaSettings": { "schema": full("schemas", "guarded") } });
    assert!(world.bad("PUT", HOST, &path("topics", "guarded"), Some(unset)).await.2.contains("schema_settings.encoding"));
    let absent = json!({ "schemaSettings": { "schema": full("schemas", "absent"), "encoding": "JSON" } });
    assert_eq!(world.bad("PUT", HOST, &path("topics", "guarded"), Some(absent)).await.1, "NOT_FOUND");
    let topic = world.good("PUT", HOST, &path("topics", "guarded"), Some(body)).await;
    assert_eq!(topic["schemaSettings"], json!({ "schema": full("schemas", "guarded"), "encoding": "JSON" }));
    let tested =
        world.good("POST", HOST, &format!("{schema}:testIamPermissions"), Some(json!({ "permissions": ["pubsub.schemas.attach", "pubsub.topics.get"] }))).await;
    assert_eq!(tested["permissions"][0], "pubsub.schemas.attach");
    world.good("DELETE", HOST, &schema, None).await;
    world.good("DELETE", HOST, &path("topics", "guarded"), None).await;
}
