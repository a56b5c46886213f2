//! Repositories of Artifact Registry: names under which images are kept.
//!
//! Only the name is here; images are blobs and layers of the store, found through `image`.

use model::{
    ProjectId, Region, Status, key,
    operation::{Operation, Subject},
};
use serde::{Deserialize, Serialize};
use store::{Expect, Write};

use crate::{Control, operation, records};

/// Repositories of one region of a project, at most.
const REPOSITORIES_MAX: usize = 1000;

/// An Artifact Registry repository: a name only; images are in the store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Repository {
    pub project: ProjectId,
    pub region: Region,
    pub id: String,
    /// `DOCKER`.
    pub format: String,
    pub description: String,
    pub created: model::Timestamp,
    pub updated: model::Timestamp,
}

impl Control {
    /// # Errors
    /// `NOT_FOUND`.
    pub fn repository_get(&self, project: &ProjectId, region: &Region, id: &str) -> Result<Repository, Status> {
        self.context.repository_get(project, region, id)
    }

    /// The repositories of a region, by id.
    pub fn repository_list(&self, project: &ProjectId, region: &Region) -> Result<Vec<Repository>, Status> {
        Ok(records::all(&self.context.store, &key::repository(project, region, ""))?.into_iter().map(|repository| repository.value).collect())
    }

    /// Makes a repository; its operation is done at once.
    /// # Errors
    /// `ALREADY_EXISTS`; `INVALID_ARGUMENT` for a name that is none and for a format other than `DOCKER`.
    pub async fn repository_create(
        &self,
        project: &ProjectId,
        region: &Region,
        id: &str,
        format: &str,
        description: &str,
    ) -> Result<(Repository, Operation), Status> {
        let cx = &self.context;
        cx.project_get(project.as_str())?;
        id_check(id)?;
        if format != "DOCKER" {
            return Err(Status::invalid_field("repository.format", format!("{format:?} is not supported: only DOCKER repositories can be made")));
        }
        if description.len() > 1024 {
            return Err(Status::invalid_field("repository.description", format!("must have at most 1024 bytes; it has {}", description.len())));
        }
        if records::keys(&cx.store, &key::repository(project, region, ""))?.len() >= REPOSITORIES_MAX {
            return Err(Status::new(model::Code::ResourceExhausted, format!("There are already {REPOSITORIES_MAX} repositories in {region}.")));
        }
        let now = cx.clock.now();
        let repository = Repository {
            project: project.clone(),
            region: region.clone(),
            id: id.to_owned(),
            format: format.to_owned(),
            description: description.to_owned(),
            created: now,
            updated: now,
        };
        let name = format!("projects/{project}/locations/{region}/repositories/{id}");
        let mut operation = cx.operation_new(project, region, Subject::Repository { name });
        operation.finished = Some(now);
        let writes = vec![
            Write::put(key::repository(project, region, id), Expect::Absent, &repository),
            Write::put(operation::key_of(&operation), Expect::Absent, &operation),
        ];
        match records::commit(&cx.store, writes).await? {
            Some(_) => Ok((repository, operation)),
            None => Err(Status::already_exists("the repository already exists")),
        }
    }
}

impl crate::Context {
    pub(crate) fn repository_get(&self, project: &ProjectId, region: &Region, id: &str) -> Result<Repository, Status> {
        records::read(&self.store, &key::repository(project, region, id))?
            .map(|repository| repository.value)
            .ok_or_else(|| Status::not_found(format!("Repository \"projects/{project}/locations/{region}/repositories/{id}\" not found")))
    }
}

/// 1 to 63 lower-case letters, digits and hyphens, beginning with a letter and not ending with a hyphen.
fn id_check(id: &str) -> Result<(), Status> {
    let good = id.len() <= 63
        && id.starts_with(|c: char| c.is_ascii_lowercase())
        && !id.ends_with('-')
        && id.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    good.then_some(()).ok_or_else(|| {
        Status::invalid_field(
            "repository_id",
            format!("{id:?} must have 1 to 63 lower-case letters, digits and hyphens, begin with a letter and not end with a hyphen"),
        )
    })
}
