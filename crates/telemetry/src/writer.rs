//! The one thread that writes entries: gathers a batch for up to 200 ms, writes it in one transaction, and between
//! batches removes what is too old or too much.

use std::{
    collections::HashMap,
    sync::{Arc, mpsc::Receiver},
    thread,
    time::{Duration, Instant},
};

use model::{
    Clock, Timestamp,
    log::{Entry, LogName, Payload, Severity, Source},
};
use rusqlite::Connection;

use crate::{
    database::{self, Error, Place, failed, is_broken, time_number},
    queue::{BATCH, Queue},
    telemetry::Retention,
};

/// How long the first entry of a batch waits for others.
const GATHER: Duration = Duration::from_millis(200);
/// Rows removed at once: the thread must come back to the queue soon.
const REMOVE_STEP: i64 = 5000;
/// Between two looks at what is too old. Size is looked at after each batch.
const AGE_CHECK: Duration = Duration::from_secs(60);
/// Between two lines of our own log about the same trouble.
const COMPLAINT: Duration = Duration::from_secs(60);
/// Sources kept in memory; beyond it they are asked of the database again.
const SOURCES_MAX: usize = 10_000;

const DAY_NS: i64 = 24 * 3600 * 1_000_000_000;

/// The thread. Dropping it writes what is queued and ends it.
pub(crate) struct Writer {
    queue: Arc<Queue>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Writer {
    pub(crate) fn start(place: Arc<Place>, queue: Arc<Queue>, receiver: Receiver<Entry>, clock: Arc<dyn Clock>, retention: Retention) -> Result<Self, Error> {
        let connection = place.open()?;
        let next_id = next_id(&connection, clock.now()).map_err(failed("read telemetry.db"))?;
        let worker = Worker {
            place,
            queue: queue.clone(),
            receiver,
            clock,
            retention,
            connection: Some(connection),
            sources: HashMap::new(),
            last_source: None,
            next_id,
            buffer: Vec::new(),
            age_checked: None,
            complained: None,
        };
        let thread = thread::Builder::new()
            .name("telemetry-writer".into())
            .spawn(move || worker.run())
            .map_err(|error| Error::Io(format!("start the writer's thread: {error}")))?;
        Ok(Self { queue, thread: Some(thread) })
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.queue.close();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the telemetry writer panicked");
        }
    }
}

struct End(Arc<Queue>);

impl Drop for End {
    fn drop(&mut self) {
        self.0.end();
    }
}

/// Above all ids given out before, in this file or one set aside: they begin with the time, and a microsecond has room for
/// one more than can be logged in it. The newest entries tell when the clock was set back.
fn next_id(connection: &Connection, now: Timestamp) -> rusqlite::Result<i64> {
    let last: Option<i64> = connection.query_row("SELECT max(id) FROM (SELECT id FROM entry ORDER BY time DESC, id DESC LIMIT 1000)", [], |row| row.get(0))?;
    Ok(now.as_microsecond().max(last.unwrap_or(0) + 1))
}

struct Worker {
    place: Arc<Place>,
    queue: Arc<Queue>,
    receiver: Receiver<Entry>,
    clock: Arc<dyn Clock>,
    retention: Retention,
    /// None after a failure: the next batch opens a new one.
    connection: Option<Connection>,
    /// Row and last day of each source written to, by its five names.
    sources: HashMap<String, (i64, i64)>,
    /// Entries of one instance come in runs and share the allocation.
    last_source: Option<(Arc<Source>, (i64, i64))>,
    next_id: i64,
    buffer: Vec<u8>,
    age_checked: Option<Instant>,
    complained: Option<Instant>,
}

impl Worker {
    fn run(mut self) {
        self.queue.attach();
        // Also when a bug panics here: nobody may wait for a flush that never comes.
        let _end = End(self.queue.clone());
        // The first look is before the first entry: a file from before may be over its bounds.
        self.remove_old();
        let mut batch = Vec::with_capacity(BATCH);
        loop {
            self.gather();
            let closing = self.queue.is_closed();
            // Before the queue is read: what was pushed before a flush was asked for is then in it.
            let flushes = self.queue.flushes_take();
            let mut left = if closing || !flushes.is_empty() { usize::MAX } else { BATCH };
            // A flush or the end takes all that waits, in batches; under load that is bounded by what waits now.
            left = left.min(self.queue.waiting().max(BATCH));
            while left > 0 {
                self.queue.take(&self.receiver, &mut batch, left.min(BATCH));
                if batch.is_empty() {
                    break;
                }
                left -= batch.len();
                self.write(&mut batch);
            }
            self.losses_tell(&mut batch);
            for flush in flushes {
                let _ = flush.send(());
            }
            self.remove_old();
            if closing && self.queue.waiting() == 0 {
                return;
            }
        }
    }

    /// Waits for a first entry, then for a batch's worth or its time, a flush or the end.
    fn gather(&self) {
        let urgent = || self.queue.is_closed() || self.queue.is_flush_asked();
        while self.queue.waiting() == 0 && !urgent() {
            thread::park();
        }
        let start = Instant::now();
        while self.queue.waiting() < BATCH && !urgent() {
            match GATHER.checked_sub(start.elapsed()) {
                Some(left) if !left.is_zero() => thread::park_timeout(left),
                _ => break,
            }
        }
    }

    /// Writes the batch or counts it as lost; empties it.
    fn write(&mut self, batch: &mut Vec<Entry>) {
        match self.try_write(batch) {
            Ok(()) => self.queue.written_add(batch.len()),
            Err(error) => {
                self.complain(&error, batch.len());
                for entry in &*batch {
                    self.queue.lose(&entry.source, 1);
                }
            }
        }
        batch.clear();
    }

    fn try_write(&mut self, batch: &[Entry]) -> Result<(), Error> {
        let connection = match self.connection.take() {
            Some(connection) => connection,
            None => self.place.open()?,
        };
        match self.transaction(&connection, batch) {
            Ok(()) => {
                self.connection = Some(connection);
                Ok(())
            }
            Err(error) => {
                // What was learnt in the transaction was undone with it.
                self.sources.clear();
                self.last_source = None;
                if is_broken(&error) {
                    drop(connection);
                    self.place.set_aside(&error)?;
                } else {
                    self.connection = Some(connection);
                }
                Err(failed("write log entries")(error))
            }
        }
    }

    fn transaction(&mut self, connection: &Connection, batch: &[Entry]) -> rusqlite::Result<()> {
        let transaction = connection.unchecked_transaction()?;
        let today = time_number(self.clock.now()) / DAY_NS;
        let first_id = self.next_id;
        let mut insert = database::entry_insert(&transaction)?;
        for entry in batch {
            let day = today.max(time_number(entry.time) / DAY_NS);
            let source = self.source(&transaction, &entry.source, day)?;
            database::entry_write(&mut insert, self.next_id, source, entry, &mut self.buffer)?;
            self.next_id += 1;
        }
        drop(insert);
        transaction.commit().inspect_err(|_| self.next_id = first_id)
    }

    /// The row of `source`, which is not removed before `day`.
    fn source(&mut self, connection: &Connection, source: &Arc<Source>, day: i64) -> rusqlite::Result<i64> {
        if let Some((last, (id, until))) = &self.last_source
            && Arc::ptr_eq(last, source)
            && *until >= day
        {
            return Ok(*id);
        }
        // No name holds a line end.
        let key = [&source.project, &source.region, &source.service, &source.revision, &source.build, &source.job].map(String::as_str).join("\n");
        let known = match self.sources.get(&key) {
            Some(known) if known.1 >= day => *known,
            _ => {
                let known = (database::source_write(connection, source, day)?, day);
                if self.sources.len() >= SOURCES_MAX {
                    self.sources.clear();
                }
                self.sources.insert(key, known);
                known
            }
        };
        self.last_source = Some((source.clone(), known));
        Ok(known.0)
    }

    /// One entry for each source that lost some.
    fn losses_tell(&mut self, batch: &mut Vec<Entry>) {
        let lost = self.queue.lost_take();
        if lost.is_empty() || self.connection.is_none() {
            // While nothing can be written, losses are only counted.
            return;
        }
        let time = self.clock.now();
        batch.extend(lost.into_iter().map(|(source, count)| loss_entry(&source, count, time)));
        self.write(batch);
    }

    /// Removes the oldest entries while there are too many bytes or they are too old; a step a call.
    fn remove_old(&mut self) {
        let Some(connection) = self.connection.take() else {
            return;
        };
        let age_is_due = self.age_checked.is_none_or(|checked| checked.elapsed() >= AGE_CHECK);
        let age_max_ns = i64::try_from(self.retention.age_max.as_nanos()).unwrap_or(i64::MAX);
        let oldest = age_is_due.then(|| time_number(self.clock.now()).saturating_sub(age_max_ns));
        match remove_step(&connection, self.retention.bytes_max, oldest) {
            Ok(removed) => {
                // All old ones are gone when a step was not used up.
                if age_is_due && removed < REMOVE_STEP as usize {
                    self.age_checked = Some(Instant::now());
                }
                if removed > 0 {
                    self.sources.clear();
                    self.last_source = None;
                }
                self.connection = Some(connection);
            }
            Err(error) => self.complain(&failed("remove old log entries")(error), 0),
        }
    }

    fn complain(&mut self, error: &Error, lost: usize) {
        if self.complained.is_none_or(|last| last.elapsed() >= COMPLAINT) {
            self.complained = Some(Instant::now());
            tracing::error!(lost, "{error}; log entries are lost until this is mended");
        }
    }
}

fn loss_entry(source: &Arc<Source>, count: u64, time: Timestamp) -> Entry {
    Entry {
        source: source.clone(),
        log: match (source.build.is_empty(), source.job.is_empty()) {
            (true, true) => LogName::System,
            (false, _) => LogName::Build,
            (true, false) => LogName::Executions,
        },
        time,
        severity: Severity::Warning,
        payload: Payload::Text(format!("{count} log entries were dropped: they came faster than they could be written, or the disk did not take them")),
        http: None,
        trace: String::new(),
        span: String::new(),
        trace_sampled: false,
        labels: std::collections::BTreeMap::new(),
    }
}

/// Removes at most a step of the oldest entries, and sources that no entry can have any more. Answers how many entries.
fn remove_step(connection: &Connection, bytes_max: u64, oldest: Option<i64>) -> rusqlite::Result<usize> {
    let number = |sql: &str| connection.prepare_cached(sql)?.query_row([], |row| row.get::<_, i64>(0));
    let pages = number("PRAGMA page_count")? - number("PRAGMA freelist_count")?;
    let bytes = pages * number("PRAGMA page_size")?;
    // i64::MAX: as long as there are too many bytes, any entry is too old.
    let limit = if bytes.cast_unsigned() > bytes_max { Some(i64::MAX) } else { oldest };
    let Some(limit) = limit else { return Ok(0) };
    let transaction = connection.unchecked_transaction()?;
    let removed = transaction
        .prepare_cached("DELETE FROM entry WHERE (time, id) IN (SELECT time, id FROM entry WHERE time < ?1 ORDER BY time, id LIMIT ?2)")?
        .execute([limit, REMOVE_STEP])?;
    if removed > 0 {
        let first: Option<i64> = transaction.query_row("SELECT min(time) FROM entry", [], |row| row.get(0))?;
        if let Some(first) = first {
            transaction.execute("DELETE FROM source WHERE day < ?1", [first / DAY_NS])?;
        }
    }
    transaction.commit()?;
    Ok(removed)
}
