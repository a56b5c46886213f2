//! The connections that read: a few, made when needed, each used by one caller at a time.
//!
//! A read sees every commit that was answered before it began, and one read sees one moment of the store.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use parking_lot::{Condvar, Mutex};
use rusqlite::{Connection, OptionalExtension as _, params_from_iter};

use crate::{
    database::{self, RawRecord},
    error::Error,
    integrity::{Damage, is_damage},
    record::{Record, prefix_end},
};

/// A read takes microseconds, so more would only wait for the same cores.
const CONNECTIONS_MAX: usize = 8;

pub(crate) struct Readers {
    path: PathBuf,
    damage: Arc<Damage>,
    pool: Mutex<Pool>,
    returned: Condvar,
}

#[derive(Default)]
struct Pool {
    idle: Vec<Connection>,
    /// Idle ones and those in use.
    count: usize,
}

impl Readers {
    /// Keeps one connection open from the start: as long as there is one, a new connection of the committer takes the
    /// state of the WAL from memory and not from what a failed write may have left in the file.
    pub(crate) fn open(path: &Path, damage: Arc<Damage>) -> Result<Self, Error> {
        let first = database::open_reader(path)?;
        // Begins to use the WAL, which opening alone does not.
        first.query_row("SELECT count(*) FROM head", [], |_| Ok(())).map_err(Error::sqlite("read state.db"))?;
        Ok(Self { path: path.to_owned(), damage, pool: Mutex::new(Pool { idle: vec![first], count: 1 }), returned: Condvar::new() })
    }

    pub(crate) fn get(&self, key: &str) -> Result<Option<Record>, Error> {
        self.read(|connection| {
            let found = connection
                .prepare_cached("SELECT key, value, revision, checksum FROM record WHERE key = ?1")?
                .query_row([key], |row| {
                    let raw = RawRecord::of(row)?;
                    // By the key that was asked for: it is the one that the answer speaks of.
                    let sound = raw.is_sound() && raw.key == key.as_bytes();
                    Ok(sound.then(|| Record { key: key.to_owned(), value: raw.value.into(), revision: raw.revision }))
                })
                .optional();
            match found {
                Ok(Some(Some(record))) => Ok(Ok(Some(record))),
                Ok(Some(None)) => Ok(Err(self.damage.key_note(key))),
                Ok(None) => Ok(self.damage.absence_check(key).map(|()| None)),
                Err(error) if is_damage(&error) => Ok(Err(self.damage.key_note(key))),
                Err(error) => Err(error),
            }
        })
    }

    pub(crate) fn scan(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<Vec<Record>, Error> {
        if limit == 0 {
            return Ok(Vec::new());
        }
        // `after` lies before the prefix, in it, or behind it (then nothing follows).
        let (from, condition) = match after {
            Some(after) if after >= prefix => (after, ">"),
            _ => (prefix, ">="),
        };
        let end = prefix_end(prefix);
        let upper = if end.is_some() { " AND key < ?2" } else { "" };
        let sql = format!("SELECT key, value, revision, checksum FROM record WHERE key {condition} ?1{upper} ORDER BY key");
        self.read(|connection| {
            let mut statement = connection.prepare_cached(&sql)?;
            let mut rows = statement.query(params_from_iter([from].into_iter().chain(end.as_deref())))?;
            let mut records = Vec::new();
            // Stops by count and not by LIMIT: damaged records do not count, and fewer than `limit` means the end.
            while let Some(row) = rows.next()? {
                let raw = RawRecord::of(row)?;
                match std::str::from_utf8(raw.key) {
                    Ok(key) if raw.is_sound() => {
                        records.push(Record { key: key.to_owned(), value: raw.value.into(), revision: raw.revision });
                    }
                    _ => drop(self.damage.key_note(&String::from_utf8_lossy(raw.key))),
                }
                if records.len() == limit {
                    break;
                }
            }
            Ok(Ok(records))
        })
    }

    /// Runs `read` with a connection. One that SQLite failed on is not used again.
    fn read<T>(&self, read: impl FnOnce(&Connection) -> rusqlite::Result<Result<T, Error>>) -> Result<T, Error> {
        let connection = self.take()?;
        let answer = read(&connection);
        self.give_back(answer.is_ok().then_some(connection));
        answer.map_err(Error::sqlite("read state.db"))?
    }

    fn take(&self) -> Result<Connection, Error> {
        let mut pool = self.pool.lock();
        loop {
            if let Some(connection) = pool.idle.pop() {
                return Ok(connection);
            }
            if pool.count < CONNECTIONS_MAX {
                pool.count += 1;
                break;
            }
            self.returned.wait(&mut pool);
        }
        drop(pool);
        database::open_reader(&self.path).inspect_err(|_| self.give_back(None))
    }

    fn give_back(&self, connection: Option<Connection>) {
        let mut pool = self.pool.lock();
        match connection {
            Some(connection) => pool.idle.push(connection),
            None => pool.count -= 1,
        }
        drop(pool);
        self.returned.notify_one();
    }
}
