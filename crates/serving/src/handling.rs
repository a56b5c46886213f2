//! What an instance is handling at this moment, and so what lies behind what it makes.
//!
//! Nothing that a function sends says which of its requests it comes of, unless the function passes that request's trace on. With one
//! request under way there is no question. Of several the one with the fewest hops counts: what is no loop is then never taken for one.
//! What is sent when none is under way comes of the one that ended last, for a moment: libraries publish in batches, after the answer.
//! An instance has its own; no lock is shared by two (`docs/decisions/0024-loops-are-found-by-hops.md`).

use std::{sync::Arc, time::Duration};

use http::HeaderMap;
use model::Hops;
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::headers::Trace;

/// How long what is sent after the last answer is taken to come of it.
const AFTER: Duration = Duration::from_secs(1);

/// The requests of one instance.
#[derive(Debug, Default)]
pub struct Handling(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// As many as the instance has slots, at most.
    now: Vec<Request>,
    /// The one that ended last, and when.
    last: Option<(Instant, Arc<Hops>)>,
}

#[derive(Clone, Debug)]
struct Request {
    trace: u128,
    hops: Arc<Hops>,
}

/// A request that is being handled, until it is dropped.
pub(crate) struct Handled {
    of: Arc<Handling>,
    request: Request,
}

impl Handling {
    /// A request has come to the instance.
    pub(crate) fn begin(self: &Arc<Self>, trace: &Trace, hops: Hops) -> Handled {
        let request = Request { trace: trace.id, hops: Arc::new(hops) };
        self.0.lock().now.push(request.clone());
        Handled { of: self.clone(), request }
    }

    /// What lies behind a request with these headers that the service `by` sends from this instance.
    pub fn made(&self, by: &str, headers: &HeaderMap) -> Hops {
        let trace = Trace::sent(headers);
        let state = self.0.lock();
        // A loop has one trace all along: the furthest of them.
        let exact = trace.and_then(|trace| state.now.iter().filter(|request| request.trace == trace.id).max_by_key(|request| request.hops.count));
        let request = exact.or_else(|| state.now.iter().min_by_key(|request| request.hops.count));
        let last = || state.last.as_ref().filter(|(at, _)| at.elapsed() < AFTER).map(|(_, hops)| hops);
        request.map(|request| &request.hops).or_else(last).map_or_else(|| Hops::default().next(by), |hops| hops.next(by))
    }
}

impl Drop for Handled {
    fn drop(&mut self) {
        let mut state = self.of.0.lock();
        if let Some(at) = state.now.iter().position(|request| Arc::ptr_eq(&request.hops, &self.request.hops)) {
            state.now.swap_remove(at);
        }
        state.last = Some((Instant::now(), self.request.hops.clone()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trace(id: u128) -> Trace {
        Trace { id, span: 1, sampled: false }
    }

    fn hops(count: u32) -> Hops {
        Hops { count, trail: Vec::new() }
    }

    fn made(handling: &Handling, trace: Option<u128>) -> u32 {
        let mut headers = HeaderMap::new();
        if let Some(id) = trace {
            headers.insert("traceparent", format!("00-{id:032x}-0000000000000001-00").parse().unwrap());
        }
        let made = handling.made("f", &headers);
        assert_eq!(made.trail, ["f"]);
        made.count
    }

    #[tokio::test(start_paused = true)]
    async fn of_several_requests_the_one_with_the_fewest_hops_is_taken() {
        let handling: Arc<Handling> = Arc::default();
        assert_eq!(made(&handling, None), 1);
        let all: Vec<_> = (0..80).map(|n| handling.begin(&trace(n + 1), hops((n % 7 + 2) as u32))).collect();
        assert_eq!(made(&handling, None), 3);
        let (fewest, others): (Vec<_>, Vec<_>) = all.into_iter().partition(|handled| handled.request.hops.count == 2);
        drop(fewest);
        // Requests are under way: what ended before says nothing.
        assert_eq!(made(&handling, None), 4);
        drop(others);
        let one = handling.begin(&trace(99), hops(5));
        drop(one);
        assert_eq!(made(&handling, None), 6);
        tokio::time::advance(AFTER).await;
        assert_eq!(made(&handling, None), 1);
    }

    #[tokio::test]
    async fn a_trace_that_is_passed_on_says_which_request_it_is() {
        let handling: Arc<Handling> = Arc::default();
        let _held = [(1, 0), (2, 5), (3, 2)].map(|(id, count)| handling.begin(&trace(id), hops(count)));
        for (sent, expect) in [(Some(1), 1), (Some(2), 6), (Some(3), 3), (Some(4), 1), (None, 1)] {
            assert_eq!(made(&handling, sent), expect, "{sent:?}");
        }
        // A loop has one trace all along: the highest of them.
        let _again = handling.begin(&trace(1), hops(9));
        assert_eq!(made(&handling, Some(1)), 10);
    }

    /// Each event makes another for the same service, and the next one comes before that is done.
    #[tokio::test]
    async fn a_service_at_two_places_of_a_chain_is_no_loop() {
        let handling: Arc<Handling> = Arc::default();
        let mut held = std::collections::VecDeque::new();
        for n in 0..1000 {
            held.push_back(handling.begin(&trace(2 * n + 1), hops(0)));
            let count = made(&handling, None);
            assert_eq!(count, 1, "{n}");
            held.push_back(handling.begin(&trace(2 * n + 2), hops(count)));
            if held.len() > 40 {
                held.drain(..2);
            }
        }
        // One that goes round is one.
        held.clear();
        let mut count = 0;
        for n in 0..100 {
            let _one = handling.begin(&trace(n + 1), hops(count));
            count = made(&handling, None);
        }
        assert_eq!(count, 100);
    }

    #[tokio::test]
    async fn ended_requests_are_forgotten() {
        let handling: Arc<Handling> = Arc::default();
        for _ in 0..3 {
            let held: Vec<_> = (0..1000).map(|n| handling.begin(&trace(n + 1), hops(1))).collect();
            drop(held);
        }
        assert!(handling.0.lock().now.is_empty());
    }
}
