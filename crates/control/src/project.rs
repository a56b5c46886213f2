//! Projects: an id, and the number that Google's names and URLs are made of.
//!
//! There is one, the default project; its number is drawn once and kept.

use model::{Clock, ProjectId, ProjectNumber, Status, key};
use rand::RngExt as _;
use serde::{Deserialize, Serialize};
use store::{Expect, Store, Write};

use crate::{Control, records};

/// A project's record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Project {
    pub id: ProjectId,
    pub number: ProjectNumber,
    /// The display name; the id until somebody gives another.
    pub name: String,
    pub created: model::Timestamp,
}

/// The project `id`, made with a number of its own when it is not there yet.
///
/// Made before anything else: the default service account's address holds the number.
/// # Errors
/// `INTERNAL` when the store fails.
pub async fn project_ensure(store: &Store, clock: &dyn Clock, id: &ProjectId) -> Result<Project, Status> {
    let key = key::project(id);
    loop {
        if let Some(found) = records::read(store, &key)? {
            return Ok(found.value);
        }
        let taken = records::all::<Project>(store, key::PROJECTS)?;
        let number = ProjectNumber(rand::rng().random_range(ProjectNumber::FIRST..ProjectNumber::END));
        if taken.iter().any(|project| project.value.number == number) {
            continue;
        }
        let project = Project { id: id.clone(), number, name: id.to_string(), created: clock.now() };
        if records::commit(store, vec![Write::put(key.as_str(), Expect::Absent, &project)]).await?.is_some() {
            return Ok(project);
        }
    }
}

impl Control {
    /// # Errors
    /// `NOT_FOUND` for a project that is not here.
    pub fn project_get(&self, id_or_number: &str) -> Result<Project, Status> {
        self.context.project_get(id_or_number)
    }

    /// All projects, by id.
    pub fn project_list(&self) -> Result<Vec<Project>, Status> {
        Ok(records::all(&self.context.store, key::PROJECTS)?.into_iter().map(|project| project.value).collect())
    }
}

impl crate::Context {
    pub(crate) fn project_get(&self, id_or_number: &str) -> Result<Project, Status> {
        let missing = || Status::not_found(format!("Project '{id_or_number}' not found."));
        if let Ok(number) = id_or_number.parse() {
            let number = ProjectNumber(number);
            return records::all::<Project>(&self.store, key::PROJECTS)?
                .into_iter()
                .map(|project| project.value)
                .find(|project| project.number == number)
                .ok_or_else(missing);
        }
        let id = ProjectId::parse(id_or_number).map_err(|_| missing())?;
        records::read(&self.store, &key::project(&id))?.map(|project| project.value).ok_or_else(missing)
    }
}
