//! One function at a time: waits for its build, asks for its service and its trigger, tells what came of all; deletes it after them.

use std::{sync::Arc, time::Duration};

use iam::{Identity, Kind};
use model::{
    Code, Service, Status,
    build::{Build, BuildState},
    condition::{self, State},
    function::{Function, FunctionStatus, is_managed},
    key,
    trigger::{Trigger, TriggerKey},
};
use store::{Change, Expect, Write};

use super::Reconciler;
use crate::{
    Context,
    function::{BUILD_TAG, trigger_of},
    records,
};

/// How long the end of a trigger is waited for at a time.
const TRIGGER_END: Duration = Duration::from_secs(10);

pub(crate) struct Functions(pub Arc<Context>);

impl Reconciler for Functions {
    const NAME: &'static str = "functions";
    const PREFIXES: &'static [&'static str] = &[key::FUNCTIONS, key::BUILDS, key::SERVICES, key::TRIGGERS];

    fn parallel(&self) -> usize {
        16
    }

    fn concerned(&self, change: &Change) -> Vec<String> {
        if change.key.starts_with(key::FUNCTIONS) {
            return vec![change.key.clone()];
        }
        if let Some(rest) = change.key.strip_prefix(key::SERVICES) {
            return vec![format!("{}{rest}", key::FUNCTIONS)];
        }
        if change.key.starts_with(key::TRIGGERS) {
            let trigger = change.value.as_deref().and_then(|value| serde_json::from_slice::<Trigger>(value).ok());
            return trigger.filter(|trigger| trigger.destination.is_function).map(|trigger| key::function(&trigger.destination.service)).into_iter().collect();
        }
        let Some(build) = change.value.as_deref().and_then(|value| serde_json::from_slice::<Build>(value).ok()) else {
            return Vec::new();
        };
        let names = build.tags.iter().filter_map(|tag| tag.strip_prefix(BUILD_TAG));
        names.map(|name| format!("{}{}/{}/{name}", key::FUNCTIONS, build.project, build.region)).collect()
    }

    fn all(&self) -> Result<Vec<String>, Status> {
        let functions = records::all::<Function>(&self.0.store, key::FUNCTIONS)?;
        let open = functions.into_iter().map(|function| function.value).filter(|function| !function.is_settled() || function.deleted.is_some());
        Ok(open.map(|function| key::function(&function.key)).collect())
    }

    async fn step(&self, key: &str) -> Result<(), Status> {
        let cx = &self.0;
        let Some(found) = records::read::<Function>(&cx.store, key)? else {
            return Ok(());
        };
        let function = &found.value;
        if function.deleted.is_some() {
            return delete(cx, function, found.revision).await;
        }
        if function.is_settled() {
            return Ok(());
        }
        if let Some(status) = next(cx, function).await? {
            // After a failure what served before goes on, with the trigger that it had.
            let is_good = status.observed_generation == function.generation && status.failure.is_empty();
            if is_good {
                triggers_delete(cx, &function.triggers_past).await?;
            }
            let triggers_past = if is_good { Vec::new() } else { function.triggers_past.clone() };
            let next = Function { status, triggers_past, ..function.clone() };
            // Another writer was faster: its change wakes this loop again.
            records::commit(&cx.store, vec![Write::put(key, Expect::Revision(found.revision), &next)]).await?;
        }
        Ok(())
    }
}

/// What the status is to become; `None` when there is only to wait.
async fn next(cx: &Context, function: &Function) -> Result<Option<FunctionStatus>, Status> {
    let status = &function.status;
    let ended = |failure: String| Some(FunctionStatus { observed_generation: function.generation, failure, ..status.clone() });
    if status.applied_generation == function.generation {
        let service = records::read::<Service>(&cx.store, &key::service(&function.key))?.map(|service| service.value);
        return Ok(match service {
            None => ended("Its Cloud Run service was deleted.".to_owned()),
            Some(service) if service.generation >= status.service_generation && service.is_settled() => match failure_of(&service) {
                failure if failure.is_empty() => return trigger_next(cx, function).await,
                failure => ended(failure),
            },
            Some(_) => None,
        });
    }
    let build_key = key::build(&function.key.project, &function.key.region, &function.build.id);
    let Some(build) = records::read::<Build>(&cx.store, &build_key)?.map(|build| build.value) else {
        return Ok(ended("Its build is no longer known; deploy it again.".to_owned()));
    };
    match (build.state, &build.image) {
        (BuildState::Queued | BuildState::Working, _) => Ok(None),
        (BuildState::Success, Some(digest)) => {
            let name = build.image_uri.split(':').next().unwrap_or_default();
            match apply(cx, function, format!("{name}@{digest}")).await {
                Ok(service_generation) => Ok(Some(FunctionStatus { applied_generation: function.generation, service_generation, ..status.clone() })),
                // Ours, or of the moment: again, later.
                Err(error) if matches!(error.code, Code::Internal | Code::Unavailable | Code::Aborted) => Err(error),
                Err(error) => Ok(ended(format!("Could not create or update Cloud Run service {}, {}", function.key.service, error.outer))),
            }
        }
        (state, _) => Ok(ended(format!("Build failed with status: {} and message: {}", state_name(state), build.failure))),
    }
}

/// The same once the service is there: the trigger's part.
async fn trigger_next(cx: &Context, function: &Function) -> Result<Option<FunctionStatus>, Status> {
    let status = &function.status;
    let ended = |failure: String| Some(FunctionStatus { observed_generation: function.generation, failure, ..status.clone() });
    let failed = |why: &Status| ended(format!("Could not create or update Eventarc trigger of {}, {}", function.key.service, why.outer));
    let Some(wish) = trigger_of(function) else { return Ok(ended(String::new())) };
    let found = records::read::<Trigger>(&cx.store, &key::trigger(&wish.key))?;
    if status.triggered_generation == function.generation {
        return Ok(match found.map(|found| found.value) {
            None => ended("Its trigger was deleted.".to_owned()),
            Some(trigger) if trigger.generation >= status.trigger_generation && trigger.is_settled() => match &trigger.status.failure {
                Some(why) => failed(why),
                None => ended(String::new()),
            },
            Some(_) => None,
        });
    }
    let asked = async {
        if let Some(topic) = &wish.topic {
            cx.topics.topic_make(topic).await?;
        }
        match found {
            None => cx.trigger_create(&deployer(function), wish, false).await,
            Some(found) => cx.trigger_replace(&deployer(function), &found, wish, false).await,
        }
    };
    match asked.await {
        Ok((trigger, _)) => Ok(Some(FunctionStatus { triggered_generation: function.generation, trigger_generation: trigger.generation, ..status.clone() })),
        Err(error) if matches!(error.code, Code::Internal | Code::Unavailable | Code::Aborted) => Err(error),
        Err(error) => Ok(failed(&error)),
    }
}

/// Deletes triggers and waits until they are gone.
async fn triggers_delete(cx: &Context, keys: &[TriggerKey]) -> Result<(), Status> {
    for key in keys {
        let Some(found) = records::read::<Trigger>(&cx.store, &key::trigger(key))? else { continue };
        if found.value.deleted.is_none() {
            cx.trigger_delete(&found, false).await?;
        }
        let left = records::wait::<Trigger>(&cx.store, &key::trigger(key), TRIGGER_END, |found| found.is_none()).await?;
        if left.is_some() {
            return Err(Status::unavailable(format!("{} is not gone yet", key.resource())));
        }
    }
    Ok(())
}

/// Makes the service what the function wants; its generation.
async fn apply(cx: &Context, function: &Function, image: String) -> Result<u64, Status> {
    let who = deployer(function);
    let mut service = function.service.clone();
    service.template.container.image = image;
    let found = records::read::<Service>(&cx.store, &key::service(&function.key))?;
    let (applied, _) = match found {
        None => cx.service_create(&who, service, false).await?,
        Some(found) if is_managed(&found.value) => {
            // What is the service's own: whoever turned the check of callers off wants it off.
            service.invoker_iam_disabled = found.value.invoker_iam_disabled;
            cx.service_replace(&who, service, None, false).await?
        }
        Some(_) => return Err(Status::already_exists("a service of this name that is no function's is there")),
    };
    Ok(applied.value.generation)
}

async fn delete(cx: &Context, function: &Function, revision: u64) -> Result<(), Status> {
    let triggers: Vec<TriggerKey> = function.trigger.iter().map(|trigger| trigger.key.clone()).chain(function.triggers_past.clone()).collect();
    triggers_delete(cx, &triggers).await?;
    match records::read::<Service>(&cx.store, &key::service(&function.key))? {
        Some(service) if is_managed(&service.value) => match service.value.deleted {
            // Its end wakes this loop again.
            Some(_) => Ok(()),
            None => cx.service_delete(&deployer(function), &function.key, None).await.map(drop),
        },
        _ => {
            cx.accounts.policy_remove(&function.resource()).await?;
            records::commit(&cx.store, vec![Write::delete(key::function(&function.key), Expect::Revision(revision))]).await.map(drop)
        }
    }
}

fn deployer(function: &Function) -> Identity {
    let deployer = &function.deployer;
    let kind = if deployer.is_service_account { Kind::ServiceAccount } else { Kind::User };
    Identity { kind, email: deployer.email.as_str().into(), subject: deployer.subject.as_str().into() }
}

fn failure_of(service: &Service) -> String {
    match condition::find(&service.status.conditions, "Ready") {
        Some(ready) if ready.state == State::False => format!("Could not create or update Cloud Run service {}, {}", service.key.service, ready.message),
        _ => String::new(),
    }
}

/// google.devtools.cloudbuild.v1.Build.Status.
fn state_name(state: BuildState) -> &'static str {
    match state {
        BuildState::Queued => "QUEUED",
        BuildState::Working => "WORKING",
        BuildState::Success => "SUCCESS",
        BuildState::Failure => "FAILURE",
        BuildState::InternalError => "INTERNAL_ERROR",
        BuildState::Timeout => "TIMEOUT",
        BuildState::Cancelled => "CANCELLED",
    }
}
