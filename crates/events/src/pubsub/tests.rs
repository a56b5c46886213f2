//! The engine over a real store, with a clock that stands until it is moved and an outside that says what a test wants.

mod hops;
mod rest;
mod schemas;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{HeaderMap, StatusCode};
use model::{Clock, Code, ProjectId, Status, Timestamp, clock::Until};
use parking_lot::Mutex;
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use store::Store;
use tokio::sync::watch;

use super::*;
use crate::{
    deliver::{Answer, Call, Failure, Target},
    subscription::{Retry, Settings},
};

/// Long enough for any machine; nothing waits for it to pass.
const LONG: Duration = Duration::from_secs(60);
const NOW: Duration = Duration::ZERO;

/// More than that is a loop.
const HOPS_MAX: u32 = 3;

struct TestClock(watch::Sender<Timestamp>);

impl Clock for TestClock {
    fn now(&self) -> Timestamp {
        *self.0.borrow()
    }

    fn until(&self, at: Timestamp) -> Until {
        let mut time = self.0.subscribe();
        Box::pin(async move {
            let _ = time.wait_for(|now| *now >= at).await;
        })
    }
}

/// Answers pushes with the next of its statuses, 204 when there is none.
struct TestOutside {
    busy: Busy,
    calls: Mutex<Vec<Call>>,
    statuses: Mutex<Vec<u16>>,
    forgotten: Mutex<Vec<String>>,
}

impl Default for TestOutside {
    fn default() -> Self {
        Self { busy: Busy::new(), calls: Mutex::default(), statuses: Mutex::default(), forgotten: Mutex::default() }
    }
}

impl Outside for TestOutside {
    fn busy(&self) -> Busy {
        self.busy.clone()
    }

    fn policy_forget(&self, resource: String) -> BoxFuture<'static, Result<(), Status>> {
        self.forgotten.lock().push(resource);
        Box::pin(async { Ok(()) })
    }

    fn endpoint_check(&self, field: &str, url: &str) -> Result<http::Uri, Status> {
        url.parse().map_err(|_| Status::invalid_field(field, "is not a URL"))
    }

    fn deliver(&self, _: crate::history::About, call: Call) -> BoxFuture<'static, Result<Answer, Failure>> {
        let hops = call.hops.clone();
        self.calls.lock().push(call);
        if hops.count > HOPS_MAX {
            return Box::pin(async { Err(Failure::Loop { hops, max: HOPS_MAX }) });
        }
        let status = StatusCode::from_u16(self.statuses.lock().pop().unwrap_or(204)).unwrap();
        // 429 is the platform's.
        let refusal = (status == StatusCode::TOO_MANY_REQUESTS).then_some(serving::Refusal::QueueFull { retry_after_s: 1 });
        Box::pin(async move { Ok(Answer { status, headers: HeaderMap::new(), body: Bytes::new(), latency: Duration::ZERO, refusal }) })
    }
}

struct World {
    _dir: tempfile::TempDir,
    store: Store,
    clock: Arc<TestClock>,
    outside: Arc<TestOutside>,
    pubsub: PubSub,
}

fn name(kind: Kind, id: &str) -> Name {
    Name::new(kind, ProjectId::parse("local-project").unwrap(), id).unwrap()
}

fn topic(id: &str) -> Name {
    name(Kind::Topics, id)
}

fn sub(id: &str) -> Name {
    name(Kind::Subscriptions, id)
}

fn message(text: &str) -> Message {
    Message { data: text.as_bytes().to_vec().into(), ..Message::default() }
}

fn new(id: &str, to: &str) -> SubscriptionNew {
    SubscriptionNew {
        name: sub(id),
        topic: topic(to),
        settings: Settings::default(),
        filter: String::new(),
        push: None,
        dead_letter_topic: None,
        ttl: Some(Subscription::TTL_DEFAULT),
        labels: BTreeMap::new(),
    }
}

impl World {
    /// With the topic `top` and the subscription `sub` of it.
    async fn start() -> Self {
        let world = Self::bare().await;
        world.pubsub.topic_create(topic("top"), TopicNew::default()).await.unwrap();
        world.pubsub.subscription_create(new("sub", "top")).await.unwrap();
        world
    }

    async fn bare() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let clock = Arc::new(TestClock(watch::Sender::new("2026-11-28T09:00:00Z".parse().unwrap())));
        let outside = Arc::new(TestOutside::default());
        let pubsub = PubSub::open(store.clone(), clock.clone(), outside.clone()).await.unwrap();
        Self { _dir: dir, store, clock, outside, pubsub }
    }

    /// As after a kill: what is not on disk is gone.
    async fn restart(&mut self) {
        self.pubsub = PubSub::open(self.store.clone(), self.clock.clone(), self.outside.clone()).await.unwrap();
    }

    fn advance(&self, seconds: u64) {
        self.clock.0.send_modify(|now| *now = now.checked_add(Duration::from_secs(seconds)).unwrap());
    }

    async fn publish(&self, texts: &[&str]) -> Vec<String> {
        self.pubsub.publish(&topic("top"), texts.iter().map(|text| message(text)).collect()).await.unwrap()
    }

    async fn pull(&self, id: &str, wait: Duration) -> Vec<Received> {
        self.pubsub.pull(&sub(id), 1000, wait).await.unwrap()
    }

    async fn texts(&self, id: &str, wait: Duration) -> Vec<String> {
        texts(&self.pull(id, wait).await)
    }

    fn log_len(&self) -> u64 {
        let uid = self.pubsub.topic_get(&topic("top")).unwrap().uid;
        self.store.logs().extent(&stream::log_name(&uid)).unwrap().len()
    }
}

fn texts(received: &[Received]) -> Vec<String> {
    received.iter().map(|one| String::from_utf8(one.message.data.to_vec()).unwrap()).collect()
}

fn ids(received: &[Received]) -> Vec<String> {
    received.iter().map(|one| one.ack_id.clone()).collect()
}

#[tokio::test]
async fn what_is_not_acknowledged_comes_again_after_a_restart() {
    let mut world = World::start().await;
    let published = world.publish(&["a", "b", "c"]).await;
    let received = world.pull("sub", LONG).await;
    assert_eq!(texts(&received), ["a", "b", "c"]);
    assert_eq!(received.iter().map(|one| &one.message_id).collect::<Vec<_>>(), published.iter().collect::<Vec<_>>());
    world.pubsub.ack(&sub("sub"), &ids(&received)[1..2]).await.unwrap();
    assert!(world.texts("sub", NOW).await.is_empty());
    world.restart().await;
    assert_eq!(world.texts("sub", LONG).await, ["a", "c"]);
}

#[tokio::test]
async fn a_pull_waits_for_a_message() {
    let world = World::start().await;
    let (received, _) = tokio::join!(world.texts("sub", LONG), async {
        tokio::task::yield_now().await;
        world.publish(&["late"]).await
    });
    assert_eq!(received, ["late"]);
}

#[tokio::test]
async fn a_lease_ends_by_the_clock() {
    let world = World::start().await;
    world.publish(&["a"]).await;
    let first = world.pull("sub", LONG).await;
    world.advance(9);
    assert!(world.texts("sub", NOW).await.is_empty());
    world.pubsub.modify_ack_deadline(&sub("sub"), &ids(&first), 20).await.unwrap();
    world.advance(19);
    assert!(world.texts("sub", NOW).await.is_empty());
    let (again, ()) = tokio::join!(world.pull("sub", LONG), async { world.advance(1) });
    assert_eq!((texts(&again), again[0].attempt), (vec!["a".to_owned()], 2));
    world.pubsub.modify_ack_deadline(&sub("sub"), &ids(&again), 0).await.unwrap();
    assert_eq!(world.pull("sub", LONG).await[0].attempt, 3);
}

#[tokio::test]
async fn wrong_calls_are_refused_in_googles_words() {
    let world = World::start().await;
    let check = |found: Result<(), Status>, code: Code, text: &str| {
        let status = found.unwrap_err();
        assert_eq!((status.code, status.outer.as_str()), (code, text));
    };
    let pubsub = &world.pubsub;
    let again = pubsub.topic_create(topic("top"), TopicNew::default()).await.map(drop);
    check(again, Code::AlreadyExists, "Resource already exists in the project (resource=top).");
    check(pubsub.subscription_create(new("sub", "top")).await.map(drop), Code::AlreadyExists, "Resource already exists in the project (resource=sub).");
    check(pubsub.subscription_create(new("two", "none")).await.map(drop), Code::NotFound, "Resource not found (resource=none).");
    check(pubsub.publish(&topic("none"), vec![message("a")]).await.map(drop), Code::NotFound, "Resource not found (resource=none).");
    check(pubsub.pull(&sub("none"), 1, NOW).await.map(drop), Code::NotFound, "Resource not found (resource=none).");
    let zero = "The value for max_messages is too small. You passed 0 in the request, but the minimum value is 1.";
    check(pubsub.pull(&sub("sub"), 0, NOW).await.map(drop), Code::InvalidArgument, zero);
    let bad = pubsub.ack(&sub("sub"), &["x".to_owned()]).await.map(drop);
    check(bad, Code::InvalidArgument, "You have passed an invalid ack ID to the service (ack_id=x).");
    check(pubsub.ack(&sub("sub"), &[]).await.map(drop), Code::InvalidArgument, "No ack ids specified.");
}

#[tokio::test]
async fn a_deleted_topic_leaves_its_messages_to_its_subscriptions() {
    let mut world = World::start().await;
    world.publish(&["a"]).await;
    world.pubsub.topic_delete(topic("top")).await.unwrap();
    assert_eq!(world.pubsub.subscription_get(&sub("sub")).unwrap().topic, DELETED_TOPIC);
    assert_eq!(world.outside.forgotten.lock().last().map(String::as_str), Some("projects/local-project/topics/top"));
    world.restart().await;
    // Another topic of the name is another topic.
    world.pubsub.topic_create(topic("top"), TopicNew::default()).await.unwrap();
    world.publish(&["b"]).await;
    assert_eq!(world.pubsub.subscription_get(&sub("sub")).unwrap().topic, DELETED_TOPIC);
    assert_eq!(world.texts("sub", LONG).await, ["a"]);
    assert!(world.pubsub.topic_subscriptions(&topic("top"), None, 10).unwrap().is_empty());
    world.pubsub.subscription_delete(sub("sub")).await.unwrap();
    // Only the new topic's log is left.
    assert_eq!((world.store.logs().names("topic/").len(), world.store.logs().names("sub/").len()), (1, 0));
}

#[tokio::test]
async fn a_detached_subscription_has_no_messages() {
    let mut world = World::start().await;
    world.publish(&["a"]).await;
    world.pubsub.subscription_detach(sub("sub")).await.unwrap();
    for _ in 0..2 {
        assert!(world.pubsub.subscription_get(&sub("sub")).unwrap().record.is_detached);
        assert_eq!(world.pubsub.pull(&sub("sub"), 1, NOW).await.unwrap_err().code, Code::FailedPrecondition);
        assert!(world.pubsub.topic_subscriptions(&topic("top"), None, 10).unwrap().is_empty());
        world.restart().await;
    }
    world.pubsub.subscription_delete(sub("sub")).await.unwrap();
}

#[tokio::test]
async fn whoever_waits_is_told_when_the_subscription_goes() {
    let world = World::start().await;
    let mut puller = world.pubsub.puller(&sub("sub")).unwrap();
    let name = sub("sub");
    let (pulled, streamed, deleted) = tokio::join!(world.pubsub.pull(&name, 1, LONG), puller.next(), world.pubsub.subscription_delete(name.clone()));
    deleted.unwrap();
    assert_eq!((pulled.unwrap_err().code, streamed.unwrap_err().code), (Code::NotFound, Code::NotFound));
}

#[tokio::test]
async fn seeks_replay_what_is_kept() {
    let world = World::start().await;
    let pubsub = &world.pubsub;
    let keeping = SubscriptionNew { settings: Settings { retain_acked: true, ..Settings::default() }, ..new("keep", "top") };
    pubsub.subscription_create(keeping).await.unwrap();
    world.publish(&["a"]).await;
    world.advance(60);
    let between = world.clock.now();
    world.publish(&["b"]).await;
    for (id, expect) in [("sub", Vec::new()), ("keep", vec!["b"])] {
        let received = world.pull(id, LONG).await;
        pubsub.ack(&sub(id), &ids(&received)).await.unwrap();
        // Back to where what was acknowledged may be kept; then to the future, which skips what comes.
        pubsub.seek_time(&sub(id), between).await.unwrap();
        assert_eq!(world.texts(id, NOW).await, expect, "{id}");
        pubsub.seek_time(&sub(id), "2100-01-01T00:00:00Z".parse().unwrap()).await.unwrap();
        assert!(world.texts(id, NOW).await.is_empty());
    }
}

#[tokio::test]
async fn a_snapshot_keeps_what_was_not_acknowledged() {
    let mut world = World::start().await;
    let snap = name(Kind::Snapshots, "snap");
    world.publish(&["a", "b"]).await;
    let received = world.pull("sub", LONG).await;
    world.pubsub.ack(&sub("sub"), &ids(&received)[..1]).await.unwrap();
    let made = world.pubsub.snapshot_create(snap.clone(), sub("sub"), BTreeMap::new()).await.unwrap();
    assert_eq!(made.expires.duration_since(world.clock.now()), jiff::SignedDuration::from_hours(7 * 24));
    world.pubsub.ack(&sub("sub"), &ids(&received)[1..]).await.unwrap();
    world.publish(&["c"]).await;
    let rest = world.pull("sub", LONG).await;
    world.pubsub.ack(&sub("sub"), &ids(&rest)).await.unwrap();
    world.restart().await;
    world.pubsub.inner.look_after().await;
    assert_eq!(world.log_len(), 2);
    world.pubsub.seek_snapshot(&sub("sub"), &snap).await.unwrap();
    assert_eq!(world.texts("sub", LONG).await, ["b", "c"]);
    // Of a subscription of another topic it is refused.
    world.pubsub.topic_create(topic("other"), TopicNew::default()).await.unwrap();
    world.pubsub.subscription_create(new("elsewhere", "other")).await.unwrap();
    assert_eq!(world.pubsub.seek_snapshot(&sub("elsewhere"), &snap).await.unwrap_err().code, Code::InvalidArgument);
    world.advance(7 * 24 * 3600);
    world.pubsub.inner.look_after().await;
    assert_eq!(world.pubsub.snapshot_get(&snap).unwrap_err().code, Code::NotFound);
}

#[tokio::test]
async fn what_nobody_needs_is_trimmed() {
    let world = World::start().await;
    world.publish(&["a", "b"]).await;
    world.pubsub.inner.look_after().await;
    assert_eq!(world.log_len(), 2);
    let received = world.pull("sub", LONG).await;
    world.pubsub.ack(&sub("sub"), &ids(&received)[..1]).await.unwrap();
    world.pubsub.inner.look_after().await;
    assert_eq!(world.log_len(), 1);
    // Unacknowledged messages go after seven days.
    world.advance(7 * 24 * 3600);
    world.pubsub.inner.look_after().await;
    assert!(world.texts("sub", NOW).await.is_empty());
    world.pubsub.inner.look_after().await;
    assert_eq!(world.log_len(), 0);
    // A topic's own retention keeps all.
    world.pubsub.topic_update(topic("top"), |topic| Ok(Topic { retention: Some(Duration::from_secs(600)), ..topic })).await.unwrap();
    world.publish(&["c"]).await;
    let received = world.pull("sub", LONG).await;
    world.pubsub.ack(&sub("sub"), &ids(&received)).await.unwrap();
    for (seconds, expect) in [(0, 1), (600, 1), (1, 0)] {
        world.advance(seconds);
        world.pubsub.inner.look_after().await;
        assert_eq!(world.log_len(), expect, "{seconds}");
    }
}

#[tokio::test]
async fn a_subscription_without_subscribers_ends() {
    let mut world = World::start().await;
    let never = SubscriptionNew { ttl: None, ..new("never", "top") };
    world.pubsub.subscription_create(never).await.unwrap();
    world.advance(20 * 24 * 3600);
    world.publish(&["a"]).await;
    let received = world.pull("sub", LONG).await;
    world.pubsub.ack(&sub("sub"), &ids(&received)).await.unwrap();
    world.restart().await;
    world.advance(31 * 24 * 3600 - 1);
    world.pubsub.inner.look_after().await;
    assert!(world.pubsub.subscription_get(&sub("sub")).is_ok());
    world.advance(1);
    world.pubsub.inner.look_after().await;
    assert_eq!(world.pubsub.subscription_get(&sub("sub")).unwrap_err().code, Code::NotFound);
    assert!(world.pubsub.subscription_get(&sub("never")).is_ok());
    // A stream is a subscriber, without any message too.
    world.pubsub.subscription_create(new("streamed", "top")).await.unwrap();
    let mut puller = Some(world.pubsub.puller(&sub("streamed")).unwrap());
    for (days, expect) in [(31, true), (31, true), (0, true), (31, false)] {
        if days == 0 {
            drop(puller.take());
        }
        world.advance(days * 24 * 3600);
        world.pubsub.inner.look_after().await;
        assert_eq!(world.pubsub.subscription_get(&sub("streamed")).is_ok(), expect, "{days}");
    }
}

#[tokio::test]
async fn a_damaged_subscription_keeps_no_other_from_running() {
    let mut world = World::start().await;
    world.pubsub.subscription_create(new("lost", "top")).await.unwrap();
    let uid = world.pubsub.subscription_get(&sub("lost")).unwrap().record.uid.clone();
    world.store.logs().delete(&live::log_name(&uid)).await.unwrap();
    world.restart().await;
    world.publish(&["a"]).await;
    assert_eq!(world.texts("sub", LONG).await, ["a"]);
    assert_eq!(world.pubsub.pull(&sub("lost"), 1, NOW).await.unwrap_err().code, Code::DataLoss);
    world.pubsub.subscription_delete(sub("lost")).await.unwrap();
    world.pubsub.subscription_create(new("lost", "top")).await.unwrap();
}

#[tokio::test]
async fn a_message_whose_attempts_are_used_up_goes_to_the_dead_letter_topic() {
    let world = World::start().await;
    let pubsub = &world.pubsub;
    pubsub.topic_create(topic("dead"), TopicNew::default()).await.unwrap();
    pubsub.subscription_create(new("dead-sub", "dead")).await.unwrap();
    let settings = Settings { delivery_attempts_max: Some(5), ..Settings::default() };
    let without = SubscriptionNew { settings: settings.clone(), ..new("failing", "top") };
    assert_eq!(pubsub.subscription_create(without).await.unwrap_err().code, Code::InvalidArgument);
    pubsub.subscription_create(SubscriptionNew { settings, dead_letter_topic: Some(topic("dead")), ..new("failing", "top") }).await.unwrap();
    let message = Message { attributes: [("k".to_owned(), "v".to_owned())].into(), ..message("poison") };
    pubsub.publish(&topic("top"), vec![message]).await.unwrap();
    for attempt in 1..=5 {
        let received = world.pull("failing", LONG).await;
        assert_eq!(received[0].attempt, attempt);
        pubsub.modify_ack_deadline(&sub("failing"), &ids(&received), 0).await.unwrap();
    }
    let dead = world.pull("dead-sub", LONG).await;
    let attribute = |key: &str| dead[0].message.attributes[key].as_str();
    assert_eq!((texts(&dead), attribute("k")), (vec!["poison".to_owned()], "v"));
    assert_eq!(attribute("CloudPubSubDeadLetterSourceDeliveryCount"), "5");
    assert_eq!(attribute("CloudPubSubDeadLetterSourceSubscription"), "failing");
    assert_eq!(attribute("CloudPubSubDeadLetterSourceSubscriptionProject"), "local-project");
    assert_eq!(attribute("CloudPubSubDeadLetterSourceTopicPublishTime"), "2026-11-28T09:00:00Z");
    assert!(world.texts("failing", NOW).await.is_empty());
}

#[tokio::test]
async fn a_stream_gets_no_more_than_it_asked_for() {
    let world = World::start().await;
    world.publish(&["a", "b", "c", "d"]).await;
    let mut puller = world.pubsub.puller(&sub("sub")).unwrap();
    puller.messages_max = Some(2);
    let first = puller.next().await.unwrap();
    assert_eq!(texts(&first), ["a", "b"]);
    let more = tokio::time::timeout(Duration::from_millis(50), puller.next()).await;
    assert!(more.is_err(), "{more:?}");
    world.pubsub.ack(&sub("sub"), &ids(&first)[..1]).await.unwrap();
    assert_eq!(texts(&puller.next().await.unwrap()), ["c"]);
    world.pubsub.modify_ack_deadline(&sub("sub"), &ids(&first)[1..], 0).await.unwrap();
    assert_eq!(texts(&puller.next().await.unwrap()), ["b"]);
}

#[tokio::test]
async fn exactly_once_says_which_ids_are_refused() {
    let world = World::start().await;
    let settings = Settings { is_exactly_once: true, is_ordered: true, ..Settings::default() };
    world.pubsub.subscription_create(SubscriptionNew { settings, ..new("once", "top") }).await.unwrap();
    let keyed = |text: &str| Message { ordering_key: "k".to_owned(), ..message(text) };
    world.pubsub.publish(&topic("top"), vec![keyed("a"), keyed("b")]).await.unwrap();
    let received = world.pull("once", LONG).await;
    let outcome = world.pubsub.ack(&sub("once"), &[received[1].ack_id.clone(), "x".to_owned()]).await.unwrap();
    let refused: BTreeMap<_, _> = outcome.refused.into_iter().map(|(id, refusal)| (id, refusal.reason())).collect();
    assert_eq!(refused["x"], "PERMANENT_FAILURE_INVALID_ACK_ID");
    assert_eq!(refused[&received[1].ack_id], "TRANSIENT_FAILURE_UNORDERED_ACK_ID");
    assert_eq!(world.pubsub.ack(&sub("once"), &ids(&received)).await.unwrap(), Outcome::default());
}

#[tokio::test]
async fn a_push_is_sent_until_it_is_acknowledged() {
    let world = World::bare().await;
    world.pubsub.topic_create(topic("top"), TopicNew::default()).await.unwrap();
    let push = Push { endpoint: "https://f.run.app/in".to_owned(), oidc: None, wrapper: Wrapper::Unwrapped { write_metadata: false }, trigger: None };
    world.outside.statuses.lock().extend([204, 500, 404]);
    let settings = Settings { retry: Some(Retry { minimum_backoff: Duration::ZERO, maximum_backoff: Duration::ZERO }), ..Settings::default() };
    world.pubsub.subscription_create(SubscriptionNew { push: Some(push), settings, ..new("push", "top") }).await.unwrap();
    assert_eq!(world.pubsub.pull(&sub("push"), 1, NOW).await.unwrap_err().code, Code::FailedPrecondition);
    world.publish(&["a"]).await;
    let until = |count: usize| {
        let outside = world.outside.clone();
        tokio::time::timeout(LONG, async move {
            while outside.calls.lock().len() < count {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        })
    };
    until(3).await.unwrap();
    world.publish(&["b"]).await;
    until(4).await.unwrap();
    let bodies: Vec<_> = world.outside.calls.lock().iter().map(|call| String::from_utf8(call.body.to_vec()).unwrap()).collect();
    assert_eq!(bodies, ["a", "a", "a", "b"]);
    // Cleared, it is pulled.
    world.pubsub.subscription_update(sub("push"), |old| Ok(Subscription { push: None, ..old })).await.unwrap();
    world.publish(&["c"]).await;
    assert_eq!(world.texts("push", LONG).await, ["c"]);
}

#[tokio::test]
async fn a_checkpoint_stands_for_what_was_before_it() {
    let mut world = World::start().await;
    let uid = world.pubsub.subscription_get(&sub("sub")).unwrap().record.uid.clone();
    for round in 0..1_100 {
        world.publish(&[&round.to_string()]).await;
        let received = world.pull("sub", LONG).await;
        world.pubsub.ack(&sub("sub"), &ids(&received)).await.unwrap();
    }
    let trimmed = async {
        while world.store.logs().extent(&live::log_name(&uid)).unwrap().len() > 200 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(LONG, trimmed).await.unwrap();
    world.restart().await;
    assert!(world.texts("sub", NOW).await.is_empty());
    world.publish(&["last"]).await;
    assert_eq!(world.texts("sub", LONG).await, ["last"]);
}

/// Publishes, pulls, acks, nacks, lets time pass and starts again, in an order that the seed decides.
async fn simulate(seed: u64) {
    let mut random = StdRng::seed_from_u64(seed);
    let mut world = World::start().await;
    let (mut published, mut acked, mut out) = (BTreeSet::new(), BTreeSet::new(), Vec::<Received>::new());
    let take = |received: Vec<Received>, acked: &BTreeSet<String>, out: &mut Vec<Received>| {
        for one in received {
            assert!(!acked.contains(&one.message_id), "seed {seed}: {} came again after its ack was answered", one.message_id);
            out.push(one);
        }
    };
    for _ in 0..120 {
        match random.random_range(0..10) {
            0..3 => published.extend(world.publish(&["a", "b"][..random.random_range(1..3)]).await),
            3..6 => {
                let received = world.pubsub.pull(&sub("sub"), random.random_range(1..6), NOW).await.unwrap();
                take(received, &acked, &mut out);
            }
            6..8 if !out.is_empty() => {
                let one = out.swap_remove(random.random_range(0..out.len()));
                world.pubsub.ack(&sub("sub"), &[one.ack_id]).await.unwrap();
                acked.insert(one.message_id);
            }
            8 if !out.is_empty() => {
                let one = out.swap_remove(random.random_range(0..out.len()));
                world.pubsub.modify_ack_deadline(&sub("sub"), &[one.ack_id], 0).await.unwrap();
            }
            9 if random.random_bool(0.3) => world.restart().await,
            _ => world.advance(random.random_range(0..15)),
        }
        if random.random_bool(0.05) {
            world.pubsub.inner.look_after().await;
        }
    }
    // All that was not acknowledged comes, and with the last ack nothing is left.
    while acked.len() < published.len() {
        world.advance(10);
        let received = world.pull("sub", LONG).await;
        assert!(!received.is_empty(), "seed {seed}: {} of {} were acknowledged, and no other comes", acked.len(), published.len());
        take(received, &acked, &mut out);
        for one in out.drain(..) {
            world.pubsub.ack(&sub("sub"), &[one.ack_id]).await.unwrap();
            acked.insert(one.message_id);
        }
    }
    assert_eq!(acked, published, "seed {seed}");
    world.pubsub.inner.look_after().await;
    assert_eq!(world.log_len(), 0, "seed {seed}");
}

#[tokio::test]
async fn nothing_is_lost_and_nothing_acknowledged_comes_again() {
    for seed in 0..20 {
        simulate(seed).await;
    }
}

#[tokio::test]
async fn limits_of_calls_are_googles() {
    let world = World::start().await;
    let pubsub = &world.pubsub;
    // 512 KiB of ack ids; 600 seconds of a deadline.
    let ids = |bytes: usize| vec!["x".repeat(1024); bytes / 1024];
    let text = |found: Result<Outcome, Status>| found.unwrap_err().outer;
    assert!(text(pubsub.ack(&sub("sub"), &ids(512 << 10)).await).starts_with("You have passed an invalid ack ID"));
    assert_eq!(text(pubsub.ack(&sub("sub"), &ids(513 << 10)).await), "Request payload size exceeds the limit: 524288 bytes.");
    world.publish(&["a"]).await;
    let received = world.pull("sub", LONG).await;
    for (seconds, is_good) in [(-1, false), (0, true), (600, true), (601, false)] {
        assert_eq!(
            pubsub.modify_ack_deadline(&sub("sub"), &received.iter().map(|one| one.ack_id.clone()).collect::<Vec<_>>(), seconds).await.is_ok(),
            is_good,
            "{seconds}"
        );
    }
    // A thousand messages in one pull.
    for _ in 0..2 {
        world.publish(&["m"; 600]).await;
    }
    assert_eq!(pubsub.pull(&sub("sub"), i32::MAX, LONG).await.unwrap().len(), 1000);
    // A snapshot must have an hour left of the seven days that its oldest message is kept.
    let snapshot = |id: &str| pubsub.snapshot_create(name(Kind::Snapshots, id), sub("sub"), BTreeMap::new());
    world.advance((7 * 24 - 1) * 3600);
    snapshot("hour").await.unwrap();
    world.advance(1);
    assert_eq!(snapshot("less").await.unwrap_err().code, Code::FailedPrecondition);
    // A push endpoint has 2048 bytes.
    let push =
        |bytes: usize| Some(Push { endpoint: format!("https://f.run.app/{}", "x".repeat(bytes - 18)), oidc: None, wrapper: Wrapper::Unset, trigger: None });
    let update = async |push| pubsub.subscription_update(sub("sub"), |old| Ok(Subscription { push, ..old })).await.is_ok();
    assert!(!update(push(2049)).await);
    assert!(update(push(2048)).await);
    let once = Settings { is_exactly_once: true, ..Settings::default() };
    let both = SubscriptionNew { push: push(100), settings: once, ..new("both", "top") };
    assert_eq!(pubsub.subscription_create(both).await.unwrap_err().code, Code::InvalidArgument);
}

#[tokio::test]
async fn an_event_of_a_trigger_is_tried_once_or_for_a_day() {
    let world = World::start().await;
    let retry = Retry { minimum_backoff: Duration::from_secs(10), maximum_backoff: Duration::from_secs(600) };
    let settings = || Settings { retry: Some(retry), retention: Duration::from_secs(86_400), ..Settings::default() };
    for (name, is_tried_once) in [("once", true), ("again", false)] {
        let trigger = TriggerPush { name: format!("triggers/{name}"), mode: EventMode::Message, is_tried_once };
        let push = Push { endpoint: format!("https://f.run.app/{name}"), oidc: None, wrapper: Wrapper::Unset, trigger: Some(trigger) };
        world.pubsub.subscription_create(SubscriptionNew { push: Some(push), settings: settings(), ..new(name, "top") }).await.unwrap();
    }
    // Nobody takes anything.
    world.outside.statuses.lock().extend([500; 100]);
    world.publish(&["a"]).await;
    let calls =
        |name: &str| world.outside.calls.lock().iter().filter(|call| matches!(&call.target, Target::Url(url) if url.path() == format!("/{name}"))).count();
    let until = async |name: &str, count: usize| {
        let end = tokio::time::Instant::now() + LONG;
        while calls(name) < count {
            assert!(tokio::time::Instant::now() < end, "{name}: {} of {count}", calls(name));
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    until("once", 1).await;
    until("again", 1).await;
    // The backoff doubles: 10 s, 20 s.
    for (count, seconds) in [(2, 10), (3, 20)] {
        let (begun, end) = (world.clock.now(), tokio::time::Instant::now() + LONG);
        while calls("again") < count {
            assert!(tokio::time::Instant::now() < end, "{} of {count}", calls("again"));
            world.advance(1);
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert!(world.clock.now().duration_since(begun).as_secs() >= seconds, "attempt {count}");
    }
    assert_eq!(calls("once"), 1);
    // What the platform refuses was no attempt.
    world.pubsub.subscription_delete(sub("again")).await.unwrap();
    *world.outside.statuses.lock() = vec![500, 429];
    world.publish(&["b"]).await;
    let end = tokio::time::Instant::now() + LONG;
    while calls("once") < 3 {
        assert!(tokio::time::Instant::now() < end, "{}", calls("once"));
        world.advance(1);
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    world.advance(1000);
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(calls("once"), 3, "refused by the platform, then by the function, then no more");
    let first = world.outside.calls.lock()[0].clone();
    assert_eq!(first.headers["ce-type"], "google.cloud.pubsub.topic.v1.messagePublished");
}
