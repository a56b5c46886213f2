//! A topic, several subscribers and a server that is killed, by a seed and a false clock.
//!
//! Subscribers acknowledge late or not at all, nack, extend and die; the server loses its memory, and at times the entries of the
//! call in which it died, whole or in part: that call was never answered. The [`Books`] are kept from what subscribers see and
//! from which entries reached the disk, not from the machine's state. They stop the run at a message delivered while it is out, or
//! after its acknowledgement was durable, or again without a failure, or out of its key's order; and at the end, when one is lost.

use std::{collections::HashMap, time::Duration};

use events::subscription::{AckId, Checkpoint, Delivery, Done, Entry, Filter, Refusal, Retry, Settings, Subscriber, Subscription};
use model::Timestamp;
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

use crate::{at, feed};

const SUBSCRIBERS: usize = 4;
/// How many messages a subscriber holds at a time.
const HELD_MAX: usize = 200;
const KEYS: usize = 100;
/// How far publishing runs ahead of the first message that is not acknowledged.
const BACKLOG_MAX: u64 = 5_000;

fn messages() -> u64 {
    if std::env::var("TANEBI_TIER").is_ok_and(|tier| tier == "full") { 1_000_000 } else { 10_000 }
}

/// What happened in a run; the same for the same seed.
#[derive(Debug, Default, PartialEq, Eq)]
struct Toll {
    delivered: u64,
    failed: u64,
    dead_lettered: u64,
    refused: u64,
    restarts: u64,
    entries_lost: u64,
    subscribers_killed: u64,
}

#[derive(Clone, Default)]
struct Message {
    key: Option<usize>,
    is_poison: bool,
    published: Timestamp,
    is_delivered: bool,
    /// Since its last delivery something happened that lets it come again.
    is_excused: bool,
    is_acked: bool,
    is_dead: bool,
    lease: Option<(AckId, Subscriber, Timestamp)>,
}

/// What may be delivered, as an observer knows it. Sequence 1 is at index 0.
#[derive(Default)]
struct Books {
    messages: Vec<Message>,
    /// Each key's sequences, and how many of them are done for good.
    keys: Vec<(Vec<u64>, usize)>,
    leases: HashMap<u64, Timestamp>,
    toll: Toll,
}

impl Books {
    fn message(&mut self, sequence: u64) -> &mut Message {
        &mut self.messages[sequence as usize - 1]
    }

    fn publish(&mut self, key: Option<usize>, is_poison: bool, published: Timestamp) {
        self.messages.push(Message { key, is_poison, published, ..Message::default() });
        if let Some(key) = key {
            self.keys[key].0.push(self.messages.len() as u64);
        }
    }

    fn expire(&mut self, now: Timestamp) {
        let due: Vec<u64> = self.leases.iter().filter(|(_, deadline)| **deadline <= now).map(|(sequence, _)| *sequence).collect();
        due.into_iter().for_each(|sequence| self.fail(sequence));
    }

    fn fail(&mut self, sequence: u64) {
        self.toll.failed += 1;
        self.recall(sequence);
        let Some(key) = self.message(sequence).key else { return };
        let place = self.keys[key].0.partition_point(|other| *other <= sequence);
        let after = self.keys[key].0[place..].to_vec();
        for later in after {
            if !self.message(later).is_delivered {
                break;
            }
            self.recall(later);
        }
    }

    fn recall(&mut self, sequence: u64) {
        self.leases.remove(&sequence);
        let message = self.message(sequence);
        message.lease = None;
        message.is_excused = true;
        message.is_acked = false;
    }

    fn restart(&mut self) {
        self.toll.restarts += 1;
        for sequence in self.leases.keys().copied().collect::<Vec<_>>() {
            self.recall(sequence);
        }
        for key in 0..self.keys.len() {
            let (sequences, done) = &self.keys[key];
            let open = sequences[*done..].to_vec();
            for sequence in open {
                let message = self.message(sequence);
                if message.is_delivered && !message.is_dead {
                    self.recall(sequence);
                }
            }
        }
    }

    fn deliver(&mut self, delivery: &Delivery, subscriber: Subscriber) {
        let sequence = delivery.ack_id.sequence;
        let message = self.message(sequence).clone();
        assert!(message.lease.is_none(), "{sequence} is out");
        assert!(!message.is_acked && !message.is_dead, "{sequence} is done");
        assert!(!message.is_delivered || message.is_excused, "{sequence} comes again, and nothing failed");
        if let Some(key) = message.key {
            let (sequences, done) = &self.keys[key];
            for earlier in sequences[*done..].iter().take_while(|earlier| **earlier < sequence) {
                let other = &self.messages[*earlier as usize - 1];
                let is_out = other.lease.is_some_and(|(_, holder, _)| holder == subscriber);
                assert!(is_out || other.is_acked || other.is_dead, "{sequence} comes before {earlier} of its key");
            }
        }
        let message = self.message(sequence);
        message.is_delivered = true;
        message.is_excused = false;
        message.lease = Some((delivery.ack_id, subscriber, delivery.deadline));
        self.leases.insert(sequence, delivery.deadline);
        self.toll.delivered += 1;
    }

    fn is_current(&self, id: AckId) -> bool {
        self.messages[id.sequence as usize - 1].lease.is_some_and(|(current, ..)| current == id)
    }

    /// Whether all earlier ones of its key are done.
    fn is_first(&mut self, sequence: u64) -> bool {
        let Some(key) = self.message(sequence).key else { return true };
        self.settle(key);
        let (sequences, done) = &self.keys[key];
        sequences.get(*done).is_none_or(|first| sequence <= *first)
    }

    fn settle(&mut self, key: usize) {
        let (sequences, done) = &mut self.keys[key];
        while let Some(first) = sequences.get(*done)
            && (self.messages[*first as usize - 1].is_acked || self.messages[*first as usize - 1].is_dead)
        {
            *done += 1;
        }
    }

    /// An acknowledgement that the server took, and made durable where it needs that.
    fn ack(&mut self, id: AckId) {
        if self.is_first(id.sequence) || self.is_current(id) {
            self.done(id.sequence);
            self.message(id.sequence).is_acked = true;
            self.is_first(id.sequence);
        }
    }

    fn dead(&mut self, sequence: u64) {
        self.toll.dead_lettered += 1;
        self.done(sequence);
        self.message(sequence).is_dead = true;
        self.is_first(sequence);
    }

    fn done(&mut self, sequence: u64) {
        self.leases.remove(&sequence);
        self.message(sequence).lease = None;
    }
}

#[derive(Clone, Copy)]
enum Fate {
    Ack,
    Nack,
    Extend,
}

struct Client {
    id: Subscriber,
    held: Vec<(Timestamp, AckId, Fate)>,
}

struct World {
    random: StdRng,
    now: Timestamp,
    settings: Settings,
    machine: Subscription,
    stored: Checkpoint,
    log: Vec<Entry>,
    books: Books,
    clients: Vec<Client>,
    clients_ever: u64,
}

impl World {
    fn new(seed: u64, settings: Settings) -> Self {
        let (machine, opened) = Subscription::restore(settings.clone(), Filter::ALL, Checkpoint::new(0), []).unwrap();
        let mut world = Self {
            random: StdRng::seed_from_u64(seed),
            now: at(0),
            settings,
            machine,
            stored: Checkpoint::new(0),
            log: vec![opened],
            books: Books { keys: vec![(Vec::new(), 0); KEYS], ..Books::default() },
            clients: Vec::new(),
            clients_ever: 0,
        };
        (0..SUBSCRIBERS).for_each(|_| world.client_add());
        world
    }

    fn run(mut self, messages: u64) -> Toll {
        for _ in 0..messages * 10 {
            self.now += Duration::from_millis(self.random.random_range(0..2_000));
            self.publish(messages);
            self.feed();
            self.books.expire(self.now);
            let done = self.machine.advance(self.now);
            self.append(done);
            for index in 0..SUBSCRIBERS {
                self.pull(index);
                self.answer(index);
            }
            self.disturb();
            if self.machine.snapshot().cursor() == messages {
                return self.close();
            }
        }
        panic!("{} of {messages} are done, and no more come", self.machine.snapshot().cursor());
    }

    fn publish(&mut self, messages: u64) {
        let published = self.books.messages.len() as u64;
        let room = (messages - published).min((self.machine.snapshot().cursor() + BACKLOG_MAX).saturating_sub(published));
        for _ in 0..room.min(self.random.random_range(0..500)) {
            let key = self.random.random_bool(0.7).then(|| self.random.random_range(0..KEYS));
            let is_poison = self.random.random_ratio(1, 2_000);
            self.books.publish(key, is_poison, self.now);
        }
    }

    fn feed(&mut self) {
        while self.machine.room() > 0
            && let Some(message) = self.books.messages.get(self.machine.next_sequence() as usize - 1)
        {
            let key = message.key.map(|key| format!("key-{key}")).unwrap_or_default();
            let sequence = self.machine.next_sequence();
            feed(&mut self.machine, sequence, message.published, &key);
        }
    }

    fn append(&mut self, done: Done) {
        self.log.extend(done.entries);
        for letter in done.dead_letters {
            // The topic is away at times.
            if self.random.random_bool(0.8) {
                let done = self.machine.dead_lettered(letter.sequence);
                self.books.dead(letter.sequence);
                self.append(done);
            } else {
                self.machine.dead_letter_failed(letter.sequence, self.now);
            }
        }
    }

    fn pull(&mut self, index: usize) {
        let subscriber = self.clients[index].id;
        let room = HELD_MAX - self.clients[index].held.len().min(HELD_MAX);
        let (deliveries, done) = self.machine.pull(subscriber, self.random.random_range(0..=room), self.now);
        self.append(done);
        for delivery in deliveries {
            self.books.deliver(&delivery, subscriber);
            let is_poison = self.books.message(delivery.ack_id.sequence).is_poison;
            let fate = match self.random.random_range(0..1_000) {
                _ if is_poison => Fate::Nack,
                0..10 => Fate::Nack,
                // It forgets it: the lease ends by time.
                10..15 => continue,
                15..40 => Fate::Extend,
                _ => Fate::Ack,
            };
            // Some are too late.
            let delay_ms = if self.random.random_ratio(1, 200) { 15_000 } else { self.random.random_range(0..3_000) };
            self.clients[index].held.push((self.now + Duration::from_millis(delay_ms), delivery.ack_id, fate));
        }
    }

    /// The subscriber acknowledges, nacks and extends what is due.
    fn answer(&mut self, index: usize) {
        let now = self.now;
        let (due, held): (Vec<_>, Vec<_>) = std::mem::take(&mut self.clients[index].held).into_iter().partition(|(time, ..)| *time <= now);
        self.clients[index].held = held;
        let of = |wanted: fn(Fate) -> bool| {
            let mut ids: Vec<AckId> = due.iter().filter(|(_, _, fate)| wanted(*fate)).map(|(_, id, _)| *id).collect();
            ids.sort_unstable();
            ids
        };
        let (acks, nacks, extends) = (of(|fate| matches!(fate, Fate::Ack)), of(|fate| matches!(fate, Fate::Nack)), of(|fate| matches!(fate, Fate::Extend)));
        self.extend(index, &extends);
        self.nack(&nacks);
        self.ack(index, &acks);
    }

    fn extend(&mut self, index: usize, ids: &[AckId]) {
        let done = self.machine.modify_ack_deadline(ids, 30, self.now).expect("in range");
        self.append(done);
        let until = self.now + Duration::from_secs(30);
        for id in ids {
            if self.books.is_current(*id) {
                self.books.message(id.sequence).lease = Some((*id, self.clients[index].id, until));
                self.books.leases.insert(id.sequence, until);
            }
            let later = self.now + Duration::from_millis(self.random.random_range(0..20_000));
            self.clients[index].held.push((later, *id, Fate::Ack));
        }
    }

    fn nack(&mut self, ids: &[AckId]) {
        let current: Vec<AckId> = ids.iter().copied().filter(|id| self.books.is_current(*id)).collect();
        for id in current.iter().rev() {
            self.books.fail(id.sequence);
        }
        let done = self.machine.modify_ack_deadline(ids, 0, self.now).expect("a nack");
        assert_eq!(done.refused.len(), if self.settings.is_exactly_once { ids.len() - current.len() } else { 0 });
        self.append(done);
    }

    fn ack(&mut self, index: usize, ids: &[AckId]) {
        let mut done = self.machine.ack(ids, self.now);
        let is_killed = !ids.is_empty() && self.random.random_ratio(1, 100);
        if is_killed {
            let kept = self.random.random_range(0..=done.entries.len());
            self.books.toll.entries_lost += (done.entries.len() - kept) as u64;
            done.entries.truncate(kept);
        }
        let is_durable = done.entries.iter().any(|entry| matches!(entry, Entry::Acked { .. }));
        self.books.toll.refused += done.refused.len() as u64;
        for id in ids.iter().filter(|_| !is_killed || is_durable) {
            match done.refused.iter().find(|(refused, _)| refused == id) {
                None => {
                    assert!(!self.settings.is_exactly_once || self.books.is_current(*id), "{id:?} is confirmed, and its lease has ended");
                    self.books.ack(*id);
                }
                Some((_, Refusal::InvalidAckId)) => assert!(!self.books.is_current(*id), "{id:?} is refused, and its lease runs"),
                Some((_, Refusal::UnorderedAckId)) => assert!(!self.books.is_first(id.sequence), "{id:?} is refused, and is first"),
            }
        }
        let again: Vec<AckId> = match is_killed {
            // Nobody answered: it asks again.
            true => ids.to_vec(),
            false => done.refused.iter().filter(|(_, refusal)| *refusal == Refusal::UnorderedAckId).map(|(id, _)| *id).collect(),
        };
        self.append(Done { refused: Vec::new(), dead_letters: if is_killed { Vec::new() } else { done.dead_letters }, ..done });
        for id in again {
            self.clients[index].held.push((self.now + Duration::from_secs(1), id, Fate::Ack));
        }
        if is_killed {
            self.restart();
        }
    }

    fn disturb(&mut self) {
        if self.random.random_ratio(1, 20) {
            let index = self.random.random_range(0..SUBSCRIBERS);
            self.clients.remove(index);
            self.client_add();
            self.books.toll.subscribers_killed += 1;
        }
        if self.random.random_ratio(1, 30) {
            self.restart();
        }
        if self.random.random_ratio(1, 25) {
            self.stored = serde_json::from_str(&serde_json::to_string(self.machine.checkpoint()).unwrap()).unwrap();
            self.log.clear();
        }
    }

    fn client_add(&mut self) {
        self.clients_ever += 1;
        self.clients.push(Client { id: Subscriber(self.clients_ever), held: Vec::new() });
    }

    fn restart(&mut self) {
        let (machine, opened) = Subscription::restore(self.settings.clone(), Filter::ALL, self.stored.clone(), &self.log).unwrap();
        self.machine = machine;
        self.log.push(opened);
        self.books.restart();
        self.feed();
        let done = self.machine.advance(self.now);
        self.append(done);
    }

    fn close(self) -> Toll {
        for (sequence, message) in (1..).zip(&self.books.messages) {
            assert!(message.is_acked || message.is_dead, "{sequence} is lost: nobody acknowledged it, and it counts as acknowledged");
        }
        self.books.toll
    }
}

fn settings(is_exactly_once: bool) -> Settings {
    Settings {
        is_ordered: true,
        is_exactly_once,
        delivery_attempts_max: Some(5),
        retry: Some(Retry { minimum_backoff: Duration::from_secs(1), maximum_backoff: Duration::from_secs(10) }),
        ..Settings::default()
    }
}

#[test]
fn nothing_is_lost_doubled_or_out_of_order() {
    check(1, false);
}

#[test]
fn nothing_comes_again_after_a_confirmed_ack_under_exactly_once() {
    check(2, true);
}

fn check(seed: u64, is_exactly_once: bool) {
    let messages = messages();
    let toll = World::new(seed, settings(is_exactly_once)).run(messages);
    println!("seed {seed}, exactly once {is_exactly_once}, {messages} messages: {toll:?}");
    let is_much = toll.failed > 0 && toll.restarts > 2 && toll.entries_lost > 0 && toll.subscribers_killed > 0 && toll.dead_lettered > 0;
    assert!(is_much, "too little was tested: {toll:?}");
}

#[test]
fn nothing_is_lost_doubled_or_out_of_order_for_many_seeds() {
    for seed in 100..200 {
        World::new(seed, settings(seed % 2 == 0)).run(300);
    }
}

#[test]
fn without_failures_every_message_is_delivered_once() {
    let (mut machine, _) = Subscription::restore(settings(false), Filter::ALL, Checkpoint::new(0), []).unwrap();
    let mut delivered = 0;
    for sequence in 1..=10_000 {
        feed(&mut machine, sequence, at(0), if sequence % 3 == 0 { "" } else { "key" });
        if sequence % 100 == 0 {
            let (deliveries, _) = machine.pull(Subscriber(1), 1_000, at(sequence as i64));
            delivered += deliveries.len();
            let _ = machine.ack(&deliveries.iter().map(|delivery| delivery.ack_id).collect::<Vec<_>>(), at(sequence as i64));
        }
    }
    assert_eq!((delivered, machine.snapshot().cursor(), machine.snapshot().runs()), (10_000, 10_000, 0));
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let run = || World::new(7, settings(true)).run(1_000);
    assert_eq!(run(), run());
}
