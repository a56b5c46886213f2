//! What stays of objects: versions, soft deletion, holds and retention, lifecycle rules; and what is told of it.

use model::{
    Code,
    storage::{
        Bucket, ChangeKind, Notification, Object, ObjectRetention, Retention, later,
        lifecycle::{Action, Condition, Rule},
    },
};

use super::{
    storage::{bucket, object},
    *,
};
use crate::{Preconditions, UnlockedRetention, Versioned, lock_reason, object_place, reconcile::lifecycle};

const DAY_S: i64 = 24 * 3600;

async fn made(plane: &Plane, change: impl FnOnce(&mut Bucket)) -> Bucket {
    let mut wish = bucket("b-1");
    change(&mut wish);
    plane.control.bucket_create(wish).await.unwrap().value
}

async fn put(plane: &Plane, name: &str, bytes: &[u8]) -> Object {
    plane.control.object_put(object(plane, "b-1", name, bytes), &Preconditions::default()).await.unwrap().value
}

async fn delete(plane: &Plane, name: &str, generation: Option<i64>) -> Result<(), Status> {
    plane.control.object_delete("b-1", name, generation, &Preconditions::default()).await
}

fn listed(found: Vec<Versioned<Object>>) -> Vec<(String, i64, bool)> {
    found.into_iter().map(|found| (found.value.name, found.value.generation, found.value.noncurrent.is_none())).collect()
}

fn versions(plane: &Plane) -> Vec<(String, i64, bool)> {
    // By pages of one, which must be the same as all at once.
    let (mut all, mut after) = (Vec::new(), None::<String>);
    while let Some(found) = plane.control.object_version_list("b-1", "", after.as_deref(), 1).unwrap().pop() {
        after = Some(object_place(&found.value));
        all.extend(listed(vec![found]));
    }
    assert_eq!(all, listed(plane.control.object_version_list("b-1", "", None, 1000).unwrap()));
    all
}

fn deleted(plane: &Plane) -> Vec<i64> {
    plane.control.object_deleted_list("b-1", "", None, 1000).unwrap().into_iter().map(|found| found.value.generation).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn versions_stay_until_they_are_deleted_by_generation() {
    let plane = Plane::new().await;
    made(&plane, |bucket| bucket.versioning = true).await;
    let (a1, other, a2) = (put(&plane, "a", b"1").await, put(&plane, "a.b", b"x").await, put(&plane, "a", b"2").await);
    let name = |name: &str, object: &Object, live: bool| (name.to_owned(), object.generation, live);
    assert_eq!(versions(&plane), [name("a", &a1, false), name("a", &a2, true), name("a.b", &other, true)]);
    delete(&plane, "a", None).await.unwrap();
    assert_eq!(plane.control.object_get("b-1", "a").unwrap_err().code, Code::NotFound);
    assert_eq!(versions(&plane), [name("a", &a1, false), name("a", &a2, false), name("a.b", &other, true)]);
    assert_eq!(delete(&plane, "a", None).await.unwrap_err().code, Code::NotFound);
    assert!(plane.control.object_generation_get("b-1", "a", a1.generation).unwrap().value.noncurrent.is_some());
    assert_eq!(plane.control.bucket_delete("b-1").await.unwrap_err().code, Code::Aborted);
    for (name, object) in [("a", &a1), ("a", &a2), ("a.b", &other)] {
        delete(&plane, name, Some(object.generation)).await.unwrap();
    }
    assert_eq!((versions(&plane), deleted(&plane)), (Vec::new(), Vec::new()));
    plane.control.bucket_delete("b-1").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_deleted_softly_can_be_restored_until_its_time() {
    let plane = Plane::new().await;
    made(&plane, |bucket| bucket.soft_delete.retention_s = 7 * DAY_S as u64).await;
    let (first, second) = (put(&plane, "o", b"1").await, put(&plane, "o", b"2").await);
    assert_eq!(deleted(&plane), [first.generation]);
    delete(&plane, "o", None).await.unwrap();
    assert_eq!(deleted(&plane), [first.generation, second.generation]);
    let restored = plane.control.object_restore("b-1", "o", first.generation, &Preconditions::default()).await.unwrap().value;
    assert_eq!((restored.blob, restored.generation > second.generation, restored.soft_deleted), (first.blob, true, None));
    plane.world.clock.advance(7 * DAY_S + 60);
    let refused = plane.control.object_restore("b-1", "o", second.generation, &Preconditions::default()).await.unwrap_err();
    assert_eq!(refused.code, Code::NotFound);
    lifecycle::pass(&plane.control.context, plane.world.clock.now()).await.unwrap();
    assert_eq!(deleted(&plane), [] as [i64; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_held_or_retained_neither_goes_nor_is_overwritten() {
    let plane = Plane::new().await;
    let now = plane.world.clock.now();
    let made = made(&plane, |bucket| {
        bucket.object_retention = true;
        bucket.retention = Some(Retention { period_s: 3600, effective: now, locked: false });
    })
    .await;
    let object_made = put(&plane, "o", b"1").await;
    let refused = async |reason: &str| {
        let again = plane.control.object_put(object(&plane, "b-1", "o", b"2"), &Preconditions::default()).await.unwrap_err();
        for status in [delete(&plane, "o", None).await.unwrap_err(), again] {
            assert_eq!((status.code, lock_reason(&status)), (Code::PermissionDenied, Some(reason)));
        }
    };
    refused("retentionPolicyNotMet").await;
    let change = async |edit: &dyn Fn(&mut Object), unlocked: UnlockedRetention| {
        let mut next = plane.control.object_get("b-1", "o").unwrap().value;
        edit(&mut next);
        plane.control.object_update(next, &Preconditions::default(), unlocked).await
    };
    plane.world.clock.advance(4000);
    change(&|object| object.event_based_hold = true, UnlockedRetention::Kept).await.unwrap();
    refused("objectUnderActiveHold").await;
    let released = change(&|object| object.event_based_hold = false, UnlockedRetention::Kept).await.unwrap().value;
    assert_eq!(released.retention_end(&made), Some(later(released.hold_released.unwrap(), 3600)));
    refused("retentionPolicyNotMet").await;
    plane.world.clock.advance(4000);
    // Its own retention: longer is well, shorter only by who says so, locked never.
    let own = |locked: bool, hours: u64| {
        let until = later(object_made.created, hours * 3600);
        move |object: &mut Object| object.retention = Some(ObjectRetention { locked, until })
    };
    change(&own(false, 30), UnlockedRetention::Kept).await.unwrap();
    assert!(change(&own(false, 20), UnlockedRetention::Kept).await.is_err());
    change(&own(false, 20), UnlockedRetention::Overridden).await.unwrap();
    change(&own(true, 40), UnlockedRetention::Kept).await.unwrap();
    assert!(change(&own(true, 20), UnlockedRetention::Overridden).await.is_err());
    assert!(change(&|object| object.retention = None, UnlockedRetention::Overridden).await.is_err());
    refused("retentionPolicyNotMet").await;
    plane.world.clock.advance(41 * 3600);
    delete(&plane, "o", None).await.unwrap();
    // The bucket's: longer is well, and once it is locked nothing else.
    let set = async |period_s: Option<u64>| {
        let Versioned { mut value, revision } = plane.control.bucket_get("b-1").unwrap();
        value.retention = period_s.map(|period_s| Retention { period_s, effective: now, locked: false });
        plane.control.bucket_update(value, revision).await
    };
    set(Some(10)).await.unwrap();
    assert!(plane.control.bucket_retention_lock("b-1", 1).await.is_err());
    let locked = plane.control.bucket_retention_lock("b-1", 2).await.unwrap().value;
    assert!(locked.retention.unwrap().locked);
    assert_eq!((set(None).await.unwrap_err().code, set(Some(9)).await.unwrap_err().code), (Code::PermissionDenied, Code::PermissionDenied));
    assert!(set(Some(11)).await.unwrap().value.retention.unwrap().locked);
}

/// As `api` writes its record.
#[tokio::test(flavor = "multi_thread")]
async fn a_multipart_upload_without_parts_for_a_week_is_given_up() {
    let plane = Plane::new().await;
    let bucket = plane.control.bucket_create(bucket("b-1")).await.unwrap().value;
    let now = plane.world.clock.now();
    let ago = |seconds: u64| now - Duration::from_secs(seconds);
    const WEEK: u64 = 7 * 24 * 3600;
    let old = ago(10 * WEEK);
    for (id, begun, touched, bucket_created) in [
        ("idle", ago(WEEK), None, Some(bucket.created)),
        ("young", ago(WEEK - 60), None, Some(bucket.created)),
        ("busy", old, Some(ago(60)), Some(bucket.created)),
        ("left", old, Some(ago(WEEK)), Some(bucket.created)),
        ("of-another-bucket", ago(60), None, Some(old)),
        ("of-an-older-server", ago(60), None, None),
    ] {
        let record = serde_json::json!({ "bucket": "b-1", "bucket_created": bucket_created, "name": "o", "begun": begun, "touched": touched });
        let part = store::Write::put(format!("{}00001", model::key::multipart_parts(id)), store::Expect::Absent, &serde_json::json!({}));
        plane.store.commit(vec![store::Write::put(model::key::multipart_upload(id), store::Expect::Absent, &record), part]).await.unwrap();
    }
    lifecycle::pass(&plane.control.context, now).await.unwrap();
    let left = |prefix: &str| plane.store.scan(prefix, None, 10).unwrap().len();
    let ids: Vec<String> = crate::records::keys(&plane.store, model::key::MULTIPART_UPLOADS).unwrap();
    assert_eq!(ids, ["busy", "of-an-older-server", "young"].map(model::key::multipart_upload));
    assert_eq!((left(&model::key::multipart_parts("idle")), left(&model::key::multipart_parts("busy"))), (0, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn lifecycle_rules_delete_and_change_classes() {
    let plane = Plane::new().await;
    let rule = |action: Action, condition: Condition| Rule { action, condition };
    made(&plane, |bucket| {
        bucket.versioning = true;
        bucket.lifecycle = vec![
            rule(Action::Delete, Condition { newer_versions: Some(2), ..Condition::default() }),
            rule(Action::SetStorageClass("COLDLINE".into()), Condition { age_days: Some(30), ..Condition::default() }),
            rule(Action::Delete, Condition { age_days: Some(60), is_live: Some(true), ..Condition::default() }),
        ];
    })
    .await;
    let mut all = Vec::new();
    for bytes in [b"1", b"2", b"3", b"4"] {
        all.push(put(&plane, "o", bytes).await);
    }
    let pass = async || lifecycle::pass(&plane.control.context, plane.world.clock.now()).await.unwrap();
    pass().await;
    assert_eq!(versions(&plane).into_iter().map(|(_, generation, _)| generation).collect::<Vec<_>>(), [all[2].generation, all[3].generation]);
    plane.world.clock.advance(31 * DAY_S);
    pass().await;
    let live = plane.control.object_get("b-1", "o").unwrap().value;
    assert_eq!((live.storage_class.as_str(), live.generation, live.class_changed.is_some()), ("COLDLINE", all[3].generation, true));
    plane.world.clock.advance(31 * DAY_S);
    pass().await;
    assert_eq!(versions(&plane).into_iter().map(|(_, _, live)| live).collect::<Vec<_>>(), [false, false]);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_change_is_told_once_and_in_order_even_over_a_crash() {
    let mut plane = Plane::new().await;
    made(&plane, |bucket| bucket.versioning = true).await;
    let notification = |topic: &str| Notification {
        id: String::new(),
        topic: format!("projects/local-project/topics/{topic}"),
        kinds: vec![ChangeKind::Finalize, ChangeKind::Archive, ChangeKind::Delete, ChangeKind::MetadataUpdate],
        attributes: Default::default(),
        prefix: "o".into(),
        payload: false,
    };
    assert_eq!(plane.control.notification_create("b-1", notification("absent")).await.unwrap_err().code, Code::InvalidArgument);
    assert_eq!(plane.control.notification_create("b-1", notification("t")).await.unwrap().id, "1");
    // Nobody follows while these are written.
    crash(&plane.control, &plane.store).await;
    let (first, second) = (put(&plane, "o", b"1").await, put(&plane, "o", b"2").await);
    put(&plane, "not told", b"x").await;
    plane.control.object_update(second.clone(), &Preconditions::default(), UnlockedRetention::Kept).await.unwrap();
    delete(&plane, "o", None).await.unwrap();
    delete(&plane, "o", Some(first.generation)).await.unwrap();
    plane.restart().await;
    plane.until("all are told", || plane.store.scan(model::key::OBJECT_CHANGES, None, 1).unwrap().is_empty()).await;
    // Under way from before it is answered until it is told; what did not happen is not.
    let count = plane.world.published.lock().len();
    put(&plane, "o2", b"x").await;
    plane.world.busy.idle().await;
    let refused = Preconditions { generation_match: Some(0), ..Preconditions::default() };
    assert!(plane.control.object_delete("b-1", "o2", None, &refused).await.is_err());
    plane.world.busy.idle().await;
    assert_eq!(plane.world.published.lock().split_off(count).len(), 1);
    let told = plane.world.published.lock();
    let told: Vec<(&str, i64)> = told.iter().map(|m| (m.attributes["eventType"].as_str(), m.attributes["objectGeneration"].parse().unwrap())).collect();
    let (first, second) = (first.generation, second.generation);
    assert_eq!(
        told,
        [
            ("OBJECT_FINALIZE", first),
            ("OBJECT_ARCHIVE", first),
            ("OBJECT_FINALIZE", second),
            ("OBJECT_METADATA_UPDATE", second),
            ("OBJECT_ARCHIVE", second),
            ("OBJECT_DELETE", first),
        ]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_move_is_one_change_of_two_names() {
    let plane = Plane::new().await;
    made(&plane, |_| {}).await;
    let any = Preconditions::default();
    let (one, two) = (put(&plane, "one", b"1").await, put(&plane, "two", b"2").await);
    let only = |generation: i64| Preconditions { generation_match: Some(generation), ..Preconditions::default() };
    for (source, destination) in [(only(two.generation), any.clone()), (any.clone(), only(0)), (any.clone(), only(one.generation))] {
        assert!(crate::is_precondition(&plane.control.object_move("b-1", "one", "two", &source, &destination).await.unwrap_err()));
    }
    assert_eq!(plane.control.object_move("b-1", "none", "two", &any, &any).await.unwrap_err().code, Code::NotFound);
    assert_eq!(plane.control.object_move("b-1", "one", "one", &any, &any).await.unwrap_err().code, Code::InvalidArgument);
    assert_eq!(versions(&plane), [("one".to_owned(), one.generation, true), ("two".to_owned(), two.generation, true)]);
    let moved = plane.control.object_move("b-1", "one", "two", &only(one.generation), &only(two.generation)).await.unwrap().value;
    assert!(moved.generation > two.generation && (moved.metageneration, &moved.blob) == (1, &one.blob));
    assert_eq!(versions(&plane), [("two".to_owned(), moved.generation, true)]);
    // What was moved is not there to be restored; what made room for it is.
    let deleted: Vec<_> = plane.control.object_deleted_list("b-1", "", None, 10).unwrap().into_iter().map(|found| found.value.generation).collect();
    assert_eq!(deleted, if plane.control.bucket_get("b-1").unwrap().value.soft_delete.retention_s > 0 { vec![two.generation] } else { vec![] });

    // What is held stays.
    let held = Object { temporary_hold: true, ..moved.clone() };
    plane.control.object_update(held, &any, UnlockedRetention::Kept).await.unwrap();
    assert!(lock_reason(&plane.control.object_move("b-1", "two", "three", &any, &any).await.unwrap_err()).is_some());
    put(&plane, "four", b"4").await;
    assert!(lock_reason(&plane.control.object_move("b-1", "four", "two", &any, &any).await.unwrap_err()).is_some());
    assert!(plane.control.object_get("b-1", "four").is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_move_leaves_versions_where_they_are_kept() {
    let plane = Plane::new().await;
    made(&plane, |bucket| bucket.versioning = true).await;
    let (any, one, two) = (Preconditions::default(), put(&plane, "one", b"1").await, put(&plane, "two", b"2").await);
    let moved = plane.control.object_move("b-1", "one", "two", &any, &any).await.unwrap().value;
    let expect = [("one", one.generation, false), ("two", two.generation, false), ("two", moved.generation, true)];
    assert_eq!(versions(&plane), expect.map(|(name, generation, live)| (name.to_owned(), generation, live)));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_lies_behind_a_change_is_told_with_it_even_over_a_crash() {
    let mut plane = Plane::new().await;
    made(&plane, |_| {}).await;
    let notification = Notification {
        id: String::new(),
        topic: "projects/local-project/topics/t".into(),
        kinds: Vec::new(),
        attributes: Default::default(),
        prefix: String::new(),
        payload: false,
    };
    plane.control.notification_create("b-1", notification).await.unwrap();
    crash(&plane.control, &plane.store).await;
    put(&plane, "o", b"1").await;
    let hops = model::Hops::default().next("f").next("g");
    let (control, any) = (plane.control.behind(&hops), Preconditions::default());
    let made = control.object_put(object(&plane, "b-1", "o", b"2"), &any).await.unwrap().value;
    control.object_update(made, &any, UnlockedRetention::Kept).await.unwrap();
    control.object_move("b-1", "o", "p", &any, &any).await.unwrap();
    control.object_delete("b-1", "p", None, &any).await.unwrap();
    plane.restart().await;
    plane.until("all are told", || plane.store.scan(model::key::OBJECT_CHANGES, None, 1).unwrap().is_empty()).await;
    let told: Vec<_> = plane.world.published.lock().iter().map(|message| (message.attributes["eventType"].clone(), message.hops.clone())).collect();
    let (none, kinds) = (model::Hops::default(), ["FINALIZE", "DELETE", "FINALIZE", "METADATA_UPDATE", "DELETE", "FINALIZE", "DELETE"]);
    let expect = kinds.iter().enumerate().map(|(at, kind)| (format!("OBJECT_{kind}"), if at == 0 { none.clone() } else { hops.clone() }));
    assert_eq!(told, expect.collect::<Vec<_>>());
}
