//! A Pub/Sub subscription as a state machine: which messages are out, until when, and what becomes of them.
//!
//! Pure: time and inputs are arguments; what is to be done is returned. It holds no bodies and reads no log: the caller feeds it
//! the facts of each message of its topic in order ([`Subscription::feed`]), at most [`Subscription::room`] ahead. What must
//! survive a kill is returned as [`Entry`]s, which the caller appends to the subscription's own log before it answers; when that
//! fails, it drops the state and restores it. [`Checkpoint`] and the entries after it are the state again, without leases.
//!
//! **The rules**, from cloud.google.com/pubsub/docs (lease-management, ordering, exactly-once-delivery, handling-failures,
//! replay-overview):
//! - A delivery is a lease. It ends by an ack, a nack or its deadline; the last two count an attempt and deliver again, after the
//!   retry policy's backoff, or hand the message to the dead-letter topic once its attempts are used up.
//! - A key (the messages with one ordering key) goes to one subscriber at a time, in order. Delivering a message again delivers
//!   all later ones of its key again, acknowledged ones included; so an ack holds once all earlier ones of its key are acked.
//! - Exactly once: only the id of a lease that still runs acknowledges or changes a deadline, and a key is acknowledged in order.
//!   Otherwise the id of an ended lease acknowledges as well, and its change of a deadline does nothing.
//!
//! **Not here**: who may call, bodies, push, forging of ack ids, limits of bytes or messages per stream and the choice among
//! streams (a subscriber is asked for by who calls [`Subscription::pull`], with how many it may get), expiry of the subscription.

mod acked;
mod delivery;
mod entry;
pub mod filter;
mod settings;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use model::{Status, Timestamp};

use self::delivery::{Key, Message, State};
pub use self::{
    acked::Acked,
    entry::{Checkpoint, Entry},
    filter::Filter,
    settings::*,
};

/// How many messages are kept that were read and never given out. A key that is blocked with more than these behind it keeps the
/// rest of the topic waiting.
pub const AHEAD_MAX: usize = 10_000;

/// Who a message is out to: a stream, or one pull or push request. Numbered by the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Subscriber(pub u64);

/// The name of one lease of one message. The next layer makes it opaque.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AckId {
    pub sequence: u64,
    pub epoch: u64,
    pub lease: u64,
}

/// One message of the topic's log, as far as delivery depends on it.
#[derive(Clone, Copy)]
pub struct Facts<'a> {
    /// Its place in the topic's log, which begins at 1.
    pub sequence: u64,
    /// Never before that of the message in front of it.
    pub published: Timestamp,
    /// Empty for none.
    pub ordering_key: &'a str,
    /// The value of an attribute, by its key.
    pub attribute: &'a dyn Fn(&str) -> Option<&'a str>,
}

/// A message that is to be sent to a subscriber.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delivery {
    pub ack_id: AckId,
    /// 1 and how often it was delivered in vain.
    pub attempt: u32,
    /// When its lease ends.
    pub deadline: Timestamp,
}

/// A message whose attempts are used up. The caller publishes it to the dead-letter topic and says how that went:
/// [`Subscription::dead_lettered`] or [`Subscription::dead_letter_failed`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeadLetter {
    pub sequence: u64,
    /// How often it was delivered.
    pub attempts: u32,
}

/// Why an ack id was refused; only under exactly-once delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Its lease has ended, or another one began.
    InvalidAckId,
    /// An earlier message of its key is not acknowledged yet.
    UnorderedAckId,
}

impl Refusal {
    /// The value in the `ErrorInfo` metadata of Google's answer, where the key is the ack id.
    pub fn reason(self) -> &'static str {
        match self {
            Refusal::InvalidAckId => "PERMANENT_FAILURE_INVALID_ACK_ID",
            Refusal::UnorderedAckId => "TRANSIENT_FAILURE_UNORDERED_ACK_ID",
        }
    }
}

/// What a call leaves to do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[must_use = "entries are to be appended, dead letters to be published"]
pub struct Done {
    /// To be appended in this order before anything is answered.
    pub entries: Vec<Entry>,
    pub dead_letters: Vec<DeadLetter>,
    pub refused: Vec<(AckId, Refusal)>,
}

/// A subscription over its topic's log.
#[derive(Clone, Debug)]
pub struct Subscription {
    settings: Settings,
    filter: Filter,
    /// What survives.
    durable: Checkpoint,
    /// The last sequence that was fed.
    read: u64,
    /// What was fed and is neither acknowledged nor dropped.
    messages: BTreeMap<u64, Message>,
    keys: HashMap<Arc<str>, Key>,
    /// What may be given out: to anyone, or to the one who holds the message's key.
    ready: BTreeMap<Option<Subscriber>, BTreeSet<u64>>,
    /// Ends of leases and of backoffs.
    timers: BTreeSet<(Timestamp, u64)>,
    /// How many messages were never given out.
    fresh: usize,
    /// The number of the last lease of this epoch.
    lease: u64,
    /// Found, and not yet returned to the caller.
    dead_letters: Vec<DeadLetter>,
}

impl Subscription {
    /// The state that `checkpoint` and the `entries` after it stand for, in an epoch of its own: the returned entry is appended
    /// before the first delivery.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` when `settings` are out of Google's limits.
    pub fn restore<'e>(
        settings: Settings,
        filter: Filter,
        checkpoint: Checkpoint,
        entries: impl IntoIterator<Item = &'e Entry>,
    ) -> Result<(Self, Entry), Status> {
        settings.check()?;
        let mut durable = checkpoint;
        for entry in entries {
            durable.apply(entry);
        }
        let acked = &durable.acked;
        durable.failures.retain(|sequence, _| !acked.contains(*sequence));
        let opened = Entry::Opened { epoch: durable.epoch + 1 };
        durable.apply(&opened);
        let subscription = Self {
            settings,
            filter,
            read: durable.acked.cursor(),
            durable,
            messages: BTreeMap::new(),
            keys: HashMap::new(),
            ready: BTreeMap::new(),
            timers: BTreeSet::new(),
            fresh: 0,
            lease: 0,
            dead_letters: Vec::new(),
        };
        Ok((subscription, opened))
    }

    /// Takes new settings; leases and backoffs that run keep their end.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` when they are out of Google's limits or change the ordering, which is immutable.
    pub fn configure(&mut self, settings: Settings) -> Result<(), Status> {
        settings.check()?;
        if settings.is_ordered != self.settings.is_ordered {
            return Err(Status::invalid_field("enable_message_ordering", "is immutable"));
        }
        self.settings = settings;
        Ok(())
    }

    /// What stands for all entries returned so far. To be stored only when they have been appended.
    pub fn checkpoint(&self) -> &Checkpoint {
        &self.durable
    }

    /// Which messages are acknowledged: what a snapshot keeps and [`Subscription::seek_snapshot`] takes. As with the checkpoint,
    /// only when all entries returned so far have been appended.
    pub fn snapshot(&self) -> &Acked {
        &self.durable.acked
    }

    /// The sequence that is to be fed next.
    pub fn next_sequence(&self) -> u64 {
        self.read + 1
    }

    /// How many messages may be fed now.
    pub fn room(&self) -> usize {
        AHEAD_MAX.saturating_sub(self.fresh)
    }

    /// How many messages are out under a lease.
    pub fn outstanding(&self) -> usize {
        self.messages.values().filter(|message| matches!(message.state, State::Out { .. })).count()
    }

    /// When the next lease or backoff ends: when to call [`Subscription::advance`]. The retention has no timer: what is past it is
    /// dropped by the next call that takes the time, before it could be given out.
    pub fn next_timer(&self) -> Option<Timestamp> {
        self.timers.first().map(|(time, _)| *time)
    }

    /// The first sequence that this subscription still needs of the topic's log at `now`, given how to find the first message
    /// published at or after a time.
    pub fn needed_from(&self, now: Timestamp, first_since: impl FnOnce(Timestamp) -> u64) -> u64 {
        let unacked = self.durable.acked.cursor() + 1;
        if !self.settings.retain_acked {
            return unacked;
        }
        now.checked_sub(self.settings.retention).map_or(1, first_since).min(unacked)
    }

    /// Takes the facts of the topic's next message. Sequences that are left out are gone from the log and count as acknowledged;
    /// one that was fed before is passed over.
    pub fn feed(&mut self, facts: Facts<'_>) {
        let Facts { sequence, published, ordering_key, attribute } = facts;
        if sequence <= self.read {
            return;
        }
        self.durable.acked.insert_run(self.read + 1, sequence - 1);
        self.read = sequence;
        if self.durable.acked.contains(sequence) {
            return;
        }
        if self.durable.discard_before.is_some_and(|time| published < time) || !self.filter.matches(attribute) {
            self.durable.acknowledge(sequence);
            return;
        }
        self.admit(sequence, published, ordering_key);
    }

    /// Ends leases and backoffs that are due, and drops messages that are older than the retention.
    pub fn advance(&mut self, now: Timestamp) -> Done {
        let mut done = Done::default();
        self.advance_into(now, &mut done);
        done
    }

    /// Leases up to `messages_max` messages to `subscriber`, the oldest first.
    pub fn pull(&mut self, subscriber: Subscriber, messages_max: usize, now: Timestamp) -> (Vec<Delivery>, Done) {
        let mut left = messages_max;
        self.pull_while(subscriber, self.settings.ack_deadline_s, now, |_| {
            left = left.wrapping_sub(1);
            left != usize::MAX
        })
    }

    /// Leases messages to `subscriber` for `ack_deadline_s` seconds, the oldest first, for as long as `is_wanted` says so of the next one.
    pub fn pull_while(&mut self, subscriber: Subscriber, ack_deadline_s: u32, now: Timestamp, mut is_wanted: impl FnMut(u64) -> bool) -> (Vec<Delivery>, Done) {
        let mut done = Done::default();
        self.advance_into(now, &mut done);
        let deadline = later(now, Duration::from_secs(ack_deadline_s.into()));
        let mut deliveries = Vec::new();
        while let Some(sequence) = self.first_ready(subscriber)
            && is_wanted(sequence)
        {
            self.lease += 1;
            self.give_out(sequence, State::Out { lease: self.lease, subscriber, deadline });
            let attempt = self.durable.failures.get(&sequence).copied().unwrap_or(0).saturating_add(1);
            deliveries.push(Delivery { ack_id: AckId { sequence, epoch: self.durable.epoch, lease: self.lease }, attempt, deadline });
        }
        (deliveries, done)
    }

    /// Acknowledges. Within one call the order of `ids` does not matter.
    pub fn ack(&mut self, ids: &[AckId], now: Timestamp) -> Done {
        let mut done = Done::default();
        self.advance_into(now, &mut done);
        let mut ids = ids.to_vec();
        ids.sort_unstable();
        let mut sequences = Vec::new();
        for id in ids {
            if let Err(refusal) = self.ack_one(id, &mut sequences) {
                done.refused.push((id, refusal));
            }
        }
        if !sequences.is_empty() {
            done.entries.push(Entry::Acked { sequences });
        }
        done
    }

    /// Lets leases end `deadline_s` seconds from now; 0 is a nack.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` when `deadline_s` is above 600; then nothing is changed.
    pub fn modify_ack_deadline(&mut self, ids: &[AckId], deadline_s: u32, now: Timestamp) -> Result<Done, Status> {
        if deadline_s > ACK_DEADLINE_MAX_S {
            return Err(Status::invalid_field("ack_deadline_seconds", format!("must be from 0 to {ACK_DEADLINE_MAX_S}, and is {deadline_s}")));
        }
        let mut done = Done::default();
        self.advance_into(now, &mut done);
        let mut ids = ids.to_vec();
        ids.sort_unstable();
        let mut failed = Vec::new();
        // The last first: a nack recalls the later ones of its key, and these may be nacked by the same call.
        for id in ids.into_iter().rev() {
            if !self.is_current(id) {
                if self.settings.is_exactly_once {
                    done.refused.push((id, Refusal::InvalidAckId));
                }
            } else if deadline_s == 0 {
                self.fail(id.sequence, now);
                failed.push(id.sequence);
            } else {
                self.extend(id.sequence, later(now, Duration::from_secs(deadline_s.into())));
            }
        }
        self.note_failed(failed, &mut done);
        Ok(done)
    }

    /// The message lies in the dead-letter topic now.
    pub fn dead_lettered(&mut self, sequence: u64) -> Done {
        let mut done = Done::default();
        if self.messages.get(&sequence).is_some_and(|message| message.state == State::DeadLettering) {
            let mut sequences = Vec::new();
            self.finish(sequence, &mut sequences);
            done.entries.push(Entry::DeadLettered { sequence });
        }
        done
    }

    /// The dead-letter topic did not take the message: it is delivered again, and each further failure tries the topic again.
    pub fn dead_letter_failed(&mut self, sequence: u64, now: Timestamp) {
        if self.messages.get(&sequence).is_some_and(|message| message.state == State::DeadLettering) {
            self.wait(sequence, now);
        }
    }

    /// Marks all messages published before `time` as acknowledged, also those yet to come, and all others as not. `cursor` is the
    /// sequence of the last message published before `time`, 0 for none.
    pub fn seek_time(&mut self, time: Timestamp, cursor: u64) -> Done {
        self.seek(Acked::up_to(cursor), Some(time))
    }

    /// The same, of a log that keeps what was acknowledged from the sequence `kept_from` on: what is acknowledged before it stays so.
    pub fn seek_time_kept(&mut self, time: Timestamp, cursor: u64, kept_from: u64) -> Done {
        let mut acked = self.durable.acked.clone();
        acked.forget_from(kept_from);
        acked.insert_run(1, cursor);
        self.seek(acked, Some(time))
    }

    /// Takes over what a snapshot of the same topic holds.
    pub fn seek_snapshot(&mut self, snapshot: Acked) -> Done {
        self.seek(snapshot, None)
    }

    fn seek(&mut self, acked: Acked, discard_before: Option<Timestamp>) -> Done {
        let entry = Entry::Sought { epoch: self.durable.epoch + 1, acked, discard_before };
        self.durable.apply(&entry);
        self.read = self.durable.acked.cursor();
        self.messages.clear();
        self.keys.clear();
        self.ready.clear();
        self.timers.clear();
        self.fresh = 0;
        self.lease = 0;
        self.dead_letters.clear();
        Done { entries: vec![entry], ..Done::default() }
    }

    /// Whether the lease that `id` names still runs.
    pub fn is_current(&self, id: AckId) -> bool {
        id.epoch == self.durable.epoch
            && self.messages.get(&id.sequence).is_some_and(|message| matches!(message.state, State::Out { lease, .. } if lease == id.lease))
    }

    fn ack_one(&mut self, id: AckId, sequences: &mut Vec<u64>) -> Result<(), Refusal> {
        let is_current = self.is_current(id);
        if self.settings.is_exactly_once && !is_current {
            return Err(Refusal::InvalidAckId);
        }
        if id.epoch < self.durable.sought || self.durable.acked.contains(id.sequence) {
            return Ok(());
        }
        let Some(message) = self.messages.get(&id.sequence) else {
            // Given out before a restart, and not read again yet. Its key is not known then, so an ordered one is delivered again.
            if !self.settings.is_ordered {
                self.durable.acknowledge(id.sequence);
                sequences.push(id.sequence);
            }
            return Ok(());
        };
        if self.is_first_of_its_key(message, id.sequence) {
            self.finish(id.sequence, sequences);
        } else if self.settings.is_exactly_once {
            return Err(Refusal::UnorderedAckId);
        } else if is_current {
            self.ack_early(id.sequence);
        }
        Ok(())
    }
}

/// `time` and `duration`, at most the last time there is.
fn later(time: Timestamp, duration: Duration) -> Timestamp {
    time.checked_add(duration).unwrap_or(Timestamp::MAX)
}
