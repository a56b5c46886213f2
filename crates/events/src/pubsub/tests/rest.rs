//! When nothing is under way, what ends by itself, and what looking after many topics costs.

use super::*;

#[tokio::test]
async fn what_is_to_be_pushed_is_under_way_until_it_is_acknowledged() {
    let world = World::bare().await;
    let busy = world.outside.busy.clone();
    world.pubsub.topic_create(topic("top"), TopicNew::default()).await.unwrap();
    world.pubsub.topic_create(topic("dead"), TopicNew::default()).await.unwrap();
    let push = || Some(Push { endpoint: "https://f.run.app/in".to_owned(), oidc: None, wrapper: Wrapper::Unwrapped { write_metadata: false }, trigger: None });
    let at_once = Some(Retry { minimum_backoff: Duration::ZERO, maximum_backoff: Duration::ZERO });
    let settings = Settings { retry: at_once, delivery_attempts_max: Some(5), ..Settings::default() };
    world.pubsub.subscription_create(SubscriptionNew { push: push(), settings, dead_letter_topic: Some(topic("dead")), ..new("push", "top") }).await.unwrap();
    world.pubsub.subscription_create(SubscriptionNew { push: push(), ..new("of-the-dead", "dead") }).await.unwrap();
    let calls = || world.outside.calls.lock().len();
    for round in 1..=20 {
        world.publish(&["a", "b", "c"]).await;
        busy.idle().await;
        assert_eq!(calls(), 3 * round);
    }
    // Four times refused, and once more: then it is the dead-letter topic's, and pushed from there.
    world.outside.statuses.lock().extend([500; 5]);
    world.publish(&["d"]).await;
    busy.idle().await;
    assert_eq!(calls(), 60 + 6);
    // What waits for an instant of the clock is at rest.
    let later = Some(Retry { minimum_backoff: Duration::from_secs(10), maximum_backoff: Duration::from_secs(10) });
    let slow = SubscriptionNew { push: push(), settings: Settings { retry: later, ..Settings::default() }, ..new("slow", "top") };
    world.pubsub.subscription_create(slow).await.unwrap();
    world.pubsub.subscription_delete(sub("push")).await.unwrap();
    world.outside.statuses.lock().push(500);
    world.publish(&["e"]).await;
    busy.idle().await;
    assert_eq!(calls(), 67);
    // Begun while nothing is sent, a backlog is under way too.
    world.pubsub.subscription_create(new("pulled", "top")).await.unwrap();
    world.publish(&["f"]).await;
    busy.idle().await;
    world.pubsub.subscription_update(sub("pulled"), move |old| Ok(Subscription { push: push(), ..old })).await.unwrap();
    busy.idle().await;
    assert_eq!(calls(), 69);
}

#[tokio::test]
async fn ends_are_waited_for_by_the_clock() {
    let world = World::start().await;
    let busy = world.outside.busy.clone();
    let snap = name(Kind::Snapshots, "snap");
    world.pubsub.snapshot_create(snap.clone(), sub("sub"), BTreeMap::new()).await.unwrap();
    world
        .pubsub
        .subscription_create(SubscriptionNew {
            ttl: Some(Duration::from_secs(86_400)),
            settings: Settings { retention: Duration::from_secs(600), ..Settings::default() },
            ..new("day", "top")
        })
        .await
        .unwrap();
    let there = || {
        let subscriptions = ["sub", "day"].map(|id| world.pubsub.subscription_get(&sub(id)).is_ok());
        (subscriptions, world.pubsub.snapshot_get(&snap).is_ok())
    };
    let until = async |expect| {
        let reached = async {
            while there() != expect {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(LONG, reached).await.unwrap_or_else(|_| panic!("{:?}, not {expect:?}", there()));
    };
    busy.idle().await;
    assert_eq!(there(), ([true, true], true));
    world.advance(86_399);
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert_eq!(there(), ([true, true], true));
    world.advance(1);
    until(([true, false], true)).await;
    world.advance(6 * 86_400);
    until(([true, false], false)).await;
    // A subscriber moves the end, and who changes it does.
    world.pull("sub", NOW).await;
    world.pubsub.subscription_update(sub("sub"), |old| Ok(Subscription { ttl: Some(Duration::from_secs(8 * 86_400)), ..old })).await.unwrap();
    busy.idle().await;
    world.advance(8 * 86_400 - 1);
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert_eq!(there(), ([true, false], false));
    world.advance(1);
    until(([false, false], false)).await;
}

#[tokio::test]
async fn a_round_of_upkeep_is_cheap_with_many_topics() {
    let world = World::bare().await;
    let mut making = tokio::task::JoinSet::new();
    for n in 0..1_000 {
        let pubsub = world.pubsub.clone();
        making.spawn(async move {
            pubsub.topic_create(topic(&format!("top-{n}")), TopicNew::default()).await.unwrap();
            pubsub.subscription_create(new(&format!("sub-{n}"), &format!("top-{n}"))).await.unwrap();
        });
    }
    making.join_all().await;
    let begun = std::time::Instant::now();
    world.pubsub.inner.look_after().await;
    let idle = begun.elapsed();
    println!("a round over 1,000 topics at rest takes {idle:?}");
    // A machine that is busy is slower; a look at each pair of topic and subscription would take seconds.
    assert!(idle < Duration::from_secs(2), "{idle:?}");
}
