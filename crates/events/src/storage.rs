//! An object as Google writes it (`storage#object`), and what is told of its changes: notifications to a topic.
//!
//! Pure. Who is told what is `control`'s to decide. Source: the discovery document `storage:v1`; cloud.google.com/storage/docs/pubsub-notifications.

use std::collections::BTreeMap;

use base64::{Engine, engine::general_purpose::STANDARD};
use model::{
    Hops, Timestamp,
    storage::{Bucket, Change, ChangeKind, Notification, Object},
};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};

/// In a URL's path, everything but these is escaped.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
/// Where links of what is told begin.
const BASE: &str = "https://storage.googleapis.com";

/// The resource `storage#object`. `base` is where the reader reaches this server, such as `https://storage.googleapis.com`; `bucket`
/// is needed for what depends on it, such as the end of its retention.
pub fn object_resource(object: &Object, bucket: Option<&Bucket>, base: &str) -> Value {
    let path = format!("{}/o/{}", utf8_percent_encode(&object.bucket, SEGMENT), utf8_percent_encode(&object.name, SEGMENT));
    let class = match object.storage_class.as_str() {
        "" => bucket.map_or("STANDARD", |bucket| bucket.storage_class.as_str()),
        class => class,
    };
    let mut json = json!({
        "kind": "storage#object",
        "id": format!("{}/{}/{}", object.bucket, object.name, object.generation),
        "selfLink": format!("https://www.googleapis.com/storage/v1/b/{path}"),
        "mediaLink": format!("{base}/download/storage/v1/b/{path}?generation={}&alt=media", object.generation),
        "name": object.name,
        "bucket": object.bucket,
        "generation": object.generation.to_string(),
        "metageneration": object.metageneration.to_string(),
        "storageClass": class,
        "size": object.size.to_string(),
        "crc32c": object.crc32c,
        "etag": object_etag(object),
        "timeCreated": time(object.created),
        "updated": time(object.updated),
        "timeStorageClassUpdated": time(object.class_changed.unwrap_or(object.created)),
        "timeFinalized": time(object.created),
    });
    let texts = [
        ("md5Hash", &object.md5),
        ("contentType", &object.content_type),
        ("contentEncoding", &object.content_encoding),
        ("contentDisposition", &object.content_disposition),
        ("contentLanguage", &object.content_language),
        ("cacheControl", &object.cache_control),
    ];
    for (name, text) in texts.into_iter().filter(|(_, text)| !text.is_empty()) {
        json[name] = text.as_str().into();
    }
    let times = [
        ("timeDeleted", object.noncurrent),
        ("customTime", object.custom_time),
        ("softDeleteTime", object.soft_deleted.map(|deleted| deleted.at)),
        ("hardDeleteTime", object.soft_deleted.map(|deleted| deleted.until)),
        ("retentionExpirationTime", bucket.and_then(|bucket| object.retention_end(bucket))),
    ];
    for (name, at) in times {
        if let Some(at) = at {
            json[name] = time(at).into();
        }
    }
    for (name, held) in [("eventBasedHold", object.event_based_hold), ("temporaryHold", object.temporary_hold)] {
        if held {
            json[name] = true.into();
        }
    }
    if let Some(retention) = &object.retention {
        json["retention"] = json!({ "mode": if retention.locked { "Locked" } else { "Unlocked" }, "retainUntilTime": time(retention.until) });
    }
    if object.components > 0 {
        json["componentCount"] = object.components.into();
    }
    if !object.metadata.is_empty() {
        json["metadata"] = json!(object.metadata);
    }
    json
}

pub fn object_etag(object: &Object) -> String {
    etag(&[object.generation, object.metageneration])
}

/// An etag as Google's are: the numbers as fields 1, 2... of a protobuf message, in Base64.
pub fn etag(numbers: &[i64]) -> String {
    let mut bytes = Vec::new();
    let mut varint = |mut number: u64| {
        while number >= 0x80 {
            bytes.push((number as u8) | 0x80);
            number >>= 7;
        }
        bytes.push(number as u8);
    };
    for (field, number) in (1u64..).zip(numbers) {
        varint(field << 3);
        varint(*number as u64);
    }
    STANDARD.encode(bytes)
}

/// RFC 3339 with milliseconds, as this API writes times.
pub fn time(at: Timestamp) -> String {
    format!("{at:.3}")
}

/// What is published for a change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    pub data: Vec<u8>,
    pub attributes: BTreeMap<String, String>,
    /// Those of the change.
    pub hops: Hops,
}

/// The message that tells `notification`'s topic of `change`.
pub fn notification_message(change: &Change, notification: &Notification) -> Message {
    let object = &change.object;
    let mut attributes = notification.attributes.clone();
    let mut set = |name: &str, value: String| attributes.insert(name.to_owned(), value);
    set("notificationConfig", format!("projects/_/buckets/{}/notificationConfigs/{}", object.bucket, notification.id));
    set("eventType", change.kind.name().to_owned());
    set("payloadFormat", if notification.payload { "JSON_API_V1" } else { "NONE" }.to_owned());
    set("bucketId", object.bucket.clone());
    set("objectId", object.name.clone());
    set("objectGeneration", object.generation.to_string());
    set("eventTime", format!("{:.6}", change.at));
    if let Some(other) = change.other {
        let name = if change.kind == ChangeKind::Finalize { "overwroteGeneration" } else { "overwrittenByGeneration" };
        set(name, other.to_string());
    }
    let data = if notification.payload { resource_pretty(object) } else { Vec::new() };
    Message { data, attributes, hops: change.hops.clone() }
}

/// The resource as an event's body has it: indented, as Google sends it.
pub fn resource_pretty(object: &Object) -> Vec<u8> {
    serde_json::to_vec_pretty(&object_resource(object, None, BASE)).expect("made of texts, lists and maps")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object() -> Object {
        serde_json::from_value(json!({
            "bucket": "b", "name": "a b/c", "generation": 1_795_502_205_012_144_i64, "metageneration": 1, "created": "2026-11-24T06:36:45.012144Z",
            "updated": "2026-11-24T06:36:45.012144Z", "size": 4, "blob": "", "crc32c": "cg1bLA==", "md5": "", "components": 2,
        }))
        .unwrap()
    }

    #[test]
    fn etags_are_googles() {
        assert_eq!(etag(&[1]), "CAE=");
        // The example of Google's own CloudEvents repository.
        assert_eq!(etag(&[1_587_627_537_231_057, 1]), "CNHZkbuF/ugCEAE=");
    }

    #[test]
    fn a_composed_object_has_no_md5_and_counts_its_parts() {
        let json = object_resource(&object(), None, "http://x");
        assert_eq!((json.get("md5Hash"), &json["componentCount"], &json["storageClass"]), (None, &json!(2), &json!("STANDARD")));
        assert_eq!(json["mediaLink"], "http://x/download/storage/v1/b/b/o/a%20b%2Fc?generation=1795502205012144&alt=media");
    }

    #[test]
    fn notifications_have_googles_attributes() {
        let change = |kind: ChangeKind, other: Option<i64>| Change {
            kind,
            at: "2026-11-24T06:36:45.012144Z".parse().unwrap(),
            project: model::ProjectId::parse("local-project").unwrap(),
            bucket_created: "2026-11-24T06:36:45Z".parse().unwrap(),
            object: object(),
            other,
            hops: Hops::default().next("f"),
        };
        let notification = |payload: bool| Notification {
            id: "3".into(),
            topic: "projects/p/topics/t".into(),
            kinds: vec![ChangeKind::Finalize],
            attributes: BTreeMap::from([("mine".to_owned(), "x".to_owned())]),
            prefix: "a".into(),
            payload,
        };
        let told = notification_message(&change(ChangeKind::Finalize, Some(5)), &notification(true));
        let expect = [
            ("bucketId", "b"),
            ("eventTime", "2026-11-24T06:36:45.012144Z"),
            ("eventType", "OBJECT_FINALIZE"),
            ("mine", "x"),
            ("notificationConfig", "projects/_/buckets/b/notificationConfigs/3"),
            ("objectGeneration", "1795502205012144"),
            ("objectId", "a b/c"),
            ("overwroteGeneration", "5"),
            ("payloadFormat", "JSON_API_V1"),
        ];
        assert_eq!(told.attributes, expect.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect());
        assert_eq!(told.hops.count, 1);
        assert_eq!(serde_json::from_slice::<Value>(&told.data).unwrap()["name"], "a b/c");
        let bare = notification_message(&change(ChangeKind::Delete, Some(6)), &notification(false));
        assert_eq!((bare.data.len(), bare.attributes["overwrittenByGeneration"].as_str(), bare.attributes["payloadFormat"].as_str()), (0, "6", "NONE"));
        assert!(notification(true).wants(&change(ChangeKind::Finalize, None)) && !notification(true).wants(&change(ChangeKind::Delete, None)));
    }
}
