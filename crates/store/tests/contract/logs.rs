//! Logs: order, numbers, trims, entries that lie in blobs, restarts, damage.

use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Instant,
};

use store::{ENTRY_MAX_BYTES, Error, Extent};

use crate::{folder, open};

fn values(store: &store::Store, log: &str, after: u64, limit: usize, bytes_max: usize) -> Vec<(u64, String)> {
    let entries = store.logs().read(log, after, limit, bytes_max).unwrap();
    entries.into_iter().map(|entry| (entry.number, String::from_utf8(entry.value).unwrap())).collect()
}

fn texts(from: u64, to: u64) -> Vec<(u64, String)> {
    (from..=to).map(|number| (number, format!("entry {number}"))).collect()
}

async fn append(store: &store::Store, log: &str, from: u64, to: u64) {
    let entries = texts(from, to).into_iter().map(|(_, text)| text.into_bytes()).collect();
    assert_eq!(store.logs().append(log, entries).await.unwrap(), from);
}

#[tokio::test]
async fn entries_are_numbered_in_order_and_outlive_a_restart() {
    let folder = folder();
    let store = open(&folder);
    assert_eq!(store.logs().extent("a").unwrap(), Extent { first: 1, head: 0 });
    assert!(store.logs().extent("a").unwrap().is_empty());
    append(&store, "a", 1, 3).await;
    append(&store, "b", 1, 1).await;
    append(&store, "a", 4, 5).await;
    assert_eq!(store.logs().append("a", Vec::new()).await.unwrap(), 6);
    drop(store);
    let store = open(&folder);
    assert_eq!(values(&store, "a", 0, 100, 1 << 20), texts(1, 5));
    assert_eq!(values(&store, "a", 2, 2, 1 << 20), texts(3, 4));
    assert_eq!(values(&store, "a", 0, 100, 7), texts(1, 1), "bytes end it");
    assert_eq!(values(&store, "a", 0, 100, 0), texts(1, 1), "one comes always");
    assert_eq!(values(&store, "a", 5, 100, 1 << 20), []);
    assert_eq!(values(&store, "never", 0, 100, 1 << 20), []);
    assert_eq!(store.logs().names(""), ["a", "b"]);
    assert_eq!(store.logs().names("b"), ["b"]);
    append(&store, "a", 6, 6).await;
}

#[tokio::test]
async fn trimmed_entries_are_gone_and_their_numbers_do_not_come_again() {
    let folder = folder();
    let store = open(&folder);
    append(&store, "a", 1, 9).await;
    store.logs().trim("a", 4).await.unwrap();
    store.logs().trim("a", 2).await.unwrap();
    store.logs().trim("never", 2).await.unwrap();
    assert_eq!(store.logs().extent("a").unwrap(), Extent { first: 5, head: 9 });
    assert_eq!(values(&store, "a", 0, 100, 1 << 20), texts(5, 9));
    store.logs().trim("a", u64::MAX).await.unwrap();
    assert_eq!(store.logs().extent("a").unwrap().len(), 0);
    drop(store);
    let store = open(&folder);
    append(&store, "a", 10, 10).await;
    assert_eq!(values(&store, "a", 0, 100, 1 << 20), texts(10, 10));
    store.logs().delete("a").await.unwrap();
    store.logs().delete("a").await.unwrap();
    assert!(store.logs().names("").is_empty());
    append(&store, "a", 1, 1).await;
    assert_eq!(values(&store, "a", 0, 100, 1 << 20), texts(1, 1));
}

#[tokio::test]
async fn many_appends_at_a_time_each_get_numbers_of_their_own() {
    let folder = folder();
    let store = open(&folder);
    let tasks: Vec<_> = (0..200)
        .map(|task: u64| {
            let store = store.clone();
            tokio::spawn(async move {
                let entry = format!("{task}").into_bytes();
                (task, store.logs().append(&format!("log-{}", task % 2), vec![entry.clone(), entry]).await.unwrap())
            })
        })
        .collect();
    for task in tasks {
        let (task, number) = task.await.unwrap();
        let found = values(&store, &format!("log-{}", task % 2), number - 1, 2, 1 << 20);
        assert_eq!(found, [(number, task.to_string()), (number + 1, task.to_string())]);
    }
    assert_eq!(store.logs().extent("log-0").unwrap(), Extent { first: 1, head: 200 });
}

#[tokio::test]
async fn a_large_entry_lies_in_a_blob_that_the_log_names_until_it_is_trimmed() {
    let folder = folder();
    let store = open(&folder);
    let large = vec![7; 65 << 10];
    store.logs().append("a", vec![b"small".to_vec(), large.clone(), vec![8; 64 << 10]]).await.unwrap();
    let named: Vec<String> = store.logs().blobs_named().unwrap().into_iter().collect();
    assert_eq!(named.len(), 1);
    assert_eq!(store.blobs().read(&named[0]).unwrap().as_deref(), Some(&large[..]));
    assert_eq!(store.logs().read("a", 1, 1, 1 << 20).unwrap()[0].value, large);
    store.blobs().delete(&named[0]).unwrap();
    match store.logs().read("a", 1, 1, 1 << 20) {
        Err(Error::Damaged { key, .. }) => assert_eq!(key, "log a, entry 2"),
        other => panic!("{other:?}"),
    }
    store.logs().trim("a", 2).await.unwrap();
    assert!(store.logs().blobs_named().unwrap().is_empty());
    for (log, entries) in [("", vec![Vec::new()]), ("a", vec![vec![0; ENTRY_MAX_BYTES + 1]]), ("a", vec![vec![0; ENTRY_MAX_BYTES]; 3])] {
        assert!(matches!(store.logs().append(log, entries).await, Err(Error::Invalid(_))), "{log}");
    }
    store.close();
    assert!(matches!(store.logs().append("a", vec![Vec::new()]).await, Err(Error::Closed)));
}

#[tokio::test]
async fn a_flipped_bit_in_an_entry_is_refused_by_name_and_the_rest_is_served() {
    let folder = folder();
    let store = open(&folder);
    append(&store, "a", 1, 9).await;
    drop(store);
    let path = folder.path().join("logs.db");
    let mut bytes = fs::read(&path).unwrap();
    let place = bytes.windows(7).position(|window| window == b"entry 5").unwrap();
    bytes[place] ^= 2;
    fs::write(&path, bytes).unwrap();
    let store = open(&folder);
    match store.logs().read("a", 0, 100, 1 << 20) {
        Err(Error::Damaged { key, .. }) => assert_eq!(key, "log a, entry 5"),
        other => panic!("{other:?}"),
    }
    assert_eq!(values(&store, "a", 0, 4, 1 << 20), texts(1, 4));
    assert_eq!(values(&store, "a", 5, 100, 1 << 20), texts(6, 9));
}

#[tokio::test]
async fn a_log_that_damage_hides_is_not_answered_as_empty() {
    let folder = folder();
    let store = open(&folder);
    append(&store, "the-log-that-goes", 1, 2).await;
    append(&store, "b", 1, 2).await;
    drop(store);
    let path = folder.path().join("logs.db");
    let bytes = fs::read(&path).unwrap();
    let name = b"the-log-that-goes";
    let flipped: Vec<u8> = String::from_utf8_lossy(name).replace("goes", "gone").into_bytes();
    let mut changed = bytes.clone();
    for place in (0..bytes.len() - name.len()).filter(|place| bytes[*place..].starts_with(name)) {
        changed[place..place + name.len()].copy_from_slice(&flipped);
    }
    fs::write(&path, changed).unwrap();
    let store = open(&folder);
    for log in ["the-log-that-goes", "the-log-that-gone"] {
        assert!(matches!(store.logs().extent(log), Err(Error::Damaged { .. })), "{log}");
        assert!(matches!(store.logs().append(log, vec![vec![1]]).await, Err(Error::Damaged { .. })), "{log}");
    }
    assert!(store.logs().blobs_named().is_err(), "nothing must be swept");
    assert_eq!(values(&store, "b", 0, 9, 99), texts(1, 2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_reads_while_others_trim_and_delete_is_never_told_of_damage() {
    let folder = folder();
    let store = open(&folder);
    let ends = Arc::new(AtomicBool::new(false));
    let readers = [0, 1].map(|_| {
        let (store, ends) = (store.clone(), ends.clone());
        thread::spawn(move || {
            while !ends.load(Ordering::Relaxed) {
                let entries = store.logs().read("a", 0, 100, 1 << 20).unwrap();
                assert!(entries.is_sorted_by(|one, next| one.number < next.number), "{entries:?}");
            }
        })
    });
    for turn in 1..=500 {
        if turn % 50 == 0 {
            store.logs().delete("a").await.unwrap();
        }
        let first = store.logs().append("a", vec![vec![1]; 5]).await.unwrap();
        store.logs().trim("a", first + 2).await.unwrap();
    }
    ends.store(true, Ordering::Relaxed);
    readers.into_iter().for_each(|reader| reader.join().unwrap());
}

/// Prints how long it takes, so that a cost that grows with the number of logs is seen.
#[tokio::test]
async fn ten_thousand_logs_are_no_burden() {
    let folder = folder();
    let store = open(&folder);
    let begin = Instant::now();
    let tasks: Vec<_> = (0..10_000)
        .map(|log| {
            let store = store.clone();
            tokio::spawn(async move { store.logs().append(&format!("log/{log:05}"), vec![vec![1]]).await.unwrap() })
        })
        .collect();
    for task in tasks {
        assert_eq!(task.await.unwrap(), 1);
    }
    let made = begin.elapsed();
    for turn in 0..500 {
        assert_eq!(store.logs().append("log/00007", vec![b"more".to_vec()]).await.unwrap(), turn + 2);
    }
    println!("10,000 logs in {made:?}, then 500 appends in {:?}", begin.elapsed() - made);
    drop(store);
    let store = open(&folder);
    assert_eq!(store.logs().names("log/").len(), 10_000);
    assert_eq!(store.logs().names("log/0123").len(), 10);
    assert_eq!(store.logs().extent("log/00007").unwrap(), Extent { first: 1, head: 501 });
    assert_eq!(store.logs().extent("log/09999").unwrap(), Extent { first: 1, head: 1 });
}
