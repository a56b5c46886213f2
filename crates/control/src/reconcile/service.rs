//! One service at a time: makes its revision, says what serves, removes what is over.
//!
//! Each step reads everything anew, writes one thing after the other, and leaves after every write something that the next
//! step understands. Proofs are `reconcile::revision`'s.

use std::sync::Arc;

use model::{
    Revision, Service, Status,
    condition::{self, Condition, State},
    key, limits,
};
use store::{Change, Expect, Write};

use super::{Reconciler, traffic};
use crate::{
    Context, Versioned, records,
    revision::{revision_name, use_of},
    template,
};

pub(crate) struct Services(pub Arc<Context>);

/// Names drawn for one revision before it is given up for now.
const NAME_ATTEMPTS_MAX: u32 = 16;

impl Reconciler for Services {
    const NAME: &'static str = "services";
    const PREFIXES: &'static [&'static str] = &[key::SERVICES, key::REVISIONS];

    fn parallel(&self) -> usize {
        16
    }

    fn concerned(&self, change: &Change) -> Vec<String> {
        service_key_of(&change.key).into_iter().collect()
    }

    fn all(&self) -> Result<Vec<String>, Status> {
        let mut keys = records::keys(&self.0.store, key::SERVICES)?;
        // A service's record goes last, so that its revisions lead to it; were one left behind, it is found here.
        let mut of_revisions: Vec<String> = records::keys(&self.0.store, key::REVISIONS)?.iter().filter_map(|key| service_key_of(key)).collect();
        of_revisions.dedup();
        keys.extend(of_revisions);
        Ok(keys)
    }

    async fn step(&self, key: &str) -> Result<(), Status> {
        let cx = &*self.0;
        match records::read::<Service>(&cx.store, key)? {
            Some(service) if service.value.deleted.is_some() => remove(cx, &service).await,
            Some(service) => advance(cx, &service).await,
            None => orphans_remove(cx, key, None).await,
        }
    }
}

/// `service/P/R/S` of the key of a service or of one of its revisions.
fn service_key_of(key: &str) -> Option<String> {
    let (kind, rest) = key.split_once('/')?;
    let parts: Vec<&str> = rest.splitn(4, '/').collect();
    match (kind, parts.as_slice()) {
        ("service", [project, region, service]) | ("revision", [project, region, service, _]) => Some(format!("{}{project}/{region}/{service}", key::SERVICES)),
        _ => None,
    }
}

async fn advance(cx: &Context, service: &Versioned<Service>) -> Result<(), Status> {
    let prefix = key::revisions_of(&service.value.key);
    let uid = &service.value.uid;
    let mut revisions: Vec<Revision> = records::all::<Revision>(&cx.store, &prefix)?.into_iter().map(|revision| revision.value).collect();
    if revisions.iter().any(|revision| revision.service_uid != *uid) {
        orphans_remove(cx, &key::service(&service.value.key), Some(uid)).await?;
        revisions.retain(|revision| revision.service_uid == *uid);
    }

    let wanted = revision_ensure(cx, &service.value, &mut revisions).await?;
    let status = traffic::status_next(&service.value, &revisions, &wanted, cx.clock.now());
    let mut next = service.value.clone();
    next.status = status;
    if next != service.value {
        let write = Write::put(key::service(&next.key), Expect::Revision(service.revision), &next);
        // Another writer was first, or this very write: either wakes this loop for the rest.
        records::commit(&cx.store, vec![write]).await?;
        return Ok(());
    }
    revisions_mark(cx, &service.value, &revisions).await?;
    revisions_prune(cx, service, revisions).await
}

/// Makes the revision that `service` asks for, when it is not there.
async fn revision_ensure(cx: &Context, service: &Service, revisions: &mut Vec<Revision>) -> Result<traffic::Wanted, Status> {
    let template = template::template_resolve(&service.template, &cx.service_account_default(&service.key.project)?);
    if let Some(latest) = traffic::latest(revisions) {
        let is_named_so = service.template.revision.as_ref().is_none_or(|name| *name == latest.name);
        if latest.generation == service.generation || (is_named_so && latest.template == template) {
            return Ok(traffic::Wanted::Made);
        }
        // First the status learns of the revision that is there: the number of the next one is counted from it.
        if service.status.latest_created.as_ref() != Some(&latest.name) {
            return Ok(traffic::Wanted::Missing);
        }
    }
    let _deploying = cx.deploys.read().await;
    let image = cx.image_resolve(&template.container.image)?.map(|(digest, _)| digest);
    let now = cx.clock.now();
    let mut revision = Revision {
        service: service.key.clone(),
        name: revision_name(service, service.status.revisions_created + 1, 0),
        uid: uuid::Uuid::new_v4().to_string(),
        service_uid: service.uid.clone(),
        generation: service.generation,
        created: now,
        creator: service.last_modifier.clone(),
        template,
        image,
        conditions: ["Ready", "ContainerHealthy", "ContainerReady", "ResourcesAvailable"]
            .map(|kind| Condition { kind: kind.to_owned(), state: State::Unknown, reason: "Deploying".to_owned(), message: String::new(), since: now })
            .to_vec(),
        client: service.client.clone(),
        client_version: service.client_version.clone(),
    };
    for attempt in 0..NAME_ATTEMPTS_MAX {
        revision.name = match &service.template.revision {
            Some(name) => name.clone(),
            None => revision_name(service, service.status.revisions_created + 1, attempt),
        };
        // Names are unique in a region, over all services.
        let is_free = cx.revision_find(&service.key.project, &service.key.region, &revision.name)?.is_none();
        let write = Write::put(key::revision(&service.key, &revision.name), Expect::Absent, &revision);
        if is_free && records::commit(&cx.store, vec![write]).await?.is_some() {
            tracing::info!(revision = %revision.name, "revision created");
            revisions.push(revision);
            return Ok(traffic::Wanted::Made);
        }
        if let Some(name) = &service.template.revision {
            return Ok(traffic::Wanted::Impossible(format!("Revision named '{name}' with different configuration already exists.")));
        }
    }
    Err(Status::internal(format!("no free name for a revision of {}", service.key.resource())))
}

/// Says of each revision whether it serves.
async fn revisions_mark(cx: &Context, service: &Service, revisions: &[Revision]) -> Result<(), Status> {
    for revision in revisions {
        let Some(active) = traffic::active_next(service, revision, cx.clock.now()) else {
            continue;
        };
        let is_same = |revision: &Revision| condition::find(&revision.conditions, "Active").is_some_and(|old| old.state == active.state);
        if is_same(revision) {
            continue;
        }
        records::update::<Revision>(&cx.store, &key::revision(&service.key, &revision.name), |stored| {
            let is_other = stored.uid != revision.uid || is_same(stored);
            condition::set(&mut stored.conditions, active.clone());
            !is_other
        })
        .await?;
    }
    Ok(())
}

/// Removes the oldest revisions past the limit that nothing refers to.
async fn revisions_prune(cx: &Context, service: &Versioned<Service>, mut revisions: Vec<Revision>) -> Result<(), Status> {
    let excess = revisions.len().saturating_sub(limits::REVISIONS_MAX);
    if excess == 0 {
        return Ok(());
    }
    revisions.sort_by_key(|revision| revision.generation);
    let key = &service.value.key;
    // The service is written as it is, so that traffic that is moved to one of them at the same time conflicts.
    let mut writes = vec![Write::put(key::service(key), Expect::Revision(service.revision), &service.value)];
    let unused = revisions.iter().filter(|revision| traffic::is_proven(revision) && use_of(&service.value, &revision.name).is_none());
    writes.extend(unused.take(excess).map(|revision| Write::delete(key::revision(key, &revision.name), Expect::Any)));
    if writes.len() > 1 {
        records::commit(&cx.store, writes).await?;
    }
    Ok(())
}

/// Removes a deleted service: its record last, so that a crash on the way leaves something to go on from.
async fn remove(cx: &Context, service: &Versioned<Service>) -> Result<(), Status> {
    let key = &service.value.key;
    cx.starter.stop(key).await;
    orphans_remove(cx, &key::service(key), None).await?;
    cx.accounts.policy_remove(&key.resource()).await?;
    records::commit(&cx.store, vec![Write::delete(key::service(key), Expect::Revision(service.revision))]).await?;
    tracing::info!(service = %key.resource(), "service deleted");
    Ok(())
}

/// Removes the revisions of the service at `service_key` that are not those of `uid`; all of them when `None`.
async fn orphans_remove(cx: &Context, service_key: &str, uid: Option<&str>) -> Result<(), Status> {
    let Some(rest) = service_key.strip_prefix(key::SERVICES) else {
        return Ok(());
    };
    let orphans = records::all::<Revision>(&cx.store, &format!("{}{rest}/", key::REVISIONS))?;
    let writes: Vec<Write> = orphans
        .into_iter()
        .filter(|revision| uid.is_none_or(|uid| revision.value.service_uid != uid))
        .map(|revision| Write::delete(key::revision(&revision.value.service, &revision.value.name), Expect::Any))
        .collect();
    if !writes.is_empty() {
        records::commit(&cx.store, writes).await?;
    }
    Ok(())
}
