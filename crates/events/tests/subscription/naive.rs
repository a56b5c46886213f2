//! The subscription as a list of messages that is walked from end to end: slow, and right to the eye.

use events::subscription::{AckId, Refusal, Settings, Subscriber};
use model::Timestamp;

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum State {
    Waiting(Timestamp),
    Out(AckId, Subscriber, Timestamp),
    Early,
    Acked,
    DeadLettering,
}

#[derive(Clone, Debug)]
pub struct Message {
    pub sequence: u64,
    pub published: Timestamp,
    pub key: String,
    pub failures: u32,
    pub state: State,
}

pub struct Naive {
    pub settings: Settings,
    pub messages: Vec<Message>,
    pub dead_letters: Vec<u64>,
    pub discard_before: Timestamp,
}

impl Naive {
    pub fn publish(&mut self, key: String, now: Timestamp) {
        let sequence = self.messages.len() as u64 + 1;
        let state = if now < self.discard_before { State::Acked } else { State::Waiting(Timestamp::MIN) };
        let key = if self.settings.is_ordered { key } else { String::new() };
        self.messages.push(Message { sequence, published: now, key, failures: 0, state });
    }

    pub fn advance(&mut self, now: Timestamp) {
        for index in (0..self.messages.len()).rev() {
            if matches!(self.messages[index].state, State::Out(_, _, deadline) if deadline <= now) {
                self.fail(index, now);
            }
        }
        for index in 0..self.messages.len() {
            if matches!(self.messages[index].state, State::Waiting(_)) && self.messages[index].published + self.settings.retention <= now {
                self.messages[index].state = State::Acked;
                self.settle_early();
            }
        }
    }

    fn fail(&mut self, index: usize, now: Timestamp) {
        let message = &mut self.messages[index];
        message.failures += 1;
        if self.settings.delivery_attempts_max.is_some_and(|max| message.failures >= max) {
            message.state = State::DeadLettering;
            self.dead_letters.push(message.sequence);
            self.recall_after(index);
        } else {
            self.wait(index, now);
        }
    }

    pub fn wait(&mut self, index: usize, now: Timestamp) {
        let from = match self.settings.retry {
            Some(retry) => now + retry.backoff(self.messages[index].failures),
            None => now,
        };
        self.messages[index].state = State::Waiting(from);
        self.recall_after(index);
    }

    fn recall_after(&mut self, index: usize) {
        let key = self.messages[index].key.clone();
        if !key.is_empty() {
            for message in self.messages[index + 1..].iter_mut().filter(|message| message.key == key) {
                if matches!(message.state, State::Out(..) | State::Early) {
                    message.state = State::Waiting(Timestamp::MIN);
                }
            }
        }
    }

    fn before(&self, index: usize) -> impl Iterator<Item = &Message> {
        let key = &self.messages[index].key;
        self.messages[..index].iter().filter(move |other| !key.is_empty() && other.key == *key && other.state != State::Acked)
    }

    /// Which sequences a pull gives, in order; `give` then says under which ids.
    pub fn next_for(&self, subscriber: Subscriber, now: Timestamp) -> Option<usize> {
        (0..self.messages.len()).find(|index| {
            matches!(self.messages[*index].state, State::Waiting(from) if from <= now)
                && self.before(*index).all(|other| match other.state {
                    State::Out(_, holder, _) => holder == subscriber,
                    state => state == State::Early,
                })
        })
    }

    fn is_current(&self, id: AckId) -> bool {
        matches!(self.messages[id.sequence as usize - 1].state, State::Out(current, ..) if current == id)
    }

    /// `is_stale`: the id is from before a seek.
    pub fn ack(&mut self, id: AckId, is_stale: bool) -> Option<Refusal> {
        let index = id.sequence as usize - 1;
        let is_current = self.is_current(id);
        if self.settings.is_exactly_once && !is_current {
            return Some(Refusal::InvalidAckId);
        }
        if is_stale || self.messages[index].state == State::Acked {
            return None;
        }
        if self.before(index).next().is_none() {
            self.messages[index].state = State::Acked;
            self.settle_early();
        } else if self.settings.is_exactly_once {
            return Some(Refusal::UnorderedAckId);
        } else if is_current {
            self.messages[index].state = State::Early;
        }
        None
    }

    pub fn settle_early(&mut self) {
        for index in 0..self.messages.len() {
            if self.messages[index].state == State::Early && self.before(index).next().is_none() {
                self.messages[index].state = State::Acked;
            }
        }
    }

    pub fn modify(&mut self, id: AckId, deadline_s: u64, now: Timestamp) -> Option<Refusal> {
        if !self.is_current(id) {
            return self.settings.is_exactly_once.then_some(Refusal::InvalidAckId);
        }
        let index = id.sequence as usize - 1;
        if deadline_s == 0 {
            self.fail(index, now);
        } else if let State::Out(id, subscriber, _) = self.messages[index].state {
            self.messages[index].state = State::Out(id, subscriber, now + std::time::Duration::from_secs(deadline_s));
        }
        None
    }

    pub fn restart(&mut self) {
        self.dead_letters.clear();
        for message in &mut self.messages {
            if message.state != State::Acked {
                let is_used_up = self.settings.delivery_attempts_max.is_some_and(|max| message.failures >= max);
                message.state = if is_used_up { State::DeadLettering } else { State::Waiting(Timestamp::MIN) };
                if is_used_up {
                    self.dead_letters.push(message.sequence);
                }
            }
        }
    }

    pub fn seek(&mut self, is_acked: impl Fn(&Message) -> bool) {
        for message in &mut self.messages {
            message.state = if is_acked(message) { State::Acked } else { State::Waiting(Timestamp::MIN) };
            message.failures = 0;
        }
        self.dead_letters.clear();
    }
}
