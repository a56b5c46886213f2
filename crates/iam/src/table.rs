//! The records of one kind, in memory, so that a check reads no disk.
//!
//! A table learns of a change twice: from the commit that made it here, at once, and from the store's watch, which
//! also brings the changes of other writers. Revisions order the two: a change older than what is there is dropped.
//! A deleted row stays as a tombstone until the watch has passed the deletion, or a late older change would bring it back.
//!
//! It does not write: a change is applied only after its commit.

use std::{collections::HashMap, sync::Arc};

use model::Status;
use parking_lot::RwLock;
use store::Store;

/// Rows read from the store at a time.
const PAGE: usize = 1000;

/// The records under `prefix`, by what comes after it.
pub(crate) struct Table<V> {
    prefix: &'static str,
    /// The part of a key, after the prefix, by which a row is looked up.
    name: fn(&str) -> &str,
    parse: fn(&[u8]) -> Result<V, ParseError>,
    keeps_unreadable: bool,
    rows: RwLock<HashMap<Box<str>, Row<V>>>,
}

/// Why a record could not be read; says nothing of its content, which may be secret.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ParseError {
    #[error("not the JSON of this kind of record: {0}")]
    Json(#[from] serde_json::Error),
    #[error("{0}")]
    Content(String),
}

struct Row<V> {
    revision: u64,
    /// `None`: deleted at `revision`.
    value: Option<Arc<V>>,
}

/// Who brings a change.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    Commit,
    Watch,
}

impl<V> Table<V> {
    pub(crate) fn new(prefix: &'static str, name: fn(&str) -> &str, parse: fn(&[u8]) -> Result<V, ParseError>) -> Self {
        Self { prefix, name, parse, keeps_unreadable: false, rows: RwLock::new(HashMap::new()) }
    }

    /// Of records that forbid: a row stays as it was when a change of it cannot be read.
    pub(crate) fn keeping_unreadable(self) -> Self {
        Self { keeps_unreadable: true, ..self }
    }

    pub(crate) fn prefix(&self) -> &'static str {
        self.prefix
    }

    /// Reads all records anew.
    ///
    /// # Errors
    /// `INTERNAL`, naming the record that cannot be read: half an identity store is not one to start with.
    pub(crate) fn load(&self, store: &Store) -> Result<(), Status> {
        // Held over the scan: a commit applied meanwhile waits and then finds the newer rows.
        let mut rows = self.rows.write();
        let mut read = HashMap::new();
        let mut after: Option<String> = None;
        loop {
            let page = store.scan(self.prefix, after.as_deref(), PAGE).map_err(Status::internal)?;
            let last = page.len() < PAGE;
            after = page.last().map(|record| record.key.clone());
            for record in page {
                let value = (self.parse)(&record.value).map_err(|error| Status::internal(format!("record {}: {error}", record.key)))?;
                let name = (self.name)(&record.key[self.prefix.len()..]);
                read.insert(Box::from(name), Row { revision: record.revision, value: Some(Arc::new(value)) });
            }
            if last {
                break;
            }
        }
        *rows = read;
        Ok(())
    }

    /// Applies one change. A record that cannot be read counts as gone, so that what it allowed is denied; of records that forbid the last
    /// that could be read stays.
    pub(crate) fn apply(&self, key: &str, value: Option<&[u8]>, revision: u64, source: Source) {
        let Some(rest) = key.strip_prefix(self.prefix) else {
            return;
        };
        let name = (self.name)(rest);
        let value = match value.map(self.parse).transpose() {
            Ok(value) => value.map(Arc::new),
            Err(error) if self.keeps_unreadable => {
                tracing::error!(key, %error, "unreadable record; what was there before stays");
                return;
            }
            Err(error) => {
                tracing::error!(key, %error, "unreadable record; treated as deleted");
                None
            }
        };
        let mut rows = self.rows.write();
        if rows.get(name).is_some_and(|row| row.revision > revision) {
            return;
        }
        if value.is_none() && source == Source::Watch {
            rows.remove(name);
        } else {
            rows.insert(Box::from(name), Row { revision, value });
        }
    }

    pub(crate) fn get(&self, name: &str) -> Option<Arc<V>> {
        self.rows.read().get(name)?.value.clone()
    }

    /// The row and the revision that wrote it.
    pub(crate) fn get_revision(&self, name: &str) -> Option<(Arc<V>, u64)> {
        let rows = self.rows.read();
        let row = rows.get(name)?;
        Some((row.value.clone()?, row.revision))
    }

    /// Looks at a row in place; `None` when it is not there.
    pub(crate) fn look<R>(&self, name: &str, look: impl FnOnce(&V) -> R) -> Option<R> {
        self.rows.read().get(name)?.value.as_deref().map(look)
    }

    pub(crate) fn contains(&self, name: &str) -> bool {
        self.look(name, |_| ()).is_some()
    }

    /// The rows that `keep` holds for, in no order.
    pub(crate) fn select(&self, keep: impl Fn(&str, &V) -> bool) -> Vec<Arc<V>> {
        self.rows.read().iter().filter_map(|(name, row)| row.value.as_ref().filter(|value| keep(name, value)).cloned()).collect()
    }

    /// The same with each row's name and revision.
    pub(crate) fn select_rows(&self, keep: impl Fn(&str, &V) -> bool) -> Vec<(String, Arc<V>, u64)> {
        let rows = self.rows.read();
        rows.iter()
            .filter_map(|(name, row)| {
                let value = row.value.as_ref().filter(|value| keep(name, value))?;
                Some((name.to_string(), value.clone(), row.revision))
            })
            .collect()
    }

    /// Whether `holds` for some row.
    pub(crate) fn any(&self, holds: impl Fn(&V) -> bool) -> bool {
        self.rows.read().values().any(|row| row.value.as_deref().is_some_and(&holds))
    }

    /// How many rows `keep` holds for.
    pub(crate) fn count(&self, keep: impl Fn(&str, &V) -> bool) -> usize {
        self.rows.read().iter().filter(|(name, row)| row.value.as_ref().is_some_and(|value| keep(name, value))).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table<String> {
        Table::new("thing/", |rest| rest, |bytes| String::from_utf8(bytes.to_vec()).map_err(|e| ParseError::Content(e.to_string())))
    }

    fn check(changes: &[(Option<&str>, u64, Source)], expect: Option<&str>) {
        let table = table();
        for (value, revision, source) in changes {
            table.apply("thing/a", value.map(str::as_bytes), *revision, *source);
        }
        assert_eq!(table.get("a").as_deref().map(String::as_str), expect, "{}", changes.len());
    }

    #[test]
    fn newer_revisions_win_whoever_brings_them() {
        use Source::{Commit, Watch};
        check(&[], None);
        check(&[(Some("x"), 1, Commit)], Some("x"));
        check(&[(Some("x"), 1, Commit), (Some("x"), 1, Watch)], Some("x"));
        check(&[(Some("y"), 2, Commit), (Some("x"), 1, Watch)], Some("y"));
        check(&[(Some("x"), 1, Watch), (Some("y"), 2, Watch)], Some("y"));
        check(&[(Some("x"), 1, Commit), (None, 2, Commit)], None);
    }

    #[test]
    fn late_watch_does_not_bring_back_a_deleted_row() {
        use Source::{Commit, Watch};
        check(&[(Some("x"), 5, Commit), (None, 6, Commit), (Some("x"), 5, Watch)], None);
        check(&[(Some("x"), 5, Commit), (None, 6, Commit), (Some("x"), 5, Watch), (None, 6, Watch)], None);
        check(&[(None, 6, Commit), (None, 6, Watch), (Some("z"), 7, Watch)], Some("z"));
    }

    #[test]
    fn tombstones_go_when_the_watch_has_passed() {
        let table = table();
        table.apply("thing/a", Some(b"x"), 1, Source::Commit);
        table.apply("thing/a", None, 2, Source::Commit);
        assert_eq!(table.rows.read().len(), 1);
        table.apply("thing/a", None, 2, Source::Watch);
        assert_eq!(table.rows.read().len(), 0);
    }

    #[test]
    fn unreadable_records_and_other_kinds_are_not_there() {
        let table = table();
        table.apply("thing/a", Some(b"\xff"), 1, Source::Watch);
        table.apply("other/a", Some(b"x"), 2, Source::Watch);
        assert_eq!(table.get("a"), None);
        table.apply("thing/a", Some(b"x"), 3, Source::Watch);
        table.apply("thing/a", Some(b"\xff"), 4, Source::Watch);
        assert_eq!(table.get("a"), None);
    }

    #[test]
    fn what_forbids_stays_until_it_can_be_read_again() {
        let table = table().keeping_unreadable();
        let get = || table.get("a").as_deref().cloned();
        table.apply("thing/a", Some(b"x"), 1, Source::Watch);
        table.apply("thing/a", Some(b"\xff"), 2, Source::Watch);
        assert_eq!(get().as_deref(), Some("x"));
        table.apply("thing/a", Some(b"y"), 3, Source::Watch);
        assert_eq!(get().as_deref(), Some("y"));
        table.apply("thing/a", None, 4, Source::Watch);
        assert_eq!(get(), None);
    }
}
