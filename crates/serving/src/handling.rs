//! What an instance is handling at this moment, and so what lies behind what it makes.
//!
//! Nothing that a function sends says which of its requests it comes of, unless the function passes that request's trace on. With one
//! request under way there is no question. Of several the one with the most hops counts for what makes an event, so that no loop hides
//! behind others; and the one with the fewest for a call of a service, which waits for its answer: a service that calls itself once for
//! each request would else be one hop further with each.
//! What is sent when none is under way comes of the last that ended, for a moment: libraries publish in batches, after the answer.
//! An instance has its own; no lock is shared by two (`docs/decisions/0024-loops-are-found-by-hops.md`).

use std::{sync::Arc, time::Duration};

use http::HeaderMap;
use model::Hops;
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::headers::Trace;

/// How long what is sent after the last answer is taken to come of it.
const AFTER: Duration = Duration::from_secs(1);

/// What an instance sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// To an API: it may make an event.
    Event,
    /// To a service.
    Call,
}

/// The requests of one instance.
#[derive(Debug, Default)]
pub struct Handling(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// As many as the instance has slots, at most.
    now: Vec<Request>,
    /// The one with the most hops of those that ended last, and when.
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
    pub fn made(&self, by: &str, sent: Sent, headers: &HeaderMap) -> Hops {
        let trace = Trace::sent(headers);
        let state = self.0.lock();
        let exact = trace.and_then(|trace| most(state.now.iter().filter(|request| request.trace == trace.id)));
        let now = match sent {
            Sent::Event => most(state.now.iter()),
            Sent::Call => state.now.iter().map(|request| &request.hops).min_by_key(|hops| hops.count),
        };
        let last = || state.last.as_ref().filter(|(at, _)| at.elapsed() < AFTER).map(|(_, hops)| hops);
        exact.or(now).or_else(last).map_or_else(|| Hops::default().next(by), |hops| hops.next(by))
    }
}

fn most<'a>(requests: impl Iterator<Item = &'a Request>) -> Option<&'a Arc<Hops>> {
    requests.map(|request| &request.hops).max_by_key(|hops| hops.count)
}

impl Drop for Handled {
    fn drop(&mut self) {
        let mut state = self.of.0.lock();
        if let Some(at) = state.now.iter().position(|request| Arc::ptr_eq(&request.hops, &self.request.hops)) {
            state.now.swap_remove(at);
        }
        let now = Instant::now();
        let is_most = state.last.as_ref().is_none_or(|(at, hops)| now.duration_since(*at) >= AFTER || hops.count <= self.request.hops.count);
        if is_most {
            state.last = Some((now, self.request.hops.clone()));
        }
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

    fn made(handling: &Handling, sent: Option<u128>) -> u32 {
        sent_of(handling, Sent::Event, sent)
    }

    fn sent_of(handling: &Handling, sent: Sent, trace: Option<u128>) -> u32 {
        let mut headers = HeaderMap::new();
        if let Some(id) = trace {
            headers.insert("traceparent", format!("00-{id:032x}-0000000000000001-00").parse().unwrap());
        }
        let made = handling.made("f", sent, &headers);
        assert_eq!(made.trail, ["f"]);
        made.count
    }

    #[tokio::test(start_paused = true)]
    async fn of_several_requests_the_one_with_the_most_hops_is_taken() {
        let handling: Arc<Handling> = Arc::default();
        assert_eq!(made(&handling, None), 1);
        let all: Vec<_> = (0..80).map(|n| handling.begin(&trace(n + 1), hops((n % 7) as u32))).collect();
        assert_eq!(made(&handling, None), 7);
        let (zeros, others): (Vec<_>, Vec<_>) = all.into_iter().partition(|handled| handled.request.hops.count == 0);
        drop(others);
        // Requests are under way: what ended before says nothing.
        assert_eq!(made(&handling, None), 1);
        drop(zeros);
        assert_eq!(made(&handling, None), 7);
        tokio::time::advance(AFTER).await;
        assert_eq!(made(&handling, None), 1);
    }

    #[tokio::test]
    async fn a_trace_that_is_passed_on_says_which_request_it_is() {
        let handling: Arc<Handling> = Arc::default();
        let _held = [(1, 0), (2, 5), (3, 2)].map(|(id, count)| handling.begin(&trace(id), hops(count)));
        for (sent, expect) in [(Some(1), 1), (Some(2), 6), (Some(3), 3), (Some(4), 6), (None, 6)] {
            assert_eq!(made(&handling, sent), expect, "{sent:?}");
        }
        // A loop has one trace all along: the highest of them.
        let _again = handling.begin(&trace(1), hops(9));
        assert_eq!(made(&handling, Some(1)), 10);
    }

    /// Each request calls the service itself once, and the next one comes before it is done.
    #[tokio::test]
    async fn a_service_that_calls_itself_is_no_loop() {
        let handling: Arc<Handling> = Arc::default();
        let mut held = std::collections::VecDeque::new();
        for n in 0..1000 {
            held.push_back(handling.begin(&trace(2 * n + 1), hops(0)));
            let count = sent_of(&handling, Sent::Call, None);
            assert!(count <= 2, "{n}: {count}");
            held.push_back(handling.begin(&trace(2 * n + 2), hops(count)));
            if held.len() > 40 {
                held.drain(..2);
            }
        }
        assert!(made(&handling, None) <= 3);
        // One that goes round is one.
        held.clear();
        let mut count = 0;
        for n in 0..100 {
            let _one = handling.begin(&trace(n + 1), hops(count));
            count = sent_of(&handling, Sent::Call, None);
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
