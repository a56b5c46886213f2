//! One trigger at a time: its transport, and the bucket that tells it of its changes, made and taken away.

use std::sync::Arc;

use model::{
    Code, Status, address, key,
    storage::{Bucket, ChangeKind, Notification},
    trigger::{EventKind, Trigger, TriggerStatus},
};
use store::{Change, Expect, Write};

use super::Reconciler;
use crate::{Context, Versioned, notification::notification_key, records};

pub(crate) struct Triggers(pub Arc<Context>);

impl Reconciler for Triggers {
    const NAME: &'static str = "triggers";
    const PREFIXES: &'static [&'static str] = &[key::TRIGGERS];

    fn parallel(&self) -> usize {
        16
    }

    fn concerned(&self, change: &Change) -> Vec<String> {
        change.value.iter().map(|_| change.key.clone()).collect()
    }

    fn all(&self) -> Result<Vec<String>, Status> {
        let triggers = records::all::<Trigger>(&self.0.store, key::TRIGGERS)?;
        let open = triggers.into_iter().map(|trigger| trigger.value).filter(|trigger| !trigger.is_settled() || trigger.deleted.is_some());
        Ok(open.map(|trigger| key::trigger(&trigger.key)).collect())
    }

    async fn step(&self, key: &str) -> Result<(), Status> {
        let cx = &self.0;
        let Some(found) = records::read::<Trigger>(&cx.store, key)? else {
            return Ok(());
        };
        if found.value.deleted.is_some() {
            return remove(cx, &found).await;
        }
        if found.value.is_settled() {
            return Ok(());
        }
        let Some(found) = bucket_turn(cx, found).await? else {
            return Ok(());
        };
        let failure = match make(cx, &found.value).await {
            Ok(()) => None,
            // Ours, or of the moment: again, later.
            Err(error) if matches!(error.code, Code::Internal | Code::Unavailable | Code::Aborted) => return Err(error),
            Err(error) => Some(error),
        };
        let status = TriggerStatus { observed_generation: found.value.generation, failure, ..found.value.status.clone() };
        // Another writer was faster: its change wakes this loop again.
        records::commit(&cx.store, vec![Write::put(key, Expect::Revision(found.revision), &Trigger { status, ..found.value })]).await.map(drop)
    }
}

/// The bucket of a trigger for objects.
fn bucket_of(trigger: &Trigger) -> Option<(&str, ChangeKind)> {
    match trigger.kind() {
        Some(EventKind::Object(kind)) => trigger.filter("bucket").map(|bucket| (bucket, kind)),
        _ => None,
    }
}

/// Lets the bucket that told the topic before tell it no more, and writes down which one will, before it does. `None`: another writer was faster.
async fn bucket_turn(cx: &Context, found: Versioned<Trigger>) -> Result<Option<Versioned<Trigger>>, Status> {
    let trigger = &found.value;
    let wanted = bucket_of(trigger).map(|(bucket, _)| bucket.to_owned());
    if trigger.status.bucket == wanted {
        return Ok(Some(found));
    }
    if let Some(before) = &trigger.status.bucket {
        notifications_remove(cx, before, &trigger.transport.topic).await?;
    }
    let next = Trigger { status: TriggerStatus { bucket: wanted, ..trigger.status.clone() }, ..found.value };
    let written = records::commit(&cx.store, vec![Write::put(key::trigger(&next.key), Expect::Revision(found.revision), &next)]).await?;
    Ok(written.map(|revision| Versioned { value: next, revision }))
}

async fn make(cx: &Context, trigger: &Trigger) -> Result<(), Status> {
    let service = &trigger.destination.service;
    let number = cx.project_get(service.project.as_str())?.number;
    let url = format!("https://{}.run.app", address::host_deterministic(&service.service, number, service.region.as_str()));
    cx.topics.transport_ensure(trigger, &url).await?;
    let Some((bucket, kind)) = bucket_of(trigger) else { return Ok(()) };
    let topic = &trigger.transport.topic;
    let told = cx.notifications(&cx.bucket_get(bucket)?.value)?;
    if told.iter().any(|notification| notification.topic == *topic) {
        return Ok(());
    }
    let notification =
        Notification { id: String::new(), topic: topic.clone(), kinds: vec![kind], attributes: Default::default(), prefix: String::new(), payload: true };
    cx.notification_create(bucket, notification).await.map(drop)
}

/// Takes away what [`make`] has made, then the record.
async fn remove(cx: &Context, found: &Versioned<Trigger>) -> Result<(), Status> {
    let trigger = &found.value;
    if let Some(bucket) = &trigger.status.bucket {
        notifications_remove(cx, bucket, &trigger.transport.topic).await?;
    }
    cx.topics.transport_remove(trigger).await?;
    cx.accounts.policy_remove(&trigger.key.resource()).await?;
    records::commit(&cx.store, vec![Write::delete(key::trigger(&trigger.key), Expect::Revision(found.revision))]).await.map(drop)
}

/// The bucket tells `topic` no more. One that is gone tells nobody.
async fn notifications_remove(cx: &Context, bucket: &str, topic: &str) -> Result<(), Status> {
    let Some(bucket) = records::read::<Bucket>(&cx.store, &key::bucket(bucket))? else { return Ok(()) };
    let told = cx.notifications(&bucket.value)?.into_iter().filter(|notification| notification.topic == topic);
    let writes: Vec<Write> = told.map(|notification| Write::delete(notification_key(&bucket.value, &notification.id), Expect::Any)).collect();
    if writes.is_empty() { Ok(()) } else { records::commit(&cx.store, writes).await.map(drop) }
}
