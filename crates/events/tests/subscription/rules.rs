//! Each documented rule once, with the numbers of Google's documentation.

use std::time::Duration;

use events::subscription::{AckId, Checkpoint, DeadLetter, Delivery, Done, Entry, Facts, Filter, Refusal, Retry, Settings, Subscriber, Subscription};
use model::{Code, Timestamp};

use crate::{at, feed};

const A: Subscriber = Subscriber(1);
const B: Subscriber = Subscriber(2);

/// A new subscription with messages 1.. of these ordering keys, published at second 0.
fn with(settings: Settings, keys: &[&str]) -> Subscription {
    let (mut subscription, opened) = Subscription::restore(settings, Filter::ALL, Checkpoint::new(0), []).expect("settings are good");
    assert_eq!(opened, Entry::Opened { epoch: 1 });
    for (sequence, key) in (1..).zip(keys) {
        feed(&mut subscription, sequence, at(0), key);
    }
    subscription
}

fn ordered() -> Settings {
    Settings { is_ordered: true, ..Settings::default() }
}

fn exactly_once() -> Settings {
    Settings { is_exactly_once: true, ..Settings::default() }
}

fn pull(subscription: &mut Subscription, subscriber: Subscriber, now: Timestamp) -> Vec<Delivery> {
    subscription.pull(subscriber, 100, now).0
}

fn sequences(deliveries: &[Delivery]) -> Vec<u64> {
    deliveries.iter().map(|delivery| delivery.ack_id.sequence).collect()
}

fn ids(deliveries: &[Delivery]) -> Vec<AckId> {
    deliveries.iter().map(|delivery| delivery.ack_id).collect()
}

fn acked(sequences: &[u64]) -> Done {
    Done { entries: vec![Entry::Acked { sequences: sequences.to_vec() }], ..Done::default() }
}

fn nack(subscription: &mut Subscription, id: AckId, now: Timestamp) -> Done {
    subscription.modify_ack_deadline(&[id], 0, now).expect("0 is a nack")
}

#[test]
fn a_message_is_out_until_its_deadline_and_comes_back_with_a_new_id() {
    let mut subscription = with(Settings::default(), &[""]);
    let first = pull(&mut subscription, A, at(0));
    assert_eq!((first[0].attempt, first[0].deadline), (1, at(10)));
    assert_eq!(subscription.next_timer(), Some(at(10)));
    assert!(pull(&mut subscription, B, at(9)).is_empty());
    let (second, done) = subscription.pull(B, 1, at(10));
    assert_eq!(done.entries, [Entry::Failed { sequences: vec![1] }]);
    assert_eq!((second[0].attempt, sequences(&second)), (2, vec![1]));
    assert_ne!(second[0].ack_id, first[0].ack_id);
}

#[test]
fn a_deadline_moves_from_now_on_by_at_most_600_seconds() {
    let mut subscription = with(Settings::default(), &[""]);
    let id = pull(&mut subscription, A, at(0))[0].ack_id;
    assert_eq!(subscription.modify_ack_deadline(&[id], 601, at(1)).expect_err("above").code, Code::InvalidArgument);
    assert_eq!(subscription.modify_ack_deadline(&[id], 600, at(5)), Ok(Done::default()));
    assert_eq!(subscription.next_timer(), Some(at(605)));
    assert!(pull(&mut subscription, A, at(604)).is_empty());
    assert_eq!(subscription.ack(&[id], at(604)), acked(&[1]));
    assert_eq!((subscription.checkpoint(), subscription.next_timer()), (&Checkpoint::new(1).in_epoch_of(&subscription), None));
}

/// Checkpoints are compared but for their epoch.
trait InEpochOf {
    fn in_epoch_of(self, other: &Subscription) -> Self;
}

impl InEpochOf for Checkpoint {
    fn in_epoch_of(mut self, other: &Subscription) -> Self {
        let json = serde_json::to_value(other.checkpoint()).expect("serializes");
        self.apply(&Entry::Opened { epoch: json["epoch"].as_u64().expect("a number") });
        self
    }
}

#[test]
fn without_a_retry_policy_a_nack_redelivers_at_once_and_with_one_after_its_backoff() {
    let mut subscription = with(Settings::default(), &[""]);
    let id = pull(&mut subscription, A, at(0))[0].ack_id;
    assert_eq!(nack(&mut subscription, id, at(1)).entries, [Entry::Failed { sequences: vec![1] }]);
    assert_eq!(pull(&mut subscription, A, at(1))[0].attempt, 2);

    let retry = Some(Retry { minimum_backoff: Duration::from_secs(10), maximum_backoff: Duration::from_secs(30) });
    let mut subscription = with(Settings { retry, ..Settings::default() }, &["", ""]);
    let mut now = 0;
    for backoff in [10, 20, 30, 30] {
        let delivery = subscription.pull(A, 1, at(now)).0[0];
        assert_eq!(delivery.ack_id.sequence, 1);
        let _ = nack(&mut subscription, delivery.ack_id, at(now));
        // The other message does not wait for it.
        let other = pull(&mut subscription, A, at(now + backoff - 1));
        assert_eq!(sequences(&other), [2]);
        let _ = nack(&mut subscription, other[0].ack_id, at(now + backoff - 1));
        now += backoff;
    }
}

#[test]
fn after_its_attempts_a_message_goes_to_the_dead_letter_topic() {
    let mut subscription = with(Settings { delivery_attempts_max: Some(5), ..Settings::default() }, &[""]);
    for attempt in 1..=5 {
        let delivery = pull(&mut subscription, A, at(0))[0];
        assert_eq!(delivery.attempt, attempt);
        let done = nack(&mut subscription, delivery.ack_id, at(0));
        let expect = if attempt == 5 { vec![DeadLetter { sequence: 1, attempts: 5 }] } else { Vec::new() };
        assert_eq!(done.dead_letters, expect);
    }
    assert!(pull(&mut subscription, A, at(100)).is_empty(), "it is on its way to the topic");
    // The topic is gone: it is delivered again, and the next failure tries the topic again.
    subscription.dead_letter_failed(1, at(100));
    let delivery = pull(&mut subscription, A, at(100))[0];
    assert_eq!(delivery.attempt, 6);
    assert_eq!(nack(&mut subscription, delivery.ack_id, at(100)).dead_letters, [DeadLetter { sequence: 1, attempts: 6 }]);
    // A kill between publishing and saying so: it is told again.
    let checkpoint = subscription.checkpoint().clone();
    let settings = Settings { delivery_attempts_max: Some(5), ..Settings::default() };
    let (mut restored, _) = Subscription::restore(settings, Filter::ALL, checkpoint, []).expect("good");
    feed(&mut restored, 1, at(0), "");
    assert_eq!(restored.advance(at(101)).dead_letters, [DeadLetter { sequence: 1, attempts: 6 }]);
    assert_eq!(restored.dead_lettered(1).entries, [Entry::DeadLettered { sequence: 1 }]);
    assert_eq!(restored.dead_lettered(1), Done::default(), "twice is once");
    assert_eq!(restored.snapshot().cursor(), 1);
}

#[test]
fn a_late_ack_counts_unless_delivery_is_exactly_once() {
    let check = |settings: Settings, refusal: Option<Refusal>| {
        let mut subscription = with(settings, &[""]);
        let late = pull(&mut subscription, A, at(0))[0].ack_id;
        let current = pull(&mut subscription, B, at(10))[0].ack_id;
        let modified = subscription.modify_ack_deadline(&[late], 60, at(10)).expect("in range");
        assert_eq!(modified.refused, refusal.map(|refusal| (late, refusal)).into_iter().collect::<Vec<_>>());
        assert_eq!(subscription.next_timer(), Some(at(20)), "an ended lease is not extended");
        let done = subscription.ack(&[late], at(11));
        match refusal {
            Some(refusal) => {
                assert_eq!((done.refused, done.entries), (vec![(late, refusal)], vec![]));
                assert_eq!(subscription.ack(&[current], at(12)), acked(&[1]));
                assert_eq!(subscription.ack(&[current], at(12)).refused, [(current, Refusal::InvalidAckId)]);
            }
            None => {
                assert_eq!(done, acked(&[1]));
                assert_eq!(subscription.ack(&[current], at(12)), Done::default(), "twice is once");
            }
        }
    };
    check(Settings::default(), None);
    check(exactly_once(), Some(Refusal::InvalidAckId));
    assert_eq!(Refusal::InvalidAckId.reason(), "PERMANENT_FAILURE_INVALID_ACK_ID");
    assert_eq!(Refusal::UnorderedAckId.reason(), "TRANSIENT_FAILURE_UNORDERED_ACK_ID");
}

#[test]
fn a_key_goes_to_one_subscriber_at_a_time_in_order() {
    let mut subscription = with(ordered(), &["k", "k", "", "k", "j"]);
    assert_eq!(sequences(&subscription.pull(A, 1, at(0)).0), [1]);
    // The rest of k is A's while something of it is out.
    let others = pull(&mut subscription, B, at(0));
    assert_eq!(sequences(&others), [3, 5]);
    assert_eq!(sequences(&pull(&mut subscription, A, at(1))), [2, 4]);
    // Without ordering nothing is held back.
    let mut subscription = with(Settings::default(), &["k", "k"]);
    assert_eq!(sequences(&subscription.pull(A, 1, at(0)).0), [1]);
    assert_eq!(sequences(&pull(&mut subscription, B, at(0))), [2]);
}

#[test]
fn redelivery_takes_all_later_ones_of_the_key_along_acknowledged_ones_included() {
    let mut subscription = with(ordered(), &["k", "k", "k", "k"]);
    let out = ids(&pull(&mut subscription, A, at(0)));
    assert_eq!(subscription.ack(&[out[2]], at(1)), Done::default(), "holds once 1 and 2 are acked");
    assert_eq!(subscription.ack(&[out[0]], at(1)), acked(&[1]));
    assert_eq!(nack(&mut subscription, out[1], at(2)).entries, [Entry::Failed { sequences: vec![2] }]);
    let again = pull(&mut subscription, B, at(2));
    assert_eq!(again.iter().map(|d| (d.ack_id.sequence, d.attempt)).collect::<Vec<_>>(), [(2, 2), (3, 1), (4, 1)]);
    // An early ack holds as soon as those before it are acked.
    assert_eq!(subscription.ack(&[again[1].ack_id], at(3)), Done::default());
    assert_eq!(subscription.ack(&[again[0].ack_id], at(3)), acked(&[2, 3]));
    // A late ack of what waits for an earlier one does not hold.
    let mut subscription = with(ordered(), &["k", "k"]);
    let out = ids(&pull(&mut subscription, A, at(0)));
    let _ = nack(&mut subscription, out[0], at(1));
    assert_eq!(subscription.ack(&[out[1]], at(1)), Done::default());
    assert_eq!(sequences(&pull(&mut subscription, A, at(1))), [1, 2]);
}

#[test]
fn a_key_is_acknowledged_in_order_under_exactly_once() {
    let mut subscription = with(Settings { is_exactly_once: true, ..ordered() }, &["k", "k", "k"]);
    let out = ids(&pull(&mut subscription, A, at(0)));
    assert_eq!(subscription.ack(&[out[1]], at(1)).refused, [(out[1], Refusal::UnorderedAckId)]);
    assert_eq!(subscription.ack(&[out[1], out[0]], at(1)), acked(&[1, 2]), "the order within a request does not matter");
    let done = subscription.modify_ack_deadline(&out, 0, at(2)).expect("a nack");
    assert_eq!(done.refused.len(), 2, "those that are acked");
    assert_eq!(subscription.ack(&[out[2]], at(2)).refused, [(out[2], Refusal::InvalidAckId)]);
}

#[test]
fn a_message_that_waits_blocks_its_key() {
    let retry = Some(Retry { minimum_backoff: Duration::from_secs(10), maximum_backoff: Duration::from_secs(600) });
    let mut subscription = with(Settings { retry, delivery_attempts_max: Some(5), ..ordered() }, &["k", "k"]);
    for wait in [10, 20, 40, 80] {
        let now = at(1000 * wait);
        let id = subscription.pull(A, 1, now).0[0].ack_id;
        assert_eq!(id.sequence, 1);
        let _ = nack(&mut subscription, id, now);
        assert!(pull(&mut subscription, A, at(1000 * wait + wait - 1)).is_empty());
    }
    let id = subscription.pull(A, 1, at(99_000)).0[0].ack_id;
    assert_eq!(nack(&mut subscription, id, at(99_000)).dead_letters.len(), 1);
    assert!(pull(&mut subscription, A, at(99_500)).is_empty(), "until the dead-letter topic has it");
    let _ = subscription.dead_lettered(1);
    assert_eq!(sequences(&pull(&mut subscription, A, at(99_500))), [2]);
}

#[test]
fn what_the_filter_or_the_log_does_not_have_counts_as_acknowledged() {
    let filter = Filter::parse("attributes:wanted").expect("good");
    let (mut subscription, _) = Subscription::restore(Settings::default(), filter, Checkpoint::new(0), []).expect("good");
    for sequence in [1, 2, 5, 6] {
        subscription.feed(Facts { sequence, published: at(0), ordering_key: "", attribute: &|_| (sequence % 2 == 0).then_some("") });
    }
    assert_eq!(sequences(&pull(&mut subscription, A, at(0))), [2, 6]);
    assert_eq!(subscription.snapshot().cursor(), 1);
    assert!((3..=5).all(|sequence| subscription.snapshot().contains(sequence)));
}

#[test]
fn messages_are_dropped_after_the_retention() {
    let day = 86_400;
    let mut subscription = with(Settings::default(), &["", ""]);
    let out = subscription.pull(A, 1, at(7 * day - 1)).0;
    assert_eq!(sequences(&out), [1]);
    assert!(pull(&mut subscription, A, at(7 * day)).is_empty());
    assert_eq!(subscription.ack(&ids(&out), at(7 * day)), acked(&[1]), "what is out may still be acknowledged");
    assert_eq!(subscription.snapshot().cursor(), 2);
    assert_eq!(subscription.needed_from(at(7 * day), |_| 1), 3);
    let subscription = with(Settings { retain_acked: true, ..Settings::default() }, &["", ""]);
    let seen = subscription.needed_from(at(7 * day), |time| if time == at(0) { 1 } else { 2 });
    assert_eq!(seen, 1);
}

#[test]
fn a_seek_to_a_time_replays_and_discards() {
    let mut subscription = with(exactly_once(), &[]);
    for sequence in 1..=5 {
        feed(&mut subscription, sequence, at(sequence as i64), "");
    }
    let out = ids(&pull(&mut subscription, A, at(6)));
    let _ = subscription.ack(&out, at(6));
    let done = subscription.seek_time(at(3), 2);
    assert!(matches!(&done.entries[..], [Entry::Sought { epoch: 2, .. }]));
    assert_eq!(subscription.next_sequence(), 3);
    for sequence in 3..=5 {
        feed(&mut subscription, sequence, at(sequence as i64), "");
    }
    let again = pull(&mut subscription, A, at(6));
    assert_eq!(again.iter().map(|d| (d.ack_id.sequence, d.attempt)).collect::<Vec<_>>(), [(3, 1), (4, 1), (5, 1)]);
    assert_eq!(subscription.ack(&out[2..], at(6)).refused.len(), 3, "ids from before the seek");
    // Into the future: what is published until then is discarded.
    let _ = subscription.seek_time(at(100), 5);
    feed(&mut subscription, 6, at(99), "");
    feed(&mut subscription, 7, at(100), "");
    assert_eq!(sequences(&pull(&mut subscription, A, at(101))), [7]);
}

#[test]
fn a_late_ack_from_before_a_seek_does_not_undo_it() {
    let mut subscription = with(Settings::default(), &[""]);
    let old = ids(&pull(&mut subscription, A, at(0)));
    let _ = subscription.ack(&old, at(0));
    let _ = subscription.seek_time(at(0), 0);
    feed(&mut subscription, 1, at(0), "");
    assert_eq!(subscription.ack(&old, at(1)), Done::default());
    assert_eq!(sequences(&pull(&mut subscription, A, at(1))), [1]);
}

#[test]
fn a_snapshot_is_taken_over_by_another_subscription() {
    let mut one = with(Settings::default(), &["", "", "", ""]);
    let out = ids(&pull(&mut one, A, at(0)));
    let _ = one.ack(&[out[0], out[2]], at(0));
    let mut other = with(Settings::default(), &["", "", "", ""]);
    let _ = other.seek_snapshot(one.snapshot().clone());
    assert_eq!(other.next_sequence(), 2);
    for sequence in 2..=5 {
        feed(&mut other, sequence, at(0), "");
    }
    assert_eq!(sequences(&pull(&mut other, A, at(1))), [2, 4, 5]);
}

#[test]
fn after_a_restart_leases_are_gone_and_attempts_are_kept() {
    let mut subscription = with(exactly_once(), &["", "", ""]);
    let checkpoint = serde_json::to_string(subscription.checkpoint()).expect("serializes");
    let mut log = Vec::new();
    let out = ids(&pull(&mut subscription, A, at(0)));
    log.extend(subscription.ack(&[out[1]], at(1)).entries);
    log.extend(nack(&mut subscription, out[2], at(1)).entries);
    let log: Vec<Entry> = serde_json::from_str(&serde_json::to_string(&log).expect("serializes")).expect("deserializes");
    let checkpoint = serde_json::from_str(&checkpoint).expect("deserializes");
    let (mut restored, opened) = Subscription::restore(exactly_once(), Filter::ALL, checkpoint, &log).expect("good");
    assert_eq!(opened, Entry::Opened { epoch: 2 });
    assert_eq!(restored.ack(&[out[0]], at(1)).refused, [(out[0], Refusal::InvalidAckId)]);
    for sequence in 1..=3 {
        feed(&mut restored, sequence, at(0), "");
    }
    let again = pull(&mut restored, B, at(1));
    assert_eq!(again.iter().map(|d| (d.ack_id.sequence, d.attempt)).collect::<Vec<_>>(), [(1, 1), (3, 2)]);
}

#[test]
fn settings_change_but_for_the_ordering() {
    let mut subscription = with(Settings::default(), &[""]);
    assert!(subscription.configure(ordered()).is_err());
    assert!(subscription.configure(Settings { ack_deadline_s: 5, ..Settings::default() }).is_err());
    assert_eq!(subscription.configure(Settings { ack_deadline_s: 60, ..Settings::default() }), Ok(()));
    assert_eq!(pull(&mut subscription, A, at(0))[0].deadline, at(60));
}

#[test]
fn only_so_many_messages_are_read_ahead() {
    let mut subscription = with(Settings::default(), &[]);
    let room = subscription.room();
    for sequence in 1..=room as u64 {
        feed(&mut subscription, sequence, at(0), "");
    }
    assert_eq!(subscription.room(), 0);
    assert_eq!(subscription.pull(A, 7, at(0)).0.len(), 7);
    assert_eq!((subscription.room(), subscription.outstanding()), (7, 7));
}
