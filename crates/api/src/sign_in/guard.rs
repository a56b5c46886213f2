//! How fast passwords may be tried: ten times a minute for an e-mail, sixty times for all. Who tries faster waits; nobody is locked out.

use std::{collections::HashMap, time::Duration};

use tokio::{
    sync::{Mutex, Semaphore},
    time::{Instant, sleep_until},
};

const WINDOW: Duration = Duration::from_secs(60);
const OF_ONE: usize = 10;
const OF_ALL: usize = 60;
/// Longer waits are refused instead.
const WAIT_MAX: Duration = Duration::from_secs(15);
/// Requests that wait at the same time.
const WAITERS_MAX: usize = 32;

/// Try again in a minute.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct TooMany;

/// When tries were made, or will be.
pub(crate) struct Guard {
    tries: Mutex<Tries>,
    waiters: Semaphore,
}

impl Default for Guard {
    fn default() -> Self {
        Self { tries: Mutex::default(), waiters: Semaphore::new(WAITERS_MAX) }
    }
}

/// Bounded by the limit for all: older tries are forgotten.
#[derive(Default)]
struct Tries {
    all: Vec<Instant>,
    by_email: HashMap<String, Vec<Instant>>,
}

impl Guard {
    /// Returns when a try for `email` may be made.
    pub(super) async fn wait(&self, email: &str) -> Result<(), TooMany> {
        let _waiter = self.waiters.try_acquire().map_err(|_| TooMany)?;
        let at = self.tries.lock().await.reserve(email, Instant::now()).ok_or(TooMany)?;
        sleep_until(at).await;
        Ok(())
    }
}

impl Tries {
    /// When the next try may be made; `None` when that is too far away.
    fn reserve(&mut self, email: &str, now: Instant) -> Option<Instant> {
        let recent = |at: &Instant| now.saturating_duration_since(*at) < WINDOW;
        self.all.retain(recent);
        self.by_email.retain(|_, tries| {
            tries.retain(recent);
            !tries.is_empty()
        });
        let of_one = self.by_email.get(email).map_or(&[][..], Vec::as_slice);
        let at = now.max(earliest(&self.all, OF_ALL, now)).max(earliest(of_one, OF_ONE, now));
        if at - now > WAIT_MAX {
            return None;
        }
        insert(&mut self.all, at);
        insert(self.by_email.entry(email.to_owned()).or_default(), at);
        Some(at)
    }
}

/// The first instant with fewer than `limit` tries in the window before it. `tries` rise.
fn earliest(tries: &[Instant], limit: usize, now: Instant) -> Instant {
    tries.len().checked_sub(limit).map_or(now, |at| tries[at] + WINDOW)
}

fn insert(tries: &mut Vec<Instant>, at: Instant) {
    let place = tries.partition_point(|earlier| *earlier <= at);
    tries.insert(place, at);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_eleventh_try_of_a_minute_waits_or_is_refused() {
        let (mut tries, start) = (Tries::default(), Instant::now());
        let second = Duration::from_secs(1);
        for n in 0..10 {
            assert_eq!(tries.reserve("a", start + n * second), Some(start + n * second));
        }
        assert_eq!(tries.reserve("a", start + 10 * second), None);
        assert_eq!(tries.reserve("b", start + 10 * second), Some(start + 10 * second));
        assert_eq!(tries.reserve("a", start + 50 * second), Some(start + 60 * second));
        assert_eq!(tries.reserve("a", start + 50 * second), Some(start + 61 * second));
    }

    #[test]
    fn all_together_are_bounded_in_speed_and_memory() {
        let (mut tries, start) = (Tries::default(), Instant::now());
        for n in 0..1000 {
            let reserved = tries.reserve(&format!("e{n}"), start);
            assert_eq!(reserved.is_some(), n < 60, "{n}");
        }
        assert_eq!((tries.all.len(), tries.by_email.len()), (60, 60));
        assert!(tries.reserve("x", start + WINDOW).is_some());
        assert_eq!(tries.by_email.len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_waiter_is_let_through_when_its_time_comes() {
        let (guard, start) = (Guard::default(), Instant::now());
        for _ in 0..10 {
            guard.wait("a").await.unwrap();
        }
        tokio::time::advance(Duration::from_secs(50)).await;
        guard.wait("a").await.unwrap();
        assert!(start.elapsed() >= WINDOW);
    }
}
