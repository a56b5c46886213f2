//! Reading entries: walks over them by time, tests each with the filter, ends after a bounded amount of work.
//!
//! The range of times that a filter allows becomes the bounds of the walk. What the filter says of service, revision, log
//! and severity is decided on a row's head, so that the payloads of entries that do not match are not even read.

use std::{
    cell::OnceCell,
    collections::HashMap,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    sync::Arc,
    time::{Duration, Instant},
};

use model::log::{Entry, Payload, Source};
use parking_lot::{Condvar, Mutex};
use rusqlite::Connection;

use crate::{
    database::{self, ENTRY_COLUMNS, Error, Head, Place, entry_read, failed, insert_id, time_number},
    filter::{Filter, Subject},
};

/// Google's limit of a filter.
pub const FILTER_MAX_BYTES: usize = 20_000;
/// Google's limit of entries in one page.
pub const PAGE_MAX: usize = 1000;
/// Google's default of it.
const PAGE_DEFAULT: usize = 50;
/// What the payloads of one page may hold: a page is made in memory.
const PAGE_MAX_BYTES: usize = 16 << 20;
/// What one call may do: entries looked at, and time.
const ROWS_MAX: usize = 1_000_000;
const TIME_MAX: Duration = Duration::from_secs(2);
/// Calls at once; others wait for one of them.
const READERS_MAX: usize = 4;

/// Which entries, in which order.
#[derive(Clone, Debug, Default)]
pub struct Query {
    /// Entries of these projects only: none of them, no entries.
    pub projects: Vec<String>,
    /// Google's Logging query language; empty matches everything.
    pub filter: String,
    /// By timestamp, then by insertId, both ways.
    pub newest_first: bool,
    /// At most [`PAGE_MAX`]; 0 means Google's default, 50.
    pub limit: usize,
    /// `next` of the page before; the rest of the query must be the same.
    pub page: Option<String>,
}

/// A part of the answer.
#[derive(Clone, Debug, Default)]
pub struct Page {
    /// Each with its insertId: unique, rising.
    pub entries: Vec<(String, Entry)>,
    /// There may be more, even when this page is empty.
    pub next: Option<String>,
}

/// Why a query has no answer.
#[derive(Debug, thiserror::Error)]
pub enum QueryError {
    /// 1-based line and column of what was not understood.
    #[error("Unparseable filter: {0}")]
    Filter(String),
    /// The token is not one of this query's.
    #[error("page_token is not a token of a page of this request; leave it empty to begin anew")]
    Page,
    #[error(transparent)]
    Read(#[from] Error),
}

/// The connections that read.
pub(crate) struct Readers {
    place: Arc<Place>,
    rows_max: usize,
    pool: Mutex<Pool>,
    returned: Condvar,
}

#[derive(Default)]
struct Pool {
    /// Each with the generation of the file that it reads.
    idle: Vec<(u64, Connection)>,
    in_use: usize,
}

impl Readers {
    pub(crate) fn new(place: Arc<Place>) -> Self {
        Self { place, rows_max: ROWS_MAX, pool: Mutex::default(), returned: Condvar::new() }
    }

    pub(crate) fn entries(&self, query: &Query) -> Result<Page, QueryError> {
        if query.filter.len() > FILTER_MAX_BYTES {
            return Err(QueryError::Filter(format!("it has {} bytes; at most {FILTER_MAX_BYTES} are allowed", query.filter.len())));
        }
        let filter = Filter::parse(&query.filter).map_err(|error| QueryError::Filter(error.to_string()))?;
        let after = query.page.as_deref().map(|token| Position::parse(token, query).ok_or(QueryError::Page)).transpose()?;
        let walk = Walk { query, rows_max: self.rows_max, filter, after };
        let page = self.read(|connection| walk.run(connection))?;
        Ok(page)
    }

    /// Runs `read` with a connection; one that failed, or whose file was set aside, is not used again.
    fn read<T>(&self, read: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T, Error> {
        let generation = self.place.generation();
        let idle = {
            let mut pool = self.pool.lock();
            while pool.in_use >= READERS_MAX {
                self.returned.wait(&mut pool);
            }
            pool.in_use += 1;
            pool.idle.retain(|(made, _)| *made == generation);
            pool.idle.pop()
        };
        let connection = idle.map_or_else(|| self.place.open_reader(), |(_, connection)| Ok(connection));
        let answer = connection.and_then(|connection| {
            let answer = read(&connection).map_err(failed("read log entries"))?;
            Ok((answer, connection))
        });
        let mut pool = self.pool.lock();
        pool.in_use -= 1;
        let answer = answer.map(|(answer, connection)| {
            pool.idle.push((generation, connection));
            answer
        });
        drop(pool);
        self.returned.notify_one();
        answer
    }
}

/// A place in the order of entries.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Position {
    time: i64,
    id: i64,
}

impl Position {
    /// Text for the client, bound to its query.
    fn token(self, query: &Query) -> String {
        format!("{:016x}{:016x}{:016x}", self.time, self.id, query_hash(query))
    }

    fn parse(token: &str, query: &Query) -> Option<Self> {
        if token.len() != 48 || !token.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return None;
        }
        let number = |index: usize| u64::from_str_radix(&token[index * 16..][..16], 16).ok();
        if number(2)? != query_hash(query) {
            return None;
        }
        Some(Self { time: number(0)?.cast_signed(), id: number(1)?.cast_signed() })
    }
}

fn query_hash(query: &Query) -> u64 {
    let mut hash = DefaultHasher::new();
    (&query.projects, &query.filter, query.newest_first).hash(&mut hash);
    hash.finish()
}

struct Walk<'a> {
    query: &'a Query,
    rows_max: usize,
    filter: Filter,
    after: Option<Position>,
}

impl Walk<'_> {
    fn run(&self, connection: &Connection) -> rusqlite::Result<Page> {
        let limit = match self.query.limit {
            0 => PAGE_DEFAULT,
            limit => limit.min(PAGE_MAX),
        };
        let (from, to, sql) = self.bounds();
        let mut statement = connection.prepare_cached(&sql)?;
        let mut rows = statement.query([from.time, from.id, to.time, to.id])?;
        let mut sources = Sources { connection, known: HashMap::new() };
        let (start, mut count, mut bytes) = (Instant::now(), 0_usize, 0);
        let mut page = Page::default();
        let mut last = None;
        while let Some(row) = rows.next()? {
            let out_of_work = count >= self.rows_max || count % 256 == 255 && start.elapsed() >= TIME_MAX;
            if page.entries.len() == limit || bytes >= PAGE_MAX_BYTES || out_of_work {
                page.next = last.map(|last: Position| last.token(self.query));
                break;
            }
            count += 1;
            let Some(head) = Head::of(row)? else { continue };
            last = Some(Position { time: head.time, id: head.id });
            let Some(source) = sources.get(head.source)? else {
                continue;
            };
            if !self.query.projects.contains(&source.project) {
                continue;
            }
            let mut subject =
                Subject { id: head.id, time: head.timestamp(), severity: head.severity, log: head.log, source: &source, body: None, json: OnceCell::new() };
            let by_head = self.filter.matches(&subject);
            if by_head == Some(false) {
                continue;
            }
            let entry = entry_read(row, head, &source)?;
            subject.body = Some(&entry);
            if by_head == Some(true) || self.filter.matches(&subject) == Some(true) {
                bytes += payload_bytes(&entry);
                page.entries.push((insert_id(head.id), entry));
            }
        }
        Ok(page)
    }

    /// The first and the last place to look at, both looked at, and the statement that walks there.
    fn bounds(&self) -> (Position, Position, String) {
        let range = self.filter.time_range();
        let mut from = Position { time: time_number(range.from), id: i64::MIN };
        let mut to = Position { time: time_number(range.to), id: i64::MAX };
        let order = if self.query.newest_first { "DESC" } else { "ASC" };
        if let Some(after) = self.after {
            // The id is never at an end of its type, so the next one is there.
            if self.query.newest_first && (after.time, after.id) <= (to.time, to.id) {
                to = Position { id: after.id.saturating_sub(1), ..after };
            } else if !self.query.newest_first && (after.time, after.id) >= (from.time, from.id) {
                from = Position { id: after.id.saturating_add(1), ..after };
            }
        }
        let sql = format!("SELECT {ENTRY_COLUMNS} FROM entry WHERE (time, id) >= (?1, ?2) AND (time, id) <= (?3, ?4) ORDER BY time {order}, id {order}");
        (from, to, sql)
    }
}

/// The sources met in one walk.
struct Sources<'a> {
    connection: &'a Connection,
    known: HashMap<i64, Option<Arc<Source>>>,
}

impl Sources<'_> {
    /// `None` for entries whose source is gone.
    fn get(&mut self, id: i64) -> rusqlite::Result<Option<Arc<Source>>> {
        if let Some(known) = self.known.get(&id) {
            return Ok(known.clone());
        }
        let source = match database::source_read(self.connection, id) {
            Ok(source) => Some(Arc::new(source)),
            Err(rusqlite::Error::QueryReturnedNoRows) => None,
            Err(error) => return Err(error),
        };
        self.known.insert(id, source.clone());
        Ok(source)
    }
}

fn payload_bytes(entry: &Entry) -> usize {
    match &entry.payload {
        Payload::None => 0,
        Payload::Text(text) | Payload::Json(text) | Payload::Audit(text) => text.len(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{database::entry_insert, shape::tests::entry};

    #[test]
    fn a_call_looks_at_a_bounded_number_of_entries() {
        let folder = tempfile::tempdir().unwrap();
        let place = Arc::new(Place::new(folder.path()));
        let connection = place.open().unwrap();
        for id in 0..100 {
            let entry = entry(if id == 57 { "needle" } else { "hay" });
            let source = database::source_write(&connection, &entry.source, 0).unwrap();
            let mut insert = entry_insert(&connection).unwrap();
            database::entry_write(&mut insert, id, source, &entry, &mut Vec::new()).unwrap();
        }
        let readers = Readers { rows_max: 10, ..Readers::new(place) };
        let mut query = Query { projects: vec!["local-project".into()], filter: "needle".into(), limit: 5, ..Query::default() };
        let mut found = Vec::new();
        for call in 1.. {
            let page = readers.entries(&query).unwrap();
            found.extend(page.entries.into_iter().map(|(id, _)| id));
            query.page = page.next;
            if query.page.is_none() {
                assert_eq!(call, 10);
                break;
            }
        }
        assert_eq!(found, [insert_id(57)]);
    }
}
