//! Roles that a project's people made: `projects/P/roles/R`.
//!
//! A deleted role stays for a week, grants nothing and can be had back; its id is not free again.
//! Source: google/iam/admin/v1/iam.proto and cloud.google.com/iam/docs/creating-custom-roles; limits: cloud.google.com/iam/quotas.

use std::time::Duration;

use model::{Code, ProjectId, Status, Timestamp, key};
use serde::{Deserialize, Serialize};
use store::{CommitError, Expect, Write};

use crate::{
    Iam,
    access::{Asked, Standing},
    permission::{Permission, PermissionSet},
    policy::{concurrent_change, etag, etag_revision},
    table::Table,
};

/// Of one project.
const ROLES_MAX: usize = 300;
const TITLE_MAX_BYTES: usize = 100;
const DESCRIPTION_MAX_BYTES: usize = 300;
/// How long a deleted role can be had back.
const UNDELETE_MAX: Duration = Duration::from_secs(7 * 24 * 3600);
/// What no role of a project can hold.
const NOT_IN_PROJECTS: &[&str] = &["resourcemanager.projects.list"];

/// google.iam.admin.v1.Role.RoleLaunchStage.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Stage {
    #[default]
    Alpha,
    Beta,
    Ga,
    Deprecated,
    /// It grants nothing.
    Disabled,
    Eap,
}

/// A role as it is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CustomRole {
    /// `projects/P/roles/R`.
    pub name: String,
    pub title: String,
    pub description: String,
    /// Sorted.
    pub permissions: Vec<String>,
    pub stage: Stage,
    pub deleted: Option<Timestamp>,
}

/// What of a role is to be.
#[derive(Clone, Debug, Default)]
pub struct RoleChange {
    pub title: Option<String>,
    pub description: Option<String>,
    pub permissions: Option<Vec<String>>,
    pub stage: Option<Stage>,
}

/// A role and what follows from it.
#[derive(Debug)]
pub(crate) struct RoleRow {
    pub(crate) role: CustomRole,
    pub(crate) set: PermissionSet,
}

pub(crate) fn table() -> Table<RoleRow> {
    Table::new(
        key::ROLES,
        |rest| rest,
        |bytes| {
            let role: CustomRole = serde_json::from_slice(bytes)?;
            let mut set = PermissionSet::default();
            // A permission that a later version has taken away is no longer held.
            role.permissions.iter().filter_map(|name| Permission::find(name)).for_each(|permission| set.insert(permission));
            Ok(RoleRow { role, set })
        },
    )
}

impl RoleRow {
    pub(crate) fn is_usable(&self) -> bool {
        self.role.deleted.is_none() && self.role.stage != Stage::Disabled
    }
}

/// Whether `name` is the name of such a role.
pub(crate) fn is_custom(name: &str) -> bool {
    let parts: Vec<_> = name.split('/').collect();
    matches!(parts[..], ["projects", project, "roles", id] if ProjectId::parse(project).is_ok() && is_id(id))
}

fn is_id(id: &str) -> bool {
    (3..=64).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.'))
}

/// Every permission, and whether a project's role can hold it.
pub fn permissions() -> impl Iterator<Item = (&'static str, bool)> {
    Permission::all().map(Permission::name).map(|name| (name, !NOT_IN_PROJECTS.contains(&name)))
}

impl Iam {
    /// The role and its etag, deleted or not.
    ///
    /// # Errors
    /// `NOT_FOUND` in Google's words.
    pub fn custom_role_get(&self, name: &str) -> Result<(CustomRole, String), Status> {
        let found = self.inner.tables.roles.get_revision(name).filter(|(row, _)| !self.is_over(&row.role));
        found.map(|(row, revision)| (row.role.clone(), etag(revision))).ok_or_else(|| not_found(name))
    }

    /// By name, with their etags.
    pub fn custom_role_list(&self, project: &ProjectId, with_deleted: bool) -> Vec<(CustomRole, String)> {
        let own = format!("projects/{project}/roles/");
        let rows = self
            .inner
            .tables
            .roles
            .select_rows(|name, row| name.starts_with(&own) && if row.role.deleted.is_some() { with_deleted && !self.is_over(&row.role) } else { true });
        let mut roles: Vec<_> = rows.into_iter().map(|(_, row, revision)| (row.role.clone(), etag(revision))).collect();
        roles.sort_by(|(a, _), (b, _)| a.name.cmp(&b.name));
        roles
    }

    /// # Errors
    /// `INVALID_ARGUMENT` for an id that is not 3 to 64 letters, digits, underscores and dots, for texts too long (100 and 300 bytes) or
    /// a permission that no such role can hold; `ALREADY_EXISTS`; `FAILED_PRECONDITION` for the id of a deleted role;
    /// `RESOURCE_EXHAUSTED` at 300 roles.
    pub async fn custom_role_create(&self, project: &ProjectId, id: &str, wanted: RoleChange) -> Result<(CustomRole, String), Status> {
        if !is_id(id) {
            let why = format!("The role ID {id:?} is not valid: it has 3 to 64 letters, digits, underscores and periods.");
            return Err(Status::invalid_field("role_id", why));
        }
        let name = format!("projects/{project}/roles/{id}");
        let empty =
            CustomRole { name: name.clone(), title: String::new(), description: String::new(), permissions: Vec::new(), stage: Stage::Alpha, deleted: None };
        let role = changed(empty, wanted)?;
        let _one_at_a_time = self.inner.changes.lock().await;
        let roles = &self.inner.tables.roles;
        match roles.look(&name, |row| row.role.deleted.is_some()) {
            Some(true) => {
                return Err(Status::failed_precondition(format!(
                    "You can't create a role with role_id ({id}) where there is an existing role with that role_id in a deleted state."
                )));
            }
            Some(false) => return Err(Status::already_exists(format!("A role named {id} in projects/{project} already exists."))),
            None => {}
        }
        let own = format!("projects/{project}/roles/");
        if roles.count(|name, row| name.starts_with(&own) && row.role.deleted.is_none()) >= ROLES_MAX {
            return Err(Status::new(Code::ResourceExhausted, format!("Maximum number of custom roles on project reached ({ROLES_MAX}).")));
        }
        let revision = self.commit_revision(vec![Write::put(key::role(&name), Expect::Absent, &role)]).await.map_err(Status::internal)?;
        Ok((role, etag(revision)))
    }

    /// Changes what is `Some`, effective on return wherever the role is bound.
    ///
    /// # Errors
    /// As [`Iam::custom_role_create`]; `NOT_FOUND`; `ABORTED` (409) when `expect` is not empty and not the current etag.
    pub async fn custom_role_update(&self, name: &str, wanted: RoleChange, expect: &str) -> Result<(CustomRole, String), Status> {
        self.custom_role_change(name, expect, |role| if role.deleted.is_some() { Err(not_found(name)) } else { changed(role, wanted.clone()) }).await
    }

    /// It grants nothing from here on. Who deletes it twice is told of the first time.
    ///
    /// # Errors
    /// `NOT_FOUND`; `ABORTED`.
    pub async fn custom_role_delete(&self, name: &str, expect: &str) -> Result<(CustomRole, String), Status> {
        let now = self.inner.clock.now();
        self.custom_role_change(name, expect, |role| Ok(CustomRole { deleted: role.deleted.or(Some(now)), ..role })).await
    }

    /// # Errors
    /// `NOT_FOUND`, also when it was deleted more than a week ago; `FAILED_PRECONDITION` when it was not; `ABORTED`.
    pub async fn custom_role_undelete(&self, name: &str, expect: &str) -> Result<(CustomRole, String), Status> {
        let id = name.rsplit('/').next().unwrap_or_default();
        self.custom_role_change(name, expect, |role| match role.deleted {
            Some(_) => Ok(CustomRole { deleted: None, ..role }),
            None => Err(Status::failed_precondition(format!("The role named {id} is not deleted."))),
        })
        .await
    }

    async fn custom_role_change(
        &self,
        name: &str,
        expect: &str,
        change: impl Fn(CustomRole) -> Result<CustomRole, Status>,
    ) -> Result<(CustomRole, String), Status> {
        let _one_at_a_time = self.inner.changes.lock().await;
        let (row, revision) = self.inner.tables.roles.get_revision(name).filter(|(row, _)| !self.is_over(&row.role)).ok_or_else(|| not_found(name))?;
        if !expect.is_empty() && etag_revision(expect) != Some(revision) {
            return Err(concurrent_change());
        }
        let role = change(row.role.clone())?;
        let written = self.commit_revision(vec![Write::put(key::role(name), Expect::Revision(revision), &role)]).await.map_err(|error| match error {
            CommitError::Conflict { .. } => concurrent_change(),
            error => Status::internal(error),
        })?;
        Ok((role, etag(written)))
    }

    /// Deleted so long ago that it is not had back.
    fn is_over(&self, role: &CustomRole) -> bool {
        role.deleted.is_some_and(|deleted| self.inner.clock.now().duration_since(deleted) > UNDELETE_MAX.try_into().unwrap_or_default())
    }

    /// `None` when the role holds the permission.
    pub(crate) fn custom_role_standing(&self, name: &str, asked: &Asked<'_>) -> Option<Standing> {
        let is_of_project = name.split('/').nth(1) == Some(asked.home);
        let found = self.inner.tables.roles.look(name, |row| {
            if !row.set.contains(asked.permission) {
                Some(Standing::RoleLacks)
            } else if row.role.deleted.is_some() || !is_of_project {
                Some(Standing::RoleGone)
            } else if row.role.stage == Stage::Disabled {
                Some(Standing::RoleDisabled)
            } else {
                None
            }
        });
        found.unwrap_or(Some(Standing::RoleLacks))
    }
}

fn changed(role: CustomRole, wanted: RoleChange) -> Result<CustomRole, Status> {
    let mut role = CustomRole {
        title: wanted.title.unwrap_or(role.title),
        description: wanted.description.unwrap_or(role.description),
        permissions: wanted.permissions.unwrap_or(role.permissions),
        stage: wanted.stage.unwrap_or(role.stage),
        ..role
    };
    for (field, text, max) in [("title", &role.title, TITLE_MAX_BYTES), ("description", &role.description, DESCRIPTION_MAX_BYTES)] {
        if text.len() > max {
            return Err(Status::invalid_field(format!("role.{field}"), format!("The role {field} has at most {max} bytes in UTF-8.")));
        }
    }
    role.permissions.sort();
    role.permissions.dedup();
    if let Some(bad) = role.permissions.iter().find(|name| Permission::find(name).is_none() || NOT_IN_PROJECTS.contains(&name.as_str())) {
        return Err(Status::invalid_field("role.included_permissions", format!("Permission {bad} is not valid.")));
    }
    Ok(role)
}

fn not_found(name: &str) -> Status {
    Status::not_found(format!("The role named {name} was not found."))
}
