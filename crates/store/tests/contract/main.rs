//! What every back end of the store must do, seen through the public interface only.
//!
//! `files` is about blobs and layers, `sweep` about those that nobody needs any more, `crash` kills a process that commits, `full` fills its disk, `refused`
//! makes its writes fail; `damage` flips bits and knows the embedded back end's files.

mod crash;
mod damage;
mod files;
mod full;
mod logs;
mod refused;
mod sweep;

use std::{collections::BTreeMap, time::Duration};

use store::{CommitError, Error, Event, Expect, Guard, Record, Store, Watch, Write};
use tempfile::TempDir;

/// Generous: the machine may be busy with builds.
const PATIENCE: Duration = Duration::from_secs(120);

fn folder() -> TempDir {
    tempfile::tempdir().unwrap()
}

fn open(folder: &TempDir) -> Store {
    Store::open(folder.path()).unwrap()
}

fn put(key: &str, expect: Expect, value: &str) -> Write {
    Write { key: key.into(), expect, value: Some(value.as_bytes().to_vec()) }
}

fn text(record: &Record) -> String {
    String::from_utf8(record.value.to_vec()).unwrap()
}

fn get(store: &Store, key: &str) -> Option<(String, u64)> {
    store.get(key).unwrap().map(|record| (text(&record), record.revision))
}

fn keys(store: &Store, prefix: &str, after: Option<&str>, limit: usize) -> Vec<String> {
    store.scan(prefix, after, limit).unwrap().into_iter().map(|record| record.key).collect()
}

async fn next(watch: &mut Watch) -> Option<Event> {
    tokio::time::timeout(PATIENCE, watch.next()).await.expect("a watcher waits for an event that does not come")
}

/// The next event as `key=value@revision`, `key gone@revision` or `resync`.
async fn next_text(watch: &mut Watch) -> String {
    match next(watch).await {
        Some(Event::Change(change)) => match change.value {
            Some(value) => format!("{}={}@{}", change.key, String::from_utf8_lossy(&value), change.revision),
            None => format!("{} gone@{}", change.key, change.revision),
        },
        Some(Event::Resync) => "resync".into(),
        None => "end".into(),
    }
}

#[track_caller]
fn assert_conflict(answer: Result<u64, CommitError>, key: &str) {
    match answer {
        Err(CommitError::Conflict { key: found }) => assert_eq!(found, key),
        other => panic!("expected a conflict on {key}, got {other:?}"),
    }
}

#[tokio::test]
async fn a_commit_is_visible_to_the_reads_after_its_answer() {
    let folder = folder();
    let store = open(&folder);
    assert_eq!(get(&store, "a"), None);
    let first = store.commit(vec![put("a", Expect::Any, "1")]).await.unwrap();
    assert_eq!(get(&store, "a"), Some(("1".into(), first)));
    let second = store.commit(vec![put("a", Expect::Any, "2"), put("b", Expect::Any, "3")]).await.unwrap();
    assert_eq!(second, first + 1);
    assert_eq!(get(&store, "a"), Some(("2".into(), second)));
    assert_eq!(get(&store, "b"), Some(("3".into(), second)));
    let third = store.commit(vec![Write::delete("a", Expect::Any)]).await.unwrap();
    assert_eq!(third, second + 1);
    assert_eq!(get(&store, "a"), None);
}

#[tokio::test]
async fn json_goes_in_and_out() {
    let folder = folder();
    let store = open(&folder);
    let value = BTreeMap::from([("name".to_owned(), 7_u32)]);
    store.commit(vec![Write::put("j", Expect::Absent, &value)]).await.unwrap();
    let record = store.get("j").unwrap().unwrap();
    assert_eq!(record.json::<BTreeMap<String, u32>>().unwrap(), value);
    let error = record.json::<Vec<u32>>().unwrap_err().to_string();
    assert!(error.contains("\"j\""), "{error}");
}

#[tokio::test]
async fn a_commit_holds_only_while_its_guards_do() {
    let folder = folder();
    let store = open(&folder);
    let mut watch = store.watch("");
    let first = store.commit(vec![put("a", Expect::Absent, "1")]).await.unwrap();
    let guard = Guard::of(&store.get("a").unwrap().unwrap());
    let second = store.commit_while(vec![guard.clone()], vec![put("b", Expect::Any, "1")]).await.unwrap();
    assert_eq!(get(&store, "a"), Some(("1".into(), first)), "a guard changes nothing");
    // The guard, before what the writes expect.
    store.commit(vec![put("a", Expect::Any, "2")]).await.unwrap();
    assert_conflict(store.commit_while(vec![guard.clone()], vec![put("b", Expect::Absent, "2")]).await, "a");
    store.commit(vec![Write::delete("a", Expect::Any)]).await.unwrap();
    assert_conflict(store.commit_while(vec![guard], vec![put("b", Expect::Any, "2")]).await, "a");
    assert_eq!(get(&store, "b"), Some(("1".into(), second)));
    for expect in ["a=1@1", "b=1@2", "a=2@3", "a gone@4"] {
        assert_eq!(next_text(&mut watch).await, expect);
    }
}

#[tokio::test]
async fn preconditions_decide() {
    let folder = folder();
    let store = open(&folder);
    let first = store.commit(vec![put("a", Expect::Absent, "1")]).await.unwrap();
    assert_conflict(store.commit(vec![put("a", Expect::Absent, "2")]).await, "a");
    assert_conflict(store.commit(vec![put("a", Expect::Revision(first + 1), "2")]).await, "a");
    assert_conflict(store.commit(vec![put("b", Expect::Revision(first), "2")]).await, "b");
    assert_conflict(store.commit(vec![Write::delete("b", Expect::Revision(first))]).await, "b");
    assert_eq!(get(&store, "a"), Some(("1".into(), first)));
    let second = store.commit(vec![put("a", Expect::Revision(first), "2")]).await.unwrap();
    assert_eq!(second, first + 1, "a conflict takes no revision");
    store.commit(vec![Write::delete("a", Expect::Revision(second))]).await.unwrap();
    store.commit(vec![put("a", Expect::Absent, "3")]).await.unwrap();
}

#[tokio::test]
async fn a_commit_happens_whole_or_not_at_all() {
    let folder = folder();
    let store = open(&folder);
    let first = store.commit(vec![put("a", Expect::Any, "1"), put("b", Expect::Any, "1")]).await.unwrap();
    let writes = vec![put("a", Expect::Revision(first), "2"), put("new", Expect::Absent, "2"), put("b", Expect::Absent, "2")];
    assert_conflict(store.commit(writes).await, "b");
    assert_eq!(get(&store, "a"), Some(("1".into(), first)));
    assert_eq!(get(&store, "new"), None);
    assert_eq!(get(&store, "b"), Some(("1".into(), first)));
}

#[tokio::test]
async fn commits_that_cannot_be_one_are_refused() {
    let folder = folder();
    let store = open(&folder);
    let check = async |writes: Vec<Write>, part: &str| {
        let error = store.commit(writes).await.unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    };
    check(vec![put("", Expect::Any, "")], "a key must have").await;
    check(vec![put(&"k".repeat(5000), Expect::Any, "")], "a key must have").await;
    check(vec![put("a", Expect::Any, ""), put("a", Expect::Any, "")], "twice").await;
    check(vec![put("a", Expect::Any, &"v".repeat(store::COMMIT_MAX_BYTES))], "too large").await;
    assert_eq!(keys(&store, "", None, 10), Vec::<String>::new());
}

#[tokio::test]
async fn scans_are_exact_whatever_the_key() {
    let folder = folder();
    let store = open(&folder);
    let mut all: Vec<String> = [
        "service/p/r/a",
        "service/p/r/b",
        "service/p/r/a/",
        "service/p/r",
        "service0",
        "service",
        "\u{0}",
        "a\u{0}b",
        "a",
        "a ",
        "%",
        "_",
        "A",
        "日本語",
        "日本",
        "日\u{10FFFF}",
        "日\u{10FFFF}x",
        "\u{D7FF}",
        "\u{E000}",
        "\u{10FFFF}",
        "\u{10FFFF}\u{10FFFF}",
        "é",
        "e\u{301}",
        "\n",
        "'",
        "\"",
        "\\",
    ]
    .map(String::from)
    .to_vec();
    for key in &all {
        store.commit(vec![put(key, Expect::Absent, key)]).await.unwrap();
    }
    all.sort();
    for prefix in all.iter().map(String::as_str).chain(["", "s", "service/p/", "日本x", "zzz"]) {
        let expect: Vec<String> = all.iter().filter(|key| key.starts_with(prefix)).cloned().collect();
        assert_eq!(keys(&store, prefix, None, 1000), expect, "{prefix:?}");
        // The same in pages of two.
        let mut paged: Vec<String> = Vec::new();
        loop {
            let page = keys(&store, prefix, paged.last().map(String::as_str), 2);
            assert!(page.len() <= 2);
            let done = page.is_empty();
            paged.extend(page);
            if done {
                break;
            }
        }
        assert_eq!(paged, expect, "{prefix:?}");
    }
    assert_eq!(keys(&store, "service/", Some("a"), 10).len(), 4, "a place before the prefix");
    assert_eq!(keys(&store, "service/", Some("t"), 10).len(), 0, "a place behind the prefix");
    assert_eq!(keys(&store, "", None, 0).len(), 0);
    for key in &all {
        assert_eq!(get(&store, key).map(|(value, _)| value).as_ref(), Some(key), "{key:?}");
    }
}

#[tokio::test]
async fn large_values_survive() {
    let folder = folder();
    let store = open(&folder);
    for bytes in [0_usize, 1, 900, 1100, 4000, 5000, 70_000, 3 << 20] {
        let value: Vec<u8> = (0..bytes).map(|index| (index * 31 % 251) as u8).collect();
        let write = Write { key: format!("v/{bytes:08}"), expect: Expect::Absent, value: Some(value) };
        store.commit(vec![write]).await.unwrap();
    }
    drop(store);
    let store = open(&folder);
    let records = store.scan("v/", None, 100).unwrap();
    assert_eq!(records.len(), 8);
    for record in records {
        let bytes: usize = record.key[2..].parse().unwrap();
        assert_eq!(record.value.len(), bytes);
        assert!(record.value.iter().enumerate().all(|(index, byte)| usize::from(*byte) == index * 31 % 251));
    }
}

#[tokio::test]
async fn watchers_see_all_changes_of_their_prefix_in_order() {
    let folder = folder();
    let store = open(&folder);
    let before = store.commit(vec![put("s/0", Expect::Any, "0")]).await.unwrap();
    let (mut some, mut all) = (store.watch("s/"), store.watch(""));
    store.commit(vec![put("s/1", Expect::Any, "1"), put("t/1", Expect::Any, "x")]).await.unwrap();
    assert_conflict(store.commit(vec![put("s/1", Expect::Absent, "2")]).await, "s/1");
    store.commit(vec![Write::delete("s/0", Expect::Any)]).await.unwrap();
    store.commit(vec![put("s/1", Expect::Any, "3")]).await.unwrap();
    assert_eq!(next_text(&mut some).await, format!("s/1=1@{}", before + 1));
    assert_eq!(next_text(&mut some).await, format!("s/0 gone@{}", before + 2));
    assert_eq!(next_text(&mut some).await, format!("s/1=3@{}", before + 3));
    assert_eq!(next_text(&mut all).await, format!("s/1=1@{}", before + 1));
    assert_eq!(next_text(&mut all).await, format!("t/1=x@{}", before + 1));
    drop(store);
    assert_eq!(next(&mut some).await, None, "a watch ends with its store");
}

#[tokio::test]
async fn a_slow_watcher_must_scan_again_and_nobody_waits_for_it() {
    let folder = folder();
    let store = open(&folder);
    let mut slow = store.watch("k/");
    // 40 MiB: more than any queue should hold for one watcher.
    let mut last = 0;
    for number in 0..40 {
        last = store.commit(vec![put(&format!("k/{number}"), Expect::Any, &"v".repeat(1 << 20))]).await.unwrap();
    }
    // The watchers are told after the answer: what follows is told after all of those.
    let mut marks = store.watch("mark");
    store.commit(vec![put("mark", Expect::Any, "")]).await.unwrap();
    next(&mut marks).await;
    assert_eq!(next_text(&mut slow).await, "resync");
    assert_eq!(keys(&store, "k/", None, 100).len(), 40);
    // From there on it goes on; changes that came behind the loss may still be there.
    store.commit(vec![put("k/x", Expect::Any, "y")]).await.unwrap();
    loop {
        match next(&mut slow).await {
            Some(Event::Change(change)) if change.key == "k/x" => break,
            Some(Event::Change(change)) => assert!(change.revision <= last),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn a_store_opens_again_with_all_it_had() {
    let folder = folder();
    let mut revision = 0;
    for round in 0..5 {
        let store = open(&folder);
        assert_eq!(keys(&store, "r/", None, 100).len(), round);
        let next = store.commit(vec![put(&format!("r/{round}"), Expect::Absent, "x")]).await.unwrap();
        assert_eq!(next, revision + 1);
        // A revision that only a deletion had is not given out again.
        revision = store.commit(vec![Write::delete("nothing", Expect::Any)]).await.unwrap();
        assert_eq!(revision, next + 1);
    }
}

#[tokio::test]
async fn a_folder_belongs_to_one_store() {
    let folder = folder();
    let store = open(&folder);
    let again = Store::open(folder.path()).err().map(|error| error.to_string()).unwrap_or_default();
    assert!(again.contains("in use by another tanebi") && again.contains(&std::process::id().to_string()), "{again}");
    drop(store);
    open(&folder);
}

#[tokio::test]
async fn after_close_nothing_is_taken_and_what_waited_is_there() {
    let folder = folder();
    let store = open(&folder);
    let waiting: Vec<_> = (0..100)
        .map(|number| {
            let store = store.clone();
            tokio::spawn(async move { store.commit(vec![put(&format!("w/{number}"), Expect::Any, "x")]).await })
        })
        .collect();
    tokio::task::yield_now().await;
    let closing = store.clone();
    tokio::task::spawn_blocking(move || closing.close()).await.unwrap();
    let mut acknowledged = 0;
    for answer in waiting {
        match answer.await.unwrap() {
            Ok(_) => acknowledged += 1,
            Err(CommitError::Store(Error::Closed)) => {}
            Err(other) => panic!("{other}"),
        }
    }
    assert!(matches!(store.commit(vec![put("a", Expect::Any, "")]).await, Err(CommitError::Store(Error::Closed))));
    assert_eq!(keys(&store, "w/", None, 1000).len(), acknowledged, "reads go on");
    drop(store);
    assert_eq!(keys(&open(&folder), "w/", None, 1000).len(), acknowledged);
}

/// 32 tasks add to 4 counters and to their own log in the same commit: no addition is lost, and at every moment the
/// counters and the logs tell the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn counters_are_serialisable() {
    const TASKS: usize = 32;
    const ADDITIONS: usize = 20;
    let folder = folder();
    let store = open(&folder);
    let tasks: Vec<_> = (0..TASKS).map(|task| tokio::spawn(count(store.clone(), task, ADDITIONS))).collect();
    let watching = tokio::spawn(revisions_rise(store.watch("")));
    for task in tasks {
        task.await.unwrap();
    }
    // Counters and logs have the prefix in common, so one scan sees them at one moment.
    let total: u64 = store.scan("c/count/", None, 10).unwrap().iter().map(|record| record.json::<u64>().unwrap()).sum();
    assert_eq!(total, (TASKS * ADDITIONS) as u64);
    assert_eq!(keys(&store, "c/log/", None, 10_000).len(), TASKS * ADDITIONS);
    drop(store);
    let seen = watching.await.unwrap();
    assert!(seen > 0);
}

async fn count(store: Store, task: usize, additions: usize) {
    let counter = format!("c/count/{}", task % 4);
    for addition in 0..additions {
        loop {
            let found = store.get(&counter).unwrap();
            let (value, expect) = found.map_or((0_u64, Expect::Absent), |record| (record.json().unwrap(), Expect::Revision(record.revision)));
            let writes = vec![Write::put(&counter, expect, &(value + 1)), Write::put(format!("c/log/{task}/{addition}"), Expect::Absent, &())];
            match store.commit(writes).await {
                Ok(_) => break,
                Err(error) if error.is_conflict() => tokio::task::yield_now().await,
                Err(error) => panic!("{error}"),
            }
        }
        // One scan sees one moment: what the counters say is what the logs hold.
        let moment = store.scan("c/", None, usize::MAX).unwrap();
        let (counters, logs): (Vec<_>, Vec<_>) = moment.iter().partition(|record| record.key.starts_with("c/count/"));
        assert_eq!(counters.iter().map(|record| record.json::<u64>().unwrap()).sum::<u64>(), logs.len() as u64);
    }
}

async fn revisions_rise(mut watch: Watch) -> usize {
    let (mut last, mut seen) = (0, 0);
    while let Some(event) = watch.next().await {
        if let Event::Change(change) = event {
            assert!(change.revision >= last, "{} after {last}", change.revision);
            last = change.revision;
            seen += 1;
        }
    }
    seen
}

#[tokio::test]
async fn a_commit_that_nobody_waits_for_harms_nobody() {
    let folder = folder();
    let store = open(&folder);
    for _ in 0..50 {
        let commit = store.commit(vec![put("a", Expect::Any, "x")]);
        let _ = tokio::time::timeout(Duration::ZERO, commit).await;
    }
    store.commit(vec![put("b", Expect::Any, "y")]).await.unwrap();
    assert_eq!(get(&store, "b").map(|(value, _)| value).as_deref(), Some("y"));
}
