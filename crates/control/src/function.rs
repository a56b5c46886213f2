//! Functions: the rules by which an owner's wish becomes a build and, when that is done, a service.
//!
//! The build is stored first and the function that names it second: a crash between leaves a build that nobody waits for. What
//! follows is `reconcile::function`'s. Source of the rules: google/cloud/functions/v2/functions.proto, and what gcloud expects.

use iam::Identity;
use model::{
    ProjectId, Region, ServiceKey, Status,
    function::{self, Deployer, Function, MANAGED_BY, MANAGED_BY_FUNCTIONS},
    key,
    operation::{Operation, Subject, Verb},
    storage::Bucket,
    trigger::{Destination, TriggerKey},
};
use store::{Expect, Write};

use crate::{BuildRequest, Control, TriggerWish, Versioned, operation, records};

/// The repository that functions' images go to.
const REPOSITORY: &str = "gcf-artifacts";
/// A variable of the build, and what it is for a function of events.
const SIGNATURE_TYPE: (&str, &str) = ("GOOGLE_FUNCTION_SIGNATURE_TYPE", "cloudevent");
/// A tag of a function's build: this and the function's name.
pub(crate) const BUILD_TAG: &str = "function_";

impl Control {
    /// # Errors
    /// `NOT_FOUND` in Google's words.
    pub fn function_get(&self, key: &ServiceKey) -> Result<Versioned<Function>, Status> {
        records::read(&self.context.store, &key::function(key))?.ok_or_else(|| missing(key))
    }

    /// Functions in the order of their keys ([`key::function`]), past the key `after`, at most `limit`. `region` `None` is the wildcard `-`.
    pub fn function_list(&self, project: &ProjectId, region: Option<&Region>, after: Option<&str>, limit: usize) -> Result<Vec<Versioned<Function>>, Status> {
        records::page(&self.context.store, &key::functions_of(project, region), after, limit)
    }

    /// Makes a function: its build begins. uid, generation, times, deployer and build id are set here.
    /// # Errors
    /// `ALREADY_EXISTS` for a function or a service of the name; those of [`Control::build_submit`] and of a service's rules.
    pub async fn function_create(&self, who: &Identity, function: Function) -> Result<(Function, Operation), Status> {
        let cx = &self.context;
        let now = cx.clock.now();
        let name = function.resource();
        let exists = || Status::already_exists(format!("Could not create Cloud Functions function {name}. A function with this name already exists."));
        if records::read::<Function>(&cx.store, &key::function(&function.key))?.is_some() {
            return Err(exists());
        }
        if cx.service_get(&function.key).is_ok() {
            return Err(Status::already_exists(format!(
                "Could not create Cloud Run service {}. A Cloud Run service with this name already exists. Please redeploy the function with a different name.",
                function.key.service
            )));
        }
        let mut function = Function { uid: uuid::Uuid::new_v4().to_string(), generation: 1, created: now, updated: now, ..function };
        trigger_name(&mut function, None);
        self.function_prepare(who, &mut function)?;
        self.function_build(who, &mut function).await?;
        let operation = self.operation_of_function(&function, Verb::Create);
        let writes =
            vec![Write::put(key::function(&function.key), Expect::Absent, &function), Write::put(operation::key_of(&operation), Expect::Absent, &operation)];
        match records::commit(&cx.store, writes).await? {
            Some(_) => Ok((function, operation)),
            None => Err(exists()),
        }
    }

    /// Replaces what the owner wrote. It is built again when its build or its source changed or the last build failed.
    /// # Errors
    /// As [`Control::function_create`]; `NOT_FOUND`; `ABORTED` while it is being deleted, or when another writer was first.
    pub async fn function_replace(&self, who: &Identity, found: &Versioned<Function>, wish: Function) -> Result<(Function, Operation), Status> {
        let cx = &self.context;
        let old = &found.value;
        if old.deleted.is_some() {
            return Err(deleting(&old.key));
        }
        let mut next = Function {
            key: old.key.clone(),
            uid: old.uid.clone(),
            generation: old.generation + 1,
            created: old.created,
            updated: cx.clock.now(),
            deleted: None,
            status: old.status.clone(),
            triggers_past: old.triggers_past.clone(),
            ..wish
        };
        trigger_name(&mut next, Some(old));
        self.function_prepare(who, &mut next)?;
        next.build.id.clone_from(&old.build.id);
        next.build.image_uri.clone_from(&old.build.image_uri);
        if next.build != old.build || !old.is_settled() || !old.status.failure.is_empty() {
            self.function_build(who, &mut next).await?;
        }
        let operation = self.operation_of_function(&next, Verb::Replace);
        let writes = vec![
            Write::put(key::function(&next.key), Expect::Revision(found.revision), &next),
            Write::put(operation::key_of(&operation), Expect::Absent, &operation),
        ];
        match records::commit(&cx.store, writes).await? {
            Some(_) => Ok((next, operation)),
            None => Err(Status::new(model::Code::Aborted, format!("{} was changed meanwhile. Read it again.", next.resource()))),
        }
    }

    /// Marks a function as deleted: its service goes, then it.
    /// # Errors
    /// `NOT_FOUND`.
    pub async fn function_delete(&self, who: &Identity, key: &ServiceKey) -> Result<Operation, Status> {
        let cx = &self.context;
        loop {
            let found = self.function_get(key)?;
            let mut next = found.value.clone();
            next.deleted = next.deleted.or_else(|| Some(cx.clock.now()));
            next.deployer = deployer(who);
            let operation = self.operation_of_function(&next, Verb::Delete);
            let writes = vec![
                Write::put(key::function(key), Expect::Revision(found.revision), &next),
                Write::put(operation::key_of(&operation), Expect::Absent, &operation),
            ];
            if records::commit(&cx.store, writes).await?.is_some() {
                return Ok(operation);
            }
        }
    }

    /// The bucket that sources are uploaded to, made when it is not there: `gcf-v2-uploads-NUMBER-REGION`.
    /// # Errors
    /// `INTERNAL` when the store fails; `PERMISSION_DENIED` when another project has a bucket of the name.
    pub async fn function_upload_bucket(&self, project: &ProjectId, region: &Region) -> Result<String, Status> {
        let name = format!("gcf-v2-uploads-{}-{region}", self.context.project_get(project.as_str())?.number);
        match self.bucket_get(&name) {
            Ok(bucket) if bucket.value.project == *project => return Ok(name),
            Ok(_) => return Err(Status::permission_denied("storage.objects.create", &format!("buckets/{name}"))),
            Err(_) => {}
        }
        let now = self.context.clock.now();
        let bucket: Bucket = serde_json::from_value(serde_json::json!({
            "name": name, "project": project, "location": region.as_str().to_uppercase(), "created": now, "updated": now, "metageneration": 0,
        }))
        .map_err(Status::internal)?;
        match self.bucket_create(bucket).await {
            Err(error) if error.code != model::Code::AlreadyExists => Err(error),
            _ => Ok(name),
        }
    }

    /// The service's part of the wish: named, labelled, and by the rules of services, so that what cannot be is refused before it is built.
    fn function_prepare(&self, who: &Identity, function: &mut Function) -> Result<(), Status> {
        function.deployer = deployer(who);
        let managed = (MANAGED_BY.to_owned(), MANAGED_BY_FUNCTIONS.to_owned());
        let service = &mut function.service;
        service.key = function.key.clone();
        service.labels = function.labels.clone().into_iter().chain([managed.clone()]).collect();
        service.template.labels = service.labels.clone();
        service.description.clone_from(&function.description);
        // Which one it is, is known when it is built.
        service.template.container.image = image_of(&function.key);
        self.context.service_rules_check(who, service)?;
        function.build.is_for_events = function.trigger.is_some();
        let Some(wish) = trigger_of(function) else { return Ok(()) };
        self.context.trigger_check(who, &wish).map_err(|mut status| {
            status.outer = format!("Validation failed for trigger {}: {}", wish.key.resource(), status.outer);
            status
        })
    }

    /// Begins the build of the function's source.
    async fn function_build(&self, who: &Identity, function: &mut Function) -> Result<(), Status> {
        let ServiceKey { project, region, service } = function.key.clone();
        match self.repository_create(&project, &region, REPOSITORY, "DOCKER", "Cloud Functions").await {
            Err(error) if error.code != model::Code::AlreadyExists => return Err(error),
            _ => {}
        }
        let mut env = function.build.env.clone();
        if function.build.is_for_events {
            let (name, value) = SIGNATURE_TYPE;
            env.entry(name.to_owned()).or_insert_with(|| value.to_owned());
        }
        let request = BuildRequest {
            image_uri: format!("{}:version_{}", image_of(&function.key), function.generation),
            source: function.build.source.clone(),
            base_image: function.build.runtime.clone(),
            function_target: function.build.entry_point.clone(),
            enable_automatic_updates: false,
            env,
            tags: vec![format!("{BUILD_TAG}{service}")],
            service_account: function.build.service_account.clone(),
            project,
            region,
        };
        let (build, _) = self.build_submit(who, request).await?;
        function.build.source = build.source;
        function.build.id = build.id;
        function.build.image_uri = build.image_uri;
        Ok(())
    }

    fn operation_of_function(&self, function: &Function, verb: Verb) -> Operation {
        let subject = Subject::Function { key: function.key.clone(), uid: function.uid.clone(), generation: function.generation, verb };
        self.context.operation_new(&function.key.project, &function.key.region, subject)
    }
}

/// What the trigger of a function is to be.
pub(crate) fn trigger_of(function: &Function) -> Option<TriggerWish> {
    let trigger = function.trigger.clone()?;
    Some(TriggerWish {
        key: trigger.key,
        labels: [(MANAGED_BY.to_owned(), MANAGED_BY_FUNCTIONS.to_owned())].into(),
        filters: trigger.filters,
        destination: Destination { service: function.key.clone(), path: String::new(), is_function: true },
        service_account: trigger.service_account,
        topic: trigger.topic,
        is_tried_once: !trigger.is_retried,
    })
}

/// Gives the trigger its name: that which it had, while it is for the same kind of events at the same place; else `FUNCTION-` and six digits.
fn trigger_name(function: &mut Function, old: Option<&Function>) {
    let before = old.and_then(|old| old.trigger.as_ref());
    let kind = |trigger: &function::EventTrigger| trigger.filters.iter().find(|filter| filter.attribute == "type").map(|filter| filter.value.clone());
    if let Some(trigger) = &mut function.trigger {
        let same = before.filter(|before| before.key.location == trigger.key.location && kind(before) == kind(trigger) && before.topic == trigger.topic);
        trigger.key.id = same.map_or_else(|| format!("{}-{:06}", function.key.service, rand::random_range(0..1_000_000)), |before| before.key.id.clone());
    }
    let is_past = |before: &TriggerKey| function.trigger.as_ref().is_none_or(|trigger| trigger.key != *before);
    let past = before.map(|before| before.key.clone()).filter(|before| is_past(before));
    function.triggers_past.extend(past);
}

/// Where a function's images go, without a tag. A hyphen within a part is two, so that no part can be mistaken for another, as Google names them.
fn image_of(key: &ServiceKey) -> String {
    let ServiceKey { project, region, service } = key;
    let [p, r, s] = [project.as_str(), region.as_str(), service.as_str()].map(|part| part.replace('-', "--"));
    format!("{region}-docker.pkg.dev/{project}/{REPOSITORY}/{p}__{r}__{s}")
}

fn deployer(who: &Identity) -> Deployer {
    Deployer { email: who.email.clone(), subject: who.subject.clone(), is_service_account: who.kind == iam::Kind::ServiceAccount }
}

fn missing(key: &ServiceKey) -> Status {
    Status::not_found(format!("Resource '{}' was not found", function::resource(key)))
}

fn deleting(key: &ServiceKey) -> Status {
    Status::new(model::Code::Aborted, format!("{} is being deleted. Try again in a few seconds.", function::resource(key)))
}
