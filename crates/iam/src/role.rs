//! Google's predefined roles, as far as their permissions exist here.
//!
//! Which permissions they hold is in `table`. Roles that a project's people made are in `custom_role`.

mod table;

use std::sync::LazyLock;

use crate::permission::{Permission, PermissionSet};

/// A role that bindings can name.
#[derive(Debug)]
pub struct Role {
    /// `roles/run.invoker`.
    pub name: &'static str,
    /// `Cloud Run Invoker`.
    pub title: &'static str,
    pub(crate) permissions: PermissionSet,
}

impl Role {
    /// `None` for a role that is not known here.
    pub fn find(name: &str) -> Option<&'static Self> {
        ROLES.binary_search_by(|role| role.name.cmp(name)).ok().map(|at| &ROLES[at])
    }

    /// All roles, by name.
    pub fn all() -> &'static [Self] {
        &ROLES
    }

    /// Owner, editor, viewer and browser: of everything, so that nobody needs them for one thing.
    pub(crate) fn is_basic(&self) -> bool {
        !self.name.contains('.')
    }

    /// The names of its permissions, sorted.
    pub fn permissions(&self) -> impl Iterator<Item = &'static str> {
        Permission::all().filter(|permission| self.permissions.contains(*permission)).map(Permission::name)
    }
}

/// By name.
static ROLES: LazyLock<Vec<Role>> = LazyLock::new(|| {
    let mut roles: Vec<Role> =
        table::TABLE.iter().map(|text| Role { name: text.name, title: text.title, permissions: PermissionSet::of(text.permissions) }).collect();
    roles.sort_unstable_by_key(|role| role.name);
    roles
});

#[cfg(test)]
mod tests {
    use super::*;

    fn check(role: &str, holds: &[&str], lacks: &[&str]) {
        let role = Role::find(role).unwrap_or_else(|| panic!("{role}"));
        let permissions: Vec<_> = role.permissions().collect();
        for permission in holds {
            assert!(permissions.contains(permission), "{} lacks {permission}", role.name);
        }
        for permission in lacks {
            assert!(Permission::find(permission).is_some(), "{permission}");
            assert!(!permissions.contains(permission), "{} holds {permission}", role.name);
        }
    }

    #[test]
    fn roles_hold_what_the_reference_says() {
        check("roles/run.invoker", &["run.routes.invoke"], &["run.services.get", "run.routes.get"]);
        check(
            "roles/run.admin",
            &["run.services.setIamPolicy", "run.services.create", "run.routes.invoke"],
            &["iam.serviceAccounts.actAs", "storage.objects.get"],
        );
        check("roles/run.developer", &["run.services.create", "run.services.getIamPolicy"], &["run.services.setIamPolicy"]);
        check("roles/run.viewer", &["run.services.get", "run.revisions.list"], &["run.services.update", "run.routes.invoke"]);
        check(
            "roles/run.sourceDeveloper",
            &["cloudbuild.builds.create", "storage.objects.create", "artifactregistry.repositories.create"],
            &["iam.serviceAccounts.actAs", "storage.objects.delete"],
        );
        check(
            "roles/owner",
            &["resourcemanager.projects.setIamPolicy", "run.routes.invoke", "storage.objects.create", "iam.serviceAccounts.actAs"],
            &["iam.serviceAccounts.getAccessToken", "iam.serviceAccounts.signJwt"],
        );
        check(
            "roles/editor",
            &["run.services.update", "iam.serviceAccounts.actAs", "storage.objects.create"],
            &["run.services.setIamPolicy", "resourcemanager.projects.setIamPolicy", "logging.privateLogEntries.list"],
        );
        check(
            "roles/viewer",
            &["run.services.get", "storage.objects.get"],
            &["run.routes.invoke", "run.services.update", "storage.objects.create", "iam.serviceAccounts.actAs"],
        );
        check(
            "roles/iam.serviceAccountTokenCreator",
            &["iam.serviceAccounts.getAccessToken", "iam.serviceAccounts.getOpenIdToken"],
            &["iam.serviceAccounts.actAs"],
        );
        check("roles/iam.serviceAccountUser", &["iam.serviceAccounts.actAs"], &["iam.serviceAccounts.getAccessToken"]);
        check("roles/storage.objectViewer", &["storage.objects.get", "storage.objects.list"], &["storage.buckets.get", "storage.objects.create"]);
        check("roles/logging.viewer", &["logging.logEntries.list"], &["logging.privateLogEntries.list", "logging.logEntries.create"]);
    }

    #[test]
    fn every_role_has_a_name_of_its_own_and_some_permission() {
        assert!(Role::all().len() >= 45);
        for pair in Role::all().windows(2) {
            assert!(pair[0].name < pair[1].name, "{}", pair[1].name);
        }
        for role in Role::all() {
            assert!(role.name.starts_with("roles/") && !role.title.is_empty(), "{}", role.name);
            assert!(role.permissions().next().is_some(), "{}", role.name);
            assert!(std::ptr::eq(Role::find(role.name).unwrap(), role));
        }
        for unknown in ["", "roles/", "run.invoker", "roles/run.Invoker", "roles/secretmanager.nobody"] {
            assert!(Role::find(unknown).is_none(), "{unknown}");
        }
    }

    #[test]
    fn every_permission_is_held_by_some_role() {
        for permission in Permission::all() {
            assert!(Role::all().iter().any(|role| role.permissions.contains(permission)), "{}", permission.name());
        }
    }

    #[test]
    fn editor_holds_what_viewer_holds_and_owner_what_editor_holds() {
        let [viewer, editor, owner] = ["roles/viewer", "roles/editor", "roles/owner"].map(|name| Role::find(name).unwrap());
        for permission in Permission::all() {
            assert!(!viewer.permissions.contains(permission) || editor.permissions.contains(permission), "{}", permission.name());
            assert!(!editor.permissions.contains(permission) || owner.permissions.contains(permission), "{}", permission.name());
        }
    }
}
