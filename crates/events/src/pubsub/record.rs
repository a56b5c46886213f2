//! What is stored of topics, subscriptions, snapshots and schemas. Their messages are not here: those lie in logs named by the uid.

use std::{collections::BTreeMap, time::Duration};

use model::{
    Status, Timestamp,
    limits::{SUBSCRIPTION_TTL_DEFAULT_S, SUBSCRIPTION_TTL_MIN_S, TOPIC_RETENTION_MAX_S, TOPIC_RETENTION_MIN_S},
};
use serde::{Deserialize, Serialize};

use super::name::{Name, labels_check};
use crate::{
    schema::{Encoding, Language},
    subscription::{Acked, Filter, Settings},
};

/// A topic.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Topic {
    pub name: Name,
    /// 32 hexadecimal digits: tells a topic from an earlier one of its name.
    pub uid: String,
    pub labels: BTreeMap<String, String>,
    /// How long all its messages are kept, to be replayed by a seek; 10 minutes..=31 days. Without one, until every subscription has them acknowledged.
    pub retention: Option<Duration>,
    /// What its messages must follow.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schema: Option<SchemaSettings>,
    pub created: Timestamp,
}

/// The schema of a topic's messages.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SchemaSettings {
    pub schema: Name,
    /// Another schema may have its name by now.
    pub schema_uid: String,
    pub encoding: Encoding,
    /// The oldest and the newest revision that a message may follow; all there are without.
    pub first: Option<String>,
    pub last: Option<String>,
}

/// A schema; the texts of its revisions are records of their own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Schema {
    pub name: Name,
    /// As a topic's.
    pub uid: String,
    pub language: Language,
    /// The oldest first; never empty.
    pub revisions: Vec<Revision>,
}

/// A revision of a schema.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revision {
    /// 8 hexadecimal digits.
    pub id: String,
    pub created: Timestamp,
}

impl Topic {
    /// # Errors
    /// `INVALID_ARGUMENT` naming the field that is out of its range.
    pub(crate) fn check(&self) -> Result<(), Status> {
        labels_check(&self.labels)?;
        let range = Duration::from_secs(TOPIC_RETENTION_MIN_S)..=Duration::from_secs(TOPIC_RETENTION_MAX_S);
        if let Some(retention) = self.retention
            && !range.contains(&retention)
        {
            return Err(Status::invalid_field("message_retention_duration", format!("must be from 10 minutes to 31 days, and is {retention:?}")));
        }
        Ok(())
    }
}

/// A subscription, as its owner set it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subscription {
    pub name: Name,
    /// As a topic's.
    pub uid: String,
    /// The topic that it was made of; another one may have its name by now.
    pub topic: Name,
    pub topic_uid: String,
    /// The topic's last message when it was made.
    pub began_after: u64,
    pub settings: Settings,
    /// Immutable; empty for all.
    pub filter: String,
    /// `None`: it is pulled.
    pub push: Option<Push>,
    pub dead_letter_topic: Option<Name>,
    /// Deleted after so long without a subscriber; `None` for never.
    pub ttl: Option<Duration>,
    pub labels: BTreeMap<String, String>,
    /// Cut off from its topic for good.
    pub is_detached: bool,
    pub created: Timestamp,
}

/// Where a subscription's messages are sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Push {
    /// An absolute URL.
    pub endpoint: String,
    pub oidc: Option<Oidc>,
    pub wrapper: Wrapper,
    /// It is a trigger's transport: each message is sent as an event.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trigger: Option<TriggerPush>,
}

/// What a trigger's messages are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TriggerPush {
    /// `projects/P/locations/L/triggers/T`.
    pub name: String,
    pub mode: EventMode,
    /// A message is done with after one attempt, whatever came of it.
    #[serde(default)]
    pub is_tried_once: bool,
}

/// How a message becomes an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EventMode {
    /// That it was published is the event.
    Message,
    /// It is a notification of a bucket.
    Object,
    /// It is the event, bound to a message: attributes that begin with `ce-`, and the data.
    Bound,
}

/// As whom a push is sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Oidc {
    /// Of a service account.
    pub email: String,
    /// Empty for the endpoint.
    pub audience: String,
}

/// How a message becomes a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Wrapper {
    /// In JSON, as nothing was set.
    Unset,
    /// In JSON.
    Wrapped,
    /// The data is the body; metadata and attributes are headers when asked for.
    Unwrapped { write_metadata: bool },
}

impl Subscription {
    pub const TTL_DEFAULT: Duration = Duration::from_secs(SUBSCRIPTION_TTL_DEFAULT_S);

    /// # Errors
    /// `INVALID_ARGUMENT` naming the field that is out of its range.
    pub(crate) fn check(&self) -> Result<Filter, Status> {
        labels_check(&self.labels)?;
        self.settings.check()?;
        if let Some(ttl) = self.ttl {
            let least = Duration::from_secs(SUBSCRIPTION_TTL_MIN_S);
            if ttl < least || ttl < self.settings.retention {
                return Err(Status::invalid_field(
                    "expiration_policy.ttl",
                    format!("must be at least 1 day and no less than message_retention_duration ({:?}), and is {ttl:?}", self.settings.retention),
                ));
            }
        }
        Filter::parse(&self.filter)
    }
}

/// Which messages a subscription had acknowledged at one time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    pub name: Name,
    /// As a topic's; older records have none.
    #[serde(default)]
    pub uid: String,
    pub topic: Name,
    pub topic_uid: String,
    pub acked: Acked,
    pub labels: BTreeMap<String, String>,
    pub expires: Timestamp,
}

/// A uid that nothing had before.
pub(crate) fn uid_new() -> String {
    format!("{:032x}", rand::random::<u128>())
}

/// The first half of a uid.
pub(crate) fn uid_half(uid: &str) -> u64 {
    uid.get(..16).and_then(|half| u64::from_str_radix(half, 16).ok()).unwrap_or(0)
}

/// # Errors
/// `INVALID_ARGUMENT` when only one of the two is there: a dead-letter policy is a topic and a number of attempts.
pub(crate) fn dead_letter_check(subscription: &Subscription) -> Result<(), Status> {
    if subscription.dead_letter_topic.is_some() == subscription.settings.delivery_attempts_max.is_some() {
        return Ok(());
    }
    Err(Status::invalid_field("dead_letter_policy.dead_letter_topic", "it is missing"))
}

#[cfg(test)]
mod tests {
    use model::ProjectId;

    use super::{super::name::Kind, *};

    fn name(kind: Kind) -> Name {
        Name::new(kind, ProjectId::parse("local-project").unwrap(), "one").unwrap()
    }

    #[test]
    fn limits_are_googles() {
        let topic = |retention: Option<u64>| Topic {
            name: name(Kind::Topics),
            uid: uid_new(),
            labels: BTreeMap::new(),
            retention: retention.map(Duration::from_secs),
            schema: None,
            created: Timestamp::UNIX_EPOCH,
        };
        for (retention, is_good) in [(None, true), (Some(599), false), (Some(600), true), (Some(31 * 86400), true), (Some(31 * 86400 + 1), false)] {
            assert_eq!(topic(retention).check().is_ok(), is_good, "{retention:?}");
        }
        let subscription = |ttl: Option<u64>, retention: u64| Subscription {
            name: name(Kind::Subscriptions),
            uid: uid_new(),
            topic: name(Kind::Topics),
            topic_uid: uid_new(),
            began_after: 0,
            settings: Settings { retention: Duration::from_secs(retention), ..Settings::default() },
            filter: String::new(),
            push: None,
            dead_letter_topic: None,
            ttl: ttl.map(Duration::from_secs),
            labels: BTreeMap::new(),
            is_detached: false,
            created: Timestamp::UNIX_EPOCH,
        };
        for (ttl, retention, is_good) in [(None, 600, true), (Some(86399), 600, false), (Some(86400), 600, true), (Some(86400), 86401, false)] {
            assert_eq!(subscription(ttl, retention).check().is_ok(), is_good, "{ttl:?} {retention}");
        }
        assert_eq!(Subscription::TTL_DEFAULT, Duration::from_secs(2_678_400));
    }

    #[test]
    fn uids_have_two_halves() {
        let uid = uid_new();
        assert_eq!(uid.len(), 32);
        assert_eq!(format!("{:016x}", uid_half(&uid)), uid[..16]);
    }
}
