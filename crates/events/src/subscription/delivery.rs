//! What is out and what may go out: the messages that were read, their keys, and when each may be given out.
//!
//! All of it is gone after a restart. Of each key, the messages up to `out_until` are out (or acknowledged early) and those after
//! it wait; at most the first that waits is ready, for the holder alone while there is one.

use std::{
    collections::BTreeSet,
    ops::Bound::{Excluded, Included, Unbounded},
    sync::Arc,
};

use model::Timestamp;

use super::{DeadLetter, Done, Entry, Subscriber, Subscription, later};

/// A message that was read and is not acknowledged.
#[derive(Clone, Debug)]
pub(super) struct Message {
    published: Timestamp,
    key: Option<Arc<str>>,
    pub(super) state: State,
    /// Whether it was never given out.
    is_fresh: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// For its turn, and until `backoff` when there is one.
    Waiting {
        backoff: Option<Timestamp>,
    },
    Out {
        lease: u64,
        subscriber: Subscriber,
        deadline: Timestamp,
    },
    /// Acknowledged while an earlier one of its key is not.
    AckedEarly,
    /// Its attempts are used up, and the caller was told.
    DeadLettering,
}

impl State {
    fn timer(self) -> Option<Timestamp> {
        match self {
            State::Waiting { backoff } => backoff,
            State::Out { deadline, .. } => Some(deadline),
            State::AckedEarly | State::DeadLettering => None,
        }
    }
}

/// The messages with one ordering key.
#[derive(Clone, Debug, Default)]
pub(super) struct Key {
    members: BTreeSet<u64>,
    /// Who has those that are out.
    holder: Option<Subscriber>,
    /// The last that is out; 0 when none is.
    out_until: u64,
    /// Where in `ready` its first waiting message is.
    placed: Option<(Option<Subscriber>, u64)>,
}

impl Subscription {
    /// Takes a message that is to be delivered.
    pub(super) fn admit(&mut self, sequence: u64, published: Timestamp, ordering_key: &str) {
        let key = (self.settings.is_ordered && !ordering_key.is_empty()).then(|| {
            let known = self.keys.get_key_value(ordering_key).map(|(key, _)| Arc::clone(key));
            known.unwrap_or_else(|| Arc::from(ordering_key))
        });
        if let Some(key) = &key {
            self.keys.entry(Arc::clone(key)).or_default().members.insert(sequence);
        }
        self.messages.insert(sequence, Message { published, key, state: State::Waiting { backoff: None }, is_fresh: true });
        self.fresh += 1;
        // Used up before a restart, and not seen to lie in the dead-letter topic.
        if self.is_used_up(sequence) {
            self.set(sequence, State::DeadLettering);
            self.dead_letters.push(DeadLetter { sequence, attempts: self.failures(sequence) });
        }
        self.place(sequence);
    }

    pub(super) fn advance_into(&mut self, now: Timestamp, done: &mut Done) {
        let mut due: Vec<u64> = self.timers.range(..=(now, u64::MAX)).map(|(_, sequence)| *sequence).collect();
        // The last first, as with nacks: the later ones of a key have failed themselves when their own leases have ended.
        due.sort_unstable_by(|a, b| b.cmp(a));
        let mut failed = Vec::new();
        for sequence in due {
            match self.messages.get(&sequence).map(|message| message.state) {
                Some(State::Out { deadline, .. }) if deadline <= now => {
                    self.fail(sequence, now);
                    failed.push(sequence);
                }
                Some(State::Waiting { backoff: Some(backoff) }) if backoff <= now => {
                    self.set(sequence, State::Waiting { backoff: None });
                    self.place(sequence);
                }
                // Recalled by the end of an earlier one of its key.
                _ => {}
            }
        }
        self.note_failed(failed, done);
        let expired: Vec<u64> = self
            .messages
            .iter()
            .take_while(|(_, message)| later(message.published, self.settings.retention) <= now)
            .filter(|(_, message)| matches!(message.state, State::Waiting { .. }))
            .map(|(sequence, _)| *sequence)
            .collect();
        // Nothing to append: after a restart they are as old.
        let mut sequences = Vec::new();
        for sequence in expired {
            self.finish(sequence, &mut sequences);
        }
        done.dead_letters.append(&mut self.dead_letters);
    }

    /// Says what failed, and hands out the dead letters that came of it.
    pub(super) fn note_failed(&mut self, failed: Vec<u64>, done: &mut Done) {
        if !failed.is_empty() {
            done.entries.push(Entry::Failed { sequences: failed });
        }
        done.dead_letters.append(&mut self.dead_letters);
    }

    /// The oldest message that `subscriber` may get.
    pub(super) fn first_ready(&self, subscriber: Subscriber) -> Option<u64> {
        let first = |holder: Option<Subscriber>| self.ready.get(&holder).and_then(|ready| ready.first()).copied();
        match (first(None), first(Some(subscriber))) {
            (Some(anyones), Some(own)) => Some(anyones.min(own)),
            (anyones, own) => anyones.or(own),
        }
    }

    /// `out` is [`State::Out`]; `sequence` is ready for its subscriber.
    pub(super) fn give_out(&mut self, sequence: u64, out: State) {
        let State::Out { subscriber, .. } = out else { return };
        self.set(sequence, out);
        if let Some(key) = self.key_of(sequence) {
            if let Some(key) = self.keys.get_mut(&key) {
                key.holder = Some(subscriber);
                key.out_until = sequence;
            }
            self.place_key(&key);
        } else {
            self.unready(None, sequence);
        }
    }

    pub(super) fn extend(&mut self, sequence: u64, until: Timestamp) {
        if let Some(State::Out { lease, subscriber, .. }) = self.messages.get(&sequence).map(|message| message.state) {
            self.set(sequence, State::Out { lease, subscriber, deadline: until });
        }
    }

    pub(super) fn is_first_of_its_key(&self, message: &Message, sequence: u64) -> bool {
        let key = message.key.as_ref().and_then(|key| self.keys.get(key));
        key.is_none_or(|key| key.members.first() == Some(&sequence))
    }

    pub(super) fn ack_early(&mut self, sequence: u64) {
        self.set(sequence, State::AckedEarly);
    }

    /// Takes the message out as acknowledged, and those of its key whose early ack holds by that; all of them are added to `sequences`.
    pub(super) fn finish(&mut self, sequence: u64, sequences: &mut Vec<u64>) {
        let key = self.key_of(sequence);
        self.remove(sequence);
        sequences.push(sequence);
        let Some(key) = key else {
            self.unready(None, sequence);
            return;
        };
        while let Some(first) = self.keys.get(&key).and_then(|key| key.members.first()).copied()
            && self.messages.get(&first).is_some_and(|message| message.state == State::AckedEarly)
        {
            self.remove(first);
            sequences.push(first);
        }
        self.place_key(&key);
    }

    /// The delivery was in vain: counts it, and lets the message wait or go to the dead-letter topic.
    pub(super) fn fail(&mut self, sequence: u64, now: Timestamp) {
        // As the entry says it that the caller makes of it.
        self.durable.apply(&Entry::Failed { sequences: vec![sequence] });
        if self.is_used_up(sequence) {
            self.set(sequence, State::DeadLettering);
            self.dead_letters.push(DeadLetter { sequence, attempts: self.failures(sequence) });
            self.recall(sequence);
        } else {
            self.wait(sequence, now);
        }
    }

    /// Lets the message wait, as long as the retry policy says.
    pub(super) fn wait(&mut self, sequence: u64, now: Timestamp) {
        let backoff = self.settings.retry.map(|retry| retry.backoff(self.failures(sequence))).filter(|backoff| !backoff.is_zero());
        self.set(sequence, State::Waiting { backoff: backoff.map(|backoff| later(now, backoff)) });
        self.recall(sequence);
    }

    /// The message is out no more: neither are the later ones of its key.
    fn recall(&mut self, sequence: u64) {
        let Some(name) = self.key_of(sequence) else {
            return self.place(sequence);
        };
        let Some(key) = self.keys.get_mut(&name) else { return };
        if sequence <= key.out_until {
            let recalled: Vec<u64> = key.members.range((Excluded(sequence), Included(key.out_until))).copied().collect();
            key.out_until = key.members.range(..sequence).next_back().copied().unwrap_or(0);
            for later in recalled {
                self.set(later, State::Waiting { backoff: None });
            }
        }
        self.place_key(&name);
    }

    fn failures(&self, sequence: u64) -> u32 {
        self.durable.failures.get(&sequence).copied().unwrap_or(0)
    }

    fn is_used_up(&self, sequence: u64) -> bool {
        self.settings.delivery_attempts_max.is_some_and(|max| self.failures(sequence) >= max)
    }

    fn key_of(&self, sequence: u64) -> Option<Arc<str>> {
        self.messages.get(&sequence).and_then(|message| message.key.clone())
    }

    /// Changes a message's state and its timer with it.
    fn set(&mut self, sequence: u64, state: State) {
        let Some(message) = self.messages.get_mut(&sequence) else { return };
        if let Some(time) = message.state.timer() {
            self.timers.remove(&(time, sequence));
        }
        if let Some(time) = state.timer() {
            self.timers.insert((time, sequence));
        }
        if message.is_fresh && !matches!(state, State::Waiting { .. }) {
            message.is_fresh = false;
            self.fresh -= 1;
        }
        message.state = state;
    }

    fn remove(&mut self, sequence: u64) {
        let Some(message) = self.messages.remove(&sequence) else { return };
        if let Some(time) = message.state.timer() {
            self.timers.remove(&(time, sequence));
        }
        if message.is_fresh {
            self.fresh -= 1;
        }
        if let Some(key) = message.key.and_then(|key| self.keys.get_mut(&key)) {
            key.members.remove(&sequence);
        }
        self.durable.acknowledge(sequence);
    }

    /// Makes the message ready when it is its turn.
    fn place(&mut self, sequence: u64) {
        if let Some(key) = self.key_of(sequence) {
            self.place_key(&key);
        } else if self.is_ready(sequence) {
            self.ready.entry(None).or_default().insert(sequence);
        }
    }

    /// Makes the first waiting message of the key ready, and no other.
    fn place_key(&mut self, name: &Arc<str>) {
        let Some(key) = self.keys.get_mut(name) else { return };
        if key.members.range(..=key.out_until).next().is_none() {
            key.holder = None;
            key.out_until = 0;
        }
        let before = key.placed.take();
        let (holder, first) = (key.holder, key.members.range((Excluded(key.out_until), Unbounded)).next().copied());
        let is_empty = key.members.is_empty();
        let place = first.filter(|first| self.is_ready(*first)).map(|first| (holder, first));
        if before != place {
            if let Some((holder, sequence)) = before {
                self.unready(holder, sequence);
            }
            if let Some((holder, sequence)) = place {
                self.ready.entry(holder).or_default().insert(sequence);
            }
        }
        if is_empty {
            self.keys.remove(name);
        } else if let Some(key) = self.keys.get_mut(name) {
            key.placed = place;
        }
    }

    fn is_ready(&self, sequence: u64) -> bool {
        self.messages.get(&sequence).is_some_and(|message| message.state == State::Waiting { backoff: None })
    }

    fn unready(&mut self, holder: Option<Subscriber>, sequence: u64) {
        if let Some(ready) = self.ready.get_mut(&holder) {
            ready.remove(&sequence);
            if ready.is_empty() {
                self.ready.remove(&holder);
            }
        }
    }
}
