//! `state.db`: its schema, its settings, and how one record lies in it.
//!
//! One B-tree holds the records by key (`WITHOUT ROWID`), so that one walk in order proves that every lookup finds what
//! is there. Beside it one row, the head: the store's revision, how many records there are and what their keys sum up to.

use std::{fs::OpenOptions, os::unix::fs::OpenOptionsExt, path::Path, time::Duration};

use rusqlite::{Connection, OpenFlags, OptionalExtension as _, Row, TransactionBehavior};

use crate::{durable::SYNCS, error::Error};

/// Persisted as `user_version`; a change of the schema counts it up and migrates.
pub(crate) const FORMAT: i64 = 1;
/// `tane`: tells SQLite's file(1) magic and us whose database it is.
const APPLICATION_ID: i64 = 0x7461_6e65;

const SCHEMA: &str = "
CREATE TABLE record (
    key      TEXT PRIMARY KEY NOT NULL,
    value    BLOB NOT NULL,
    revision INTEGER NOT NULL,
    -- CRC-32 of the key in the upper half, of key, revision and value in the lower one.
    checksum INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE head (
    id       INTEGER PRIMARY KEY CHECK (id = 1),
    revision INTEGER NOT NULL,
    records  INTEGER NOT NULL,
    -- The sum of the CRC-32 of all keys.
    keys     INTEGER NOT NULL,
    checksum INTEGER NOT NULL
);";

/// Opens `state.db` for the committer, and makes it when it is not there.
///
/// # Errors
/// [`Error::Newer`] and [`Error::Foreign`] before anything is written.
pub(crate) fn open(path: &Path) -> Result<Connection, Error> {
    let layout = Layout { application: APPLICATION_ID, format: FORMAT, schema: SCHEMA, first: |connection| head_write(connection, Head::default()) };
    let connection = open_as(path, &layout)?;
    // What a deleted record held (keys, tokens' hashes, sealed secrets) is overwritten, not only unlinked.
    connection.pragma_update_and_check(None, "secure_delete", true, |_| Ok(())).map_err(Error::sqlite("settings of a database of the store"))?;
    Ok(connection)
}

/// What makes a database of the store one of its kind.
pub(crate) struct Layout {
    pub(crate) application: i64,
    pub(crate) format: i64,
    pub(crate) schema: &'static str,
    /// What is written when it is made.
    pub(crate) first: fn(&Connection) -> rusqlite::Result<()>,
}

/// Opens a database for the thread that writes it, and makes it when it is not there.
///
/// # Errors
/// [`Error::Newer`] and [`Error::Foreign`] before anything is written.
pub(crate) fn open_as(path: &Path, layout: &Layout) -> Result<Connection, Error> {
    // Made here so that only its owner may read it; SQLite gives its other files the same mode.
    OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path).map_err(|error| Error::io("create", path, error))?;
    let mut connection = Connection::open_with_flags(path, flags()).map_err(Error::sqlite("open a database of the store"))?;
    format_check(&connection, path, layout)?;
    settings(&connection)?;
    schema_make(&mut connection, layout)?;
    Ok(connection)
}

/// Opens a database, which is there, for reading.
pub(crate) fn open_reader(path: &Path) -> Result<Connection, Error> {
    let connection = Connection::open_with_flags(path, flags()).map_err(Error::sqlite("open a database of the store"))?;
    settings(&connection)?;
    connection.pragma_update(None, "query_only", true).map_err(Error::sqlite("settings of a database of the store"))?;
    Ok(connection)
}

fn flags() -> OpenFlags {
    OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX
}

fn format_check(connection: &Connection, path: &Path, layout: &Layout) -> Result<(), Error> {
    let number = |name: &str| {
        connection.query_row(&format!("PRAGMA {name}"), [], |row| row.get::<_, i64>(0)).map_err(Error::sqlite("read the format of a database of the store"))
    };
    let (format, application) = (number("user_version")?, number("application_id")?);
    let tables: i64 = connection
        .query_row("SELECT count(*) FROM sqlite_master", [], |row| row.get(0))
        .map_err(Error::sqlite("read the format of a database of the store"))?;
    if tables > 0 && application != layout.application {
        return Err(Error::Foreign { path: path.to_owned() });
    }
    if format > layout.format {
        return Err(Error::Newer { path: path.to_owned(), found: format, known: layout.format });
    }
    Ok(())
}

fn settings(connection: &Connection) -> Result<(), Error> {
    let set = |name: &str, value: &str| {
        connection
            .pragma_update_and_check(None, name, value, |_| Ok(()))
            .or_else(|error| match error {
                rusqlite::Error::QueryReturnedNoRows => Ok(()),
                other => Err(other),
            })
            .map_err(Error::sqlite("settings of a database of the store"))
    };
    // Others hold locks only for moments (recovery, a checkpoint's end); waiting is right, for ever is not.
    connection.busy_timeout(Duration::from_secs(10)).map_err(Error::sqlite("settings of a database of the store"))?;
    set("synchronous", if SYNCS { "FULL" } else { "OFF" })?;
    set("journal_mode", "WAL")?;
    set("trusted_schema", "OFF")?;
    set("cell_size_check", "ON")?;
    // KiB when negative: the operating system's cache lies below.
    set("cache_size", "-2048")?;
    // A burst's WAL is cut back to this after its checkpoint.
    set("journal_size_limit", "67108864")?;
    Ok(())
}

fn schema_make(connection: &mut Connection, layout: &Layout) -> Result<(), Error> {
    let step = "make the schema of a database of the store";
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(Error::sqlite(step))?;
    let format: i64 = transaction.query_row("PRAGMA user_version", [], |row| row.get(0)).map_err(Error::sqlite(step))?;
    if format == 0 {
        transaction.execute_batch(layout.schema).map_err(Error::sqlite(step))?;
        (layout.first)(&transaction).map_err(Error::sqlite(step))?;
        transaction.pragma_update(None, "application_id", layout.application).map_err(Error::sqlite(step))?;
        transaction.pragma_update(None, "user_version", layout.format).map_err(Error::sqlite(step))?;
    }
    transaction.commit().map_err(Error::sqlite(step))
}

/// What is true of the whole store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Head {
    /// Of the last commit.
    pub(crate) revision: u64,
    pub(crate) records: i64,
    /// The wrapping sum of the CRC-32 of all keys: with `records` it proves that no record is missing.
    pub(crate) keys: i64,
}

impl Head {
    fn checksum(self) -> i64 {
        let mut hash = crc32fast::Hasher::new();
        hash.update(&self.revision.to_le_bytes());
        hash.update(&self.records.to_le_bytes());
        hash.update(&self.keys.to_le_bytes());
        i64::from(hash.finalize())
    }
}

/// The head; `None` when it is missing or damaged.
pub(crate) fn head_read(connection: &Connection) -> rusqlite::Result<Option<Head>> {
    let row = connection
        .query_row("SELECT revision, records, keys, checksum FROM head WHERE id = 1", [], |row| {
            let head = Head { revision: row.get::<_, i64>(0)?.cast_unsigned(), records: row.get(1)?, keys: row.get(2)? };
            Ok((head, row.get::<_, i64>(3)?))
        })
        .optional()?;
    Ok(row.and_then(|(head, checksum)| (head.checksum() == checksum).then_some(head)))
}

pub(crate) fn head_write(connection: &Connection, head: Head) -> rusqlite::Result<()> {
    connection
        .prepare_cached("INSERT OR REPLACE INTO head (id, revision, records, keys, checksum) VALUES (1, ?1, ?2, ?3, ?4)")?
        .execute((head.revision.cast_signed(), head.records, head.keys, head.checksum()))
        .map(|_| ())
}

/// What stands in the column `checksum`.
pub(crate) fn checksum(key: &[u8], revision: u64, value: &[u8]) -> i64 {
    let mut hash = crc32fast::Hasher::new();
    hash.update(key);
    hash.update(&revision.to_le_bytes());
    hash.update(value);
    key_checksum(key) << 32 | i64::from(hash.finalize())
}

pub(crate) fn key_checksum(key: &[u8]) -> i64 {
    i64::from(crc32fast::hash(key))
}

/// A row of `SELECT key, value, revision, checksum`, as it lies there.
pub(crate) struct RawRecord<'a> {
    pub(crate) key: &'a [u8],
    pub(crate) value: &'a [u8],
    pub(crate) revision: u64,
    checksum: i64,
}

impl<'a> RawRecord<'a> {
    /// A flipped bit may also have changed a column's type: then the record is as damaged as any other.
    pub(crate) fn of(row: &'a Row<'_>) -> rusqlite::Result<Self> {
        let bytes = |index| row.get_ref(index).map(|value| value.as_bytes().unwrap_or_default());
        let number = |index| row.get_ref(index).map(|value| value.as_i64().unwrap_or_default());
        Ok(Self { key: bytes(0)?, value: bytes(1)?, revision: number(2)?.cast_unsigned(), checksum: number(3)? })
    }

    /// Whether it is what was written.
    pub(crate) fn is_sound(&self) -> bool {
        self.checksum == checksum(self.key, self.revision, self.value)
    }

    /// Whether at least the key is what was written.
    pub(crate) fn is_key_sound(&self) -> bool {
        let whole = checksum(self.key, self.revision, self.value);
        self.checksum >> 32 == whole >> 32 || self.checksum as u32 == whole as u32
    }
}
