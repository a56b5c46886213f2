//! Subscriptions: made, changed, detached, deleted, sought; pulled from by one request.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use model::{
    ProjectId, Status, Timestamp, key,
    limits::{ACK_REQUEST_BYTES_MAX, PULL_MESSAGES_MAX, PUSH_ENDPOINT_BYTES_MAX, SUBSCRIPTIONS_MAX},
};
use store::{Expect, Write};

use super::{
    DELETED_TOPIC, Inner, PubSub, Puller, Running,
    live::{self, Live, Outcome, Received},
    name::{Kind, Name, quota_check},
    record::{Push, Subscription, dead_letter_check, uid_new},
    topics::{page, run},
};
use crate::subscription::Settings;

/// One pull answers with no more, in bytes of messages.
const PULL_BYTES_MAX: usize = 10_000_000;

/// What an owner sets of a subscription that is made.
pub struct SubscriptionNew {
    pub name: Name,
    pub topic: Name,
    pub settings: Settings,
    pub filter: String,
    pub push: Option<Push>,
    pub dead_letter_topic: Option<Name>,
    pub ttl: Option<Duration>,
    pub labels: BTreeMap<String, String>,
}

/// A subscription, and what of it follows from its topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubscriptionView {
    pub record: Arc<Subscription>,
    /// The topic's name, or [`DELETED_TOPIC`].
    pub topic: String,
    pub topic_retention: Option<Duration>,
}

impl PubSub {
    /// Begins after the topic's last message.
    ///
    /// # Errors
    /// `ALREADY_EXISTS`; `NOT_FOUND` for the topic; `INVALID_ARGUMENT` naming the field at fault; `RESOURCE_EXHAUSTED`.
    pub async fn subscription_create(&self, new: SubscriptionNew) -> Result<SubscriptionView, Status> {
        let inner = self.inner.clone();
        run(async move {
            let _changes = inner.changes.lock().await;
            {
                let tables = inner.tables.read();
                if tables.subscriptions.contains_key(&new.name) {
                    return Err(new.name.taken());
                }
                let of_project = tables.subscriptions.keys().filter(|name| name.project == new.name.project).count();
                quota_check(Kind::Subscriptions, of_project, SUBSCRIPTIONS_MAX)?;
            }
            let topic = inner.topic(&new.topic)?;
            let now = inner.clock.now();
            let record = Subscription {
                name: new.name,
                uid: uid_new(),
                topic: new.topic,
                topic_uid: topic.record.uid.clone(),
                began_after: topic.stream.head(),
                settings: new.settings,
                filter: new.filter,
                push: new.push,
                dead_letter_topic: new.dead_letter_topic,
                ttl: new.ttl,
                labels: new.labels,
                is_detached: false,
                created: now,
            };
            inner.subscription_check(&record)?;
            live::log_make(&inner.store, &record.uid, record.began_after, now).await?;
            let live = Live::open(&inner, record.clone(), topic.stream.clone()).await?;
            let stored =
                inner.commit_new(&record.name, vec![Write::put(key::subscription(&record.name.project, &record.name.id), Expect::Absent, &record)]).await;
            if let Err(status) = stored {
                live.close();
                // Its log is swept at the next start.
                return Err(status);
            }
            super::push::start(&inner, &live);
            let running = Arc::new(Running::Attached(live));
            inner.tables.write().subscriptions.insert(record.name.clone(), running.clone());
            inner.end_changed(&record.name);
            Ok(inner.view(&running))
        })
        .await
    }

    /// # Errors
    /// `NOT_FOUND`.
    pub fn subscription_get(&self, name: &Name) -> Result<SubscriptionView, Status> {
        Ok(self.inner.view(&*self.inner.subscription(name)?))
    }

    /// The subscriptions of a project by id, after `after`, at most `limit`.
    pub fn subscription_list(&self, project: &ProjectId, after: Option<&str>, limit: usize) -> Vec<SubscriptionView> {
        let found = {
            let tables = self.inner.tables.read();
            page(&tables.subscriptions, Kind::Subscriptions, project, after, limit, |running| running.record())
        };
        found.into_iter().map(|record| self.inner.view_of(record)).collect()
    }

    /// Lets `change` make another subscription of it; what is immutable must stay.
    ///
    /// # Errors
    /// `NOT_FOUND`; those of `change`; `INVALID_ARGUMENT` naming the field at fault.
    pub async fn subscription_update(
        &self,
        name: Name,
        change: impl FnOnce(Subscription) -> Result<Subscription, Status> + Send + 'static,
    ) -> Result<SubscriptionView, Status> {
        let inner = self.inner.clone();
        run(async move {
            let _changes = inner.changes.lock().await;
            let live = inner.live(&name)?;
            let old = live.record();
            let record = change((*old).clone())?;
            let is_same = |other: &Subscription| {
                (&other.name, &other.uid, &other.topic, &other.topic_uid, &other.filter, other.settings.is_ordered)
                    == (&record.name, &record.uid, &record.topic, &record.topic_uid, &record.filter, record.settings.is_ordered)
            };
            if !is_same(&old) {
                return Err(Status::invalid("Subscription topic, filter and enable_message_ordering cannot be updated."));
            }
            inner.subscription_check(&record)?;
            inner.commit(Write::put(key::subscription(&name.project, &name.id), Expect::Any, &record)).await?;
            live.configure(record)?;
            super::push::start(&inner, &live);
            inner.end_changed(&name);
            Ok(inner.view_of(live.record()))
        })
        .await
    }

    /// # Errors
    /// `NOT_FOUND`.
    pub async fn subscription_delete(&self, name: Name) -> Result<(), Status> {
        let inner = self.inner.clone();
        run(async move {
            let _changes = inner.changes.lock().await;
            inner.subscription_remove(&name).await
        })
        .await
    }

    /// Cuts a subscription off from its topic, for good: its messages are dropped.
    ///
    /// # Errors
    /// `NOT_FOUND`.
    pub async fn subscription_detach(&self, name: Name) -> Result<(), Status> {
        let inner = self.inner.clone();
        run(async move {
            let _changes = inner.changes.lock().await;
            let live = match &*inner.subscription(&name)? {
                Running::Attached(live) => live.clone(),
                Running::Detached(_) => return Ok(()),
                Running::Broken(_, status) => return Err(status.clone()),
            };
            let record = Subscription { is_detached: true, ..(*live.record()).clone() };
            inner.commit(Write::put(key::subscription(&name.project, &name.id), Expect::Any, &record)).await?;
            inner.tables.write().subscriptions.insert(name.clone(), Arc::new(Running::Detached(Arc::new(record))));
            inner.end_changed(&name);
            inner.live_end(&live).await
        })
        .await
    }

    /// Leases up to `messages_max` messages, and waits up to `wait` (of the runtime's time) for the first one.
    ///
    /// # Errors
    /// `NOT_FOUND`; `INVALID_ARGUMENT` when `messages_max` is not positive; `FAILED_PRECONDITION` when it is detached or pushed.
    pub async fn pull(&self, name: &Name, messages_max: i32, wait: Duration) -> Result<Vec<Received>, Status> {
        let messages_max = usize::try_from(messages_max).ok().filter(|max| *max > 0).ok_or_else(|| {
            Status::invalid(format!("The value for max_messages is too small. You passed {messages_max} in the request, but the minimum value is 1."))
        })?;
        let live = self.pulled(name)?;
        live.touch();
        let subscriber = live.subscriber_new();
        let mut changed = live.changed();
        let until = tokio::time::Instant::now() + wait;
        loop {
            changed.borrow_and_update();
            let received = live.take(subscriber, messages_max.min(PULL_MESSAGES_MAX), PULL_BYTES_MAX, None).await?;
            if !received.is_empty() || wait.is_zero() {
                return Ok(received);
            }
            tokio::select! {
                _ = changed.changed() => {}
                () = live.closed().cancelled() => {}
                () = tokio::time::sleep_until(until) => return Ok(Vec::new()),
            }
        }
    }

    /// A stream of a subscription's messages.
    ///
    /// # Errors
    /// As of [`PubSub::pull`].
    pub fn puller(&self, name: &Name) -> Result<Puller, Status> {
        Ok(Puller::new(self.pulled(name)?))
    }

    /// # Errors
    /// `NOT_FOUND`; `INVALID_ARGUMENT` for ids that are none.
    pub async fn ack(&self, name: &Name, ids: &[String]) -> Result<Outcome, Status> {
        ids_check(ids)?;
        self.inner.live(name)?.ack(ids).await
    }

    /// Lets leases end `deadline_s` seconds from now; 0 is a nack.
    ///
    /// # Errors
    /// `NOT_FOUND`; `INVALID_ARGUMENT` for ids that are none and deadlines out of 0..=600.
    pub async fn modify_ack_deadline(&self, name: &Name, ids: &[String], deadline_s: i32) -> Result<Outcome, Status> {
        ids_check(ids)?;
        let deadline_s = u32::try_from(deadline_s).map_err(|_| Status::invalid_field("ack_deadline_seconds", format!("{deadline_s} is negative")))?;
        self.inner.live(name)?.modify_ack_deadline(ids, deadline_s).await
    }

    /// All messages published before `time` count as acknowledged, all others that are kept do not.
    ///
    /// # Errors
    /// `NOT_FOUND`; `FAILED_PRECONDITION` when it is detached.
    pub async fn seek_time(&self, name: &Name, time: Timestamp) -> Result<(), Status> {
        let inner = &self.inner;
        let live = inner.live(name)?;
        // No trimming between the look and the seek.
        let _changes = inner.changes.lock().await;
        let (record, now) = (live.record(), inner.clock.now());
        let since = |retention: Duration| now.checked_sub(retention).map_or(Ok(1), |time| live.stream.first_since(time));
        let mut kept_from = u64::MAX;
        if record.settings.retain_acked {
            kept_from = since(record.settings.retention)?.max(record.began_after + 1);
        }
        if let Some(retention) = inner.topic_of(&record.topic, &record.topic_uid).and_then(|topic| topic.record.retention) {
            kept_from = kept_from.min(since(retention)?);
        }
        let cursor = live.stream.first_since(time)? - 1;
        live.seek(|machine| machine.seek_time_kept(time, cursor, kept_from)).await
    }

    /// Takes over what a snapshot holds.
    ///
    /// # Errors
    /// `NOT_FOUND`; `INVALID_ARGUMENT` when it is of another topic.
    pub async fn seek_snapshot(&self, name: &Name, snapshot: &Name) -> Result<(), Status> {
        let live = self.inner.live(name)?;
        let _changes = self.inner.changes.lock().await;
        let found = self.inner.tables.read().snapshots.get(snapshot).cloned().ok_or_else(|| snapshot.missing())?;
        if found.topic_uid != live.stream.uid {
            return Err(Status::invalid(format!("The snapshot {snapshot} is of another topic than the subscription {name}.")));
        }
        live.seek(|machine| machine.seek_snapshot(found.acked.clone())).await
    }

    fn pulled(&self, name: &Name) -> Result<Arc<Live>, Status> {
        let live = self.inner.live(name)?;
        if live.record().push.is_some() {
            return Err(Status::failed_precondition(
                "This method is not supported for this subscription type: its messages are pushed. Clear its push endpoint to pull them.",
            ));
        }
        Ok(live)
    }
}

impl Inner {
    fn subscription_check(&self, record: &Subscription) -> Result<(), Status> {
        record.check()?;
        dead_letter_check(record)?;
        if let Some(name) = &record.dead_letter_topic {
            self.topic(name)?;
        }
        let Some(push) = &record.push else { return Ok(()) };
        const FIELD: &str = "push_config.push_endpoint";
        if push.endpoint.len() > PUSH_ENDPOINT_BYTES_MAX {
            return Err(Status::invalid_field(FIELD, format!("must have at most {PUSH_ENDPOINT_BYTES_MAX} bytes")));
        }
        if record.settings.is_exactly_once {
            return Err(Status::invalid("Exactly once delivery is not supported for push subscriptions."));
        }
        self.outside.endpoint_check(FIELD, &push.endpoint).map(drop)
    }

    /// Deletes a subscription. The lock of changes is held.
    pub(super) async fn subscription_remove(&self, name: &Name) -> Result<(), Status> {
        let running = self.subscription(name)?;
        self.outside.policy_forget(name.to_string()).await?;
        self.commit(Write::delete(key::subscription(&name.project, &name.id), Expect::Any)).await?;
        self.tables.write().subscriptions.remove(name);
        self.end_changed(name);
        match &*running {
            Running::Attached(live) => self.live_end(live).await,
            Running::Detached(_) => Ok(()),
            Running::Broken(record, _) => {
                self.store.logs().delete(&live::log_name(&record.uid)).await.map_err(Status::internal)?;
                self.stream_release(&record.topic_uid).await
            }
        }
    }

    async fn live_end(&self, live: &Live) -> Result<(), Status> {
        live.close();
        self.store.logs().delete(&live::log_name(&live.uid)).await.map_err(Status::internal)?;
        self.stream_release(&live.stream.uid).await
    }

    fn view(&self, running: &Running) -> SubscriptionView {
        self.view_of(running.record())
    }

    fn view_of(&self, record: Arc<Subscription>) -> SubscriptionView {
        let topic = self.topic_of(&record.topic, &record.topic_uid);
        SubscriptionView {
            topic: if topic.is_some() { record.topic.to_string() } else { DELETED_TOPIC.to_owned() },
            topic_retention: topic.and_then(|topic| topic.record.retention),
            record,
        }
    }
}

fn ids_check(ids: &[String]) -> Result<(), Status> {
    let bytes: usize = ids.iter().map(String::len).sum();
    if ids.is_empty() {
        return Err(Status::invalid("No ack ids specified."));
    }
    if bytes > ACK_REQUEST_BYTES_MAX {
        return Err(Status::invalid(format!("Request payload size exceeds the limit: {ACK_REQUEST_BYTES_MAX} bytes.")));
    }
    Ok(())
}
