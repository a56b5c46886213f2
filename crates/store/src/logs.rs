//! Logs: entries in the order in which they were appended, numbered from 1, durable when the append is answered.
//!
//! They lie in `logs.db`, apart from the records: one row for each log, which is held in memory, and one for each entry, which
//! is not read before it is asked for. One thread appends, with one fsync for all that wait. An entry above
//! [`INLINE_MAX_BYTES`] lies in a blob whose name stands in its row. Numbers of a log have no gaps, so that an entry that is
//! missing is found as surely as one whose checksum does not match.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    path::{Path, PathBuf},
    sync::Arc,
};

use parking_lot::{Mutex, RwLock};
use rusqlite::{Connection, OptionalExtension as _, Transaction, TransactionBehavior};

use crate::{
    blobs::Blobs,
    connections::Connections,
    database::{self, Layout},
    error::{Error, invalid},
    integrity::is_damage,
    queue::{self, Queue, Writer},
    record::KEY_MAX_BYTES,
};

/// The largest entry, in bytes.
pub const ENTRY_MAX_BYTES: usize = 16 << 20;
/// What one append holds at most, in bytes.
const APPEND_MAX_BYTES: usize = 32 << 20;
/// Larger entries go to blobs: they would spread a row over many pages.
const INLINE_MAX_BYTES: usize = 64 << 10;

const LAYOUT: Layout = Layout {
    // `tanl`.
    application: 0x7461_6e6c,
    format: 1,
    schema: "
CREATE TABLE log (
    id       INTEGER PRIMARY KEY,
    name     TEXT NOT NULL UNIQUE,
    -- The number of the first entry that is there, and of the last one that was appended.
    first    INTEGER NOT NULL,
    head     INTEGER NOT NULL,
    checksum INTEGER NOT NULL
);
CREATE TABLE entry (
    log      INTEGER NOT NULL,
    number   INTEGER NOT NULL,
    -- 1: the value is a blob's name.
    is_blob  INTEGER NOT NULL,
    value    BLOB NOT NULL,
    checksum INTEGER NOT NULL,
    PRIMARY KEY (log, number)
) WITHOUT ROWID;
CREATE INDEX entry_blob ON entry (log, number) WHERE is_blob = 1;
CREATE TABLE head (
    id       INTEGER PRIMARY KEY CHECK (id = 1),
    -- The last id that a log got; how many logs there are; the sum of the CRC-32 of their names.
    last     INTEGER NOT NULL,
    logs     INTEGER NOT NULL,
    names    INTEGER NOT NULL,
    checksum INTEGER NOT NULL
);",
    first: |connection| head_write(connection, Head::default()),
};

/// One entry of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub number: u64,
    pub value: Vec<u8>,
}

/// Which entries a log has: `first..=head`. None when `first` is `head + 1`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    pub first: u64,
    pub head: u64,
}

impl Extent {
    /// Of a log that nobody appended to.
    const EMPTY: Self = Self { first: 1, head: 0 };

    /// How many entries there are.
    pub fn len(self) -> u64 {
        self.head + 1 - self.first
    }

    /// Whether there is none.
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }
}

/// All logs of the store. A log begins with its first append; its name is free text, kept by who appends.
pub struct Logs {
    writer: Writer<Work, Answer>,
    connections: Connections,
    known: Arc<Known>,
    blobs: Blobs,
}

type Answer = Result<u64, Error>;
type Job = queue::Job<Work, Answer>;

enum Work {
    Append { log: String, entries: Vec<Stored> },
    Trim { log: String, up_to: u64 },
    Delete { log: String },
}

/// An entry as it lies in its row.
struct Stored {
    is_blob: bool,
    value: Vec<u8>,
}

/// What readers and the thread that writes share.
struct Known {
    /// What is on disk. Held for moments only.
    table: RwLock<Table>,
    /// Held by the thread while it writes a batch, until the table says so: who misses an entry that the table promises waits
    /// for it, and looks again.
    batch: Mutex<()>,
}

/// What is known of all logs without reading an entry.
#[derive(Default)]
struct Table {
    logs: BTreeMap<String, Row>,
    head: Head,
    /// Logs may be missing or wrong: one that is not found is answered with an error.
    is_damaged: bool,
}

#[derive(Clone, Copy)]
struct Row {
    id: i64,
    extent: Extent,
}

impl Logs {
    pub(crate) fn open(path: &Path, blobs: Blobs) -> Result<Self, Error> {
        let connection = database::open_as(path, &LAYOUT)?;
        let known = Arc::new(Known { table: RwLock::new(table_read(&connection)?), batch: Mutex::new(()) });
        let connections = Connections::open(path)?;
        let worker = Worker { path: path.to_owned(), connection: Some(connection), known: known.clone() };
        let writer = Writer::start("store-logs", move |queue| worker.run(queue))?;
        Ok(Self { writer, connections, known, blobs })
    }

    /// Appends `entries` to `log`, all or none; the number of the first, once all are on disk (group commit). The others follow it.
    ///
    /// With no entries it answers with the number that the next one gets. When the future is dropped before the answer, the
    /// entries may be there or not.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a name that is empty or too long and for entries that are too large; what the disk says.
    pub async fn append(&self, log: &str, entries: Vec<Vec<u8>>) -> Result<u64, Error> {
        name_check(log)?;
        let bytes: usize = entries.iter().map(Vec::len).sum();
        if let Some(large) = entries.iter().map(Vec::len).find(|len| *len > ENTRY_MAX_BYTES) {
            return Err(invalid(format_args!("an entry of {large} bytes is too large; at most {ENTRY_MAX_BYTES} fit")));
        }
        if bytes > APPEND_MAX_BYTES {
            return Err(invalid(format_args!("{bytes} bytes are too many for one append; at most {APPEND_MAX_BYTES} fit")));
        }
        let stored = if entries.iter().any(|entry| entry.len() > INLINE_MAX_BYTES) {
            let blobs = self.blobs.clone();
            let put = move || entries.into_iter().map(|entry| stored(&blobs, entry)).collect::<Result<Vec<_>, _>>();
            tokio::task::spawn_blocking(put).await.map_err(|error| Error::Io(format!("put an entry into a blob: {error}")))??
        } else {
            entries.into_iter().map(|value| Stored { is_blob: false, value }).collect()
        };
        let bytes = stored.iter().map(|entry| entry.value.len()).sum();
        self.ask(Work::Append { log: log.to_owned(), entries: stored }, bytes).await
    }

    /// Entries of `log` after the number `after`, in order: at most `limit`, and no more once they hold `bytes_max`. One at least,
    /// when there is one and `limit` is not 0. Those that were trimmed are passed over. Synchronous, as the reads of records.
    ///
    /// # Errors
    /// [`Error::Damaged`] when an entry is not what was appended, or is missing; those before it can be read with a lower `limit`.
    pub fn read(&self, log: &str, after: u64, limit: usize, bytes_max: usize) -> Result<Vec<Entry>, Error> {
        let Some(row) = self.row(log)? else { return Ok(Vec::new()) };
        let mut next = row.extent.first.max(after.saturating_add(1));
        let mut entries: Vec<Entry> = Vec::new();
        let mut bytes = 0;
        while next <= row.extent.head && entries.len() < limit && (entries.is_empty() || bytes < bytes_max) {
            match self.entry(log, row.id, next)? {
                Some(value) => {
                    bytes += value.len();
                    entries.push(Entry { number: next, value });
                    next += 1;
                }
                // Trimmed or deleted since its place was looked up?
                None => match self.row_settled(log)? {
                    Some(now) if now.id == row.id && now.extent.first <= next => return Err(damaged(log, Some(next), "it is missing, or its blob is")),
                    Some(now) if now.id == row.id => next = now.extent.first,
                    _ => break,
                },
            }
        }
        Ok(entries)
    }

    /// Forgets the entries of `log` up to the number `up_to`; those that come get the numbers they would have got.
    ///
    /// Takes as long as the removal of all of them: trim often, or in steps.
    /// # Errors
    /// What the disk says.
    pub async fn trim(&self, log: &str, up_to: u64) -> Result<(), Error> {
        self.ask(Work::Trim { log: log.to_owned(), up_to }, 0).await.map(drop)
    }

    /// Forgets `log`: one that is begun again under its name starts at 1.
    ///
    /// # Errors
    /// What the disk says.
    pub async fn delete(&self, log: &str) -> Result<(), Error> {
        self.ask(Work::Delete { log: log.to_owned() }, 0).await.map(drop)
    }

    /// Which entries `log` has.
    ///
    /// # Errors
    /// [`Error::Damaged`] when it is not found and damage may have hidden it.
    pub fn extent(&self, log: &str) -> Result<Extent, Error> {
        Ok(self.row(log)?.map_or(Extent::EMPTY, |row| row.extent))
    }

    /// The names of the logs that begin with `prefix`, in order.
    pub fn names(&self, prefix: &str) -> Vec<String> {
        self.known.table.read().logs.range(prefix.to_owned()..).map(|(name, _)| name).take_while(|name| name.starts_with(prefix)).cloned().collect()
    }

    /// The blobs that entries lie in: those that a sweep must keep.
    ///
    /// # Errors
    /// [`Error::Damaged`] when the list may lack one: then nothing must be swept.
    pub fn blobs_named(&self) -> Result<HashSet<String>, Error> {
        if self.known.table.read().is_damaged {
            return Err(damaged("", None, "logs may be missing, and with them the names of blobs"));
        }
        self.connections.read(|connection| {
            let mut statement = connection.prepare_cached("SELECT log, number, is_blob, value, checksum FROM entry WHERE is_blob = 1")?;
            let mut rows = statement.query([])?;
            let mut named = HashSet::new();
            while let Some(row) = rows.next()? {
                let (log, number): (i64, i64) = (row.get(0)?, row.get(1)?);
                match sound(row, 2, log, number.cast_unsigned())? {
                    Some(stored) => drop(named.insert(String::from_utf8_lossy(&stored.value).into_owned())),
                    None => return Ok(Err(damaged(&format!("number {log}"), Some(number.cast_unsigned()), "its checksum does not match"))),
                }
            }
            Ok(Ok(named))
        })
    }

    /// Does what waits, then takes no more.
    pub(crate) fn close(&self) {
        self.writer.close();
    }

    async fn ask(&self, work: Work, bytes: usize) -> Answer {
        self.writer.queue().ask(work, bytes).await.unwrap_or(Err(Error::Closed))
    }

    fn row(&self, log: &str) -> Result<Option<Row>, Error> {
        let table = self.known.table.read();
        let found = table.logs.get(log).copied();
        if found.is_none() && table.is_damaged {
            return Err(damaged(log, None, "it is not found, and damage to logs.db may have hidden it"));
        }
        Ok(found)
    }

    /// The row once the table says what is on disk.
    fn row_settled(&self, log: &str) -> Result<Option<Row>, Error> {
        drop(self.known.batch.lock());
        self.row(log)
    }

    /// The value of one entry; `None` when it, or the blob that it lies in, is not there.
    fn entry(&self, log: &str, id: i64, number: u64) -> Result<Option<Vec<u8>>, Error> {
        let bad = || damaged(log, Some(number), "its checksum does not match");
        let found = self.connections.read(|connection| {
            let found = connection
                .prepare_cached("SELECT is_blob, value, checksum FROM entry WHERE log = ?1 AND number = ?2")?
                .query_row((id, number.cast_signed()), |row| sound(row, 0, id, number))
                .optional();
            match found {
                Ok(Some(None)) => Ok(Err(bad())),
                Ok(found) => Ok(Ok(found.flatten())),
                Err(error) if is_damage(&error) => Ok(Err(bad())),
                Err(error) => Err(error),
            }
        })?;
        match found {
            Some(Stored { is_blob: true, value }) => {
                let blob = String::from_utf8_lossy(&value).into_owned();
                self.blobs.read(&blob)
            }
            found => Ok(found.map(|stored| stored.value)),
        }
    }
}

fn name_check(log: &str) -> Result<(), Error> {
    if log.is_empty() || log.len() > KEY_MAX_BYTES {
        return Err(invalid(format_args!("a log's name must have 1 to {KEY_MAX_BYTES} bytes; this one has {}", log.len())));
    }
    Ok(())
}

fn stored(blobs: &Blobs, entry: Vec<u8>) -> Result<Stored, Error> {
    if entry.len() <= INLINE_MAX_BYTES {
        return Ok(Stored { is_blob: false, value: entry });
    }
    Ok(Stored { is_blob: true, value: blobs.put(&entry)?.into_bytes() })
}

fn damaged(log: &str, number: Option<u64>, reason: &'static str) -> Error {
    let key = number.map_or_else(|| format!("log {log}"), |number| format!("log {log}, entry {number}"));
    let error = Error::Damaged { key, reason };
    tracing::error!("{error}");
    error
}

/// The entry in the columns from `at`; `None` when it is not what was written.
fn sound(row: &rusqlite::Row<'_>, at: usize, log: i64, number: u64) -> rusqlite::Result<Option<Stored>> {
    let is_blob = row.get_ref(at)?.as_i64().unwrap_or(-1);
    let value = row.get_ref(at + 1)?.as_bytes().unwrap_or_default();
    let sum = row.get_ref(at + 2)?.as_i64().unwrap_or(-1);
    Ok((sum == entry_checksum(log, number, is_blob, value)).then(|| Stored { is_blob: is_blob == 1, value: value.to_vec() }))
}

fn entry_checksum(log: i64, number: u64, is_blob: i64, value: &[u8]) -> i64 {
    sum(&[&log.to_le_bytes(), &number.to_le_bytes(), &is_blob.to_le_bytes(), value])
}

fn sum(parts: &[&[u8]]) -> i64 {
    let mut hash = crc32fast::Hasher::new();
    parts.iter().for_each(|part| hash.update(part));
    i64::from(hash.finalize())
}

/// What is true of all logs.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
struct Head {
    last: i64,
    logs: i64,
    names: i64,
}

impl Head {
    fn checksum(self) -> i64 {
        sum(&[&self.last.to_le_bytes(), &self.logs.to_le_bytes(), &self.names.to_le_bytes()])
    }
}

fn head_write(connection: &Connection, head: Head) -> rusqlite::Result<()> {
    connection
        .prepare_cached("INSERT OR REPLACE INTO head (id, last, logs, names, checksum) VALUES (1, ?1, ?2, ?3, ?4)")?
        .execute((head.last, head.logs, head.names, head.checksum()))
        .map(drop)
}

/// Reads what is known of all logs. Damage is no error: it is said, and then answered for.
fn table_read(connection: &Connection) -> Result<Table, Error> {
    let mut table = Table::default();
    match table_fill(connection, &mut table) {
        Ok(()) => {}
        Err(error) if is_damage(&error) => table.is_damaged = true,
        Err(error) => return Err(Error::sqlite("read logs.db")(error)),
    }
    if table.is_damaged {
        // An id must never come twice, or the entries of a lost log would be another's.
        table.head.last = table.head.last.saturating_add(1 << 32);
        tracing::error!("logs.db is damaged: logs that are found are served, and one that is not found is answered with an error; restore it from a backup");
    }
    Ok(table)
}

fn table_fill(connection: &Connection, table: &mut Table) -> rusqlite::Result<()> {
    let head = connection
        .query_row("SELECT last, logs, names, checksum FROM head WHERE id = 1", [], |row| {
            let head = Head { last: row.get(0)?, logs: row.get(1)?, names: row.get(2)? };
            Ok((head.checksum() == row.get::<_, i64>(3)?).then_some(head))
        })
        .optional()?
        .flatten();
    let mut found = Head::default();
    let mut statement = connection.prepare("SELECT id, name, first, head, checksum FROM log")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let number = |at| row.get_ref(at).map(|value| value.as_i64().unwrap_or_default());
        let name = String::from_utf8_lossy(row.get_ref(1)?.as_bytes().unwrap_or_default()).into_owned();
        let extent = Extent { first: number(2)?.cast_unsigned(), head: number(3)?.cast_unsigned() };
        let log = Row { id: number(0)?, extent };
        found.last = found.last.max(log.id);
        if number(4)? == log.checksum(&name) {
            found.logs += 1;
            found.names = found.names.wrapping_add(sum(&[name.as_bytes()]));
            table.logs.insert(name, log);
        }
    }
    table.head = head.unwrap_or(found);
    table.is_damaged = head.is_none_or(|head| (head.logs, head.names) != (found.logs, found.names));
    Ok(())
}

impl Row {
    fn checksum(self, name: &str) -> i64 {
        sum(&[&self.id.to_le_bytes(), name.as_bytes(), &self.extent.first.to_le_bytes(), &self.extent.head.to_le_bytes()])
    }
}

struct Worker {
    path: PathBuf,
    /// None after a failure: the next batch opens a new one.
    connection: Option<Connection>,
    known: Arc<Known>,
}

impl Worker {
    fn run(mut self, queue: &Queue<Work, Answer>) {
        while let Some(batch) = queue.take() {
            self.batch(batch);
        }
    }

    fn batch(&mut self, jobs: Vec<Job>) {
        match self.transaction(&jobs) {
            Ok(numbers) => {
                for (job, number) in jobs.into_iter().zip(numbers) {
                    // A caller that has gone does not want to know.
                    let _ = job.answer.send(number);
                }
            }
            // One large append that does not fit must not take the small ones with it.
            Err(Error::Full(_)) if jobs.len() > 1 => jobs.into_iter().for_each(|job| self.batch(vec![job])),
            Err(error) => {
                tracing::error!(appends = jobs.len(), "nothing was written to logs.db: {error}");
                for job in jobs {
                    let _ = job.answer.send(Err(error.clone()));
                }
            }
        }
    }

    /// All of `jobs` in one transaction, on disk when this returns; or, with an error, none of them.
    fn transaction(&mut self, jobs: &[Job]) -> Result<Vec<Answer>, Error> {
        let known = self.known.clone();
        let _batch = known.batch.lock();
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => {
                let connection = database::open_as(&self.path, &LAYOUT)?;
                // A write whose sync failed may be there after all.
                *known.table.write() = table_read(&connection)?;
                connection
            }
        };
        let mut staged = Staged::new(&known.table);
        let answer = write(&mut connection, &mut staged, jobs);
        if answer.is_ok() {
            staged.publish();
        }
        // After a full disk the rollback is all that is needed; after anything else what SQLite holds in memory is not trusted.
        if matches!(answer, Ok(_) | Err(Error::Full(_))) {
            self.connection = Some(connection);
        }
        answer
    }
}

/// What a batch makes of the table. Nobody sees it before it is on disk, and it costs only what the batch touches.
struct Staged<'a> {
    table: &'a RwLock<Table>,
    /// `None` for a log that the batch deletes.
    rows: HashMap<String, Option<Row>>,
    head: Head,
    is_damaged: bool,
}

impl<'a> Staged<'a> {
    fn new(table: &'a RwLock<Table>) -> Self {
        let (head, is_damaged) = {
            let table = table.read();
            (table.head, table.is_damaged)
        };
        Self { table, rows: HashMap::new(), head, is_damaged }
    }

    fn row(&self, log: &str) -> Option<Row> {
        match self.rows.get(log) {
            Some(row) => *row,
            None => self.table.read().logs.get(log).copied(),
        }
    }

    fn set(&mut self, log: &str, row: Option<Row>) {
        self.rows.insert(log.to_owned(), row);
    }

    fn publish(self) {
        let mut table = self.table.write();
        for (log, row) in self.rows {
            match row {
                Some(row) => drop(table.logs.insert(log, row)),
                None => drop(table.logs.remove(&log)),
            }
        }
        table.head = self.head;
    }
}

fn write(connection: &mut Connection, staged: &mut Staged<'_>, jobs: &[Job]) -> Result<Vec<Answer>, Error> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(Error::sqlite("begin a transaction"))?;
    let head = staged.head;
    let mut answers = Vec::with_capacity(jobs.len());
    for job in jobs {
        answers.push(apply(&transaction, staged, &job.work).map_err(Error::sqlite("write a log"))?);
    }
    if staged.head != head {
        head_write(&transaction, staged.head).map_err(Error::sqlite("write the head of logs.db"))?;
    }
    transaction.commit().map_err(Error::sqlite("commit"))?;
    Ok(answers)
}

/// Does one job. The outer error is the disk's.
fn apply(transaction: &Transaction<'_>, staged: &mut Staged<'_>, work: &Work) -> rusqlite::Result<Answer> {
    let (Work::Append { log, .. } | Work::Trim { log, .. } | Work::Delete { log }) = work;
    if staged.is_damaged && staged.row(log).is_none() {
        return Ok(Err(damaged(log, None, "it is not found, and damage to logs.db may have hidden it")));
    }
    match work {
        Work::Append { log, entries } => {
            let mut row = staged.row(log).unwrap_or(Row { id: 0, extent: Extent::EMPTY });
            let number = row.extent.head + 1;
            if entries.is_empty() {
                return Ok(Ok(number));
            }
            if row.id == 0 {
                staged.head.last += 1;
                staged.head.logs += 1;
                staged.head.names = staged.head.names.wrapping_add(sum(&[log.as_bytes()]));
                row.id = staged.head.last;
            }
            let mut insert = transaction.prepare_cached("INSERT INTO entry (log, number, is_blob, value, checksum) VALUES (?1, ?2, ?3, ?4, ?5)")?;
            for entry in entries {
                row.extent.head += 1;
                let is_blob = i64::from(entry.is_blob);
                let checksum = entry_checksum(row.id, row.extent.head, is_blob, &entry.value);
                insert.execute((row.id, row.extent.head.cast_signed(), is_blob, &entry.value, checksum))?;
            }
            row_write(transaction, log, row)?;
            staged.set(log, Some(row));
            Ok(Ok(number))
        }
        Work::Trim { log, up_to } => {
            let Some(mut row) = staged.row(log).filter(|row| *up_to >= row.extent.first) else { return Ok(Ok(0)) };
            let up_to = row.extent.head.min(*up_to);
            row.extent.first = up_to + 1;
            transaction.prepare_cached("DELETE FROM entry WHERE log = ?1 AND number <= ?2")?.execute((row.id, up_to.cast_signed()))?;
            row_write(transaction, log, row)?;
            staged.set(log, Some(row));
            Ok(Ok(0))
        }
        Work::Delete { log } => {
            let Some(row) = staged.row(log) else { return Ok(Ok(0)) };
            staged.set(log, None);
            staged.head.logs -= 1;
            staged.head.names = staged.head.names.wrapping_sub(sum(&[log.as_bytes()]));
            transaction.prepare_cached("DELETE FROM entry WHERE log = ?1")?.execute([row.id])?;
            transaction.prepare_cached("DELETE FROM log WHERE id = ?1")?.execute([row.id])?;
            Ok(Ok(0))
        }
    }
}

fn row_write(transaction: &Transaction<'_>, name: &str, row: Row) -> rusqlite::Result<()> {
    transaction.prepare_cached("INSERT OR REPLACE INTO log (id, name, first, head, checksum) VALUES (?1, ?2, ?3, ?4, ?5)")?.execute((
        row.id,
        name,
        row.extent.first.cast_signed(),
        row.extent.head.cast_signed(),
        row.checksum(name),
    ))?;
    Ok(())
}
