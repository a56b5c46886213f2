//! The last events that were delivered: what was sent, and what came of each attempt. In memory, bounded, of this run of the server.
//!
//! For people to look at and to send again; nothing is delivered by it, and nothing depends on it.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use model::{RevisionName, Timestamp};
use parking_lot::Mutex;

use crate::deliver::{Answer, Call, Failure};

/// How many events are kept, and how many bytes of bodies of all of them. The oldest go first.
const EVENTS_MAX: usize = 1000;
const BYTES_MAX: usize = 32 << 20;
/// A longer body is not kept: such an event can be looked at and not sent again.
pub const BODY_MAX_BYTES: usize = 64 << 10;
/// Attempts of one event that are kept, the last ones; bytes of each answer.
const ATTEMPTS_MAX: usize = 20;
const ANSWER_MAX_BYTES: usize = 1 << 10;

/// Whose event it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct About {
    /// Who sends: `scheduler`, `pubsub`.
    pub sender: &'static str,
    /// The resource that it comes from, such as `projects/P/locations/R/jobs/J`.
    pub from: String,
    /// Tells it from others of the same resource: its attempts have the same.
    pub key: String,
}

/// One event.
#[derive(Clone, Debug)]
pub struct Event {
    /// From 1, in the order in which events came.
    pub id: u64,
    pub about: About,
    /// Without its body when that was too long.
    pub call: Call,
    pub body_bytes: usize,
    pub attempts: VecDeque<Attempt>,
    /// With those that are not kept any more.
    pub attempts_all: u64,
}

/// One attempt of an event.
#[derive(Clone, Debug)]
pub struct Attempt {
    pub began: Timestamp,
    pub latency: Duration,
    /// The HTTP status, or why there is none.
    pub result: Result<u16, String>,
    /// The beginning of the answer's body.
    pub answer: String,
    /// It was sent again by hand, perhaps to a revision by name.
    pub replay: Option<Option<RevisionName>>,
}

impl Event {
    pub fn is_whole(&self) -> bool {
        self.body_bytes <= BODY_MAX_BYTES
    }

    fn bytes(&self) -> usize {
        self.call.body.len()
    }
}

impl Attempt {
    pub(crate) fn of(began: Timestamp, took: Duration, result: &Result<Answer, Failure>) -> Self {
        let answer = result.as_ref().map(|answer| &answer.body[..answer.body.len().min(ANSWER_MAX_BYTES)]).unwrap_or_default();
        Self {
            began,
            latency: took,
            result: result.as_ref().map(|answer| answer.status.as_u16()).map_err(Failure::to_string),
            answer: String::from_utf8_lossy(answer).into_owned(),
            replay: None,
        }
    }
}

/// Clones share it.
#[derive(Clone, Default)]
pub struct History(Arc<Mutex<Kept>>);

#[derive(Default)]
struct Kept {
    ids: u64,
    bytes: usize,
    events: VecDeque<Event>,
}

impl History {
    /// An attempt of the event `about`, which is made when it is not known.
    pub(crate) fn record(&self, about: About, call: &Call, attempt: Attempt) {
        let mut kept = self.0.lock();
        // The newest first: attempts of one event come close to each other.
        if let Some(event) = kept.events.iter_mut().rev().find(|event| event.about == about) {
            event.add(attempt);
            return;
        }
        kept.ids += 1;
        let (id, body_bytes) = (kept.ids, call.body.len());
        let mut call = call.clone();
        if body_bytes > BODY_MAX_BYTES {
            call.body.clear();
        }
        let mut event = Event { id, about, call, body_bytes, attempts: VecDeque::new(), attempts_all: 0 };
        event.add(attempt);
        kept.bytes += event.bytes();
        kept.events.push_back(event);
        while kept.events.len() > EVENTS_MAX || kept.bytes > BYTES_MAX {
            let Some(oldest) = kept.events.pop_front() else { return };
            kept.bytes -= oldest.bytes();
        }
    }

    /// An attempt more of an event that is kept.
    pub(crate) fn record_more(&self, id: u64, attempt: Attempt) {
        if let Some(event) = self.0.lock().events.iter_mut().find(|event| event.id == id) {
            event.add(attempt);
        }
    }

    /// The last `limit` events, the oldest first.
    pub fn list(&self, limit: usize) -> Vec<Event> {
        let kept = self.0.lock();
        kept.events.iter().skip(kept.events.len().saturating_sub(limit)).cloned().collect()
    }

    pub fn get(&self, id: u64) -> Option<Event> {
        self.0.lock().events.iter().find(|event| event.id == id).cloned()
    }
}

impl Event {
    fn add(&mut self, attempt: Attempt) {
        self.attempts_all += 1;
        if self.attempts.len() == ATTEMPTS_MAX {
            self.attempts.pop_front();
        }
        self.attempts.push_back(attempt);
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::{HeaderMap, Method};
    use model::ProjectId;

    use super::*;
    use crate::deliver::Target;

    fn record(history: &History, key: &str, body: usize, status: u16) {
        let call = Call {
            project: ProjectId::parse("demo-1").unwrap(),
            target: Target::Url("https://f-1.asia-northeast1.run.app/".parse().unwrap()),
            method: Method::POST,
            headers: HeaderMap::new(),
            body: Bytes::from(vec![b'x'; body]),
            token: None,
            redirects_max: 0,
            timeout: Duration::from_secs(1),
            hops: model::Hops::default(),
        };
        let attempt = Attempt { began: Timestamp::UNIX_EPOCH, latency: Duration::ZERO, result: Ok(status), answer: String::new(), replay: None };
        history.record(About { sender: "scheduler", from: "j".to_owned(), key: key.to_owned() }, &call, attempt);
    }

    #[test]
    fn attempts_of_one_event_belong_together() {
        let history = History::default();
        for (key, status) in [("a", 500), ("b", 200), ("a", 200)] {
            record(&history, key, 1, status);
        }
        let all: Vec<_> = history.list(10).iter().map(|e| (e.id, e.attempts.iter().map(|a| a.result.clone().unwrap()).collect::<Vec<_>>())).collect();
        assert_eq!(all, [(1, vec![500, 200]), (2, vec![200])]);
        for _ in 0..100 {
            record(&history, "a", 1, 503);
        }
        let event = history.get(1).unwrap();
        assert_eq!((event.attempts.len(), event.attempts_all), (ATTEMPTS_MAX, 102));
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let history = History::default();
        for at in 0..EVENTS_MAX + 7 {
            record(&history, &at.to_string(), BODY_MAX_BYTES, 200);
        }
        // By bytes: half as many as by number.
        assert_eq!((history.list(usize::MAX).len(), history.list(3)[0].id), (BYTES_MAX / BODY_MAX_BYTES, EVENTS_MAX as u64 + 5));
        assert!(history.get(1).is_none());
        let history = History::default();
        for at in 0..EVENTS_MAX + 7 {
            record(&history, &at.to_string(), 0, 200);
        }
        assert_eq!(history.list(usize::MAX).len(), EVENTS_MAX);
        record(&history, "long", BODY_MAX_BYTES + 1, 200);
        let long = history.list(1).remove(0);
        assert_eq!((long.call.body.len(), long.body_bytes, long.is_whole()), (0, BODY_MAX_BYTES + 1, false));
    }
}
