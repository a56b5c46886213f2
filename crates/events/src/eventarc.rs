//! Eventarc: how the events of a trigger travel.
//!
//! As at Google, a trigger's transport is a topic and a push subscription of Pub/Sub, which say of themselves what they are: what was
//! accepted is on disk, tried for a day with the backoff of a retry policy, and goes to the dead-letter topic when the subscription has one.
//! Messages come from publishers, from the notifications of a bucket, and from audited calls ([`audit`]); [`cloud_event`] makes
//! each of them an event in binary mode. Triggers as records, and who may have them, are not here.

pub mod audit;
pub(crate) mod cloud_event;

use std::{collections::BTreeMap, time::Duration};

use model::{
    Code, ProjectId, Status,
    trigger::{BACKOFF_MAX_S, BACKOFF_MIN_S, EventKind, RETENTION_S, Trigger},
};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use crate::{
    pubsub::{EventMode, Kind, Message, Name, Oidc, PubSub, Push, Subscription, SubscriptionNew, TopicNew, TriggerPush, Wrapper},
    subscription::{Retry, Settings},
};

/// How long a service may take for an event; a function, whose timeout is its own, the longest that a push may take.
const ACK_DEADLINE_S: u32 = 10;
const ACK_DEADLINE_OF_FUNCTIONS_S: u32 = 600;

/// Makes what is missing of a trigger's transport, and its push as the trigger says; `url` is the service's, without a path.
/// What an owner has set of the subscription beside (a dead-letter topic, deadlines) stays.
///
/// # Errors
/// `NOT_FOUND` for a topic that is not its own and not there; `RESOURCE_EXHAUSTED`; those of the store.
pub async fn transport_ensure(pubsub: &PubSub, trigger: &Trigger, url: &str) -> Result<(), Status> {
    let (topic, subscription) = names(trigger)?;
    if trigger.transport.is_own_topic && pubsub.topic_get(&topic).is_err_and(|status| status.code == Code::NotFound) {
        accept(pubsub.topic_create(topic.clone(), TopicNew::default()).await, Code::AlreadyExists)?;
    }
    let push = push(trigger, url, &topic)?;
    let new = SubscriptionNew {
        name: subscription.clone(),
        topic,
        settings: settings(trigger),
        filter: String::new(),
        push: Some(push.clone()),
        dead_letter_topic: None,
        ttl: None,
        labels: BTreeMap::new(),
    };
    match pubsub.subscription_create(new).await {
        Err(taken) if taken.code == Code::AlreadyExists => {}
        made => return made.map(drop),
    }
    let change = move |old: Subscription| Ok(Subscription { push: Some(push), ..old });
    pubsub.subscription_update(subscription, change).await.map(drop)
}

/// Takes a trigger's transport away: its subscription, and its topic when that was made for it.
///
/// # Errors
/// Those of the store.
pub async fn transport_remove(pubsub: &PubSub, trigger: &Trigger) -> Result<(), Status> {
    let (topic, subscription) = names(trigger)?;
    accept(pubsub.subscription_delete(subscription).await, Code::NotFound)?;
    if trigger.transport.is_own_topic {
        accept(pubsub.topic_delete(topic).await, Code::NotFound)?;
    }
    Ok(())
}

/// Publishes an event to a trigger's transport; it is accepted when this returns.
///
/// # Errors
/// As of [`PubSub::publish`].
pub async fn publish(pubsub: &PubSub, trigger: &Trigger, message: Message) -> Result<(), Status> {
    pubsub.publish(&names(trigger)?.0, vec![message]).await.map(drop)
}

fn accept<T>(done: Result<T, Status>, code: Code) -> Result<(), Status> {
    match done {
        Err(status) if status.code != code => Err(status),
        _ => Ok(()),
    }
}

/// Topic and subscription.
fn names(trigger: &Trigger) -> Result<(Name, Name), Status> {
    Ok((name(Kind::Topics, &trigger.transport.topic)?, name(Kind::Subscriptions, &trigger.transport.subscription)?))
}

/// `projects/P/KIND/ID`.
fn name(kind: Kind, text: &str) -> Result<Name, Status> {
    let bad = || Status::invalid(format!("Invalid [{}] name: (name={text})", kind.collection()));
    let mut parts = text.split('/');
    match (parts.next(), parts.next(), parts.next(), parts.next(), parts.next()) {
        (Some("projects"), Some(project), Some(collection), Some(id), None) if collection == kind.collection() => {
            Name::new(kind, ProjectId::parse(project).map_err(|_| bad())?, id)
        }
        _ => Err(bad()),
    }
}

fn settings(trigger: &Trigger) -> Settings {
    Settings {
        ack_deadline_s: if trigger.destination.is_function { ACK_DEADLINE_OF_FUNCTIONS_S } else { ACK_DEADLINE_S },
        retention: Duration::from_secs(RETENTION_S),
        retry: Some(Retry { minimum_backoff: Duration::from_secs(BACKOFF_MIN_S), maximum_backoff: Duration::from_secs(BACKOFF_MAX_S) }),
        ..Settings::default()
    }
}

fn push(trigger: &Trigger, url: &str, topic: &Name) -> Result<Push, Status> {
    let kind = trigger.kind().ok_or_else(|| Status::internal(format!("{} has no kind", trigger.key.resource())))?;
    let (mode, word) = match kind {
        EventKind::MessagePublished => (EventMode::Message, format!("CUSTOM_PUBSUB_{topic}")),
        EventKind::Object(_) => (EventMode::Object, "GCS_NOTIFICATION".to_owned()),
        EventKind::AuditLog => (EventMode::Bound, "CE_PUBSUB_BINDING".to_owned()),
    };
    let (url, path) = (url.trim_end_matches('/'), trigger.destination.path.trim_start_matches('/'));
    let account = &trigger.service_account;
    Ok(Push {
        endpoint: format!("{url}/{path}?__GCP_CloudEventsMode={}", utf8_percent_encode(&word, VALUE)),
        oidc: (!account.is_empty()).then(|| Oidc { email: account.clone(), audience: url.to_owned() }),
        wrapper: Wrapper::Unset,
        trigger: Some(TriggerPush { name: trigger.key.resource(), mode, is_tried_once: trigger.is_tried_once }),
    })
}

/// As Google writes the value of this query.
const VALUE: &percent_encoding::AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

#[cfg(test)]
mod tests {
    use model::trigger::{Destination, EventFilter, Transport, TriggerKey, TriggerStatus};

    use super::*;

    fn trigger(kind: EventKind, path: &str) -> Trigger {
        let service: model::ServiceKey =
            serde_json::from_value(serde_json::json!({ "project": "local-project", "region": "asia-northeast1", "service": "f" })).unwrap();
        Trigger {
            key: TriggerKey::new(service.project.clone(), service.region.clone(), "t").unwrap(),
            uid: String::new(),
            generation: 1,
            created: model::Timestamp::UNIX_EPOCH,
            updated: model::Timestamp::UNIX_EPOCH,
            deleted: None,
            labels: BTreeMap::new(),
            filters: vec![EventFilter { attribute: "type".into(), value: kind.name().into(), is_pattern: false }],
            destination: Destination { service, path: path.into(), is_function: false },
            service_account: "a@b".into(),
            transport: Transport {
                topic: "projects/local-project/topics/top".into(),
                is_own_topic: true,
                subscription: "projects/local-project/subscriptions/sub".into(),
            },
            is_tried_once: false,
            status: TriggerStatus::default(),
        }
    }

    #[test]
    fn the_endpoint_says_what_the_push_is() {
        let topic = name(Kind::Topics, "projects/local-project/topics/top").unwrap();
        let check = |kind: EventKind, path: &str, expect: &str| {
            let push = push(&trigger(kind, path), "https://f-1.run.app", &topic).unwrap();
            assert_eq!(push.endpoint, expect);
            assert_eq!(push.oidc.unwrap().audience, "https://f-1.run.app");
        };
        let object = EventKind::Object(model::storage::ChangeKind::Finalize);
        check(EventKind::MessagePublished, "", "https://f-1.run.app/?__GCP_CloudEventsMode=CUSTOM_PUBSUB_projects%2Flocal-project%2Ftopics%2Ftop");
        check(object, "/in", "https://f-1.run.app/in?__GCP_CloudEventsMode=GCS_NOTIFICATION");
        check(EventKind::AuditLog, "in/it", "https://f-1.run.app/in/it?__GCP_CloudEventsMode=CE_PUBSUB_BINDING");
    }

    #[test]
    fn a_transport_tries_for_a_day() {
        let settings = settings(&trigger(EventKind::AuditLog, ""));
        assert_eq!((settings.ack_deadline_s, settings.retention.as_secs()), (10, 86_400));
        assert_eq!(settings.retry.map(|retry| (retry.minimum_backoff.as_secs(), retry.maximum_backoff.as_secs())), Some((10, 600)));
        assert!(settings.check().is_ok());
    }

    #[test]
    fn names_are_read_whole() {
        assert_eq!(name(Kind::Topics, "projects/local-project/topics/top").unwrap().id, "top");
        for bad in ["", "top", "projects/local-project/subscriptions/top", "projects/local-project/topics/top/x", "projects/p/topics/top"] {
            assert!(name(Kind::Topics, bad).is_err(), "{bad}");
        }
    }
}
