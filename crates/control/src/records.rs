//! Typed records: JSON in the store, read, listed and changed under compare-and-set.
//!
//! Nothing here knows what a record means.

use std::time::Duration;

use model::Status;
use serde::{Serialize, de::DeserializeOwned};
use store::{CommitError, Expect, Record, Store, Write};

use crate::Versioned;

/// How many records one scan reads.
const PAGE: usize = 500;

/// The record at `key`.
pub(crate) fn read<T: DeserializeOwned>(store: &Store, key: &str) -> Result<Option<Versioned<T>>, Status> {
    store.get(key).map_err(Status::internal)?.as_ref().map(decode).transpose()
}

/// At most `limit` records under `prefix`, in the order of their keys, past the key `after`.
pub(crate) fn page<T: DeserializeOwned>(store: &Store, prefix: &str, after: Option<&str>, limit: usize) -> Result<Vec<Versioned<T>>, Status> {
    store.scan(prefix, after, limit).map_err(Status::internal)?.iter().map(decode).collect()
}

/// All records under `prefix`, in the order of their keys.
pub(crate) fn all<T: DeserializeOwned>(store: &Store, prefix: &str) -> Result<Vec<Versioned<T>>, Status> {
    let mut found = Vec::new();
    each(store, prefix, |record| {
        found.push(decode(record)?);
        Ok(())
    })?;
    Ok(found)
}

/// The keys of all records under `prefix`.
pub(crate) fn keys(store: &Store, prefix: &str) -> Result<Vec<String>, Status> {
    let mut found = Vec::new();
    each(store, prefix, |record| {
        found.push(record.key.clone());
        Ok(())
    })?;
    Ok(found)
}

/// Visits all records under `prefix`, in the order of their keys.
pub(crate) fn each(store: &Store, prefix: &str, mut visit: impl FnMut(&Record) -> Result<(), Status>) -> Result<(), Status> {
    let mut after: Option<String> = None;
    loop {
        let records = store.scan(prefix, after.as_deref(), PAGE).map_err(Status::internal)?;
        for record in &records {
            visit(record)?;
        }
        match records.last() {
            Some(last) if records.len() == PAGE => after = Some(last.key.clone()),
            _ => return Ok(()),
        }
    }
}

fn decode<T: DeserializeOwned>(record: &Record) -> Result<Versioned<T>, Status> {
    let value = record.json().map_err(|error| Status::internal(format!("record {}: {error}", record.key)))?;
    Ok(Versioned { value, revision: record.revision })
}

/// Commits `writes`; the new revision, or `None` when a precondition did not hold and nothing was written.
pub(crate) async fn commit(store: &Store, writes: Vec<Write>) -> Result<Option<u64>, Status> {
    match store.commit(writes).await {
        Ok(revision) => Ok(Some(revision)),
        Err(CommitError::Conflict { .. }) => Ok(None),
        Err(error) => Err(Status::internal(error)),
    }
}

/// Changes the record at `key` until the change goes through: `change` says whether there is anything to write
/// and is called again on what another writer left. `None` when there is no such record.
pub(crate) async fn update<T>(store: &Store, key: &str, mut change: impl FnMut(&mut T) -> bool) -> Result<Option<Versioned<T>>, Status>
where
    T: Serialize + DeserializeOwned,
{
    loop {
        let Some(mut record) = read::<T>(store, key)? else {
            return Ok(None);
        };
        if !change(&mut record.value) {
            return Ok(Some(record));
        }
        if let Some(revision) = commit(store, vec![Write::put(key, Expect::Revision(record.revision), &record.value)]).await? {
            return Ok(Some(Versioned { value: record.value, revision }));
        }
    }
}

/// Waits until `is_done` holds for the record at `key` (or its absence), at most `timeout`; the record as it then is.
pub(crate) async fn wait<T: DeserializeOwned>(
    store: &Store,
    key: &str,
    timeout: Duration,
    is_done: impl Fn(Option<&Versioned<T>>) -> bool,
) -> Result<Option<Versioned<T>>, Status> {
    let end = tokio::time::Instant::now() + timeout;
    // Watched before it is read, so that no change falls between.
    let mut watch = store.watch(key);
    loop {
        let record = read::<T>(store, key)?;
        if is_done(record.as_ref()) {
            return Ok(record);
        }
        match tokio::time::timeout_at(end, watch.next()).await {
            Ok(Some(_)) => {}
            Ok(None) => return Err(Status::unavailable("The server is shutting down.")),
            Err(_) => return read(store, key),
        }
    }
}
