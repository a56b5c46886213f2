//! A clock that a test sets, and a way of attempts that keeps books.

use std::{
    collections::{BTreeMap, HashSet},
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Poll, Waker},
    time::Duration,
};

use events::scheduler::{
    Attempt, Outcome, Way,
    job::{HttpTarget, Job, JobKey, Retry, Settings, Target},
};
use iam::{Identity, Kind};
use model::{Clock, Code, ProjectId, Region, Status, Timestamp, clock::Until};

#[derive(Default)]
pub struct FalseClock(Mutex<(Timestamp, Vec<(Timestamp, Waker)>)>);

impl FalseClock {
    pub fn set(&self, now: Timestamp) {
        let mut state = self.0.lock().unwrap();
        state.0 = now;
        let (due, later) = std::mem::take(&mut state.1).into_iter().partition(|(at, _)| *at <= now);
        state.1 = later;
        let due: Vec<(Timestamp, Waker)> = due;
        due.into_iter().for_each(|(_, waker)| waker.wake());
    }
}

#[derive(Clone)]
pub struct SharedClock(pub Arc<FalseClock>);

impl Clock for SharedClock {
    fn now(&self) -> Timestamp {
        self.0.0.lock().unwrap().0
    }

    fn until(&self, at: Timestamp) -> Until {
        let clock = self.0.clone();
        Box::pin(std::future::poll_fn(move |context| {
            let mut state = clock.0.lock().unwrap();
            if at <= state.0 {
                return Poll::Ready(());
            }
            state.1.push((at, context.waker().clone()));
            Poll::Pending
        }))
    }
}

/// What was attempted.
#[derive(Default)]
pub struct Books {
    /// Of each job (by uid): tick, number, when it began.
    pub attempts: BTreeMap<String, Vec<(Timestamp, u32, Timestamp)>>,
    pub running: HashSet<String>,
}

pub struct BookedWay {
    pub clock: SharedClock,
    pub books: Arc<Mutex<Books>>,
    /// How long attempts take, at most, by the clock.
    pub takes_max: Duration,
}

impl Way for BookedWay {
    fn check(&self, _: &Identity, _: &ProjectId, _: &Settings) -> Result<(), Status> {
        Ok(())
    }

    fn attempt<'a>(&'a self, job: &'a Job, attempt: &'a Attempt) -> Pin<Box<dyn Future<Output = Outcome> + Send + 'a>> {
        Box::pin(async move {
            let now = self.clock.now();
            {
                let mut books = self.books.lock().unwrap();
                assert!(books.running.insert(job.uid.clone()), "two attempts of {} at once", job.key.id);
                let attempts = books.attempts.entry(job.uid.clone()).or_default();
                assert!(attempts.iter().all(|(tick, number, _)| (*tick, *number) != (attempt.tick, attempt.number)), "{attempt:?} of {} twice", job.key.id);
                // As it was recorded: the clock may have been set since.
                attempts.push((attempt.tick, attempt.number, job.attempted.expect("an attempt that has begun")));
            }
            // Half take no time; some fail.
            let takes = self.takes_max.mul_f64(rand::random_range(-1.0..1.0_f64).max(0.0));
            self.clock.until(now + takes).await;
            self.books.lock().unwrap().running.remove(&job.uid);
            if rand::random_bool(0.4) { Outcome::failed(Code::Unavailable, "") } else { Outcome::good() }
        })
    }
}

pub fn owner() -> Identity {
    Identity { kind: Kind::User, email: "owner@example.com".to_owned(), subject: "1".to_owned() }
}

pub fn key(id: &str) -> JobKey {
    key_in("asia-northeast1", id)
}

pub fn key_in(region: &str, id: &str) -> JobKey {
    JobKey::new(ProjectId::parse("demo-1").unwrap(), Region::parse(region).unwrap(), id).unwrap()
}

pub fn settings(schedule: &str, retries: u32) -> Settings {
    Settings {
        description: String::new(),
        schedule: schedule.to_owned(),
        time_zone: "Asia/Tokyo".to_owned(),
        target: Target::Http(HttpTarget {
            uri: "https://f-1.asia-northeast1.run.app/".to_owned(),
            method: "POST".to_owned(),
            headers: BTreeMap::new(),
            body: Vec::new(),
            token: None,
        }),
        retry: Retry { count: retries, ..Retry::default() },
        attempt_deadline: Duration::from_secs(180),
    }
}
