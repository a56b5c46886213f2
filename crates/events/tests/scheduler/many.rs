//! Ten thousand jobs at rest, and one that is due.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use events::{busy::Busy, scheduler::Scheduler};
use model::Clock as _;
use store::Store;

use crate::world::{BookedWay, Books, SharedClock, key, owner, settings};

#[tokio::test(flavor = "multi_thread")]
async fn a_due_job_does_not_wait_for_those_at_rest() {
    let dir = tempfile::tempdir().unwrap();
    let clock = SharedClock(Arc::default());
    clock.0.set("2026-11-28T00:00:30Z".parse().unwrap());
    let books = Arc::new(Mutex::new(Books::default()));
    let way = Arc::new(BookedWay { clock: clock.clone(), books: books.clone() });
    let busy = Busy::new();
    let (scheduler, _running) = Scheduler::start(Store::open(dir.path()).unwrap(), Arc::new(clock.clone()), way, busy.clone(), Box::new(drop)).await.unwrap();
    let mut creating = tokio::task::JoinSet::new();
    for at in 0..10_000 {
        let scheduler = scheduler.clone();
        creating.spawn(async move { scheduler.job_create(&owner(), key(&format!("rest-{at}")), settings("0 0 1 1 *", 0)).await.unwrap() });
    }
    creating.join_all().await;
    let due = scheduler.job_create(&owner(), key("due"), settings("* * * * *", 0)).await.unwrap();
    busy.idle().await;
    let begun = Instant::now();
    clock.0.set(due.next.unwrap());
    while !books.lock().unwrap().attempts.contains_key(&due.uid) {
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert!(begun.elapsed() < Duration::from_secs(30), "the job has not begun");
    }
    let took = begun.elapsed();
    println!("begun after {took:?}");
    assert!(took < Duration::from_secs(5), "{took:?}");
    assert_eq!(books.lock().unwrap().attempts.len(), 1, "{}", clock.now());
    assert_eq!(scheduler.job_list(&due.key.project, &due.key.region, Some("rest-9998"), 10).unwrap().len(), 1);
}
