//! Long-running operations: the receipt for an intent that was stored.
//!
//! An operation says when its subject came to an end; it does no work itself. `reconcile::operation` finishes it.

use std::time::Duration;

use model::{
    ProjectId, Region, ServiceKey, Status, key,
    operation::{Operation, Subject, Verb},
};

use crate::{Context, Control, records};

impl Context {
    /// An open operation, not stored yet.
    pub(crate) fn operation_new(&self, project: &ProjectId, region: &Region, subject: Subject) -> Operation {
        Operation {
            project: project.clone(),
            region: region.clone(),
            id: uuid::Uuid::new_v4().to_string(),
            created: self.clock.now(),
            finished: None,
            subject,
            error: None,
        }
    }

    pub(crate) fn operation_of_service(&self, service: &model::Service, verb: Verb) -> Operation {
        let ServiceKey { project, region, .. } = &service.key;
        let subject = Subject::Service { key: service.key.clone(), uid: service.uid.clone(), generation: service.generation, verb };
        self.operation_new(project, region, subject)
    }
}

/// The key of an operation's record.
pub(crate) fn key_of(operation: &Operation) -> String {
    key::operation(&operation.project, &operation.region, &operation.id)
}

impl Control {
    /// # Errors
    /// `NOT_FOUND` for one that never was, or that ended so long ago that it is no longer kept.
    pub fn operation_get(&self, project: &ProjectId, region: &Region, id: &str) -> Result<Operation, Status> {
        records::read(&self.context.store, &key::operation(project, region, id))?.map(|operation| operation.value).ok_or_else(|| missing(project, region, id))
    }

    /// The kept operations of a region, newest first.
    pub fn operation_list(&self, project: &ProjectId, region: &Region) -> Result<Vec<Operation>, Status> {
        let mut operations: Vec<Operation> =
            records::all(&self.context.store, &key::operation(project, region, ""))?.into_iter().map(|operation| operation.value).collect();
        operations.sort_by(|a, b| (b.created, &b.id).cmp(&(a.created, &a.id)));
        Ok(operations)
    }

    /// The operation when it is done, or as it is after `timeout`.
    /// # Errors
    /// As [`Control::operation_get`].
    pub async fn operation_wait(&self, project: &ProjectId, region: &Region, id: &str, timeout: Duration) -> Result<Operation, Status> {
        let key = key::operation(project, region, id);
        records::wait::<Operation>(&self.context.store, &key, timeout, |found| found.is_none_or(|operation| operation.value.finished.is_some()))
            .await?
            .map(|operation| operation.value)
            .ok_or_else(|| missing(project, region, id))
    }
}

fn missing(project: &ProjectId, region: &Region, id: &str) -> Status {
    Status::not_found(format!("Operation 'projects/{project}/locations/{region}/operations/{id}' not found."))
}
