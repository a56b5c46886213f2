//! Reading records.
//!
//! A read sees every commit that was answered before it began, and one read sees one moment of the store.

use std::{path::Path, sync::Arc};

use rusqlite::{OptionalExtension as _, params_from_iter};

use crate::{
    connections::Connections,
    database::RawRecord,
    error::Error,
    integrity::{Damage, is_damage},
    record::{Record, prefix_end},
};

pub(crate) struct Readers {
    damage: Arc<Damage>,
    connections: Connections,
}

impl Readers {
    pub(crate) fn open(path: &Path, damage: Arc<Damage>) -> Result<Self, Error> {
        Ok(Self { damage, connections: Connections::open(path)? })
    }

    pub(crate) fn get(&self, key: &str) -> Result<Option<Record>, Error> {
        self.connections.read(|connection| {
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
        self.connections.read(|connection| {
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
}
