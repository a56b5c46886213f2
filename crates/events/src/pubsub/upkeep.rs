//! What happens by time alone: subscriptions and snapshots end at their instant; messages that nobody needs any more are trimmed.
//!
//! An end is waited for by the clock, so that a clock which is moved by hand goes to it and to nothing else. Trimming frees the disk and
//! is seen by nobody, since what is too old is given out to nobody before it: it goes by the runtime's time.

use std::{
    collections::{HashMap, HashSet},
    future::poll_fn,
    sync::{Arc, Weak},
    task::Poll,
    time::Duration,
};

use model::{Clock, Status, Timestamp};
use tokio::{
    sync::mpsc::UnboundedReceiver,
    time::{MissedTickBehavior, interval},
};
use tokio_util::sync::CancellationToken;

use super::{Inner, Kind, Running, live::Live, name::Name, stream::Stream};
use crate::{agenda::Agenda, busy::Guard};

/// Between two rounds of trimming.
const TRIM_EVERY: Duration = Duration::from_secs(60);

/// A subscription or snapshot was made, changed or deleted: its end is another. The guard goes when that is waited for.
pub(super) type Change = (Name, Guard);

/// Until all is dropped.
pub(super) async fn run(inner: Weak<Inner>, clock: Arc<dyn Clock>, stop: CancellationToken, mut changes: UnboundedReceiver<Change>) {
    let mut ends = Agenda::default();
    let mut trimming = interval(TRIM_EVERY);
    trimming.set_missed_tick_behavior(MissedTickBehavior::Delay);
    if let Some(inner) = inner.upgrade() {
        inner.mortal().iter().for_each(|name| ends.set(name, inner.end_of(name)));
    }
    let mut guards = Vec::new();
    loop {
        let mut until = clock.until(ends.first().unwrap_or(Timestamp::MAX));
        let is_waiting = poll_fn(|context| Poll::Ready(until.as_mut().poll(context).is_pending())).await;
        if is_waiting {
            // From here on whoever moves the clock knows what this loop waits for.
            guards.clear();
            tokio::select! {
                () = until => {}
                changed = changes.recv() => {
                    let (Some((name, guard)), Some(inner)) = (changed, inner.upgrade()) else { return };
                    guards.push(guard);
                    ends.set(&name, inner.end_of(&name));
                    continue;
                }
                _ = trimming.tick() => {
                    let Some(inner) = inner.upgrade() else { return };
                    inner.trim().await;
                    continue;
                }
                () = stop.cancelled() => return,
            }
        }
        let Some(inner) = inner.upgrade() else { return };
        let now = clock.now();
        while let Some(name) = ends.take(now) {
            // A subscriber was there meanwhile, or it ends.
            let next = inner.end(&name, now).await;
            ends.set(&name, next);
        }
    }
}

impl Inner {
    /// Tells the loop that the end of `name` may be another.
    pub(super) fn end_changed(&self, name: &Name) {
        // Without a loop nobody waits for anything any more.
        let _ = self.ends.send((name.clone(), self.outside.busy().begin()));
    }

    /// Everything at once, as if all its time had come.
    #[cfg(test)]
    pub(super) async fn look_after(&self) {
        let now = self.clock.now();
        for name in self.mortal() {
            self.end(&name, now).await;
        }
        self.trim().await;
    }

    /// What can end by itself.
    fn mortal(&self) -> Vec<Name> {
        let tables = self.tables.read();
        tables.subscriptions.keys().chain(tables.snapshots.keys()).cloned().collect()
    }

    /// When `name` ends, as far as is known now.
    fn end_of(&self, name: &Name) -> Option<Timestamp> {
        if name.kind == Kind::Snapshots {
            return self.tables.read().snapshots.get(name).map(|snapshot| snapshot.expires);
        }
        match &*self.subscription(name).ok()? {
            Running::Attached(live) => live.active().checked_add(live.record().ttl?).ok(),
            Running::Detached(_) | Running::Broken(..) => None,
        }
    }

    /// Deletes `name` when its time is over; else when it is to be looked at again.
    async fn end(&self, name: &Name, now: Timestamp) -> Option<Timestamp> {
        let _changes = self.changes.lock().await;
        if let Ok(running) = self.subscription(name)
            && let Running::Attached(live) = &*running
        {
            // An open stream is a subscriber.
            live.look_after();
        }
        let end = self.end_of(name)?;
        if end > now {
            return Some(end);
        }
        tracing::info!(%name, "its time is over: it is deleted");
        let removed = match name.kind {
            Kind::Snapshots => self.snapshot_remove(name).await,
            _ => self.subscription_remove(name).await,
        };
        let status = removed.err()?;
        tracing::error!(%name, %status, "what has expired was not deleted");
        now.checked_add(TRIM_EVERY).ok()
    }

    /// Trims the logs that hold anything.
    async fn trim(&self) {
        let _changes = self.changes.lock().await;
        let mut lives: HashMap<String, Vec<Arc<Live>>> = HashMap::new();
        let (mut broken, mut snapshots, mut retentions) = (HashSet::new(), HashMap::new(), HashMap::new());
        let streams: Vec<_> = {
            let tables = self.tables.read();
            for running in tables.subscriptions.values() {
                match &**running {
                    Running::Attached(live) => lives.entry(live.stream.uid.clone()).or_default().push(live.clone()),
                    Running::Broken(record, _) => drop(broken.insert(record.topic_uid.clone())),
                    Running::Detached(_) => {}
                }
            }
            for snapshot in tables.snapshots.values() {
                let from = snapshots.entry(snapshot.topic_uid.clone()).or_insert(u64::MAX);
                *from = (*from).min(snapshot.acked.cursor() + 1);
            }
            retentions.extend(tables.topics.values().filter_map(|topic| Some((topic.record.uid.clone(), topic.record.retention?))));
            tables.streams.values().cloned().collect()
        };
        for stream in streams {
            let of_stream = lives.remove(&stream.uid).unwrap_or_default();
            of_stream.iter().filter(|live| live.is_streamed()).for_each(|live| live.touch());
            // What a broken one needs is not known.
            if !stream.has_messages() || broken.contains(&stream.uid) {
                continue;
            }
            of_stream.iter().for_each(|live| live.look_after());
            let snapshots = snapshots.get(&stream.uid).copied().unwrap_or(u64::MAX);
            match self.needed_from(&stream, &of_stream, snapshots, retentions.get(&stream.uid).copied()) {
                Ok(from) => stream.trim(from).await,
                Err(status) => tracing::error!(topic = stream.uid, %status, "a log is not trimmed"),
            }
        }
    }

    /// The first message of a topic that is needed: by a subscription, a snapshot, or the topic's own retention.
    fn needed_from(&self, stream: &Stream, lives: &[Arc<Live>], snapshots: u64, retention: Option<Duration>) -> Result<u64, Status> {
        let mut from = snapshots.min(stream.head() + 1);
        for live in lives {
            from = from.min(live.needed_from()?);
        }
        if let Some(retention) = retention {
            from = from.min(self.clock.now().checked_sub(retention).map_or(Ok(1), |time| stream.first_since(time))?);
        }
        Ok(from)
    }
}
