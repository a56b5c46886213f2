//! Services: the rules by which an owner's wish becomes a stored intent.
//!
//! Nothing is started here. What is accepted here is on disk before the answer is given; `reconcile::service` makes it true.

use std::time::Duration;

use iam::Identity;
use model::{
    Code, ProjectId, Region, Revision, RevisionName, Service, ServiceKey, Status, address, key,
    limits::SERVICES_MAX,
    operation::{Operation, Verb},
    service::{SHADOW, ServiceStatus, Shadow, TrafficTarget},
};
use store::{Expect, Write};

use crate::{Context, Control, Versioned, image, operation, reconcile, records, template, traffic};

const DESCRIPTION_MAX_CHARS: usize = 512;
const AUDIENCES_MAX: usize = 100;
const AUDIENCE_MAX_BYTES: usize = 2048;

impl Control {
    /// # Errors
    /// `NOT_FOUND` in Google's words.
    pub fn service_get(&self, key: &ServiceKey) -> Result<Versioned<Service>, Status> {
        self.context.service_get(key)
    }

    /// Services in the order of their keys ([`model::key::service`]), past the key `after`, at most `limit`.
    ///
    /// `region` `None` is the wildcard `-`.
    pub fn service_list(&self, project: &ProjectId, region: Option<&Region>, after: Option<&str>, limit: usize) -> Result<Vec<Versioned<Service>>, Status> {
        records::page(&self.context.store, &key::services_of(project, region), after, limit)
    }

    /// Checks everything and stores the intent. uid, generation, times, creator and status of `service` are set here.
    ///
    /// `dry_run` checks all but that the image is there, and writes nothing: the answer has revision 0 and its operation is not kept.
    /// # Errors
    /// `INVALID_ARGUMENT` naming the field; `PERMISSION_DENIED` without actAs on the service account; `ALREADY_EXISTS`;
    /// `RESOURCE_EXHAUSTED` past 1000 services in the region.
    pub async fn service_create(&self, who: &Identity, service: Service, dry_run: bool) -> Result<(Versioned<Service>, Operation), Status> {
        self.context.service_create(who, service, dry_run).await
    }

    /// Replaces what the owner wrote. A template that differs from that of the latest revision makes a revision.
    ///
    /// `expected`: the revision of the record that the writer has read; `None` writes over whatever is there.
    /// # Errors
    /// As [`Control::service_create`]; `NOT_FOUND`; `ABORTED` when another writer was first.
    pub async fn service_replace(
        &self,
        who: &Identity,
        service: Service,
        expected: Option<u64>,
        dry_run: bool,
    ) -> Result<(Versioned<Service>, Operation), Status> {
        self.context.service_replace(who, service, expected, dry_run).await
    }

    /// Marks a service as deleted: it serves no more, and what belongs to it is removed.
    /// # Errors
    /// `NOT_FOUND`; `ABORTED` when `expected` is not its revision.
    pub async fn service_delete(&self, who: &Identity, key: &ServiceKey, expected: Option<u64>) -> Result<(Versioned<Service>, Operation), Status> {
        self.context.service_delete(who, key, expected).await
    }

    /// Waits until the service is settled at `generation` or later; as it is after `timeout` otherwise.
    /// # Errors
    /// `NOT_FOUND` when there is none, or no longer.
    pub async fn service_wait(&self, key: &ServiceKey, generation: u64, timeout: Duration) -> Result<Versioned<Service>, Status> {
        let is_done = |found: Option<&Versioned<Service>>| found.is_none_or(|service| service.value.generation >= generation && service.value.is_settled());
        records::wait(&self.context.store, &key::service(key), timeout, is_done).await?.ok_or_else(|| missing(key))
    }

    /// The URLs of a service, the deterministic one first; none when its owner has turned them off.
    pub fn service_urls(&self, service: &Service) -> Vec<String> {
        let ServiceKey { project, region, service: name } = &service.key;
        if service.default_uri_disabled {
            return Vec::new();
        }
        let number = match self.context.project_get(project.as_str()) {
            Ok(project) => project.number,
            Err(error) => {
                tracing::error!(%error, %project, "a service's project is not there: it has no URL");
                return Vec::new();
            }
        };
        let hosts = std::iter::once(address::host_deterministic(name, number, region.as_str())).chain(address::host_hashed(name, number, region.as_str()));
        hosts.map(|host| format!("https://{host}.run.app")).collect()
    }
}

/// What is stored when `wish` replaces `old`: identity, history and status stay. The generation counts changes of what the
/// owner asked for; the name of the client that asked is none.
fn replaced(who: &Identity, old: &Service, wish: Service, now: model::Timestamp) -> Service {
    let mut next = wish;
    next.uid.clone_from(&old.uid);
    next.generation = old.generation;
    next.created = old.created;
    next.updated = old.updated;
    next.deleted = None;
    next.creator.clone_from(&old.creator);
    next.last_modifier.clone_from(&old.last_modifier);
    next.status = old.status.clone();
    traffic_default(&mut next);
    let asked_by = (std::mem::take(&mut next.client), std::mem::take(&mut next.client_version));
    let mut same = old.clone();
    same.client.clear();
    same.client_version.clear();
    if next != same {
        next.generation += 1;
    }
    (next.client, next.client_version) = asked_by;
    next.updated = now;
    next.last_modifier.clone_from(&who.email);
    next
}

/// An owner who says nothing of traffic sends all of it to the latest revision.
fn traffic_default(service: &mut Service) {
    if service.traffic.is_empty() {
        service.traffic.push(TrafficTarget { revision: None, percent: 100, tag: None });
    }
}

impl Context {
    pub(crate) fn service_get(&self, key: &ServiceKey) -> Result<Versioned<Service>, Status> {
        records::read(&self.store, &key::service(key))?.ok_or_else(|| missing(key))
    }

    pub(crate) async fn service_create(&self, who: &Identity, service: Service, dry_run: bool) -> Result<(Versioned<Service>, Operation), Status> {
        let cx = self;
        let now = cx.clock.now();
        let mut service = service;
        service.uid = uuid::Uuid::new_v4().to_string();
        service.generation = 1;
        service.created = now;
        service.updated = now;
        service.deleted = None;
        service.creator.clone_from(&who.email);
        service.last_modifier.clone_from(&who.email);
        service.status = ServiceStatus::default();
        traffic_default(&mut service);
        let _deploying = cx.deploys.read().await;
        cx.template_default(&mut service)?;
        cx.service_check(who, &service, None, dry_run)?;

        let key = key::service(&service.key);
        if let Some(found) = records::read::<Service>(&cx.store, &key)? {
            return Err(exists(&found.value));
        }
        let siblings = key::services_of(&service.key.project, Some(&service.key.region));
        if cx.store.scan(&siblings, None, SERVICES_MAX).map_err(Status::internal)?.len() >= SERVICES_MAX {
            return Err(Status::new(
                Code::ResourceExhausted,
                format!("Quota exceeded: there are already {SERVICES_MAX} services in {}. Delete one, or use another region.", service.key.region),
            ));
        }
        service.status = reconcile::traffic::status_first(now);
        let operation = cx.operation_of_service(&service, Verb::Create);
        if dry_run {
            return Ok((Versioned { value: service, revision: 0 }, operation));
        }
        // The intent before its receipt: a service without an operation is still made, an operation without a service would lie.
        let resource = service.key.resource();
        cx.accounts.policy_remove(&resource).await?;
        let writes = vec![
            Write::put(key.as_str(), Expect::Absent, &service),
            Write::put(operation::key_of(&operation), Expect::Absent, &operation),
            Write::delete(key::policy(&resource), Expect::Any),
        ];
        match records::commit(&cx.store, writes).await? {
            Some(revision) => Ok((Versioned { value: service, revision }, operation)),
            None => Err(exists(&service)),
        }
    }

    pub(crate) async fn service_replace(
        &self,
        who: &Identity,
        service: Service,
        expected: Option<u64>,
        dry_run: bool,
    ) -> Result<(Versioned<Service>, Operation), Status> {
        let cx = self;
        let key = key::service(&service.key);
        let _deploying = cx.deploys.read().await;
        let mut service = service;
        cx.template_default(&mut service)?;
        loop {
            let found = cx.service_get(&service.key)?;
            if found.value.deleted.is_some() {
                return Err(deleting(&service.key));
            }
            version_check(&found, expected)?;
            let next = replaced(who, &found.value, service.clone(), cx.clock.now());
            cx.service_check(who, &next, Some(&found.value), dry_run)?;
            let operation = cx.operation_of_service(&next, Verb::Replace);
            if dry_run {
                return Ok((Versioned { value: next, revision: found.revision }, operation));
            }
            let writes =
                vec![Write::put(key.as_str(), Expect::Revision(found.revision), &next), Write::put(operation::key_of(&operation), Expect::Absent, &operation)];
            if let Some(revision) = records::commit(&cx.store, writes).await? {
                return Ok((Versioned { value: next, revision }, operation));
            }
        }
    }

    pub(crate) async fn service_delete(&self, who: &Identity, key: &ServiceKey, expected: Option<u64>) -> Result<(Versioned<Service>, Operation), Status> {
        let cx = self;
        loop {
            let found = cx.service_get(key)?;
            version_check(&found, expected)?;
            let mut next = found.value.clone();
            if next.deleted.is_none() {
                next.deleted = Some(cx.clock.now());
                next.last_modifier.clone_from(&who.email);
            }
            let operation = cx.operation_of_service(&next, Verb::Delete);
            let writes = vec![
                Write::put(key::service(key), Expect::Revision(found.revision), &next),
                Write::put(operation::key_of(&operation), Expect::Absent, &operation),
            ];
            if let Some(revision) = records::commit(&cx.store, writes).await? {
                return Ok((Versioned { value: next, revision }, operation));
            }
        }
    }

    /// All rules of a service that is made of something else: with its defaults, and as if its image were there.
    pub(crate) fn service_rules_check(&self, who: &Identity, service: &Service) -> Result<(), Status> {
        let mut service = service.clone();
        traffic_default(&mut service);
        self.template_default(&mut service)?;
        self.service_check(who, &service, None, true)
    }

    /// What the owner left out of the template.
    fn template_default(&self, service: &mut Service) -> Result<(), Status> {
        service.template = template::template_fill(&service.template, &self.service_account_default(&service.key.project)?);
        Ok(())
    }

    /// The address of the service account that a template without one runs as.
    pub(crate) fn service_account_default(&self, project: &ProjectId) -> Result<String, Status> {
        Ok(format!("{}-compute@developer.gserviceaccount.com", self.project_get(project.as_str())?.number))
    }

    /// All rules. `old` is what is replaced. A dry run comes before the build that makes the image: it need not be there yet.
    fn service_check(&self, who: &Identity, service: &Service, old: Option<&Service>, dry_run: bool) -> Result<(), Status> {
        let ServiceKey { project, service: name, .. } = &service.key;
        self.project_get(project.as_str())?;
        template::labels_check("metadata.labels", &service.labels)?;
        template::annotations_check("metadata.annotations", &service.annotations)?;
        if let Some(word) = service.annotations.get(SHADOW)
            && Shadow::parse(word).is_none()
        {
            return Err(Status::invalid_field(
                format!("metadata.annotations[{SHADOW}]"),
                format!("Invalid value {word:?}: must be \"off\", \"reads\" (copies of GET, HEAD and OPTIONS) or \"all\" (of every recorded request)"),
            ));
        }
        let chars = service.description.chars().count();
        if chars > DESCRIPTION_MAX_CHARS {
            return Err(Status::invalid_field(
                "metadata.annotations[run.googleapis.com/description]",
                format!("must have at most {DESCRIPTION_MAX_CHARS} characters; it has {chars}"),
            ));
        }
        for (field, text) in [("run.googleapis.com/client-name", &service.client), ("run.googleapis.com/client-version", &service.client_version)] {
            if text.len() > 256 {
                return Err(Status::invalid_field(format!("metadata.annotations[{field}]"), format!("must have at most 256 bytes; it has {}", text.len())));
            }
        }
        audiences_check(&service.custom_audiences)?;
        scaling_check(service)?;
        template::template_check(&service.template, name)?;
        self.revision_name_check(service, old)?;
        traffic::traffic_check(name, &service.traffic, |revision| self.is_target(service, revision))?;
        self.account_check(who, project, &service.template.service_account)?;
        self.secrets_check(service)?;
        let image = &service.template.container.image;
        if image.is_empty() {
            return Err(Status::invalid_field("spec.template.spec.containers[0].image", "should not be empty"));
        }
        // An image that is gone does not keep its owner from changing other things: the revision that has it is made already.
        let is_new = old.is_none_or(|old| old.template.container.image != *image);
        if is_new && !dry_run && !service.template.container.is_placeholder() && self.image_resolve(image)?.is_none() {
            return Err(Status::invalid_field("spec.template.spec.containers[0].image", image::missing_text(image)));
        }
        Ok(())
    }

    /// Whether traffic may name `revision`: one of this service's, or the one that this very template makes.
    fn is_target(&self, service: &Service, revision: &RevisionName) -> Result<bool, Status> {
        if service.template.revision.as_ref() == Some(revision) {
            return Ok(true);
        }
        let found = records::read::<Revision>(&self.store, &key::revision(&service.key, revision))?;
        Ok(found.is_some_and(|found| found.value.service_uid == service.uid))
    }

    /// A name that the owner chose belongs to one template for ever.
    fn revision_name_check(&self, service: &Service, old: Option<&Service>) -> Result<(), Status> {
        let ServiceKey { project, region, .. } = &service.key;
        let Some(name) = &service.template.revision else {
            return Ok(());
        };
        let taken = || Status::already_exists(format!("Revision named '{name}' with different configuration already exists."));
        if let Some(found) = self.revision_find(project, region, name)? {
            let resolved = template::template_resolve(&service.template, &self.service_account_default(project)?);
            let is_same = found.value.service_uid == service.uid && found.value.template == resolved;
            let is_latest = old.is_some_and(|old| old.status.latest_created.as_ref() == Some(name));
            return if is_same && is_latest { Ok(()) } else { Err(taken()) };
        }
        // Asked for, not made yet.
        match old {
            Some(old) if old.template.revision.as_ref() == Some(name) && old.template != service.template => Err(taken()),
            _ => Ok(()),
        }
    }

    /// Whoever deploys lends the service account's rights to the code, and must be allowed to.
    pub(crate) fn account_check(&self, who: &Identity, project: &ProjectId, email: &str) -> Result<(), Status> {
        let default;
        let email = if email.is_empty() {
            default = self.service_account_default(project)?;
            &default
        } else {
            email
        };
        if self.accounts.may_act_as(who, email) {
            return Ok(());
        }
        Err(Status::new(Code::PermissionDenied, format!("Permission 'iam.serviceaccounts.actAs' denied on service account {email} (or it may not exist).")))
    }
}

fn audiences_check(audiences: &[String]) -> Result<(), Status> {
    const FIELD: &str = "metadata.annotations[run.googleapis.com/custom-audiences]";
    if audiences.len() > AUDIENCES_MAX {
        return Err(Status::invalid_field(FIELD, format!("at most {AUDIENCES_MAX} can be set; there are {}", audiences.len())));
    }
    match audiences.iter().find(|a| a.is_empty() || a.len() > AUDIENCE_MAX_BYTES || a.contains(|c: char| c.is_control() || c.is_whitespace())) {
        Some(bad) => {
            let start: String = bad.chars().take(80).collect();
            Err(Status::invalid_field(FIELD, format!("{start:?} must have 1 to {AUDIENCE_MAX_BYTES} bytes without white space")))
        }
        None => Ok(()),
    }
}

fn scaling_check(service: &Service) -> Result<(), Status> {
    let scaling = &service.scaling;
    template::instances_check(
        ("metadata.annotations[run.googleapis.com/minScale]", scaling.min_instances),
        ("metadata.annotations[run.googleapis.com/maxScale]", scaling.max_instances.filter(|max| *max > 0)),
    )?;
    if let Some(manual) = scaling.manual_instances
        && manual > template::INSTANCES_MAX
    {
        return Err(Status::invalid_field(
            "metadata.annotations[run.googleapis.com/manualInstanceCount]",
            format!("Invalid value {manual}: must be between 0 and {}", template::INSTANCES_MAX),
        ));
    }
    Ok(())
}

/// Google's words for a writer who read an older version.
fn version_check(found: &Versioned<Service>, expected: Option<u64>) -> Result<(), Status> {
    match expected {
        Some(expected) if expected != found.revision => Err(Status::new(
            Code::Aborted,
            format!("Conflict for resource '{}': version '{expected}' was specified but current version is '{}'.", found.value.key.service, found.revision),
        )),
        _ => Ok(()),
    }
}

fn missing(key: &ServiceKey) -> Status {
    Status::not_found(format!("Resource '{}' of kind 'SERVICE' in region '{}' in project '{}' does not exist.", key.service, key.region, key.project))
}

fn exists(service: &Service) -> Status {
    if service.deleted.is_some() {
        return deleting(&service.key);
    }
    Status::already_exists(format!("Resource '{}' already exists.", service.key.service))
}

fn deleting(key: &ServiceKey) -> Status {
    Status::new(Code::Aborted, format!("Resource '{}' is being deleted. Try again in a few seconds.", key.service))
}
