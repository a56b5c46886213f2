//! Finding damage: bytes on disk that are not those that were written.
//!
//! Each record proves itself at each read by its checksum. That nothing is *missing* is proven by one walk over the
//! B-tree in order at open: the keys rise, and their number and sum are those of the head. When the walk fails, what is
//! found is still served, and "not there" is refused as an answer for the rest. Repair is not done here.

use std::{
    collections::BTreeSet,
    sync::atomic::{AtomicBool, Ordering},
};

use parking_lot::Mutex;
use rusqlite::Connection;

use crate::{
    database::{self, Head, RawRecord, key_checksum},
    error::Error,
};

/// What is known to be damaged.
#[derive(Default)]
pub(crate) struct Damage {
    keys: Mutex<BTreeSet<String>>,
    absence_unproven: AtomicBool,
}

impl Damage {
    /// Notes a damaged record, and says so the first time.
    pub(crate) fn key_note(&self, key: &str) -> Error {
        let error = Error::Damaged { key: key.to_owned(), reason: "its checksum does not match" };
        if self.keys.lock().insert(key.to_owned()) {
            tracing::error!("{error}");
        }
        error
    }

    /// A record that was written anew is damaged no more.
    pub(crate) fn key_forget(&self, key: &str) {
        self.keys.lock().remove(key);
    }

    /// Whether "there is no record `key`" may be answered.
    ///
    /// # Errors
    /// [`Error::Damaged`] when records are missing whose names are not known.
    pub(crate) fn absence_check(&self, key: &str) -> Result<(), Error> {
        if self.absence_unproven.load(Ordering::Acquire) {
            return Err(Error::Damaged { key: key.to_owned(), reason: "it is not found, and damage to state.db may have hidden it" });
        }
        Ok(())
    }

    fn absence_unproven_note(&self, why: &str) {
        self.absence_unproven.store(true, Ordering::Release);
        tracing::error!(
            "state.db is damaged: {why}; what is found is served, and a key that is not found is answered with an error; restore state.db from a backup"
        );
    }

    /// Whether every record that was ever committed is there and good, as far as is known.
    pub(crate) fn is_none(&self) -> bool {
        !self.absence_unproven.load(Ordering::Acquire) && self.keys.lock().is_empty()
    }

    pub(crate) fn keys(&self) -> Vec<String> {
        self.keys.lock().iter().cloned().collect()
    }
}

/// Walks over all records, notes what is damaged, and answers with the head to go on from.
///
/// Costs one read of the file.
pub(crate) fn verify(connection: &Connection, damage: &Damage) -> Result<Head, Error> {
    let head = match database::head_read(connection) {
        Ok(Some(head)) => Some(head),
        Ok(None) => None,
        Err(error) if is_damage(&error) => None,
        Err(error) => return Err(Error::sqlite("read the head of state.db")(error)),
    };
    let mut found = Walk::default();
    match found.run(connection, damage) {
        Ok(()) => {}
        Err(error) if is_damage(&error) => found.flaw = Some("its pages do not hang together"),
        Err(error) => return Err(Error::sqlite("verify state.db")(error)),
    }
    match (head, found.flaw) {
        (Some(head), None) if head.records == found.head.records && head.keys == found.head.keys => Ok(head),
        // The count and the sum go on from what they were: what is missing stays missing at the next open too.
        (Some(head), flaw) => {
            damage.absence_unproven_note(flaw.unwrap_or("records are missing"));
            Ok(Head { revision: head.revision.max(found.head.revision), ..head })
        }
        (None, flaw) => {
            damage.absence_unproven_note(flaw.unwrap_or("its head is damaged"));
            Ok(Head {
                // Revisions must never come twice; what deleted records had is not known, so a wide step is taken.
                revision: found.head.revision.saturating_add(1 << 32),
                // A count that no walk finds: whether all are here is not known, today or later.
                records: found.head.records + 1,
                ..found.head
            })
        }
    }
}

#[derive(Default)]
struct Walk {
    head: Head,
    last: Option<Vec<u8>>,
    flaw: Option<&'static str>,
}

impl Walk {
    fn run(&mut self, connection: &Connection, damage: &Damage) -> rusqlite::Result<()> {
        let mut statement = connection.prepare("SELECT key, value, revision, checksum FROM record ORDER BY key")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            self.record(&RawRecord::of(row)?, damage);
        }
        Ok(())
    }

    fn record(&mut self, record: &RawRecord<'_>, damage: &Damage) {
        self.head.records += 1;
        self.head.keys = self.head.keys.wrapping_add(key_checksum(record.key));
        if record.is_sound() {
            self.head.revision = self.head.revision.max(record.revision);
        } else {
            let _ = damage.key_note(&String::from_utf8_lossy(record.key));
            if !record.is_key_sound() {
                self.flaw = Some("the key of a record is");
            }
        }
        if self.last.as_deref().is_some_and(|last| last >= record.key) {
            self.flaw = Some("its keys are out of order");
        }
        let last = self.last.get_or_insert_default();
        last.clear();
        last.extend_from_slice(record.key);
    }
}

/// Whether SQLite says that the file's content is wrong, unlike a disk that does not answer.
pub(crate) fn is_damage(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(rusqlite::ErrorCode::DatabaseCorrupt | rusqlite::ErrorCode::NotADatabase))
}
