//! Buckets and objects.

use model::{
    Code,
    storage::{Bucket, Object},
};

use super::*;
use crate::{Preconditions, UnlockedRetention, is_precondition};

pub(crate) fn bucket(name: &str) -> Bucket {
    serde_json::from_value(serde_json::json!({
        "name": name, "project": "local-project", "location": "ASIA-NORTHEAST1", "created": "2026-01-01T00:00:00Z",
        "updated": "2026-01-01T00:00:00Z", "metageneration": 0
    }))
    .unwrap()
}

/// An object whose bytes are in the store.
pub(crate) fn object(plane: &Plane, bucket: &str, name: &str, bytes: &[u8]) -> Object {
    let blob = plane.store.blobs().put(bytes).unwrap();
    serde_json::from_value(serde_json::json!({
        "bucket": bucket, "name": name, "generation": 0, "metageneration": 0, "created": "2026-01-01T00:00:00Z",
        "updated": "2026-01-01T00:00:00Z", "size": bytes.len(), "blob": blob, "crc32c": "", "md5": ""
    }))
    .unwrap()
}

async fn put(plane: &Plane, name: &str, bytes: &[u8]) -> Object {
    plane.control.object_put(object(plane, "b-1", name, bytes), &Preconditions::default()).await.unwrap().value
}

#[tokio::test(flavor = "multi_thread")]
async fn generations_rise() {
    let plane = Plane::new().await;
    plane.control.bucket_create(bucket("b-1")).await.unwrap();
    let mut last = 0;
    for n in 0..20 {
        let put = put(&plane, &format!("o{}", n % 3), b"x").await;
        assert!(put.generation > last && put.metageneration == 1);
        assert_eq!(put.generation, put.created.as_microsecond());
        last = put.generation;
    }
    // Many at once: none twice.
    let puts: Vec<_> = (0..32).map(|_| put(&plane, "same", b"x")).collect();
    let mut generations: Vec<i64> = futures_util::future::join_all(puts).await.into_iter().map(|object| object.generation).collect();
    let live = plane.control.object_get("b-1", "same").unwrap().value.generation;
    assert_eq!(generations.iter().max(), Some(&live));
    generations.sort_unstable();
    generations.dedup();
    assert_eq!(generations.len(), 32);
}

#[tokio::test(flavor = "multi_thread")]
async fn preconditions_hold_or_nothing_is_written() {
    let plane = Plane::new().await;
    plane.control.bucket_create(bucket("b-1")).await.unwrap();
    let new_only = Preconditions { generation_match: Some(0), ..Preconditions::default() };
    // Of many that create, one does.
    let creations: Vec<_> = (0..16).map(|n| plane.control.object_put(object(&plane, "b-1", "o", &[n]), &new_only)).collect();
    let results = futures_util::future::join_all(creations).await;
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 1);
    assert!(results.iter().filter_map(|result| result.as_ref().err()).all(is_precondition));

    let live = plane.control.object_get("b-1", "o").unwrap().value;
    let mut edited = live.clone();
    edited.metadata.insert("k".into(), "v".into());
    let of_live = Preconditions { generation_match: Some(live.generation), metageneration_match: Some(1), ..Preconditions::default() };
    let changed = plane.control.object_update(edited.clone(), &of_live, UnlockedRetention::Kept).await.unwrap().value;
    assert_eq!((changed.generation, changed.metageneration, changed.blob), (live.generation, 2, live.blob));
    assert!(is_precondition(&plane.control.object_update(edited.clone(), &of_live, UnlockedRetention::Kept).await.unwrap_err()));
    assert!(is_precondition(&plane.control.object_delete("b-1", "o", None, &of_live).await.unwrap_err()));
    plane.control.object_delete("b-1", "o", None, &Preconditions::default()).await.unwrap();
    assert_eq!(plane.control.object_get("b-1", "o").unwrap_err().outer, "No such object: b-1/o");
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_are_listed_by_name() {
    let plane = Plane::new().await;
    plane.control.bucket_create(bucket("b-1")).await.unwrap();
    for name in ["a", "d/1", "d/2", "d/3", "関数"] {
        put(&plane, name, b"x").await;
    }
    let list = |prefix: &str, after: Option<&str>, limit| -> Vec<String> {
        plane.control.object_list("b-1", prefix, after, limit).unwrap().into_iter().map(|object| object.value.name).collect()
    };
    assert_eq!(list("", None, 2), ["a", "d/1"]);
    assert_eq!(list("", Some("d/1"), 9), ["d/2", "d/3", "関数"]);
    assert_eq!(list("d/", None, 9), ["d/1", "d/2", "d/3"]);
    assert_eq!(list("d/", Some("d/2"), 9), ["d/3"]);
}

/// Two deploys at once both make the bucket of sources when it is missing.
#[tokio::test(flavor = "multi_thread")]
async fn of_those_that_make_a_bucket_at_once_one_does_and_the_others_are_told_whose_it_is() {
    let plane = Plane::new().await;
    let all = futures_util::future::join_all((0..8).map(|_| plane.control.bucket_create(bucket("b-1")))).await;
    let errors: Vec<_> = all.into_iter().filter_map(Result::err).map(|error| error.outer).collect();
    assert_eq!(errors.len(), 7);
    assert!(errors.iter().all(|text| text.ends_with("you already own it.")), "{errors:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_goes_only_when_it_is_empty_and_comes_back_empty() {
    let plane = Plane::new().await;
    let first = plane.control.bucket_create(bucket("b-1")).await.unwrap().value;
    assert_eq!(plane.control.bucket_create(bucket("b-1")).await.unwrap_err().code, Code::AlreadyExists);
    put(&plane, "o", b"x").await;
    let refused = plane.control.bucket_delete("b-1").await.unwrap_err();
    assert_eq!((refused.code.http(), refused.outer.as_str()), (409, "The bucket you tried to delete is not empty."));
    plane.control.object_delete("b-1", "o", None, &Preconditions::default()).await.unwrap();
    plane.control.bucket_delete("b-1").await.unwrap();
    assert_eq!(plane.control.bucket_get("b-1").unwrap_err().code, Code::NotFound);
    assert_eq!(plane.control.object_get("b-1", "o").unwrap_err().outer, "The specified bucket does not exist.");
    let second = plane.control.bucket_create(bucket("b-1")).await.unwrap().value;
    assert!(second.created > first.created);
    // When each was made, and when the first went.
    assert_eq!(*plane.world.policies_removed.lock(), ["buckets/b-1"; 3]);
}

/// The topic is slow: the bucket is gone when it is told.
#[tokio::test(flavor = "multi_thread")]
async fn the_last_changes_of_a_deleted_bucket_are_told() {
    let plane = Plane::new().await;
    plane.control.bucket_create(bucket("b-1")).await.unwrap();
    let notification: model::storage::Notification = serde_json::from_value(serde_json::json!({
        "id": "", "topic": "projects/local-project/topics/t", "kinds": [], "attributes": {}, "prefix": "", "payload": false
    }))
    .unwrap();
    plane.control.notification_create("b-1", notification).await.unwrap();
    let gate = plane.world.telling.write().await;
    put(&plane, "o", b"x").await;
    plane.control.object_delete("b-1", "o", None, &Preconditions::default()).await.unwrap();
    plane.control.bucket_delete("b-1").await.unwrap();
    // A bucket of the same name is not asked for what happened in the first.
    plane.control.bucket_create(bucket("b-1")).await.unwrap();
    crate::reconcile::lifecycle::pass(&plane.control.context, plane.world.clock.now()).await.unwrap();
    assert_eq!(crate::records::keys(&plane.store, model::key::NOTIFICATIONS).unwrap().len(), 1, "needed still");
    drop(gate);
    plane.until("both are told", || plane.world.published.lock().len() == 2).await;
    let kinds: Vec<String> = plane.world.published.lock().iter().map(|message| message.attributes["eventType"].clone()).collect();
    assert_eq!(kinds, ["OBJECT_FINALIZE", "OBJECT_DELETE"]);
    plane.until("nothing waits", || plane.store.scan(model::key::OBJECT_CHANGES, None, 1).unwrap().is_empty()).await;
    crate::reconcile::lifecycle::pass(&plane.control.context, plane.world.clock.now()).await.unwrap();
    assert!(crate::records::keys(&plane.store, model::key::NOTIFICATIONS).unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_is_changed_by_whoever_read_it_last() {
    let plane = Plane::new().await;
    let read = plane.control.bucket_create(bucket("b-1")).await.unwrap();
    let mut edited = read.value.clone();
    edited.labels.insert("team".into(), "a".into());
    edited.location = "MOON".into();
    let changed = plane.control.bucket_update(edited.clone(), read.revision).await.unwrap().value;
    assert_eq!((changed.metageneration, changed.location.as_str()), (2, "ASIA-NORTHEAST1"));
    assert_eq!(plane.control.bucket_update(edited, read.revision).await.unwrap_err().code, Code::Aborted);
    assert_eq!(plane.control.bucket_list(&project(), "b-").unwrap().len(), 1);
    assert_eq!(plane.control.bucket_list(&project(), "c").unwrap().len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_against_the_rules_are_refused() {
    let plane = Plane::new().await;
    plane.control.bucket_create(bucket("b-1")).await.unwrap();
    for name in ["", ".", "..", "a\nb", ".well-known/acme-challenge/x", &"x".repeat(1025)] {
        let refused = plane.control.object_put(object(&plane, "b-1", name, b"x"), &Preconditions::default()).await.unwrap_err();
        assert_eq!((refused.code, refused.fields[0].field.as_str()), (Code::InvalidArgument, "name"), "{name:?}");
    }
    let mut long = object(&plane, "b-1", "o", b"x");
    long.metadata.insert("k".into(), "x".repeat(8 << 10));
    assert_eq!(plane.control.object_put(long, &Preconditions::default()).await.unwrap_err().code, Code::InvalidArgument);
    let mut header = object(&plane, "b-1", "o", b"x");
    header.content_type = "text/plain\r\nx: y".into();
    assert_eq!(plane.control.object_put(header, &Preconditions::default()).await.unwrap_err().code, Code::InvalidArgument);
    let mut empty = object(&plane, "b-1", "o", b"x");
    empty.blob = "0".repeat(64);
    assert_eq!(plane.control.object_put(empty, &Preconditions::default()).await.unwrap_err().code, Code::Internal);
    let nowhere = object(&plane, "b-2", "o", b"x");
    assert_eq!(plane.control.object_put(nowhere, &Preconditions::default()).await.unwrap_err().code, Code::NotFound);
}
