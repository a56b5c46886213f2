//! Ten thousand jobs at rest, and some that are due.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use events::{busy::Busy, scheduler::Scheduler};
use model::Clock as _;
use store::Store;

use crate::world::{BookedWay, Books, SharedClock, key, key_in, owner, settings};

/// Due jobs, one after another.
const ROUNDS: usize = 9;

#[tokio::test(flavor = "multi_thread")]
async fn a_due_job_does_not_wait_for_those_at_rest() {
    let dir = tempfile::tempdir().unwrap();
    let clock = SharedClock(Arc::default());
    clock.0.set("2026-11-28T00:00:30Z".parse().unwrap());
    let books = Arc::new(Mutex::new(Books::default()));
    let way = Arc::new(BookedWay { clock: clock.clone(), books: books.clone(), takes_max: Duration::ZERO });
    let busy = Busy::new();
    let (scheduler, _running) = Scheduler::start(Store::open(dir.path()).unwrap(), Arc::new(clock.clone()), way, busy.clone(), Box::new(drop)).await.unwrap();
    let mut creating = tokio::task::JoinSet::new();
    for at in 0..10_000 {
        let scheduler = scheduler.clone();
        // A region has room for half of them.
        let key = key_in(["us-central1", "europe-west1"][at % 2], &format!("rest-{at}"));
        creating.spawn(async move { scheduler.job_create(&owner(), key, settings("0 0 1 1 *", 0)).await.unwrap() });
    }
    creating.join_all().await;
    let mut took = Vec::new();
    for minute in 1..=ROUNDS {
        let due = scheduler.job_create(&owner(), key(&format!("due-{minute}")), settings(&format!("{minute} * * * *"), 0)).await.unwrap();
        busy.idle().await;
        let begun = Instant::now();
        clock.0.set(due.next.unwrap());
        while !books.lock().unwrap().attempts.contains_key(&due.uid) {
            tokio::time::sleep(Duration::from_micros(200)).await;
            assert!(begun.elapsed() < Duration::from_secs(30), "the job has not begun");
        }
        took.push(begun.elapsed());
    }
    took.sort();
    println!("a due job begins after {took:?}");
    // The machine is shared: one that is late now and then says nothing.
    assert!(took[ROUNDS / 2] < Duration::from_millis(100), "{took:?}");
    assert_eq!(books.lock().unwrap().attempts.len(), ROUNDS, "{}", clock.now());
    let full = key_in("europe-west1", "x");
    assert_eq!(scheduler.job_list(&full.project, &full.region, Some("rest-9998"), 10).unwrap().len(), 1);
    let create = async |id: &str| scheduler.job_create(&owner(), key_in("europe-west1", id), settings("0 0 1 1 *", 0)).await;
    let refused = create("x").await.unwrap_err();
    assert_eq!(refused.code, model::Code::ResourceExhausted);
    assert!(refused.outer.contains("at most 5000 are allowed (jobs per region)"), "{refused}");
    scheduler.job_delete(&key_in("europe-west1", "rest-1")).await.unwrap();
    assert_eq!(create("rest-3").await.unwrap_err().code, model::Code::AlreadyExists);
    create("x").await.unwrap();
}
