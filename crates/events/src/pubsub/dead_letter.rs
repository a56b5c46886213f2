//! A message whose delivery attempts are used up goes to the dead-letter topic, with attributes that say where it came from.
//!
//! Source: cloud.google.com/pubsub/docs/dead-letter-topics#attributes.

use model::{Status, limits::ATTRIBUTES_MAX};

use super::{Inner, live::Live, message::Message};
use crate::subscription::DeadLetter;

/// Publishes it.
///
/// # Errors
/// `NOT_FOUND` when the topic is gone; what publishing says.
pub(super) async fn forward(owner: &Inner, live: &Live, letter: DeadLetter) -> Result<(), Status> {
    let record = live.record();
    let Some(name) = &record.dead_letter_topic else {
        return Err(Status::failed_precondition("the subscription has no dead-letter topic any more"));
    };
    // One that is gone or damaged cannot be forwarded, and is not to come again.
    let Some(message) = live.stream.get(letter.sequence)? else { return Ok(()) };
    let topic = owner.topic(name)?;
    // A hop too: a topic may be its own dead-letter topic.
    let mut forwarded = Message { published_us: 0, ..(*message).clone() }.behind(&message.hops().next(&record.name.id));
    let mut add = |key: &str, value: String| drop(forwarded.attributes.insert(format!("CloudPubSubDeadLetterSource{key}"), value));
    add("DeliveryCount", letter.attempts.to_string());
    add("Subscription", record.name.id.clone());
    add("SubscriptionProject", record.name.project.to_string());
    add("TopicPublishTime", message.published().to_string());
    debug_assert!(forwarded.attributes.len() <= ATTRIBUTES_MAX + 4, "a published message has at most {ATTRIBUTES_MAX}");
    topic.stream.publish(vec![forwarded], owner.clock.now()).await.map(drop)
}
