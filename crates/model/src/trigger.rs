//! A trigger of Eventarc: which events go to which service. The record, and what follows from it alone.
//!
//! Source: google/cloud/eventarc/v1/trigger.proto, and cloud.google.com/eventarc/docs.

pub mod pattern;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    clock::Timestamp,
    name::{ProjectId, Region, ServiceKey},
    status::Status,
    storage::ChangeKind,
};

/// Triggers of one location of a project.
pub const TRIGGERS_MAX: usize = 500;
/// How long an event is tried to be delivered, and how long to wait between two attempts: at first, and at most; in seconds.
/// Source: cloud.google.com/eventarc/docs/retry-events.
pub const RETENTION_S: u64 = 24 * 3600;
pub const BACKOFF_MIN_S: u64 = 10;
pub const BACKOFF_MAX_S: u64 = 600;

/// Which trigger.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TriggerKey {
    pub project: ProjectId,
    /// A region, `global`, or a multi-region such as `us`.
    pub location: Region,
    pub id: String,
}

impl TriggerKey {
    /// # Errors
    /// `INVALID_ARGUMENT` unless `id` has 1..=63 lower-case letters, digits and hyphens, begins with a letter and does not end with a hyphen.
    pub fn new(project: ProjectId, location: Region, id: &str) -> Result<Self, Status> {
        let is_good = (1..=63).contains(&id.len())
            && id.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
            && id.starts_with(|c: char| c.is_ascii_lowercase())
            && !id.ends_with('-');
        if is_good {
            return Ok(Self { project, location, id: id.to_owned() });
        }
        Err(Status::invalid_field(
            "trigger_id",
            format!("{id:?} must have 1 to 63 lower-case letters, digits and hyphens, begin with a letter and not end with a hyphen"),
        ))
    }

    /// `projects/P/locations/L/triggers/T`.
    pub fn resource(&self) -> String {
        format!("projects/{}/locations/{}/triggers/{}", self.project, self.location, self.id)
    }
}

/// What its owner asked for, and what came of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Trigger {
    pub key: TriggerKey,
    /// UUID; a trigger deleted and made again has another one.
    pub uid: String,
    /// Counts changes of what the owner asked for, from 1.
    pub generation: u64,
    pub created: Timestamp,
    pub updated: Timestamp,
    /// Set while it is being deleted.
    #[serde(default)]
    pub deleted: Option<Timestamp>,
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// All of them must hold; one is of `type`.
    pub filters: Vec<EventFilter>,
    pub destination: Destination,
    /// The e-mail of the account as which the service is called; empty: without a token.
    #[serde(default)]
    pub service_account: String,
    pub transport: Transport,
    /// One delivery attempt, whatever comes of it, instead of attempts for a day.
    #[serde(default)]
    pub is_tried_once: bool,
    #[serde(default)]
    pub status: TriggerStatus,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventFilter {
    pub attribute: String,
    pub value: String,
    /// `value` is a [`pattern`], not the value itself.
    #[serde(default)]
    pub is_pattern: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Destination {
    pub service: ServiceKey,
    /// As it was written; empty for the root.
    #[serde(default)]
    pub path: String,
    /// The service is a function's, which owns the trigger.
    #[serde(default)]
    pub is_function: bool,
}

/// The topic and the subscription that carry a trigger's events.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transport {
    /// `projects/P/topics/T`.
    pub topic: String,
    /// The topic was made for the trigger and goes with it.
    pub is_own_topic: bool,
    /// `projects/P/subscriptions/S`.
    pub subscription: String,
}

/// Written by the reconciler only.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TriggerStatus {
    /// The generation that came to an end, good or bad.
    #[serde(default)]
    pub observed_generation: u64,
    /// Why it ended badly.
    #[serde(default)]
    pub failure: Option<Status>,
    /// The bucket that tells the transport topic of its changes.
    #[serde(default)]
    pub bucket: Option<String>,
}

/// The events that there are here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EventKind {
    MessagePublished,
    Object(ChangeKind),
    AuditLog,
}

impl EventKind {
    pub const ALL: [Self; 6] = [
        Self::MessagePublished,
        Self::Object(ChangeKind::Finalize),
        Self::Object(ChangeKind::Delete),
        Self::Object(ChangeKind::Archive),
        Self::Object(ChangeKind::MetadataUpdate),
        Self::AuditLog,
    ];

    /// The attribute `type` of its events.
    pub fn name(self) -> &'static str {
        match self {
            Self::MessagePublished => "google.cloud.pubsub.topic.v1.messagePublished",
            Self::Object(ChangeKind::Finalize) => "google.cloud.storage.object.v1.finalized",
            Self::Object(ChangeKind::Delete) => "google.cloud.storage.object.v1.deleted",
            Self::Object(ChangeKind::Archive) => "google.cloud.storage.object.v1.archived",
            Self::Object(ChangeKind::MetadataUpdate) => "google.cloud.storage.object.v1.metadataUpdated",
            Self::AuditLog => "google.cloud.audit.log.v1.written",
        }
    }

    /// `None` for a type of events that there are none of here.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// The attributes by which its events can be filtered beside `type`.
    pub fn attributes(self) -> &'static [Attribute] {
        match self {
            Self::MessagePublished => &[],
            Self::Object(_) => &[Attribute { name: "bucket", is_required: true, takes_pattern: false }],
            Self::AuditLog => &[
                Attribute { name: "methodName", is_required: true, takes_pattern: false },
                Attribute { name: "resourceName", is_required: false, takes_pattern: true },
                Attribute { name: "serviceName", is_required: true, takes_pattern: false },
            ],
        }
    }
}

/// An attribute of events that a filter can name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attribute {
    pub name: &'static str,
    pub is_required: bool,
    pub takes_pattern: bool,
}

impl Trigger {
    /// Whether what the owner asked for last came to an end.
    pub fn is_settled(&self) -> bool {
        self.status.observed_generation == self.generation
    }

    /// The value of the filter of `attribute`.
    pub fn filter(&self, attribute: &str) -> Option<&str> {
        self.filters.iter().find(|filter| filter.attribute == attribute).map(|filter| filter.value.as_str())
    }

    /// `None` for a record that [`filters_check`] has not seen.
    pub fn kind(&self) -> Option<EventKind> {
        EventKind::parse(self.filter("type")?)
    }

    /// Whether an audited call is one of its events. `location` is where the resource lies, `None` for one that lies nowhere:
    /// a trigger of `global` gets the calls of all locations, another those of its own.
    pub fn wants_call(&self, service: &str, method: &str, resource: &str, location: Option<&str>) -> bool {
        let is_here = self.key.location.as_str() == "global" || location == Some(self.key.location.as_str());
        self.kind() == Some(EventKind::AuditLog)
            && is_here
            && self.deleted.is_none()
            && self.filters.iter().all(|filter| {
                let value = match filter.attribute.as_str() {
                    "type" => return true,
                    "serviceName" => service,
                    "methodName" => method,
                    "resourceName" => resource,
                    _ => return false,
                };
                if filter.is_pattern { pattern::matches(&filter.value, value) } else { filter.value == value }
            })
    }
}

/// The kind of events that a trigger's filters ask for.
///
/// # Errors
/// `INVALID_ARGUMENT` in Google's words.
pub fn filters_check(filters: &[EventFilter]) -> Result<EventKind, Status> {
    let invalid = |why: String| Status::invalid(format!("The request was invalid: {why}"));
    let missing = |attribute: &str| invalid(format!("missing required attribute \"{attribute}\" in trigger.event_filters"));
    let kind = filters.iter().find(|filter| filter.attribute == "type").ok_or_else(|| missing("type"))?;
    let kind = EventKind::parse(&kind.value).filter(|_| !kind.is_pattern).ok_or_else(|| {
        invalid(format!("invalid value for attribute \"type\" in trigger.event_filters: event type \"{}\" is not supported by this server", kind.value))
    })?;
    for (at, filter) in filters.iter().enumerate() {
        let name = &filter.attribute;
        if filters[..at].iter().any(|earlier| earlier.attribute == *name) {
            return Err(invalid(format!("duplicate attribute \"{name}\" in trigger.event_filters")));
        }
        if name == "type" {
            continue;
        }
        let known = kind.attributes().iter().find(|attribute| attribute.name == name);
        let known = known.ok_or_else(|| invalid(format!("invalid attribute \"{name}\" in trigger.event_filters for event type \"{}\"", kind.name())))?;
        if filter.value.is_empty() {
            return Err(invalid(format!("empty value for attribute \"{name}\" in trigger.event_filters")));
        }
        if filter.is_pattern {
            if !known.takes_pattern {
                return Err(invalid(format!("attribute \"{name}\" in trigger.event_filters does not support the operator \"match-path-pattern\"")));
            }
            pattern::check(&filter.value).map_err(|why| invalid(format!("invalid path pattern for attribute \"{name}\" in trigger.event_filters: {why}")))?;
        }
    }
    match kind.attributes().iter().find(|attribute| attribute.is_required && !filters.iter().any(|filter| filter.attribute == attribute.name)) {
        Some(attribute) => Err(missing(attribute.name)),
        None => Ok(kind),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filters(pairs: &[(&str, &str)]) -> Vec<EventFilter> {
        let one = |(attribute, value): &(&str, &str)| {
            let (attribute, is_pattern) = attribute.strip_suffix('~').map_or((*attribute, false), |attribute| (attribute, true));
            EventFilter { attribute: attribute.to_owned(), value: (*value).to_owned(), is_pattern }
        };
        pairs.iter().map(one).collect()
    }

    const AUDIT: (&str, &str) = ("type", "google.cloud.audit.log.v1.written");
    const FINALIZED: (&str, &str) = ("type", "google.cloud.storage.object.v1.finalized");

    #[test]
    fn filters_are_checked_in_googles_words() {
        let check = |pairs: &[(&str, &str)], expect: Result<EventKind, &str>| match (filters_check(&filters(pairs)), expect) {
            (Ok(kind), Ok(expect)) => assert_eq!(kind, expect),
            (Err(status), Err(part)) => assert!(status.outer.contains(part), "{pairs:?}: {status}"),
            (found, _) => panic!("{pairs:?}: {found:?}"),
        };
        check(&[], Err("missing required attribute \"type\" in trigger.event_filters"));
        check(&[("type", "google.cloud.firestore.document.v1.written")], Err("\"google.cloud.firestore.document.v1.written\" is not supported"));
        check(&[("type", EventKind::MessagePublished.name())], Ok(EventKind::MessagePublished));
        check(&[FINALIZED], Err("missing required attribute \"bucket\""));
        check(&[FINALIZED, ("bucket", "b")], Ok(EventKind::Object(ChangeKind::Finalize)));
        check(&[FINALIZED, ("bucket", "b"), ("bucket", "c")], Err("duplicate attribute \"bucket\""));
        check(&[FINALIZED, ("bucket~", "b*")], Err("does not support the operator"));
        check(&[FINALIZED, ("bucket", "")], Err("empty value"));
        check(&[FINALIZED, ("bucket", "b"), ("resourceName~", "/projects/_/buckets/b/objects/*")], Err("invalid attribute \"resourceName\""));
        check(&[AUDIT, ("serviceName", "s")], Err("missing required attribute \"methodName\""));
        check(&[AUDIT, ("serviceName", "s"), ("methodName", "m")], Ok(EventKind::AuditLog));
        check(&[AUDIT, ("serviceName", "s"), ("methodName", "m"), ("resourceName~", "/a/**/b/**")], Err("invalid path pattern"));
    }

    #[test]
    fn a_call_is_wanted_where_all_filters_hold() {
        let trigger = |location: &str, more: &[(&str, &str)]| -> Trigger {
            let service: ServiceKey =
                serde_json::from_value(serde_json::json!({ "project": "local-project", "region": "asia-northeast1", "service": "f" })).unwrap();
            let mut all = vec![AUDIT, ("serviceName", "s.googleapis.com"), ("methodName", "M.Create")];
            all.extend(more);
            Trigger {
                key: TriggerKey::new(service.project.clone(), Region::parse_location(location).unwrap(), "t").unwrap(),
                uid: String::new(),
                generation: 1,
                created: Timestamp::UNIX_EPOCH,
                updated: Timestamp::UNIX_EPOCH,
                deleted: None,
                labels: BTreeMap::new(),
                filters: filters(&all),
                destination: Destination { service, path: String::new(), is_function: false },
                service_account: String::new(),
                transport: Transport { topic: String::new(), is_own_topic: true, subscription: String::new() },
                is_tried_once: false,
                status: TriggerStatus::default(),
            }
        };
        let resource = "projects/p/locations/asia-northeast1/things/x";
        let wants = |trigger: &Trigger, method: &str, location: Option<&str>| trigger.wants_call("s.googleapis.com", method, resource, location);
        let here = trigger("asia-northeast1", &[]);
        assert!(wants(&here, "M.Create", Some("asia-northeast1")) && !wants(&here, "M.Create", None) && !wants(&here, "M.Create", Some("us-central1")));
        assert!(!wants(&here, "M.Delete", Some("asia-northeast1")));
        let global = trigger("global", &[]);
        assert!(wants(&global, "M.Create", None) && wants(&global, "M.Create", Some("us-central1")));
        for (filter, expect) in [
            (("resourceName", resource), true),
            (("resourceName", "projects/p/locations/asia-northeast1/things/*"), false),
            (("resourceName~", "/projects/p/locations/*/things/*"), true),
            (("resourceName~", "projects/**"), true),
            (("resourceName~", "/projects/q/**"), false),
        ] {
            assert_eq!(wants(&trigger("global", &[filter]), "M.Create", None), expect, "{filter:?}");
        }
        let gone = Trigger { deleted: Some(Timestamp::UNIX_EPOCH), ..global };
        assert!(!wants(&gone, "M.Create", None));
    }

    #[test]
    fn ids_follow_googles_rules() {
        let (project, location) = (ProjectId::parse("local-project").unwrap(), Region::parse_location("us").unwrap());
        let key = |id: &str| TriggerKey::new(project.clone(), location.clone(), id);
        assert_eq!(key("my-trigger-1").unwrap().resource(), "projects/local-project/locations/us/triggers/my-trigger-1");
        for bad in ["", "A", "1a", "-a", "a-", "a_b", "a/b", &"a".repeat(64)] {
            assert!(key(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn limits_are_googles() {
        assert_eq!((TRIGGERS_MAX, RETENTION_S, BACKOFF_MIN_S, BACKOFF_MAX_S), (500, 86_400, 10, 600));
    }
}
