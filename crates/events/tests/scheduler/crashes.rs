//! A process that is killed at random moments: no tick runs twice, none is passed over against the rule.
//!
//! The rule, seen from outside: a job's next tick is the first one of its schedule after the tick before and after that one's begin. An attempt
//! that was recorded when the process died counts as begun, made or not.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use events::{
    busy::Busy,
    scheduler::{Scheduler, job::Job},
};
use model::{Clock as _, Timestamp, key::JOBS};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use store::Store;

use crate::world::{BookedWay, Books, SharedClock, key, owner, settings};

const SCHEDULES: [&str; 5] = ["* * * * *", "*/7 * * * *", "0 9 * * *", "30 */2 * * 1-5", "every 5 minutes"];

#[test]
fn a_process_that_is_killed_repeats_no_tick_and_loses_none() {
    let lives = if std::env::var("TANEBI_TIER").is_ok_and(|tier| tier == "full") { 1_000 } else { 30 };
    let seed = rand::random();
    println!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let clock = SharedClock(Arc::default());
    let books = Arc::new(Mutex::new(Books::default()));
    clock.0.set("2026-11-28T00:00:30Z".parse().unwrap());
    for life in 0..lives {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(live(&store, &clock, &books, &mut random, life));
        drop(runtime);
        died(&store, &books);
        // It is down for a while; at times somebody sets the clock.
        let minutes = if random.random_bool(0.1) { -60 } else { random.random_range(0..90) };
        clock.0.set(clock.now() + jiff::SignedDuration::from_secs(minutes * 60 + random.random_range(0..60)));
    }
    let books = books.lock().unwrap();
    let jobs = jobs(&store);
    assert_eq!(jobs.len(), 2 * SCHEDULES.len());
    let mut ticks = 0;
    for job in jobs {
        let schedule = job.settings.schedule().unwrap();
        let firsts: Vec<(Timestamp, Timestamp)> =
            books.attempts.get(&job.uid).into_iter().flatten().filter(|(_, number, _)| *number == 1).map(|(tick, _, begun)| (*tick, *begun)).collect();
        for pair in firsts.windows(2) {
            let ((tick, begun), (next, _)) = (pair[0], pair[1]);
            assert_eq!(Some(next), schedule.next(begun.max(tick)), "{}: after {tick}, begun at {begun}", job.key.id);
        }
        ticks += firsts.len();
    }
    assert!(ticks > 100, "{ticks} ticks are no test");
}

/// From a start to a kill.
async fn live(store: &Store, clock: &SharedClock, books: &Arc<Mutex<Books>>, random: &mut StdRng, life: usize) {
    let way = BookedWay { clock: clock.clone(), books: books.clone() };
    let (scheduler, _running) = Scheduler::start(store.clone(), Arc::new(clock.clone()), Arc::new(way), Busy::new(), Box::new(drop)).await.unwrap();
    if life == 0 {
        for (at, schedule) in SCHEDULES.iter().enumerate() {
            for retries in [0, 5] {
                scheduler.job_create(&owner(), key(&format!("j{at}-{retries}")), settings(schedule, retries)).await.unwrap();
            }
        }
    }
    for _ in 0..random.random_range(1..25) {
        tokio::time::sleep(Duration::from_micros(random.random_range(0..4_000))).await;
        clock.0.set(clock.now() + jiff::SignedDuration::from_secs(random.random_range(1..150)));
    }
    // Between two instructions of whatever runs now.
    for _ in 0..random.random_range(0..20) {
        tokio::task::yield_now().await;
    }
}

/// What was recorded and not made counts as begun.
fn died(store: &Store, books: &Arc<Mutex<Books>>) {
    // What the process had handed to the store when it died is done before this is.
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(store.commit(Vec::new())).unwrap();
    let mut books = books.lock().unwrap();
    books.running.clear();
    for job in jobs(store) {
        if let Some(attempt) = job.under_way() {
            let begun = job.attempted.unwrap();
            let attempts = books.attempts.entry(job.uid).or_default();
            if attempts.iter().all(|(tick, number, _)| (*tick, *number) != (attempt.tick, attempt.number)) {
                attempts.push((attempt.tick, attempt.number, begun));
            }
        }
    }
}

fn jobs(store: &Store) -> Vec<Job> {
    store.scan(JOBS, None, 1_000).unwrap().iter().map(|record| record.json().unwrap()).collect()
}
