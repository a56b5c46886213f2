//! The way in: takes entries, answers queries, hands out meters.

use std::{collections::BTreeMap, path::Path, sync::Arc, time::Duration};

use model::{Clock, log::Entry};
use parking_lot::RwLock;

use crate::{
    database::{Error, Place},
    meter::{Meter, MeterKey},
    prometheus::{self, LogCounts},
    query::{Page, Query, QueryError, Readers},
    queue::{self, Queue},
    writer::Writer,
};

/// How much of the logs is kept: the oldest go first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// Of `telemetry.db`, in bytes; its WAL comes on top.
    pub bytes_max: u64,
    /// By an entry's timestamp.
    pub age_max: Duration,
}

impl Retention {
    /// 512 MiB or 30 days, which is how long Google's `_Default` bucket keeps entries.
    pub const DEFAULT: Retention = Retention { bytes_max: 512 << 20, age_max: Duration::from_secs(30 * 24 * 3600) };
}

/// Logs and meters of this process. Clones share them.
///
/// The last clone's drop writes what is queued.
#[derive(Clone)]
pub struct Telemetry {
    inner: Arc<Inner>,
}

struct Inner {
    queue: Arc<Queue>,
    /// Ends, having written all, when it is dropped.
    _writer: Writer,
    readers: Readers,
    meters: RwLock<BTreeMap<MeterKey, Arc<Meter>>>,
}

impl Telemetry {
    /// Opens `telemetry.db` in `dir`; a broken file is set aside and said, never a reason not to start.
    ///
    /// # Errors
    /// When the folder cannot be written.
    pub fn open(dir: &Path, clock: Arc<dyn Clock>) -> Result<Self, Error> {
        Self::open_with(dir, clock, Retention::DEFAULT)
    }

    /// As [`Telemetry::open`], with another bound on what is kept.
    pub fn open_with(dir: &Path, clock: Arc<dyn Clock>, retention: Retention) -> Result<Self, Error> {
        let place = Arc::new(Place::new(dir));
        let (queue, receiver) = queue::bounded();
        let writer = Writer::start(place.clone(), queue.clone(), receiver, clock, retention)?;
        let inner = Inner { queue, _writer: writer, readers: Readers::new(place), meters: RwLock::default() };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Queues an entry. Full queue: it is dropped and counted.
    ///
    /// A move into a preallocated queue and a few atomic operations: no lock, no allocation, no system call but one wake a
    /// batch. What it queued is readable within a second.
    pub fn log(&self, entry: Entry) {
        self.inner.queue.push(entry);
    }

    /// Waits until what was logged before is readable. Returns as well when it cannot be written.
    pub async fn flush(&self) {
        self.inner.queue.flush().await;
    }

    /// Entries that `filter` (Google's Logging query language) matches, in the order asked. `page` is the last page's token.
    /// Synchronous: call on a blocking thread.
    ///
    /// One call looks at a bounded number of entries for a bounded time: a page may have fewer entries than asked for, or
    /// none, and still name a next one.
    ///
    /// # Errors
    /// [`QueryError::Filter`] with line and column, [`QueryError::Page`] for a token that is not of this query.
    pub fn entries(&self, query: &Query) -> Result<Page, QueryError> {
        self.inner.readers.entries(query)
    }

    /// Entries that were lost since the start: the queue was full, or the disk did not take them.
    pub fn entries_dropped(&self) -> u64 {
        self.inner.queue.dropped()
    }

    /// The meter of a revision; made at first use, shared.
    pub fn meter(&self, key: &MeterKey) -> Arc<Meter> {
        if let Some(meter) = self.inner.meters.read().get(key) {
            return meter.clone();
        }
        self.inner.meters.write().entry(key.clone()).or_default().clone()
    }

    /// Forgets the meter of a revision that was deleted. Who still holds it counts for nobody.
    pub fn meter_forget(&self, key: &MeterKey) {
        self.inner.meters.write().remove(key);
    }

    /// All meters, by their keys.
    pub fn meters(&self) -> Vec<(MeterKey, Arc<Meter>)> {
        self.inner.meters.read().iter().map(|(key, meter)| (key.clone(), meter.clone())).collect()
    }

    /// Prometheus text format.
    pub fn prometheus(&self) -> String {
        let logs = LogCounts { written: self.inner.queue.written(), dropped: self.inner.queue.dropped() };
        prometheus::text(&self.meters(), logs)
    }
}
