//! Triggers: what may be one, and what is made of it and taken away again.

use model::{
    Code,
    operation::Operation,
    storage::{Bucket, ChangeKind},
    trigger::{Destination, EventFilter, EventKind, TriggerKey},
};

use super::*;
use crate::TriggerWish;

const ACCOUNT: &str = "robot@local-project.iam.gserviceaccount.com";

fn wish(id: &str, kind: EventKind, more: &[(&str, &str)]) -> TriggerWish {
    let mut filters = vec![EventFilter { attribute: "type".into(), value: kind.name().into(), is_pattern: false }];
    filters.extend(more.iter().map(|(attribute, value)| EventFilter { attribute: (*attribute).into(), value: (*value).into(), is_pattern: false }));
    TriggerWish {
        key: TriggerKey::new(project(), region(), id).unwrap(),
        labels: Default::default(),
        filters,
        destination: Destination { service: key("f"), path: String::new(), is_function: false },
        service_account: ACCOUNT.into(),
        topic: None,
        is_tried_once: false,
    }
}

fn finalized(id: &str, bucket: &str) -> TriggerWish {
    wish(id, EventKind::Object(ChangeKind::Finalize), &[("bucket", bucket)])
}

async fn plane() -> Plane {
    let plane = Plane::new().await;
    plane.create(service("f")).await;
    for (name, location) in [("bucket-b", "ASIA-NORTHEAST1"), ("bucket-c", "ASIA-NORTHEAST1"), ("bucket-far", "US")] {
        let bucket: Bucket = serde_json::from_value(serde_json::json!({
            "name": name, "project": project(), "location": location, "created": "2026-01-01T00:00:00Z", "updated": "2026-01-01T00:00:00Z", "metageneration": 0,
        }))
        .unwrap();
        plane.control.bucket_create(bucket).await.unwrap();
    }
    plane
}

async fn done(plane: &Plane, operation: &Operation) -> Result<(), Status> {
    let operation = plane.control.operation_wait(&project(), &operation.region, &operation.id, LONG).await.unwrap();
    assert!(operation.finished.is_some(), "{operation:?}");
    operation.error.map_or(Ok(()), Err)
}

fn told(plane: &Plane, bucket: &str) -> Vec<String> {
    plane.control.notification_list(bucket).unwrap().into_iter().map(|notification| notification.topic).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_tells_the_transport_of_its_trigger() {
    let mut plane = plane().await;
    let (trigger, operation) = plane.control.trigger_create(&owner(), finalized("t-1", "bucket-b"), false).await.unwrap();
    done(&plane, &operation).await.unwrap();
    let topic = &trigger.transport.topic;
    assert!(topic.starts_with("projects/local-project/topics/eventarc-asia-northeast1-t-1-"), "{topic}");
    assert!(trigger.transport.subscription.starts_with("projects/local-project/subscriptions/eventarc-asia-northeast1-t-1-sub-"));
    assert_eq!(told(&plane, "bucket-b"), std::slice::from_ref(topic));
    let url = plane.world.transports.lock()[&trigger.transport.subscription].clone();
    assert!(url.starts_with("https://f-") && url.ends_with(".asia-northeast1.run.app"), "{url}");

    // Another bucket: the first one tells it no more.
    let found = plane.control.trigger_get(&trigger.key).unwrap();
    let (_, operation) = plane.control.trigger_replace(&owner(), &found, finalized("t-1", "bucket-c"), false).await.unwrap();
    done(&plane, &operation).await.unwrap();
    assert_eq!((told(&plane, "bucket-b"), told(&plane, "bucket-c")), (vec![], vec![topic.clone()]));

    plane.restart().await;
    let found = plane.control.trigger_get(&trigger.key).unwrap();
    let operation = plane.control.trigger_delete(&found, false).await.unwrap();
    done(&plane, &operation).await.unwrap();
    assert!(told(&plane, "bucket-c").is_empty() && plane.world.transports.lock().is_empty() && !plane.world.topics.lock().contains(topic));
    assert!(plane.world.policies_removed.lock().contains(&trigger.key.resource()));
    assert_eq!(plane.control.trigger_get(&trigger.key).unwrap_err().code, Code::NotFound);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_no_trigger_can_be_is_refused() {
    let plane = plane().await;
    let refused = async |wish: TriggerWish, code: Code, text: &str| {
        let error = plane.control.trigger_create(&owner(), wish, false).await.expect_err(text);
        assert!(error.code == code && error.outer.contains(text), "{error}");
    };
    let with = |edit: &dyn Fn(&mut TriggerWish)| {
        let mut wish = finalized("t", "bucket-b");
        edit(&mut wish);
        wish
    };
    refused(wish("t", EventKind::AuditLog, &[]), Code::InvalidArgument, "missing required attribute \"methodName\" in trigger.event_filters").await;
    refused(finalized("t", "none"), Code::InvalidArgument, "Bucket \"none\" could not be validated").await;
    refused(
        finalized("t", "bucket-far"),
        Code::InvalidArgument,
        "Bucket \"bucket-far\" location \"us\" does not match trigger location \"asia-northeast1\". Try again by creating the trigger in \"us\".",
    )
    .await;
    refused(with(&|w| w.destination.service = key("none")), Code::NotFound, "Cloud Run service \"none\" was not found").await;
    refused(with(&|w| w.destination.path = "/a?b".into()), Code::InvalidArgument, "without a query").await;
    refused(with(&|w| w.service_account = STRANGER_ACCOUNT.into()), Code::PermissionDenied, "actAs").await;
    refused(with(&|w| w.service_account = BLIND_ACCOUNT.into()), Code::PermissionDenied, "Permission \"eventarc.events.receiveEvent\" denied on \"blind@")
        .await;
    refused(with(&|w| w.service_account = String::new()), Code::InvalidArgument, "service_account is required").await;
    refused(with(&|w| w.topic = Some("projects/local-project/topics/t".into())), Code::InvalidArgument, "a transport topic can be given").await;
    let message = |topic: &str| TriggerWish { topic: Some(topic.into()), service_account: String::new(), ..wish("t", EventKind::MessagePublished, &[]) };
    refused(message("projects/local-project/topics/none"), Code::NotFound, "was not found").await;
    refused(message("projects/other-project/topics/t"), Code::InvalidArgument, "is not in the project").await;

    // Checked only: nothing is there.
    plane.control.trigger_create(&owner(), message("projects/local-project/topics/t"), true).await.unwrap();
    assert!(plane.control.trigger_list(&project(), None, None, 10).unwrap().is_empty());
    let (made, operation) = plane.control.trigger_create(&owner(), message("projects/local-project/topics/t"), false).await.unwrap();
    done(&plane, &operation).await.unwrap();
    refused(message("projects/local-project/topics/t"), Code::AlreadyExists, "already exists").await;
    let found = plane.control.trigger_get(&made.key).unwrap();
    let error = plane.control.trigger_replace(&owner(), &found, finalized("t", "bucket-b"), false).await.unwrap_err();
    assert!(error.outer.contains("the event type of a trigger cannot be changed"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_find_their_triggers() {
    let plane = plane().await;
    let mut audit = wish("t", EventKind::AuditLog, &[("serviceName", "secretmanager.googleapis.com"), ("methodName", "M.CreateSecret")]);
    audit.key.location = model::Region::parse_location("global").unwrap();
    let (_, operation) = plane.control.trigger_create(&owner(), audit, false).await.unwrap();
    done(&plane, &operation).await.unwrap();
    let wanting =
        |method: &str| plane.control.triggers_wanting(&project(), ("secretmanager.googleapis.com", method, "projects/p/secrets/s"), None).unwrap().len();
    assert_eq!((wanting("M.CreateSecret"), wanting("M.DeleteSecret")), (1, 0));
}
