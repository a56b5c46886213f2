//! One stream of a subscription's messages, with flow control: no more is out to it than it asked for.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use model::Status;
use tokio::sync::watch;

use super::live::{Live, Received};
use crate::subscription::{AckId, Settings, Subscriber};

/// What one answer of a stream holds at most.
const BATCH_MESSAGES_MAX: usize = 1000;
const BATCH_BYTES_MAX: usize = 4 << 20;

/// Takes messages for one stream. Dropped, what is out stays out until its leases end.
pub struct Puller {
    live: Arc<Live>,
    subscriber: Subscriber,
    /// Seconds; 0 for the subscription's own.
    ack_deadline_s: Arc<AtomicU32>,
    /// What may be out at a time; `None` for any number.
    pub messages_max: Option<usize>,
    pub bytes_max: Option<usize>,
    /// What was given out and, as far as is known, is out.
    out: HashMap<AckId, usize>,
    out_bytes: usize,
    changed: watch::Receiver<u64>,
}

impl Puller {
    pub(crate) fn new(live: Arc<Live>) -> Self {
        let (subscriber, mut changed) = (live.subscriber_new(), live.changed());
        // What is there already is a change.
        changed.mark_changed();
        Self { live, subscriber, ack_deadline_s: Arc::default(), messages_max: None, bytes_max: None, out: HashMap::new(), out_bytes: 0, changed }
    }

    /// How many seconds leases of this stream last, to be changed while it runs; 0 for the subscription's own.
    pub fn ack_deadline_s(&self) -> Arc<AtomicU32> {
        self.ack_deadline_s.clone()
    }

    /// The subscription's settings as they are now.
    pub fn settings(&self) -> Settings {
        self.live.record().settings.clone()
    }

    /// Waits for messages. Dropped while it waits, it loses none.
    ///
    /// # Errors
    /// `NOT_FOUND` once the subscription is deleted or detached; `UNAVAILABLE` when the disk fails.
    pub async fn next(&mut self) -> Result<Vec<Received>, Status> {
        loop {
            tokio::select! {
                _ = self.changed.changed() => {}
                () = self.live.closed().cancelled() => {}
            }
            let (messages, bytes) = self.room();
            if messages == 0 || bytes == 0 {
                if self.live.closed().is_cancelled() {
                    return Err(self.live.record().name.missing());
                }
                continue;
            }
            let deadline_s = Some(self.ack_deadline_s.load(Ordering::Relaxed)).filter(|seconds| *seconds > 0);
            let received = self.live.take(self.subscriber, messages.min(BATCH_MESSAGES_MAX), bytes.min(BATCH_BYTES_MAX), deadline_s).await?;
            if received.is_empty() {
                continue;
            }
            // There may be more.
            self.changed.mark_changed();
            if self.messages_max.is_some() || self.bytes_max.is_some() {
                for one in &received {
                    self.out.insert(one.id, one.message.bytes());
                    self.out_bytes += one.message.bytes();
                }
            }
            return Ok(received);
        }
    }

    /// How many messages and bytes may be given out now.
    fn room(&mut self) -> (usize, usize) {
        let (messages, bytes) = (self.messages_max.unwrap_or(usize::MAX), self.bytes_max.unwrap_or(usize::MAX));
        // Looked through when it seems full only: what came back since is not told of.
        if self.out.len() >= messages || self.out_bytes >= bytes {
            self.out.retain(|id, size| {
                let is_out = self.live.is_out(*id);
                if !is_out {
                    self.out_bytes -= *size;
                }
                is_out
            });
        }
        (messages.saturating_sub(self.out.len()), bytes.saturating_sub(self.out_bytes))
    }
}
