//! One operation at a time: done when its subject is settled; forgotten when it is old.
//!
//! Which operations wait for a service, a function or a trigger is kept in memory, filled from the store at every look at everything.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use model::{
    Code, Service, Status, Timestamp,
    condition::{self, State},
    function::Function,
    key,
    operation::{Operation, Subject, Verb},
    trigger::{Trigger, TriggerKey},
};
use parking_lot::Mutex;
use store::{Change, Expect, Write};

use super::Reconciler;
use crate::{Context, operation, records};

/// Finished operations are kept this long, and this many of a region at most.
const KEPT_FOR_S: i64 = 24 * 60 * 60;
const KEPT_MAX: usize = 10_000;
/// Stands for the look at all finished operations; no operation has such a key.
const RETENTION: &str = "retention";

pub(crate) struct Operations {
    context: Arc<Context>,
    /// Open operations by the key of the service, function or trigger they wait for.
    open: Mutex<HashMap<String, HashSet<String>>>,
}

impl Operations {
    pub(crate) fn new(context: Arc<Context>) -> Self {
        Self { context, open: Mutex::default() }
    }

    /// Keeps the index as the operation at `key` is.
    fn note(&self, key: &str, operation: &Operation) {
        let waited = match &operation.subject {
            Subject::Service { key, .. } => key::service(key),
            Subject::Function { key, .. } => key::function(key),
            Subject::Trigger { key, .. } => key::trigger(key),
            Subject::Repository { .. } | Subject::Revision { .. } => return,
        };
        let mut open = self.open.lock();
        if operation.finished.is_none() {
            open.entry(waited).or_default().insert(key.to_owned());
        } else if let Some(keys) = open.get_mut(&waited) {
            keys.remove(key);
            if keys.is_empty() {
                open.remove(&waited);
            }
        }
    }
}

impl Reconciler for Operations {
    const NAME: &'static str = "operations";
    const PREFIXES: &'static [&'static str] = &[key::OPERATIONS, key::SERVICES, key::FUNCTIONS, key::TRIGGERS];

    fn parallel(&self) -> usize {
        16
    }

    fn concerned(&self, change: &Change) -> Vec<String> {
        if [key::SERVICES, key::FUNCTIONS, key::TRIGGERS].iter().any(|prefix| change.key.starts_with(prefix)) {
            return self.open.lock().get(&change.key).into_iter().flatten().cloned().collect();
        }
        let Some(operation) = change.value.as_deref().and_then(|value| serde_json::from_slice::<Operation>(value).ok()) else {
            return Vec::new();
        };
        self.note(&change.key, &operation);
        operation.finished.is_none().then(|| change.key.clone()).into_iter().collect()
    }

    fn all(&self) -> Result<Vec<String>, Status> {
        let operations = records::all::<Operation>(&self.context.store, key::OPERATIONS)?;
        let mut keys = vec![RETENTION.to_owned()];
        for operation in operations {
            let key = operation::key_of(&operation.value);
            self.note(&key, &operation.value);
            if operation.value.finished.is_none() {
                keys.push(key);
            }
        }
        Ok(keys)
    }

    async fn step(&self, key: &str) -> Result<(), Status> {
        let store = &self.context.store;
        if key == RETENTION {
            return self.retain().await;
        }
        let Some(operation) = records::read::<Operation>(store, key)? else {
            return Ok(());
        };
        if operation.value.finished.is_some() {
            self.note(key, &operation.value);
            return Ok(());
        }
        let Some(outcome) = outcome(&self.context, &operation.value)? else {
            return Ok(());
        };
        records::update::<Operation>(store, key, |stored| {
            stored.finished = Some(self.context.clock.now());
            stored.error = outcome.clone().err();
            true
        })
        .await?;
        Ok(())
    }
}

impl Operations {
    /// Forgets what is old.
    async fn retain(&self) -> Result<(), Status> {
        let store = &self.context.store;
        let operations = records::all::<Operation>(store, key::OPERATIONS)?.into_iter().map(|operation| operation.value).collect();
        for key in expired(operations, self.context.clock.now()) {
            records::commit(store, vec![Write::delete(key, Expect::Any)]).await?;
        }
        Ok(())
    }
}

/// How an operation ended; `None` while it goes on.
fn outcome(cx: &Context, operation: &Operation) -> Result<Option<Result<(), Status>>, Status> {
    if let Subject::Function { key, uid, generation, verb } = &operation.subject {
        return outcome_of_function(cx, key, uid, *generation, *verb);
    }
    if let Subject::Trigger { key, uid, generation, verb } = &operation.subject {
        return outcome_of_trigger(cx, key, uid, *generation, *verb);
    }
    let Subject::Service { key, uid, generation, verb } = &operation.subject else {
        // Repositories and revisions are done when their operation is stored.
        return Ok(Some(Ok(())));
    };
    let service = records::read::<Service>(&cx.store, &key::service(key))?.map(|service| service.value).filter(|service| service.uid == *uid);
    Ok(match (verb, service) {
        (Verb::Delete, None) => Some(Ok(())),
        (Verb::Delete, Some(_)) => None,
        (_, None) => Some(Err(deleted(key.service.as_str()))),
        (_, Some(service)) if service.deleted.is_some() => Some(Err(deleted(key.service.as_str()))),
        (_, Some(service)) if service.generation >= *generation && service.is_settled() => Some(ready(&service)),
        _ => None,
    })
}

fn outcome_of_function(cx: &Context, key: &model::ServiceKey, uid: &str, generation: u64, verb: Verb) -> Result<Option<Result<(), Status>>, Status> {
    let function = records::read::<Function>(&cx.store, &key::function(key))?.map(|function| function.value).filter(|function| function.uid == uid);
    Ok(match (verb, function) {
        (Verb::Delete, None) => Some(Ok(())),
        (Verb::Delete, Some(_)) => None,
        (_, None) => Some(Err(deleted(key.service.as_str()))),
        (_, Some(function)) if function.deleted.is_some() => Some(Err(deleted(key.service.as_str()))),
        (_, Some(function)) if function.status.observed_generation >= generation => Some(match function.status.failure.as_str() {
            "" => Ok(()),
            why => Err(Status::failed_precondition(why)),
        }),
        _ => None,
    })
}

fn outcome_of_trigger(cx: &Context, key: &TriggerKey, uid: &str, generation: u64, verb: Verb) -> Result<Option<Result<(), Status>>, Status> {
    let trigger = records::read::<Trigger>(&cx.store, &key::trigger(key))?.map(|trigger| trigger.value).filter(|trigger| trigger.uid == uid);
    Ok(match (verb, trigger) {
        (Verb::Delete, None) => Some(Ok(())),
        (Verb::Delete, Some(_)) => None,
        (_, None) => Some(Err(deleted(&key.id))),
        (_, Some(trigger)) if trigger.deleted.is_some() => Some(Err(deleted(&key.id))),
        (_, Some(trigger)) if trigger.status.observed_generation >= generation => Some(trigger.status.failure.map_or(Ok(()), Err)),
        _ => None,
    })
}

fn ready(service: &Service) -> Result<(), Status> {
    match condition::find(&service.status.conditions, "Ready") {
        Some(ready) if ready.state == State::False => Err(Status::failed_precondition(ready.message.clone())),
        _ => Ok(()),
    }
}

fn deleted(name: &str) -> Status {
    Status::new(Code::Aborted, format!("Resource '{name}' was deleted before the operation was done."))
}

/// The keys of finished operations that are older than a day, or too many.
fn expired(mut operations: Vec<Operation>, now: Timestamp) -> Vec<String> {
    operations.retain(|operation| operation.finished.is_some());
    operations.sort_by_key(|operation| std::cmp::Reverse(operation.created));
    let mut kept: HashMap<(String, String), usize> = HashMap::new();
    operations
        .iter()
        .filter(|operation| {
            let count = kept.entry((operation.project.to_string(), operation.region.to_string())).or_default();
            *count += 1;
            now.as_second() - operation.created.as_second() > KEPT_FOR_S || *count > KEPT_MAX
        })
        .map(operation::key_of)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::{ProjectId, Region};

    #[test]
    fn old_and_surplus_operations_are_forgotten() {
        let at = |second: i64| Timestamp::from_second(second).unwrap();
        let operation = |created: i64, done: bool| Operation {
            project: ProjectId::parse("local-project").unwrap(),
            region: Region::parse("us-central1").unwrap(),
            id: format!("{created}"),
            created: at(created),
            finished: done.then(|| at(created)),
            subject: Subject::Repository { name: "r".into() },
            error: None,
        };
        let day = 24 * 60 * 60;
        let gone = |operations: Vec<Operation>, now: i64| expired(operations, at(now)).len();
        assert_eq!(gone(vec![operation(0, true), operation(0, false), operation(5, true)], day + 1), 1);
        let many: Vec<Operation> = (0..10_003).map(|n| operation(n, true)).collect();
        assert_eq!(expired(many, at(20_000)), [2, 1, 0].map(|n| format!("operation/local-project/us-central1/{n}")));
    }
}
