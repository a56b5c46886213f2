//! Random calls to the state machine and to the naive model: both must answer alike.

use std::time::Duration;

use events::subscription::{AckId, Acked, Checkpoint, Done, Entry, Filter, Retry, Settings, Subscriber, Subscription};
use model::Timestamp;
use proptest::prelude::*;

use crate::{
    at, feed,
    naive::{Naive, State},
};

#[derive(Clone, Debug)]
enum Call {
    Publish { key: u8, count: u8 },
    Pull { subscriber: u64, max: usize },
    Ack { picks: Vec<usize> },
    Modify { picks: Vec<usize>, deadline_s: u32 },
    Tick { seconds: i64 },
    DeadLetter { is_taken: bool },
    SeekTime { seconds: i64 },
    Snapshot,
    SeekSnapshot,
    Restart { with_checkpoint: bool },
}

fn calls() -> impl Strategy<Value = Vec<Call>> {
    let picks = || prop::collection::vec(0_usize..12, 1..4);
    let call = prop_oneof![
        4 => (0_u8..4, 1_u8..5).prop_map(|(key, count)| Call::Publish { key, count }),
        8 => (1_u64..4, 1_usize..5).prop_map(|(subscriber, max)| Call::Pull { subscriber, max }),
        6 => picks().prop_map(|picks| Call::Ack { picks }),
        4 => (picks(), prop_oneof![2 => Just(0), 1 => 1_u32..40]).prop_map(|(picks, deadline_s)| Call::Modify { picks, deadline_s }),
        4 => prop_oneof![8 => 0_i64..15, 1 => 500_i64..700].prop_map(|seconds| Call::Tick { seconds }),
        2 => any::<bool>().prop_map(|is_taken| Call::DeadLetter { is_taken }),
        1 => (-30_i64..30).prop_map(|seconds| Call::SeekTime { seconds }),
        1 => Just(Call::Snapshot),
        1 => Just(Call::SeekSnapshot),
        1 => any::<bool>().prop_map(|with_checkpoint| Call::Restart { with_checkpoint }),
    ];
    prop::collection::vec(call, 1..80)
}

fn settings() -> impl Strategy<Value = Settings> {
    (any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>()).prop_map(|(is_ordered, is_exactly_once, has_retry, has_dead_letters)| Settings {
        is_ordered,
        is_exactly_once,
        retention: Duration::from_secs(600),
        retry: has_retry.then_some(Retry { minimum_backoff: Duration::from_secs(3), maximum_backoff: Duration::from_secs(10) }),
        delivery_attempts_max: has_dead_letters.then_some(5),
        ..Settings::default()
    })
}

struct Pair {
    machine: Subscription,
    naive: Naive,
    settings: Settings,
    stored: Checkpoint,
    log: Vec<Entry>,
    /// All ids ever given out, with the number of seeks before.
    ids: Vec<(AckId, u32)>,
    seeks: u32,
    dead_letters: Vec<u64>,
    snapshot: Option<(Acked, Vec<bool>)>,
}

impl Pair {
    fn new(settings: Settings) -> Self {
        let (machine, opened) = Subscription::restore(settings.clone(), Filter::ALL, Checkpoint::new(0), []).unwrap();
        let naive = Naive { settings: settings.clone(), messages: Vec::new(), dead_letters: Vec::new(), discard_before: Timestamp::MIN };
        Self { machine, naive, settings, stored: Checkpoint::new(0), log: vec![opened], ids: Vec::new(), seeks: 0, dead_letters: Vec::new(), snapshot: None }
    }

    fn take(&mut self, done: Done) {
        self.log.extend(done.entries);
        self.dead_letters.extend(done.dead_letters.iter().map(|letter| letter.sequence));
    }

    fn feed(&mut self) {
        while let Some(message) = self.naive.messages.get(self.machine.next_sequence() as usize - 1) {
            feed(&mut self.machine, message.sequence, message.published, &message.key);
        }
    }

    fn picked(&self, picks: &[usize]) -> Vec<(AckId, u32)> {
        let mut ids: Vec<_> = picks.iter().filter_map(|pick| self.ids.iter().rev().nth(*pick).copied()).collect();
        ids.sort_unstable();
        ids.dedup();
        ids
    }

    fn call(&mut self, call: &Call, now: &mut Timestamp) {
        if let Call::Tick { seconds } = call {
            *now += Duration::from_secs(*seconds as u64);
        }
        self.naive.advance(*now);
        match call {
            Call::Tick { .. } => {}
            Call::Publish { key, count } => {
                for _ in 0..*count {
                    let key = if *key == 0 { String::new() } else { key.to_string() };
                    self.naive.publish(key, *now);
                }
            }
            Call::Pull { subscriber, max } => {
                let subscriber = Subscriber(*subscriber);
                let (deliveries, done) = self.machine.pull(subscriber, *max, *now);
                self.take(done);
                for delivery in &deliveries {
                    let index = self.naive.next_for(subscriber, *now);
                    let message = index.map(|index| &mut self.naive.messages[index]).expect("the model has one to give");
                    assert_eq!((delivery.ack_id.sequence, delivery.attempt), (message.sequence, message.failures + 1));
                    message.state = State::Out(delivery.ack_id, subscriber, delivery.deadline);
                    self.ids.push((delivery.ack_id, self.seeks));
                }
                assert!(deliveries.len() == *max || self.naive.next_for(subscriber, *now).is_none(), "the model has more to give");
            }
            Call::Ack { picks } => {
                let ids = self.picked(picks);
                let expect: Vec<_> = ids.iter().filter_map(|(id, seeks)| self.naive.ack(*id, *seeks < self.seeks).map(|refusal| (*id, refusal))).collect();
                let done = self.machine.ack(&ids.iter().map(|(id, _)| *id).collect::<Vec<_>>(), *now);
                assert_eq!(done.refused, expect);
                self.take(done);
            }
            Call::Modify { picks, deadline_s } => {
                let ids = self.picked(picks);
                let expect: Vec<_> =
                    ids.iter().rev().filter_map(|(id, _)| self.naive.modify(*id, (*deadline_s).into(), *now).map(|refusal| (*id, refusal))).collect();
                let done = self.machine.modify_ack_deadline(&ids.iter().map(|(id, _)| *id).collect::<Vec<_>>(), *deadline_s, *now).unwrap();
                assert_eq!(done.refused, expect);
                self.take(done);
            }
            Call::DeadLetter { is_taken } => {
                if let Some(sequence) = self.dead_letters.pop() {
                    self.naive.dead_letters.retain(|other| *other != sequence);
                    let index = sequence as usize - 1;
                    let is_waiting_for_it = self.naive.messages[index].state == State::DeadLettering;
                    if *is_taken {
                        let done = self.machine.dead_lettered(sequence);
                        self.take(done);
                    } else {
                        self.machine.dead_letter_failed(sequence, *now);
                    }
                    if is_waiting_for_it && *is_taken {
                        self.naive.messages[index].state = State::Acked;
                        self.naive.settle_early();
                    } else if is_waiting_for_it {
                        self.naive.wait(index, *now);
                    }
                }
            }
            Call::SeekTime { seconds } => {
                let time = if *seconds < 0 { *now - Duration::from_secs(seconds.unsigned_abs()) } else { *now + Duration::from_secs(*seconds as u64) };
                let cursor = self.naive.messages.iter().filter(|message| message.published < time).count() as u64;
                self.naive.seek(|message| message.published < time);
                self.naive.discard_before = time;
                let done = self.machine.seek_time(time, cursor);
                self.sought(done);
            }
            Call::Snapshot => {
                let acked = self.naive.messages.iter().map(|message| message.state == State::Acked).collect();
                let done = self.machine.advance(*now);
                self.take(done);
                self.snapshot = Some((self.machine.snapshot().clone(), acked));
            }
            Call::SeekSnapshot => {
                if let Some((taken, acked)) = self.snapshot.clone() {
                    self.naive.seek(|message| acked.get(message.sequence as usize - 1).copied().unwrap_or(false));
                    self.naive.discard_before = Timestamp::MIN;
                    let done = self.machine.seek_snapshot(taken);
                    self.sought(done);
                }
            }
            Call::Restart { with_checkpoint } => {
                // What the model has counted by now is in the log.
                let done = self.machine.advance(*now);
                self.take(done);
                if *with_checkpoint {
                    self.stored = serde_json::from_str(&serde_json::to_string(self.machine.checkpoint()).unwrap()).unwrap();
                    self.log.clear();
                }
                let (machine, opened) = Subscription::restore(self.settings.clone(), Filter::ALL, self.stored.clone(), &self.log).unwrap();
                self.machine = machine;
                self.log.push(opened);
                self.dead_letters.clear();
                self.naive.restart();
            }
        }
        self.feed();
        let done = self.machine.advance(*now);
        self.take(done);
        self.naive.advance(*now);
        for message in &self.naive.messages {
            assert_eq!(self.machine.snapshot().contains(message.sequence), message.state == State::Acked, "{message:?} after {call:?}");
        }
        let (mut found, mut expect) = (self.dead_letters.clone(), self.naive.dead_letters.clone());
        found.sort_unstable();
        expect.sort_unstable();
        assert_eq!(found, expect, "dead letters after {call:?}");
    }

    fn sought(&mut self, done: Done) {
        self.take(done);
        self.seeks += 1;
        self.dead_letters.clear();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn the_machine_answers_as_the_model_does(settings in settings(), calls in calls()) {
        let mut pair = Pair::new(settings);
        let mut now = at(0);
        for call in &calls {
            pair.call(call, &mut now);
        }
    }
}
