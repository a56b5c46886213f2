//! What lies behind a message, and what becomes of one that too much lies behind.

use model::Hops;

use super::*;

fn behind(text: &str, count: u32) -> Message {
    message(text).behind(&(0..count).fold(Hops::default(), |hops, _| hops.next("f")))
}

async fn pushed(world: &World, id: &str, to: &str, dead_letter_topic: Option<Name>) {
    world.pubsub.topic_create(topic(to), TopicNew::default()).await.unwrap();
    let push = Push { endpoint: "https://f.run.app/in".to_owned(), oidc: None, wrapper: Wrapper::Unset, trigger: None };
    let settings = Settings {
        retry: Some(Retry { minimum_backoff: Duration::ZERO, maximum_backoff: Duration::ZERO }),
        delivery_attempts_max: dead_letter_topic.is_some().then_some(5),
        ..Settings::default()
    };
    world.pubsub.subscription_create(SubscriptionNew { push: Some(push), settings, dead_letter_topic, ..new(id, to) }).await.unwrap();
}

/// The hops of all calls, once there are so many and no more come.
async fn calls(world: &World, count: usize) -> Vec<u32> {
    let is_there = async {
        while world.outside.calls.lock().len() < count {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(LONG, is_there).await.unwrap();
    world.outside.busy.idle().await;
    world.outside.calls.lock().iter().map(|call| call.hops.count).collect()
}

#[tokio::test]
async fn hops_are_sent_with_a_push_and_survive_a_restart() {
    let mut world = World::start().await;
    world.pubsub.publish(&topic("top"), vec![behind("a", 2), message("b")]).await.unwrap();
    world.restart().await;
    let received = world.pull("sub", LONG).await;
    assert_eq!(received.iter().map(|one| one.message.hops().to_string()).collect::<Vec<_>>(), ["2 hops: f > f", "0 hops: "]);
    pushed(&world, "pushed", "other", None).await;
    world.pubsub.publish(&topic("other"), vec![behind("a", 2)]).await.unwrap();
    assert_eq!(calls(&world, 1).await, [2]);
    let call = world.outside.calls.lock()[0].clone();
    let (body, headers) = (String::from_utf8(call.body.to_vec()).unwrap(), format!("{:?}", call.headers));
    assert!(!body.contains("hop") && !headers.contains("hop"), "no reader is told: {headers} {body}");
}

#[tokio::test]
async fn what_is_stopped_does_not_come_again() {
    let mut world = World::bare().await;
    pushed(&world, "pushed", "top", None).await;
    world.pubsub.publish(&topic("top"), vec![behind("a", HOPS_MAX + 1)]).await.unwrap();
    assert_eq!(calls(&world, 1).await, [HOPS_MAX + 1]);
    world.restart().await;
    world.pubsub.publish(&topic("top"), vec![behind("b", HOPS_MAX)]).await.unwrap();
    assert_eq!(calls(&world, 2).await, [HOPS_MAX + 1, HOPS_MAX]);
}

#[tokio::test]
async fn what_is_stopped_goes_to_the_dead_letter_topic_and_no_further() {
    let world = World::bare().await;
    // Its own dead-letter topic: it comes back once and is done with.
    world.pubsub.topic_create(topic("dead"), TopicNew::default()).await.unwrap();
    world.pubsub.subscription_create(new("dead-sub", "dead")).await.unwrap();
    pushed(&world, "pushed", "top", Some(topic("dead"))).await;
    pushed(&world, "again", "own", Some(topic("own"))).await;
    for to in ["top", "own"] {
        world.pubsub.publish(&topic(to), vec![behind("a", HOPS_MAX + 1)]).await.unwrap();
    }
    let dead = world.pull("dead-sub", LONG).await;
    assert_eq!((texts(&dead), dead[0].message.hops().count), (vec!["a".to_owned()], HOPS_MAX + 2));
    let mut seen = calls(&world, 11).await;
    seen.sort_unstable();
    assert_eq!(seen, [vec![HOPS_MAX + 1; 10], vec![HOPS_MAX + 2]].concat());
}
