//! A flipped bit is never served: its record is refused by name, the others go on. What another version wrote is refused.

use std::{fs, path::Path};

use store::{CommitError, Error, Expect, Store, Write};
use tempfile::TempDir;

const RECORDS: usize = 60;

/// A closed store with 60 records, some of them spilling into overflow pages.
fn filled() -> (TempDir, Vec<(String, String)>) {
    let folder = tempfile::tempdir().unwrap();
    let records: Vec<(String, String)> = (0..RECORDS)
        .map(|number| {
            let key = format!("kind/project/name-{number:03}");
            let value = format!("\"value of {number:03} {}\"", "x".repeat(number * 97 % 3000));
            (key, value)
        })
        .collect();
    let store = Store::open(folder.path()).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    for (key, value) in &records {
        let write = Write { key: key.clone(), expect: Expect::Absent, value: Some(value.clone().into_bytes()) };
        runtime.block_on(store.commit(vec![write])).unwrap();
    }
    drop(store);
    assert!(!folder.path().join("state.db-wal").exists(), "the last connection moves all into state.db");
    (folder, records)
}

/// Flips one bit in the first place of `state.db` that holds `text`.
fn flip(folder: &Path, text: &str) {
    let path = folder.join("state.db");
    let mut bytes = fs::read(&path).unwrap();
    let place = bytes.windows(text.len()).position(|window| window == text.as_bytes()).unwrap();
    bytes[place + text.len() - 1] ^= 1 << 1;
    fs::write(&path, bytes).unwrap();
}

#[test]
fn a_flipped_bit_in_a_value_is_refused_by_name_and_the_rest_is_served() {
    let (folder, records) = filled();
    flip(folder.path(), "value of 030");
    let store = Store::open(folder.path()).unwrap();
    let bad = "kind/project/name-030";
    assert_eq!(store.damaged(), [bad]);
    assert!(!store.is_whole());
    match store.get(bad) {
        Err(Error::Damaged { key, .. }) => assert_eq!(key, bad),
        other => panic!("{other:?}"),
    }
    for (key, value) in records.iter().filter(|(key, _)| key != bad) {
        assert_eq!(&*store.get(key).unwrap().unwrap().value, value.as_bytes());
    }
    assert_eq!(store.get("kind/project/never-there").unwrap(), None, "all keys are sound");
    assert_eq!(store.scan("kind/", None, 1000).unwrap().len(), RECORDS - 1);
    assert_eq!(store.scan("kind/", None, RECORDS - 1).unwrap().len(), RECORDS - 1, "a limit counts what is served");

    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let write = |expect| Write { key: bad.into(), expect, value: Some(b"1".to_vec()) };
    for expect in [Expect::Absent, Expect::Revision(31)] {
        match runtime.block_on(store.commit(vec![write(expect)])) {
            Err(CommitError::Store(Error::Damaged { key, .. })) => assert_eq!(key, bad),
            other => panic!("{other:?}"),
        }
    }
    runtime.block_on(store.commit(vec![write(Expect::Any)])).unwrap();
    assert_eq!(&*store.get(bad).unwrap().unwrap().value, b"1");
    assert!(store.damaged().is_empty() && store.is_whole());
    drop(store);
    let store = Store::open(folder.path()).unwrap();
    assert!(store.damaged().is_empty());
    assert_eq!(store.get("kind/project/never-there").unwrap(), None);
}

#[test]
fn a_flipped_bit_in_a_key_hides_nothing() {
    let (folder, records) = filled();
    flip(folder.path(), "name-030");
    let store = Store::open(folder.path()).unwrap();
    assert!(!store.is_whole(), "a list may lack records whose keys are not known");
    let refused = |store: &Store| -> Vec<String> {
        let refused = records.iter().filter(|(key, value)| match store.get(key) {
            Ok(found) => {
                assert_eq!(found.map(|record| record.value.to_vec()).as_deref(), Some(value.as_bytes()), "{key}");
                false
            }
            Err(Error::Damaged { key: named, .. }) => named == *key,
            Err(other) => panic!("{other}"),
        });
        refused.map(|(key, _)| key.clone()).collect()
    };
    let first = refused(&store);
    assert!(first.contains(&"kind/project/name-030".to_owned()), "{first:?}");

    // What is written meanwhile does not make the loss forgotten.
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let write = |key: &str, expect| Write { key: key.into(), expect, value: Some(b"1".to_vec()) };
    runtime.block_on(store.commit(vec![write("other", Expect::Any)])).unwrap();
    let absent = runtime.block_on(store.commit(vec![write("kind/project/name-030", Expect::Absent)]));
    assert!(matches!(absent, Err(CommitError::Store(Error::Damaged { .. }))), "{absent:?}");
    drop(store);
    let store = Store::open(folder.path()).unwrap();
    assert_eq!(refused(&store), first);
    assert_eq!(&*store.get("other").unwrap().unwrap().value, b"1");
}

/// Anywhere in the file: a record is served as it was written, or an error; never "not there", never something else.
#[test]
fn no_flipped_bit_is_ever_served() {
    const FLIPS: usize = 150;
    let (folder, records) = filled();
    let path = folder.path().join("state.db");
    let sound = fs::read(&path).unwrap();
    let mut seed = 7_u64;
    let (mut refused_stores, mut refused_records) = (0, 0);
    for _ in 0..FLIPS {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let bit = (seed >> 20) as usize % (sound.len() * 8);
        let mut bytes = sound.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        fs::write(&path, bytes).unwrap();
        let Ok(store) = Store::open(folder.path()) else {
            refused_stores += 1;
            continue;
        };
        for (key, value) in &records {
            match store.get(key) {
                Ok(found) => {
                    assert_eq!(found.map(|record| record.value.to_vec()).as_deref(), Some(value.as_bytes()), "{key}, bit {bit}");
                }
                Err(_) => refused_records += 1,
            }
        }
        for record in store.scan("", None, usize::MAX).unwrap_or_default() {
            assert!(records.iter().any(|(key, value)| *key == record.key && value.as_bytes() == &*record.value), "bit {bit}");
        }
        drop(store);
        let _ = (fs::remove_file(folder.path().join("state.db-wal")), fs::remove_file(folder.path().join("state.db-shm")));
    }
    assert!(refused_stores < FLIPS / 10, "{refused_stores} of {FLIPS} flips closed the whole store");
    assert!(refused_records < FLIPS * RECORDS / 5, "{refused_records} of {} reads were refused", FLIPS * RECORDS);
}

#[test]
fn a_damaged_blob_is_refused_and_put_again_heals_it() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let id = store.blobs().put(b"content").unwrap();
    let other = store.blobs().put(b"other").unwrap();
    fs::write(folder.path().join("blobs").join(&id[..2]).join(&id), b"cOntent").unwrap();
    match store.blobs().read(&id) {
        Err(Error::BlobDamaged { id: named, .. }) => assert_eq!(named, id),
        other => panic!("{other:?}"),
    }
    assert!(store.blobs().read(&other).unwrap().is_some());
    store.blobs().put(b"content").unwrap();
    assert_eq!(store.blobs().read(&id).unwrap().as_deref(), Some(&b"content"[..]));
}

#[test]
fn databases_of_others_are_refused_and_left_as_they_are() {
    let check = |statement: &str, part: &str| {
        let (folder, _) = filled();
        let path = folder.path().join("state.db");
        rusqlite::Connection::open(&path).unwrap().execute_batch(statement).unwrap();
        let before = fs::read(&path).unwrap();
        let error = Store::open(folder.path()).err().map(|error| error.to_string()).unwrap_or_default();
        assert!(error.contains(part) && error.contains("state.db"), "{error}");
        assert_eq!(fs::read(&path).unwrap(), before);
    };
    check("PRAGMA user_version = 2", "has the format 2, and this tanebi knows formats up to 1");
    check("PRAGMA application_id = 5", "is not a database of tanebi");
}
