//! What happens by time alone: messages that nobody needs are trimmed, subscriptions and snapshots end when their time is over.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use model::{Clock, Status, Timestamp};
use tokio_util::sync::CancellationToken;

use super::{Inner, Running, live::Live, name::Name, stream::Stream};

/// Between two rounds, by the clock.
const EVERY: Duration = Duration::from_secs(60);

/// A round now and then, until all is dropped.
pub(super) async fn run(inner: Weak<Inner>, clock: Arc<dyn Clock>, stop: CancellationToken) {
    loop {
        let next = clock.now().checked_add(EVERY).unwrap_or(Timestamp::MAX);
        tokio::select! {
            () = clock.until(next) => {}
            () = stop.cancelled() => return,
        }
        let Some(inner) = inner.upgrade() else { return };
        inner.look_after().await;
    }
}

impl Inner {
    /// One round.
    pub(crate) async fn look_after(&self) {
        let now = self.clock.now();
        let _changes = self.changes.lock().await;
        for name in self.expired(now) {
            tracing::info!(%name, "its time is over: it is deleted");
            let removed = match name.kind {
                super::Kind::Snapshots => self.snapshot_remove(&name).await,
                _ => self.subscription_remove(&name).await,
            };
            if let Err(status) = removed {
                tracing::error!(%name, %status, "what has expired was not deleted");
            }
        }
        for live in self.lives() {
            live.look_after();
        }
        let streams: Vec<_> = self.tables.read().streams.values().cloned().collect();
        for stream in streams {
            match self.needed_from(&stream, now) {
                Ok(from) => stream.trim(from).await,
                Err(status) => tracing::error!(topic = stream.uid, %status, "a log is not trimmed"),
            }
        }
    }

    fn lives(&self) -> Vec<Arc<Live>> {
        let tables = self.tables.read();
        let attached = tables.subscriptions.values().filter_map(|running| match &**running {
            Running::Attached(live) => Some(live.clone()),
            Running::Detached(_) => None,
        });
        attached.collect()
    }

    fn expired(&self, now: Timestamp) -> Vec<Name> {
        let snapshots: Vec<Name> = self.tables.read().snapshots.values().filter(|s| s.expires <= now).map(|s| s.name.clone()).collect();
        let idle = self.lives().into_iter().filter_map(|live| {
            let (record, active) = (live.record(), live.needs().ok()?.1);
            let ends = active.checked_add(record.ttl?).ok()?;
            (ends <= now).then(|| record.name.clone())
        });
        snapshots.into_iter().chain(idle).collect()
    }

    /// The first message of a topic that is needed: by a subscription, a snapshot, or the topic's own retention.
    fn needed_from(&self, stream: &Stream, now: Timestamp) -> Result<u64, Status> {
        let mut from = stream.head() + 1;
        for live in self.lives().into_iter().filter(|live| live.stream.uid == stream.uid) {
            from = from.min(live.needs()?.0);
        }
        let tables = self.tables.read();
        for snapshot in tables.snapshots.values().filter(|snapshot| snapshot.topic_uid == stream.uid) {
            from = from.min(snapshot.acked.cursor() + 1);
        }
        let retention = tables.topics.values().find(|topic| topic.record.uid == stream.uid).and_then(|topic| topic.record.retention);
        drop(tables);
        if let Some(retention) = retention {
            from = from.min(now.checked_sub(retention).map_or(Ok(1), |time| stream.first_since(time))?);
        }
        Ok(from)
    }
}
