//! Revisions: how they are named, found, listed and deleted.
//!
//! `reconcile::service` makes them; nobody changes what they are made of.

use model::{
    ProjectId, Region, Revision, RevisionName, Service, ServiceKey, ServiceName, Status, key,
    operation::{Operation, Subject},
    revision::Start,
};
use sha2::{Digest, Sha256};
use store::{Expect, Write};

use crate::{Context, Control, Versioned, operation, records};

impl Control {
    /// # Errors
    /// `NOT_FOUND` in Google's words.
    pub fn revision_get(&self, project: &ProjectId, region: &Region, name: &RevisionName) -> Result<Versioned<Revision>, Status> {
        self.context.revision_find(project, region, name)?.ok_or_else(|| missing(project, region, name))
    }

    /// What clones of a revision share, as far as its source shows: a sentence a line. `None` where there is nothing, or its owner wants no clones.
    pub fn revision_start_notes(&self, revision: &Revision) -> Result<Option<String>, Status> {
        let Some(digest) = revision.image.as_ref().filter(|_| revision.template.start() == Start::Revision) else {
            return Ok(None);
        };
        let image = self.context.images.image_get(digest).map_err(Status::internal)?;
        Ok(image.map(|image| image.start_notes.join("\n")).filter(|notes| !notes.is_empty()))
    }

    /// Revisions in the order of their keys ([`model::key::revision`]), past the key `after`, at most `limit`.
    ///
    /// `region` `None` is the wildcard `-`, `service` `None` all services.
    pub fn revision_list(
        &self,
        project: &ProjectId,
        region: Option<&Region>,
        service: Option<&ServiceName>,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<Versioned<Revision>>, Status> {
        let store = &self.context.store;
        match (region, service) {
            (_, None) => records::page(store, &key::revisions_in(project, region), after, limit),
            (Some(region), Some(service)) => {
                let service = ServiceKey { project: project.clone(), region: region.clone(), service: service.clone() };
                records::page(store, &key::revisions_of(&service), after, limit)
            }
            (None, Some(service)) => {
                let mut found: Vec<Versioned<Revision>> = records::all(store, &key::revisions_in(project, None))?;
                found.retain(|revision| {
                    revision.value.service.service == *service
                        && after.is_none_or(|after| key::revision(&revision.value.service, &revision.value.name).as_str() > after)
                });
                found.truncate(limit);
                Ok(found)
            }
        }
    }

    /// Deletes a revision; its operation is done at once.
    /// # Errors
    /// `NOT_FOUND`; `FAILED_PRECONDITION` while it gets traffic, has a tag or is the latest.
    pub async fn revision_delete(
        &self,
        who: &iam::Identity,
        project: &ProjectId,
        region: &Region,
        name: &RevisionName,
    ) -> Result<(Versioned<Revision>, Operation), Status> {
        let cx = &self.context;
        loop {
            let revision = self.revision_get(project, region, name)?;
            let service = &revision.value.service;
            let key = key::revision(service, name);
            let mut writes = vec![Write::delete(key.as_str(), Expect::Revision(revision.revision))];
            if let Some(service) = records::read::<Service>(&cx.store, &key::service(service))? {
                if let Some(why) = use_of(&service.value, name) {
                    return Err(Status::failed_precondition(format!("Revision '{name}' cannot be deleted: {why}.")));
                }
                // Written as it is, so that a change of its traffic that comes at the same time conflicts.
                writes.push(Write::put(key::service(&service.value.key), Expect::Revision(service.revision), &service.value));
            }
            let mut operation = cx.operation_new(project, region, Subject::Revision { key: service.clone(), revision: name.to_string() });
            operation.finished = Some(cx.clock.now());
            writes.push(Write::put(operation::key_of(&operation), Expect::Absent, &operation));
            if records::commit(&cx.store, writes).await?.is_some() {
                tracing::info!(revision = %name, by = who.email, "revision deleted");
                return Ok((revision, operation));
            }
        }
    }
}

/// Why `service` still needs the revision `name`; `None` when it does not.
pub(crate) fn use_of(service: &Service, name: &RevisionName) -> Option<&'static str> {
    let status = &service.status;
    if service.traffic.iter().any(|target| target.revision.as_ref() == Some(name)) || status.traffic.iter().any(|target| target.revision == *name) {
        return Some("it is a target of its service's traffic");
    }
    if [&status.latest_created, &status.latest_ready].into_iter().flatten().any(|latest| latest == name) {
        return Some("it is the latest of its service");
    }
    None
}

impl Context {
    /// The revision `name` of whichever service in the region it belongs to.
    pub(crate) fn revision_find(&self, project: &ProjectId, region: &Region, name: &RevisionName) -> Result<Option<Versioned<Revision>>, Status> {
        // A revision's name begins with its service's and a hyphen: there are as many candidates as hyphens.
        for (hyphen, _) in name.as_str().match_indices('-').rev() {
            let Ok(service) = ServiceName::parse(&name.as_str()[..hyphen]) else {
                continue;
            };
            let service = ServiceKey { project: project.clone(), region: region.clone(), service };
            if let Some(found) = records::read(&self.store, &key::revision(&service, name))? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }
}

fn missing(project: &ProjectId, region: &Region, name: &RevisionName) -> Status {
    Status::not_found(format!("Resource '{name}' of kind 'REVISION' in region '{region}' in project '{project}' does not exist."))
}

/// The name of the `number`th revision of a service, such as `NAME-00001-wft`.
///
/// The letters come from the service's uid and generation: whoever makes the revision again after a crash gives it the same name.
/// `attempt` draws others when a name is taken.
pub(crate) fn revision_name(service: &Service, number: u64, attempt: u32) -> RevisionName {
    /// Without vowels, so that no words come out, and without digits that look like letters: Kubernetes' alphabet.
    const LETTERS: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";
    let hash = Sha256::digest(format!("{}/{}/{attempt}", service.uid, service.generation));
    let letters: String = hash.iter().take(3).map(|byte| char::from(LETTERS[usize::from(*byte) % LETTERS.len()])).collect();
    RevisionName::parse(&format!("{}-{number:05}-{letters}", service.key.service))
        .expect("a service's name has at most 49 characters, and a counter that grows past 10 digits is never reached")
}
