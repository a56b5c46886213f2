//! Snapshots: which messages a subscription had acknowledged, kept with what it had not.
//!
//! Source of the rules: google.pubsub.v1 `Snapshot` and `CreateSnapshotRequest`.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use model::{
    ProjectId, Status, key,
    limits::{SNAPSHOT_LIFE_MIN_S, SNAPSHOT_LIFE_S, SNAPSHOTS_MAX},
};
use store::{Expect, Write};

use super::{
    DELETED_TOPIC, Inner, PubSub,
    name::{Kind, Name, labels_check, quota_check},
    record::{Snapshot, uid_new},
    topics::{page, run},
};

impl PubSub {
    /// # Errors
    /// `ALREADY_EXISTS`; `NOT_FOUND` for the subscription; `FAILED_PRECONDITION` when its oldest message is so old that the snapshot would end within an hour.
    pub async fn snapshot_create(&self, name: Name, subscription: Name, labels: BTreeMap<String, String>) -> Result<Snapshot, Status> {
        labels_check(&labels)?;
        let inner = self.inner.clone();
        run(async move {
            let _changes = inner.changes.lock().await;
            {
                let tables = inner.tables.read();
                if tables.snapshots.contains_key(&name) {
                    return Err(name.taken());
                }
                quota_check(Kind::Snapshots, tables.snapshots.keys().filter(|other| other.project == name.project).count(), SNAPSHOTS_MAX)?;
            }
            let live = inner.live(&subscription)?;
            let record = live.record();
            let now = inner.clock.now();
            let oldest = live.oldest_unacked()?.map_or(now, |message| message.published()).min(now);
            let expires = oldest.checked_add(Duration::from_secs(SNAPSHOT_LIFE_S)).map_err(Status::internal)?;
            if expires.duration_since(now) < jiff::SignedDuration::from_secs(SNAPSHOT_LIFE_MIN_S.cast_signed()) {
                return Err(Status::failed_precondition(
                    "The subscription's oldest unacknowledged message is too old: the snapshot would expire in less than 1 hour.",
                ));
            }
            let acked = live.snapshot().await?;
            let snapshot = Snapshot { name, uid: uid_new(), topic: record.topic.clone(), topic_uid: record.topic_uid.clone(), acked, labels, expires };
            inner.commit_new(&snapshot.name, vec![Write::put(key::snapshot(&snapshot.name.project, &snapshot.name.id), Expect::Absent, &snapshot)]).await?;
            inner.tables.write().snapshots.insert(snapshot.name.clone(), Arc::new(snapshot.clone()));
            inner.end_changed(&snapshot.name);
            Ok(snapshot)
        })
        .await
    }

    /// # Errors
    /// `NOT_FOUND`.
    pub fn snapshot_get(&self, name: &Name) -> Result<Arc<Snapshot>, Status> {
        self.inner.tables.read().snapshots.get(name).cloned().ok_or_else(|| name.missing())
    }

    /// The snapshots of a project by id, after `after`, at most `limit`.
    pub fn snapshot_list(&self, project: &ProjectId, after: Option<&str>, limit: usize) -> Vec<Snapshot> {
        page(&self.inner.tables.read().snapshots, Kind::Snapshots, project, after, limit, Snapshot::clone)
    }

    /// The name of a snapshot's topic, or [`DELETED_TOPIC`].
    pub fn snapshot_topic(&self, snapshot: &Snapshot) -> String {
        self.inner.topic_of(&snapshot.topic, &snapshot.topic_uid).map_or_else(|| DELETED_TOPIC.to_owned(), |topic| topic.record.name.to_string())
    }

    /// Sets its labels, and its end when `expires` is given.
    ///
    /// # Errors
    /// `NOT_FOUND`; `INVALID_ARGUMENT` for labels or an end that cannot be.
    pub async fn snapshot_update(&self, name: Name, change: impl FnOnce(Snapshot) -> Result<Snapshot, Status> + Send + 'static) -> Result<Snapshot, Status> {
        let inner = self.inner.clone();
        run(async move {
            let _changes = inner.changes.lock().await;
            let old = inner.tables.read().snapshots.get(&name).cloned().ok_or_else(|| name.missing())?;
            let changed = change((*old).clone())?;
            labels_check(&changed.labels)?;
            if changed.expires > old.expires {
                return Err(Status::invalid_field("expire_time", format!("must not be after {}", old.expires)));
            }
            let snapshot = Snapshot { labels: changed.labels, expires: changed.expires, ..(*old).clone() };
            inner.commit(Write::put(key::snapshot(&name.project, &name.id), Expect::Any, &snapshot)).await?;
            inner.tables.write().snapshots.insert(name.clone(), Arc::new(snapshot.clone()));
            inner.end_changed(&name);
            Ok(snapshot)
        })
        .await
    }

    /// # Errors
    /// `NOT_FOUND`.
    pub async fn snapshot_delete(&self, name: Name) -> Result<(), Status> {
        let inner = self.inner.clone();
        run(async move {
            let _changes = inner.changes.lock().await;
            inner.snapshot_remove(&name).await
        })
        .await
    }
}

impl Inner {
    /// Deletes a snapshot. The lock of changes is held.
    pub(super) async fn snapshot_remove(&self, name: &Name) -> Result<(), Status> {
        let snapshot = self.tables.read().snapshots.get(name).cloned().ok_or_else(|| name.missing())?;
        self.outside.policy_forget(name.to_string()).await?;
        self.commit(Write::delete(key::snapshot(&name.project, &name.id), Expect::Any)).await?;
        self.tables.write().snapshots.remove(name);
        self.end_changed(name);
        self.stream_release(&snapshot.topic_uid).await
    }
}
