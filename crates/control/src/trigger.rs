//! Triggers: the rules by which an owner's wish becomes a stored intent. `reconcile::trigger` makes it true.
//!
//! Source of the rules and texts: google/cloud/eventarc/v1/eventarc.proto, cloud.google.com/eventarc/docs, and errors that users have published.

use std::collections::BTreeMap;

use iam::Identity;
use model::{
    Code, ProjectId, Region, Service, Status, key,
    operation::{Operation, Subject, Verb},
    storage::Bucket,
    trigger::{Destination, EventFilter, EventKind, TRIGGERS_MAX, Transport, Trigger, TriggerKey, TriggerStatus, filters_check},
};
use store::{Expect, Write};

use crate::{Context, Control, Versioned, operation, records, template};

const PATH_MAX_BYTES: usize = 1024;

/// What an owner writes of a trigger.
#[derive(Clone, Debug)]
pub struct TriggerWish {
    pub key: TriggerKey,
    pub labels: BTreeMap<String, String>,
    pub filters: Vec<EventFilter>,
    pub destination: Destination,
    /// An e-mail; empty for none.
    pub service_account: String,
    /// `projects/P/topics/T`: whose messages are the events, instead of those of a topic that is made.
    pub topic: Option<String>,
    pub is_tried_once: bool,
}

impl Control {
    /// # Errors
    /// `NOT_FOUND`.
    pub fn trigger_get(&self, key: &TriggerKey) -> Result<Versioned<Trigger>, Status> {
        self.context.trigger_get(key)
    }

    /// Triggers in the order of their keys ([`key::trigger`]), past the key `after`, at most `limit`. `location` `None` is the wildcard `-`.
    pub fn trigger_list(&self, project: &ProjectId, location: Option<&Region>, after: Option<&str>, limit: usize) -> Result<Vec<Versioned<Trigger>>, Status> {
        records::page(&self.context.store, &key::triggers_of(project, location), after, limit)
    }

    /// The triggers that an audited call is an event for. `location` is where its resource lies; `None` for nowhere.
    pub fn triggers_wanting(&self, project: &ProjectId, call: (&str, &str, &str), location: Option<&str>) -> Result<Vec<Trigger>, Status> {
        let (service, method, resource) = call;
        let all: Vec<Versioned<Trigger>> = records::all(&self.context.store, &key::triggers_of(project, None))?;
        Ok(all.into_iter().map(|found| found.value).filter(|trigger| trigger.wants_call(service, method, resource, location)).collect())
    }

    /// Checks everything and stores the intent; with `dry_run` nothing is written.
    /// # Errors
    /// `INVALID_ARGUMENT` in Google's words; `PERMISSION_DENIED` without actAs on the account, or when it may not receive events;
    /// `NOT_FOUND` for service or topic; `ALREADY_EXISTS`; `RESOURCE_EXHAUSTED`.
    pub async fn trigger_create(&self, who: &Identity, wish: TriggerWish, dry_run: bool) -> Result<(Trigger, Operation), Status> {
        self.context.trigger_create(who, wish, dry_run).await
    }

    /// Replaces what the owner wrote.
    /// # Errors
    /// As of [`Control::trigger_create`]; `ABORTED` while it is being deleted, or when another writer was first.
    pub async fn trigger_replace(&self, who: &Identity, found: &Versioned<Trigger>, wish: TriggerWish, dry_run: bool) -> Result<(Trigger, Operation), Status> {
        self.context.trigger_replace(who, found, wish, dry_run).await
    }

    /// Marks a trigger as deleted: its transport goes, then it.
    /// # Errors
    /// `ABORTED` when another writer was first.
    pub async fn trigger_delete(&self, found: &Versioned<Trigger>, dry_run: bool) -> Result<Operation, Status> {
        self.context.trigger_delete(found, dry_run).await
    }
}

impl Context {
    pub(crate) fn trigger_get(&self, key: &TriggerKey) -> Result<Versioned<Trigger>, Status> {
        records::read(&self.store, &key::trigger(key))?.ok_or_else(|| Status::not_found(format!("Resource '{}' was not found", key.resource())))
    }

    pub(crate) async fn trigger_create(&self, who: &Identity, wish: TriggerWish, dry_run: bool) -> Result<(Trigger, Operation), Status> {
        let exists = || Status::already_exists(format!("Resource '{}' already exists", wish.key.resource()));
        self.trigger_check(who, &wish)?;
        self.destination_check(&wish.destination)?;
        if records::read::<Trigger>(&self.store, &key::trigger(&wish.key))?.is_some() {
            return Err(exists());
        }
        let there_are = records::keys(&self.store, &key::triggers_of(&wish.key.project, Some(&wish.key.location)))?.len();
        if there_are >= TRIGGERS_MAX {
            return Err(Status::new(Code::ResourceExhausted, format!("There are already {TRIGGERS_MAX} triggers in {}.", wish.key.location)));
        }
        let now = self.clock.now();
        let trigger = Trigger {
            transport: self.transport_new(&wish)?,
            key: wish.key.clone(),
            uid: uuid::Uuid::new_v4().to_string(),
            generation: 1,
            created: now,
            updated: now,
            deleted: None,
            labels: wish.labels.clone(),
            filters: wish.filters.clone(),
            destination: wish.destination.clone(),
            service_account: wish.service_account.clone(),
            is_tried_once: wish.is_tried_once,
            status: TriggerStatus::default(),
        };
        let operation = self.operation_of_trigger(&trigger, Verb::Create);
        if dry_run || self.trigger_commit(&trigger, Expect::Absent, &operation).await? { Ok((trigger, operation)) } else { Err(exists()) }
    }

    pub(crate) async fn trigger_replace(
        &self,
        who: &Identity,
        found: &Versioned<Trigger>,
        wish: TriggerWish,
        dry_run: bool,
    ) -> Result<(Trigger, Operation), Status> {
        let old = &found.value;
        if old.deleted.is_some() {
            return Err(Status::new(Code::Aborted, format!("{} is being deleted. Try again in a few seconds.", old.key.resource())));
        }
        self.trigger_check(who, &wish)?;
        self.destination_check(&wish.destination)?;
        let of = |filters: &[EventFilter]| filters.iter().find(|filter| filter.attribute == "type").map(|filter| filter.value.clone());
        if of(&old.filters) != of(&wish.filters) {
            return Err(Status::invalid("The request was invalid: the event type of a trigger cannot be changed"));
        }
        if wish.topic.as_ref().is_some_and(|topic| *topic != old.transport.topic) {
            return Err(Status::invalid("The request was invalid: the transport topic of a trigger cannot be changed"));
        }
        let next = Trigger {
            generation: old.generation + 1,
            updated: self.clock.now(),
            labels: wish.labels,
            filters: wish.filters,
            destination: wish.destination,
            service_account: wish.service_account,
            is_tried_once: wish.is_tried_once,
            ..old.clone()
        };
        let operation = self.operation_of_trigger(&next, Verb::Replace);
        if dry_run || self.trigger_commit(&next, Expect::Revision(found.revision), &operation).await? { Ok((next, operation)) } else { Err(changed(&old.key)) }
    }

    pub(crate) async fn trigger_delete(&self, found: &Versioned<Trigger>, dry_run: bool) -> Result<Operation, Status> {
        let old = &found.value;
        let next = Trigger { deleted: old.deleted.or_else(|| Some(self.clock.now())), ..old.clone() };
        let operation = self.operation_of_trigger(&next, Verb::Delete);
        if dry_run || self.trigger_commit(&next, Expect::Revision(found.revision), &operation).await? { Ok(operation) } else { Err(changed(&old.key)) }
    }

    async fn trigger_commit(&self, trigger: &Trigger, expect: Expect, operation: &Operation) -> Result<bool, Status> {
        let writes = vec![Write::put(key::trigger(&trigger.key), expect, trigger), Write::put(operation::key_of(operation), Expect::Absent, operation)];
        Ok(records::commit(&self.store, writes).await?.is_some())
    }

    /// All rules but that of [`Context::destination_check`]: a function's service comes after the rules of its trigger.
    pub(crate) fn trigger_check(&self, who: &Identity, wish: &TriggerWish) -> Result<(), Status> {
        let project = &wish.key.project;
        self.project_get(project.as_str())?;
        template::labels_check("trigger.labels", &wish.labels)?;
        let kind = filters_check(&wish.filters)?;
        path_check(&wish.destination.path)?;
        self.event_account_check(who, wish, kind)?;
        match (&wish.topic, kind) {
            (Some(topic), EventKind::MessagePublished) => self.topic_check(project, topic, wish.destination.is_function)?,
            (Some(_), _) => {
                return Err(Status::invalid(format!(
                    "The request was invalid: a transport topic can be given for events of type \"{}\" only",
                    EventKind::MessagePublished.name()
                )));
            }
            (None, _) => {}
        }
        match wish.filters.iter().find(|filter| filter.attribute == "bucket") {
            Some(filter) => self.bucket_check(wish, &filter.value),
            None => Ok(()),
        }
    }

    /// Who makes a trigger must be allowed to act as its account, and the account to receive what is no message of Pub/Sub.
    fn event_account_check(&self, who: &Identity, wish: &TriggerWish, kind: EventKind) -> Result<(), Status> {
        let (email, project) = (&wish.service_account, &wish.key.project);
        if email.is_empty() {
            return match kind {
                EventKind::MessagePublished => Ok(()),
                _ => Err(Status::invalid(format!("The request was invalid: service_account is required for events of type \"{}\"", kind.name()))),
            };
        }
        self.account_check(who, project, email)?;
        if kind != EventKind::MessagePublished && !self.accounts.may_receive(email, project) {
            return Err(Status::new(Code::PermissionDenied, format!("Permission \"eventarc.events.receiveEvent\" denied on \"{email}\"")));
        }
        Ok(())
    }

    /// A topic of the project; that of a function is made when it is not there.
    fn topic_check(&self, project: &ProjectId, topic: &str, is_made: bool) -> Result<(), Status> {
        if !topic.starts_with(&format!("projects/{project}/topics/")) {
            return Err(Status::invalid(format!("The request was invalid: the Pub/Sub topic \"{topic}\" is not in the project of the trigger")));
        }
        if self.topics.is_there(topic)? || is_made { Ok(()) } else { Err(Status::not_found(format!("Pub/Sub topic \"{topic}\" was not found"))) }
    }

    fn bucket_check(&self, wish: &TriggerWish, name: &str) -> Result<(), Status> {
        let absent = || {
            Status::invalid(format!(
                "Bucket \"{name}\" could not be validated. Please verify that the bucket exists and that the Eventarc service account has permission."
            ))
        };
        let bucket = records::read::<Bucket>(&self.store, &key::bucket(name))?.map(|bucket| bucket.value);
        let bucket = bucket.filter(|bucket| bucket.project == wish.key.project).ok_or_else(absent)?;
        let (of_bucket, of_trigger) = (bucket.location.to_ascii_lowercase(), &wish.key.location);
        if of_bucket == of_trigger.as_str() {
            return Ok(());
        }
        Err(Status::invalid(if wish.destination.is_function {
            format!(
                "Bucket '{name}' is in location '{of_bucket}', but the trigger location is '{of_trigger}'. The trigger must be in the same location as the bucket. \
                 Try redeploying and changing the trigger location to '{of_bucket}'."
            )
        } else {
            format!(
                "The request was invalid: Bucket \"{name}\" location \"{of_bucket}\" does not match trigger location \"{of_trigger}\". \
                 Try again by creating the trigger in \"{of_bucket}\"."
            )
        }))
    }

    fn destination_check(&self, destination: &Destination) -> Result<(), Status> {
        let service = records::read::<Service>(&self.store, &key::service(&destination.service))?;
        match service.filter(|service| service.value.deleted.is_none()) {
            Some(_) => Ok(()),
            None => Err(Status::not_found(format!(
                "Cloud Run service \"{}\" was not found in region \"{}\"",
                destination.service.service, destination.service.region
            ))),
        }
    }

    /// Names that no topic and no subscription has.
    fn transport_new(&self, wish: &TriggerWish) -> Result<Transport, Status> {
        let TriggerKey { project, location, id } = &wish.key;
        loop {
            let digits: u32 = rand::random_range(0..1000);
            let own = format!("projects/{project}/topics/eventarc-{location}-{id}-{digits:03}");
            let subscription = format!("projects/{project}/subscriptions/eventarc-{location}-{id}-sub-{digits:03}");
            if self.topics.is_there(&own)? || self.topics.is_subscription(&subscription)? {
                continue;
            }
            let is_own_topic = wish.topic.is_none();
            return Ok(Transport { topic: wish.topic.clone().unwrap_or(own), is_own_topic, subscription });
        }
    }

    fn operation_of_trigger(&self, trigger: &Trigger, verb: Verb) -> Operation {
        let TriggerKey { project, location, .. } = &trigger.key;
        let subject = Subject::Trigger { key: trigger.key.clone(), uid: trigger.uid.clone(), generation: trigger.generation, verb };
        self.operation_new(project, location, subject)
    }
}

fn changed(key: &TriggerKey) -> Status {
    Status::new(Code::Aborted, format!("{} was changed meanwhile. Read it again.", key.resource()))
}

fn path_check(path: &str) -> Result<(), Status> {
    let is_good = |b: u8| b.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@/%".contains(&b);
    if path.len() <= PATH_MAX_BYTES && path.bytes().all(is_good) {
        return Ok(());
    }
    Err(Status::invalid_field(
        "trigger.destination.cloud_run.path",
        format!("must be a path of at most {PATH_MAX_BYTES} bytes, without a query, with other characters escaped"),
    ))
}
