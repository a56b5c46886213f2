//! `telemetry.db`: its schema, and how an entry lies in it. May lose its last second, and all of it when it is broken.
//!
//! One B-tree holds the entries by time (`WITHOUT ROWID`), so that writing is appending and there is no index beside it.
//! What all entries of a revision or build share is a row of `source`; payloads lie there as they are.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use model::{
    Timestamp,
    log::{Entry, HttpRequest, LogName, Payload, Severity, Source},
};
use rusqlite::{CachedStatement, Connection, OpenFlags, Row};
use serde::{Deserialize, Serialize};

use crate::shape::severity_of;

/// Why the file of the logs could not be opened or read. Nobody's request depends on it.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// A step on the file failed; the text names it.
    #[error("{0}")]
    Io(String),
}

pub(crate) fn failed(step: &'static str) -> impl FnOnce(rusqlite::Error) -> Error {
    move |error| Error::Io(format!("{step}: {error}"))
}

/// Persisted as `user_version`. A file of another format is set aside, not migrated: logs age.
const FORMAT: i64 = 1;

const SCHEMA: &str = "
CREATE TABLE source (
    id       INTEGER PRIMARY KEY,
    project  TEXT NOT NULL,
    region   TEXT NOT NULL,
    service  TEXT NOT NULL,
    revision TEXT NOT NULL,
    -- A build's id, or `job/` and the id of a job.
    build    TEXT NOT NULL,
    -- The last day (since 1970) that one of its entries can be of.
    day      INTEGER NOT NULL,
    UNIQUE (project, region, service, revision, build)
);
CREATE TABLE entry (
    time     INTEGER NOT NULL, -- nanoseconds since 1970
    id       INTEGER NOT NULL, -- insertId: unique, rising
    source   INTEGER NOT NULL,
    log      INTEGER NOT NULL,
    severity INTEGER NOT NULL,
    kind     INTEGER NOT NULL,
    payload  TEXT,
    about    TEXT,             -- JSON of what most entries do not have
    PRIMARY KEY (time, id)
) WITHOUT ROWID;";

/// Where the file is, and which one it is: it can be set aside while others read.
pub(crate) struct Place {
    path: PathBuf,
    /// Counts files. Connections of an earlier one are not used again.
    generation: AtomicU64,
}

impl Place {
    pub(crate) fn new(dir: &Path) -> Self {
        Self { path: dir.join("telemetry.db"), generation: AtomicU64::new(0) }
    }

    pub(crate) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Opens for writing; a file that is broken or of another format is set aside, and a new one takes its place.
    pub(crate) fn open(&self) -> Result<Connection, Error> {
        match self.open_as_it_is() {
            Err(Unusable::Broken(why)) => {
                self.set_aside(&why)?;
                self.open_as_it_is().map_err(Unusable::into_error)
            }
            other => other.map_err(Unusable::into_error),
        }
    }

    fn open_as_it_is(&self) -> Result<Connection, Unusable> {
        let mut connection = self.connect(OpenFlags::SQLITE_OPEN_CREATE)?;
        let transaction = connection.transaction()?;
        let format: i64 = transaction.query_row("PRAGMA user_version", [], |row| row.get(0))?;
        match format {
            0 => {
                transaction.execute_batch(SCHEMA)?;
                transaction.pragma_update(None, "user_version", FORMAT)?;
            }
            FORMAT => {}
            other => {
                return Err(Unusable::Broken(format!("it has the format {other} and not {FORMAT}")));
            }
        }
        transaction.commit()?;
        for (columns, table) in [(ENTRY_COLUMNS, "entry"), ("day", "source")] {
            connection.prepare(&format!("SELECT {columns} FROM {table} LIMIT 1"))?.exists([])?;
        }
        Ok(connection)
    }

    /// Moves the file away, over one that was set aside earlier, and says so.
    pub(crate) fn set_aside(&self, why: &dyn std::fmt::Display) -> Result<(), Error> {
        tracing::warn!("{} cannot be used ({why}); it is set aside with the ending .broken, and logs begin anew", self.path.display());
        for end in ["", "-wal", "-shm"] {
            let from = name_with(&self.path, end);
            let to = name_with(&self.path, &format!(".broken{end}"));
            match fs::rename(&from, &to) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(Error::Io(format!("rename {}: {error}", from.display())));
                }
                _ => {}
            }
        }
        self.generation.fetch_add(1, Ordering::AcqRel);
        Ok(())
    }

    /// Opens for reading.
    pub(crate) fn open_reader(&self) -> Result<Connection, Error> {
        let connection = self.connect(OpenFlags::empty()).map_err(failed("open telemetry.db"))?;
        connection.pragma_update(None, "query_only", true).map_err(failed("open telemetry.db"))?;
        Ok(connection)
    }

    fn connect(&self, more: OpenFlags) -> rusqlite::Result<Connection> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX | more;
        let connection = Connection::open_with_flags(&self.path, flags)?;
        connection.busy_timeout(Duration::from_secs(5))?;
        // NORMAL: a sync at a checkpoint only. The operating system's crash may cost the last batches, nothing else.
        connection.execute_batch(
            "PRAGMA journal_mode = WAL;
             PRAGMA synchronous = NORMAL;
             PRAGMA cache_size = -4096;
             PRAGMA journal_size_limit = 16777216;
             PRAGMA trusted_schema = OFF;",
        )?;
        Ok(connection)
    }
}

/// Why the file cannot be used as it is.
enum Unusable {
    /// Its content is not ours or damaged: another file would do.
    Broken(String),
    /// The disk or the folder does not do what it should: another file would not help.
    Failed(rusqlite::Error),
}

impl Unusable {
    fn into_error(self) -> Error {
        match self {
            Unusable::Broken(why) => Error::Io(format!("open telemetry.db: {why}")),
            Unusable::Failed(error) => failed("open telemetry.db")(error),
        }
    }
}

impl From<rusqlite::Error> for Unusable {
    fn from(error: rusqlite::Error) -> Self {
        // SQLite's plain error: a statement that does not fit the schema that is there.
        let is_schema = matches!(error, rusqlite::Error::SqlInputError { .. }) || error.sqlite_error_code() == Some(rusqlite::ErrorCode::Unknown);
        if is_schema || is_broken(&error) { Unusable::Broken(error.to_string()) } else { Unusable::Failed(error) }
    }
}

fn name_with(path: &Path, end: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(end);
    PathBuf::from(name)
}

/// Whether the file itself is broken, unlike a full disk.
pub(crate) fn is_broken(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(rusqlite::ErrorCode::DatabaseCorrupt | rusqlite::ErrorCode::NotADatabase))
}

/// Persisted.
pub(crate) fn log_number(log: LogName) -> i64 {
    match log {
        LogName::Requests => 1,
        LogName::Stdout => 2,
        LogName::Stderr => 3,
        LogName::System => 4,
        LogName::Build => 5,
        LogName::Executions => 6,
        LogName::Activity => 7,
        LogName::Push => 9,
    }
}

fn log_of(number: i64) -> Option<LogName> {
    LogName::ALL.into_iter().find(|log| log_number(*log) == number)
}

/// Nanoseconds since 1970; what an `i64` cannot hold (before 1677, after 2262) is its end.
pub(crate) fn time_number(time: Timestamp) -> i64 {
    let nanoseconds = time.as_nanosecond();
    i64::try_from(nanoseconds).unwrap_or(if nanoseconds < 0 { i64::MIN } else { i64::MAX })
}

fn time_of(number: i64) -> Timestamp {
    Timestamp::from_nanosecond(i128::from(number)).expect("every i64 of nanoseconds is between the years 1677 and 2262")
}

/// insertId: as long for all, so that texts rise as numbers do.
pub(crate) fn insert_id(id: i64) -> String {
    format!("{id:016x}")
}

/// The column `about`: what most entries do not have. Names are short because each row repeats them.
#[derive(Default, Serialize)]
struct AboutRef<'a> {
    #[serde(rename = "i", skip_serializing_if = "str::is_empty")]
    instance: &'a str,
    #[serde(rename = "m", skip_serializing_if = "str::is_empty")]
    managed_by: &'a str,
    #[serde(rename = "h", skip_serializing_if = "Option::is_none")]
    http: Option<HttpRow<&'a str>>,
    #[serde(rename = "t", skip_serializing_if = "str::is_empty")]
    trace: &'a str,
    #[serde(rename = "s", skip_serializing_if = "str::is_empty")]
    span: &'a str,
    #[serde(rename = "x", skip_serializing_if = "std::ops::Not::not")]
    trace_sampled: bool,
    #[serde(rename = "l", skip_serializing_if = "Option::is_none")]
    labels: Option<&'a std::collections::BTreeMap<String, String>>,
}

#[derive(Default, Deserialize)]
struct About {
    #[serde(rename = "i", default)]
    instance: String,
    #[serde(rename = "m", default)]
    managed_by: String,
    #[serde(rename = "h", default)]
    http: Option<HttpRow<String>>,
    #[serde(rename = "t", default)]
    trace: String,
    #[serde(rename = "s", default)]
    span: String,
    #[serde(rename = "x", default)]
    trace_sampled: bool,
    #[serde(rename = "l", default)]
    labels: std::collections::BTreeMap<String, String>,
}

/// Method, URL, request bytes, status, response bytes, user agent, remote IP, referer, latency in us, protocol.
type HttpRow<T> = (T, T, u64, u16, u64, T, T, T, u64, T);

fn http_row(http: &HttpRequest) -> HttpRow<&str> {
    (
        &http.method,
        &http.url,
        http.request_bytes,
        http.status,
        http.response_bytes,
        &http.user_agent,
        &http.remote_ip,
        &http.referer,
        http.latency_us,
        &http.protocol,
    )
}

fn http_of((method, url, request_bytes, status, response_bytes, user_agent, remote_ip, referer, latency_us, protocol): HttpRow<String>) -> HttpRequest {
    HttpRequest { method: method.into(), url, request_bytes, status, response_bytes, user_agent, remote_ip, referer, latency_us, protocol: protocol.into() }
}

/// The statement that [`entry_write`] runs, for a whole batch.
pub(crate) fn entry_insert(connection: &Connection) -> rusqlite::Result<CachedStatement<'_>> {
    connection.prepare_cached("INSERT INTO entry (time, id, source, log, severity, kind, payload, about) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)")
}

/// Writes one entry. `buffer` is reused from entry to entry.
pub(crate) fn entry_write(insert: &mut CachedStatement<'_>, id: i64, source: i64, entry: &Entry, buffer: &mut Vec<u8>) -> rusqlite::Result<()> {
    let about = AboutRef {
        instance: &entry.source.instance,
        managed_by: &entry.source.managed_by,
        http: entry.http.as_ref().map(http_row),
        trace: &entry.trace,
        span: &entry.span,
        trace_sampled: entry.trace_sampled,
        labels: Some(&entry.labels).filter(|labels| !labels.is_empty()),
    };
    buffer.clear();
    serde_json::to_writer(&mut *buffer, &about).expect("texts, numbers and a map of texts have a JSON");
    let about = std::str::from_utf8(buffer).expect("JSON is UTF-8");
    let (kind, payload) = match &entry.payload {
        Payload::None => (0, None),
        Payload::Text(text) => (1, Some(text.as_str())),
        Payload::Json(text) => (2, Some(text.as_str())),
        Payload::Audit(text) => (3, Some(text.as_str())),
    };
    insert
        .execute((time_number(entry.time), id, source, log_number(entry.log), entry.severity as i64, kind, payload, (about != "{}").then_some(about)))
        .map(|_| ())
}

pub(crate) const ENTRY_COLUMNS: &str = "time, id, source, log, severity, kind, payload, about";

/// What can be read of a row without touching its payload.
#[derive(Clone, Copy)]
pub(crate) struct Head {
    pub(crate) time: i64,
    pub(crate) id: i64,
    pub(crate) source: i64,
    pub(crate) log: LogName,
    pub(crate) severity: Severity,
}

impl Head {
    /// `None` for a row that is not ours to understand.
    pub(crate) fn of(row: &Row<'_>) -> rusqlite::Result<Option<Self>> {
        let (log, severity) = (log_of(row.get(3)?), severity_of(row.get(4)?));
        let (time, id, source) = (row.get(0)?, row.get(1)?, row.get(2)?);
        Ok(log.zip(severity).map(|(log, severity)| Self { time, id, source, log, severity }))
    }

    pub(crate) fn timestamp(&self) -> Timestamp {
        time_of(self.time)
    }
}

/// The whole entry of a row. `source` is that of the head, without an instance.
pub(crate) fn entry_read(row: &Row<'_>, head: Head, source: &Arc<Source>) -> rusqlite::Result<Entry> {
    let kind: i64 = row.get(5)?;
    let payload = match kind {
        1 => Payload::Text(row.get(6)?),
        2 => Payload::Json(row.get(6)?),
        3 => Payload::Audit(row.get(6)?),
        _ => Payload::None,
    };
    let about = row.get_ref(7)?.as_str_or_null()?.map(serde_json::from_str::<About>);
    let about = about.transpose().ok().flatten().unwrap_or_default();
    let is_plain = about.instance.is_empty() && about.managed_by.is_empty();
    let source = if is_plain { source.clone() } else { Arc::new(Source { instance: about.instance, managed_by: about.managed_by, ..(**source).clone() }) };
    Ok(Entry {
        source,
        log: head.log,
        time: head.timestamp(),
        severity: head.severity,
        payload,
        http: about.http.map(http_of),
        trace: about.trace,
        span: about.span,
        trace_sampled: about.trace_sampled,
        labels: about.labels,
    })
}

/// What a job's id is kept behind.
const JOB: &str = "job/";

/// The row `id` of `source`.
pub(crate) fn source_read(connection: &Connection, id: i64) -> rusqlite::Result<Source> {
    connection.prepare_cached("SELECT project, region, service, revision, build FROM source WHERE id = ?1")?.query_row([id], |row| {
        let made: String = row.get(4)?;
        // Ids of builds hold no slash.
        let (build, job) = match made.strip_prefix(JOB) {
            Some(job) => (String::new(), job.to_owned()),
            None => (made, String::new()),
        };
        let [instance, managed_by] = Default::default();
        Ok(Source { project: row.get(0)?, region: row.get(1)?, service: row.get(2)?, revision: row.get(3)?, build, job, instance, managed_by })
    })
}

/// The row of `source`, made when it is not there, good until `day`.
pub(crate) fn source_write(connection: &Connection, source: &Source, day: i64) -> rusqlite::Result<i64> {
    let made = if source.job.is_empty() { source.build.clone() } else { format!("{JOB}{}", source.job) };
    connection
        .prepare_cached(
            "INSERT INTO source (project, region, service, revision, build, day) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
             ON CONFLICT DO UPDATE SET day = max(day, excluded.day) RETURNING id",
        )?
        .query_row((&source.project, &source.region, &source.service, &source.revision, &made, day), |row| row.get(0))
}
