//! Google's predefined roles, as far as their permissions exist here.
//!
//! Truth: the published reference of roles and permissions (cloud.google.com/iam/docs/roles-permissions), state of
//! August 2026, cut down to the permissions in `permission`. One thing differs: Google gives a project's owners, editors and
//! viewers their rights inside a bucket by bindings for `projectOwner:P` and the like that each new bucket is made with.
//! Such members do not exist here; the three basic roles hold these storage permissions themselves.

use std::sync::LazyLock;

use crate::permission::{Permission, PermissionSet};

/// A role that bindings can name.
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

    /// The names of its permissions, sorted.
    pub fn permissions(&self) -> impl Iterator<Item = &'static str> {
        Permission::all().filter(|permission| self.permissions.contains(*permission)).map(Permission::name)
    }
}

/// By name.
static ROLES: LazyLock<Vec<Role>> = LazyLock::new(|| {
    let mut roles: Vec<Role> =
        TABLE.iter().map(|text| Role { name: text.name, title: text.title, permissions: PermissionSet::of(text.permissions) }).collect();
    roles.sort_unstable_by_key(|role| role.name);
    roles
});

struct RoleText {
    name: &'static str,
    title: &'static str,
    /// Kinds with the verbs held, `*` for all.
    permissions: &'static [(&'static str, &'static str)],
}

const TABLE: &[RoleText] = &[
    RoleText {
        name: "roles/owner",
        title: "Owner",
        permissions: &[
            ("run.services", "*"),
            ("run.revisions", "*"),
            ("run.configurations", "*"),
            ("run.routes", "*"),
            ("run.operations", "*"),
            ("run.locations", "*"),
            ("cloudbuild.builds", "*"),
            ("cloudbuild.operations", "*"),
            ("cloudbuild.locations", "*"),
            ("artifactregistry.repositories", "*"),
            ("artifactregistry.dockerimages", "*"),
            ("artifactregistry.locations", "*"),
            ("serviceusage.services", "*"),
            ("serviceusage.operations", "get"),
            ("resourcemanager.projects", "*"),
            ("iam.serviceAccounts", "actAs create delete disable enable get getIamPolicy list setIamPolicy update"),
            ("iam.serviceAccountKeys", "*"),
            ("iam.roles", "*"),
            ("storage.buckets", "*"),
            ("storage.objects", "*"),
            ("storage.multipartUploads", "*"),
            ("logging.logEntries", "*"),
            ("logging.logs", "*"),
            ("logging.privateLogEntries", "list"),
            ("logging.logServices", "list"),
        ],
    },
    RoleText {
        name: "roles/editor",
        title: "Editor",
        permissions: &[
            ("run.services", "create delete get getIamPolicy list update"),
            ("run.revisions", "*"),
            ("run.configurations", "*"),
            ("run.routes", "*"),
            ("run.operations", "*"),
            ("run.locations", "*"),
            ("cloudbuild.builds", "*"),
            ("cloudbuild.operations", "*"),
            ("cloudbuild.locations", "*"),
            ("artifactregistry.repositories", "create delete deleteArtifacts downloadArtifacts get getIamPolicy list update uploadArtifacts"),
            ("artifactregistry.dockerimages", "*"),
            ("artifactregistry.locations", "*"),
            ("serviceusage.services", "*"),
            ("serviceusage.operations", "get"),
            ("resourcemanager.projects", "get getIamPolicy list update"),
            ("iam.serviceAccounts", "actAs create delete disable enable get getIamPolicy list update"),
            ("iam.serviceAccountKeys", "*"),
            ("iam.roles", "*"),
            ("storage.buckets", "*"),
            ("storage.objects", "*"),
            ("storage.multipartUploads", "*"),
            ("logging.logEntries", "*"),
            ("logging.logs", "*"),
            ("logging.logServices", "list"),
        ],
    },
    RoleText {
        name: "roles/viewer",
        title: "Viewer",
        permissions: &[
            ("run.services", "get getIamPolicy list"),
            ("run.revisions", "get list"),
            ("run.configurations", "*"),
            ("run.routes", "get list"),
            ("run.operations", "get list"),
            ("run.locations", "list"),
            ("cloudbuild.builds", "get list"),
            ("cloudbuild.operations", "*"),
            ("cloudbuild.locations", "*"),
            ("artifactregistry.repositories", "downloadArtifacts get getIamPolicy list"),
            ("artifactregistry.dockerimages", "*"),
            ("artifactregistry.locations", "*"),
            ("serviceusage.services", "get list"),
            ("serviceusage.operations", "get"),
            ("resourcemanager.projects", "get getIamPolicy list"),
            ("iam.serviceAccounts", "get getIamPolicy list"),
            ("iam.serviceAccountKeys", "get list"),
            ("iam.roles", "*"),
            ("storage.buckets", "get list"),
            ("storage.objects", "get list"),
            ("storage.multipartUploads", "list"),
            ("logging.logEntries", "list"),
            ("logging.logs", "list"),
            ("logging.logServices", "list"),
        ],
    },
    RoleText {
        name: "roles/browser",
        title: "Browser",
        permissions: &[
            ("resourcemanager.projects", "get getIamPolicy list"),
        ],
    },
    RoleText {
        name: "roles/run.admin",
        title: "Cloud Run Admin",
        permissions: &[
            ("run.services", "*"),
            ("run.revisions", "*"),
            ("run.configurations", "*"),
            ("run.routes", "*"),
            ("run.operations", "*"),
            ("run.locations", "*"),
            ("resourcemanager.projects", "get list"),
        ],
    },
    RoleText {
        name: "roles/run.builder",
        title: "Cloud Run Builder",
        permissions: &[
            ("artifactregistry.repositories", "deleteArtifacts downloadArtifacts uploadArtifacts"),
            ("storage.objects", "get"),
            ("logging.logEntries", "create"),
        ],
    },
    RoleText {
        name: "roles/run.developer",
        title: "Cloud Run Developer",
        permissions: &[
            ("run.services", "create delete get getIamPolicy list update"),
            ("run.revisions", "*"),
            ("run.configurations", "*"),
            ("run.routes", "*"),
            ("run.operations", "*"),
            ("run.locations", "*"),
            ("resourcemanager.projects", "get list"),
        ],
    },
    RoleText {
        name: "roles/run.invoker",
        title: "Cloud Run Invoker",
        permissions: &[
            ("run.routes", "invoke"),
        ],
    },
    RoleText {
        name: "roles/run.servicesInvoker",
        title: "Cloud Run Service Invoker",
        permissions: &[
            ("run.routes", "invoke"),
        ],
    },
    RoleText {
        name: "roles/run.sourceDeveloper",
        title: "Cloud Run Source Developer",
        permissions: &[
            ("run.services", "create delete get getIamPolicy list update"),
            ("run.revisions", "*"),
            ("run.configurations", "*"),
            ("run.routes", "*"),
            ("run.operations", "*"),
            ("run.locations", "*"),
            ("cloudbuild.builds", "*"),
            ("cloudbuild.operations", "*"),
            ("cloudbuild.locations", "*"),
            ("artifactregistry.repositories", "create downloadArtifacts get list"),
            ("artifactregistry.dockerimages", "*"),
            ("artifactregistry.locations", "*"),
            ("serviceusage.services", "get list use"),
            ("resourcemanager.projects", "get list"),
            ("storage.buckets", "create get list"),
            ("storage.objects", "create get list"),
            ("storage.multipartUploads", "abort create listParts"),
        ],
    },
    RoleText {
        name: "roles/run.sourceViewer",
        title: "Cloud Run Source Viewer",
        permissions: &[
            ("run.services", "get getIamPolicy list"),
            ("run.revisions", "get list"),
            ("run.configurations", "*"),
            ("run.routes", "get list"),
            ("run.operations", "get list"),
            ("run.locations", "list"),
            ("cloudbuild.builds", "get list"),
            ("cloudbuild.operations", "*"),
            ("cloudbuild.locations", "*"),
            ("artifactregistry.repositories", "get list"),
            ("serviceusage.services", "get list"),
            ("resourcemanager.projects", "get list"),
            ("storage.objects", "get list"),
        ],
    },
    RoleText {
        name: "roles/run.viewer",
        title: "Cloud Run Viewer",
        permissions: &[
            ("run.services", "get getIamPolicy list"),
            ("run.revisions", "get list"),
            ("run.configurations", "*"),
            ("run.routes", "get list"),
            ("run.operations", "get list"),
            ("run.locations", "list"),
            ("resourcemanager.projects", "get list"),
        ],
    },
    RoleText {
        name: "roles/iam.securityAdmin",
        title: "Security Admin",
        permissions: &[
            ("run.services", "getIamPolicy list setIamPolicy"),
            ("run.revisions", "list"),
            ("run.configurations", "list"),
            ("run.routes", "list"),
            ("run.operations", "list"),
            ("run.locations", "list"),
            ("cloudbuild.builds", "list"),
            ("cloudbuild.operations", "list"),
            ("cloudbuild.locations", "list"),
            ("artifactregistry.repositories", "getIamPolicy list setIamPolicy"),
            ("artifactregistry.dockerimages", "list"),
            ("artifactregistry.locations", "list"),
            ("serviceusage.services", "list"),
            ("resourcemanager.projects", "getIamPolicy list setIamPolicy"),
            ("iam.serviceAccounts", "get getIamPolicy list setIamPolicy"),
            ("iam.serviceAccountKeys", "list"),
            ("iam.roles", "*"),
            ("storage.buckets", "getIamPolicy list setIamPolicy"),
            ("storage.objects", "getIamPolicy list setIamPolicy"),
            ("storage.multipartUploads", "list"),
            ("logging.logEntries", "list"),
            ("logging.logs", "list"),
            ("logging.privateLogEntries", "list"),
            ("logging.logServices", "list"),
        ],
    },
    RoleText {
        name: "roles/iam.securityReviewer",
        title: "Security Reviewer",
        permissions: &[
            ("run.services", "getIamPolicy list"),
            ("run.revisions", "list"),
            ("run.configurations", "list"),
            ("run.routes", "list"),
            ("run.operations", "list"),
            ("run.locations", "list"),
            ("cloudbuild.builds", "list"),
            ("cloudbuild.operations", "list"),
            ("cloudbuild.locations", "list"),
            ("artifactregistry.repositories", "getIamPolicy list"),
            ("artifactregistry.dockerimages", "list"),
            ("artifactregistry.locations", "list"),
            ("serviceusage.services", "list"),
            ("resourcemanager.projects", "getIamPolicy list"),
            ("iam.serviceAccounts", "get getIamPolicy list"),
            ("iam.serviceAccountKeys", "list"),
            ("iam.roles", "*"),
            ("storage.buckets", "getIamPolicy list"),
            ("storage.objects", "getIamPolicy list"),
            ("storage.multipartUploads", "list"),
            ("logging.logEntries", "list"),
            ("logging.logs", "list"),
            ("logging.privateLogEntries", "list"),
            ("logging.logServices", "list"),
        ],
    },
    RoleText {
        name: "roles/iam.serviceAccountAdmin",
        title: "Service Account Admin",
        permissions: &[
            ("resourcemanager.projects", "get list"),
            ("iam.serviceAccounts", "create delete disable enable get getIamPolicy list setIamPolicy update"),
        ],
    },
    RoleText {
        name: "roles/iam.serviceAccountCreator",
        title: "Create Service Accounts",
        permissions: &[
            ("resourcemanager.projects", "get list"),
            ("iam.serviceAccounts", "create get list"),
        ],
    },
    RoleText {
        name: "roles/iam.serviceAccountDeleter",
        title: "Delete Service Accounts",
        permissions: &[
            ("resourcemanager.projects", "get list"),
            ("iam.serviceAccounts", "delete get list"),
        ],
    },
    RoleText {
        name: "roles/iam.serviceAccountKeyAdmin",
        title: "Service Account Key Admin",
        permissions: &[
            ("resourcemanager.projects", "get list"),
            ("iam.serviceAccounts", "get list"),
            ("iam.serviceAccountKeys", "*"),
        ],
    },
    RoleText {
        name: "roles/iam.serviceAccountOpenIdTokenCreator",
        title: "Service Account OpenID Connect Identity Token Creator",
        permissions: &[
            ("iam.serviceAccounts", "getOpenIdToken"),
        ],
    },
    RoleText {
        name: "roles/iam.serviceAccountTokenCreator",
        title: "Service Account Token Creator",
        permissions: &[
            ("resourcemanager.projects", "get list"),
            ("iam.serviceAccounts", "get getAccessToken getOpenIdToken implicitDelegation list signBlob signJwt"),
        ],
    },
    RoleText {
        name: "roles/iam.serviceAccountUser",
        title: "Service Account User",
        permissions: &[
            ("resourcemanager.projects", "get list"),
            ("iam.serviceAccounts", "actAs get list"),
        ],
    },
    RoleText {
        name: "roles/iam.serviceAccountViewer",
        title: "View Service Accounts",
        permissions: &[
            ("resourcemanager.projects", "get list"),
            ("iam.serviceAccounts", "get getIamPolicy list"),
            ("iam.serviceAccountKeys", "get list"),
        ],
    },
    RoleText {
        name: "roles/resourcemanager.projectIamAdmin",
        title: "Project IAM Admin",
        permissions: &[
            ("resourcemanager.projects", "get getIamPolicy setIamPolicy"),
        ],
    },
    RoleText {
        name: "roles/storage.admin",
        title: "Storage Admin",
        permissions: &[
            ("resourcemanager.projects", "get list"),
            ("storage.buckets", "*"),
            ("storage.objects", "*"),
            ("storage.multipartUploads", "*"),
        ],
    },
    RoleText {
        name: "roles/storage.bucketViewer",
        title: "Storage Bucket Viewer",
        permissions: &[
            ("storage.buckets", "get list"),
        ],
    },
    RoleText {
        name: "roles/storage.legacyBucketOwner",
        title: "Storage Legacy Bucket Owner",
        permissions: &[
            ("storage.buckets", "get getIamPolicy setIamPolicy update"),
            ("storage.objects", "create delete list"),
            ("storage.multipartUploads", "*"),
        ],
    },
    RoleText {
        name: "roles/storage.legacyBucketReader",
        title: "Storage Legacy Bucket Reader",
        permissions: &[
            ("storage.buckets", "get"),
            ("storage.objects", "list"),
            ("storage.multipartUploads", "list"),
        ],
    },
    RoleText {
        name: "roles/storage.legacyBucketWriter",
        title: "Storage Legacy Bucket Writer",
        permissions: &[
            ("storage.buckets", "get"),
            ("storage.objects", "create delete list"),
            ("storage.multipartUploads", "*"),
        ],
    },
    RoleText {
        name: "roles/storage.legacyObjectOwner",
        title: "Storage Legacy Object Owner",
        permissions: &[
            ("storage.objects", "get getIamPolicy setIamPolicy update"),
        ],
    },
    RoleText {
        name: "roles/storage.legacyObjectReader",
        title: "Storage Legacy Object Reader",
        permissions: &[
            ("storage.objects", "get"),
        ],
    },
    RoleText {
        name: "roles/storage.objectAdmin",
        title: "Storage Object Admin",
        permissions: &[
            ("resourcemanager.projects", "get list"),
            ("storage.objects", "*"),
            ("storage.multipartUploads", "*"),
        ],
    },
    RoleText {
        name: "roles/storage.objectCreator",
        title: "Storage Object Creator",
        permissions: &[
            ("resourcemanager.projects", "get list"),
            ("storage.objects", "create"),
            ("storage.multipartUploads", "abort create listParts"),
        ],
    },
    RoleText {
        name: "roles/storage.objectUser",
        title: "Storage Object User",
        permissions: &[
            ("resourcemanager.projects", "get list"),
            ("storage.objects", "create delete get list update"),
            ("storage.multipartUploads", "*"),
        ],
    },
    RoleText {
        name: "roles/storage.objectViewer",
        title: "Storage Object Viewer",
        permissions: &[
            ("resourcemanager.projects", "get list"),
            ("storage.objects", "get list"),
        ],
    },
    RoleText {
        name: "roles/artifactregistry.admin",
        title: "Artifact Registry Administrator",
        permissions: &[
            ("artifactregistry.repositories", "*"),
            ("artifactregistry.dockerimages", "*"),
            ("artifactregistry.locations", "*"),
            ("resourcemanager.projects", "get"),
        ],
    },
    RoleText {
        name: "roles/artifactregistry.reader",
        title: "Artifact Registry Reader",
        permissions: &[
            ("artifactregistry.repositories", "downloadArtifacts get list"),
            ("artifactregistry.dockerimages", "*"),
            ("artifactregistry.locations", "*"),
            ("resourcemanager.projects", "get"),
        ],
    },
    RoleText {
        name: "roles/artifactregistry.repoAdmin",
        title: "Artifact Registry Repository Administrator",
        permissions: &[
            ("artifactregistry.repositories", "deleteArtifacts downloadArtifacts get list uploadArtifacts"),
            ("artifactregistry.dockerimages", "*"),
            ("artifactregistry.locations", "*"),
            ("resourcemanager.projects", "get"),
        ],
    },
    RoleText {
        name: "roles/artifactregistry.writer",
        title: "Artifact Registry Writer",
        permissions: &[
            ("artifactregistry.repositories", "downloadArtifacts get list uploadArtifacts"),
            ("artifactregistry.dockerimages", "*"),
            ("artifactregistry.locations", "*"),
            ("resourcemanager.projects", "get"),
        ],
    },
    RoleText {
        name: "roles/cloudbuild.builds.builder",
        title: "Cloud Build Service Account",
        permissions: &[
            ("cloudbuild.builds", "*"),
            ("cloudbuild.operations", "*"),
            ("cloudbuild.locations", "*"),
            ("artifactregistry.repositories", "deleteArtifacts downloadArtifacts get list uploadArtifacts"),
            ("artifactregistry.dockerimages", "*"),
            ("artifactregistry.locations", "*"),
            ("resourcemanager.projects", "get list"),
            ("storage.buckets", "create get list"),
            ("storage.objects", "create delete get list update"),
            ("logging.logEntries", "*"),
        ],
    },
    RoleText {
        name: "roles/cloudbuild.builds.editor",
        title: "Cloud Build Editor",
        permissions: &[
            ("cloudbuild.builds", "*"),
            ("cloudbuild.operations", "*"),
            ("cloudbuild.locations", "*"),
            ("resourcemanager.projects", "get list"),
        ],
    },
    RoleText {
        name: "roles/cloudbuild.builds.viewer",
        title: "Cloud Build Viewer",
        permissions: &[
            ("cloudbuild.builds", "get list"),
            ("cloudbuild.operations", "*"),
            ("cloudbuild.locations", "*"),
            ("resourcemanager.projects", "get list"),
        ],
    },
    RoleText {
        name: "roles/logging.admin",
        title: "Logging Admin",
        permissions: &[
            ("resourcemanager.projects", "get list"),
            ("logging.logEntries", "*"),
            ("logging.logs", "*"),
            ("logging.privateLogEntries", "list"),
            ("logging.logServices", "list"),
        ],
    },
    RoleText {
        name: "roles/logging.logWriter",
        title: "Logs Writer",
        permissions: &[
            ("logging.logEntries", "create"),
        ],
    },
    RoleText {
        name: "roles/logging.privateLogViewer",
        title: "Private Logs Viewer",
        permissions: &[
            ("resourcemanager.projects", "get"),
            ("logging.logEntries", "list"),
            ("logging.logs", "list"),
            ("logging.privateLogEntries", "list"),
            ("logging.logServices", "list"),
        ],
    },
    RoleText {
        name: "roles/logging.viewer",
        title: "Logs Viewer",
        permissions: &[
            ("resourcemanager.projects", "get"),
            ("logging.logEntries", "list"),
            ("logging.logs", "list"),
            ("logging.logServices", "list"),
        ],
    },
    RoleText {
        name: "roles/serviceusage.serviceUsageAdmin",
        title: "Service Usage Admin",
        permissions: &[
            ("serviceusage.services", "*"),
            ("serviceusage.operations", "get"),
        ],
    },
    RoleText {
        name: "roles/serviceusage.serviceUsageConsumer",
        title: "Service Usage Consumer",
        permissions: &[
            ("serviceusage.services", "get list use"),
            ("serviceusage.operations", "get"),
        ],
    },
    RoleText {
        name: "roles/serviceusage.serviceUsageViewer",
        title: "Service Usage Viewer",
        permissions: &[
            ("serviceusage.services", "get list"),
            ("serviceusage.operations", "get"),
        ],
    },
];

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
        check("roles/run.admin", &["run.services.setIamPolicy", "run.services.create", "run.routes.invoke"], &["iam.serviceAccounts.actAs", "storage.objects.get"]);
        check("roles/run.developer", &["run.services.create", "run.services.getIamPolicy"], &["run.services.setIamPolicy"]);
        check("roles/run.viewer", &["run.services.get", "run.revisions.list"], &["run.services.update", "run.routes.invoke"]);
        check("roles/run.sourceDeveloper", &["cloudbuild.builds.create", "storage.objects.create", "artifactregistry.repositories.create"], &["iam.serviceAccounts.actAs", "storage.objects.delete"]);
        check("roles/owner", &["resourcemanager.projects.setIamPolicy", "run.routes.invoke", "storage.objects.create", "iam.serviceAccounts.actAs"], &["iam.serviceAccounts.getAccessToken", "iam.serviceAccounts.signJwt"]);
        check("roles/editor", &["run.services.update", "iam.serviceAccounts.actAs", "storage.objects.create"], &["run.services.setIamPolicy", "resourcemanager.projects.setIamPolicy", "logging.privateLogEntries.list"]);
        check("roles/viewer", &["run.services.get", "storage.objects.get"], &["run.routes.invoke", "run.services.update", "storage.objects.create", "iam.serviceAccounts.actAs"]);
        check("roles/iam.serviceAccountTokenCreator", &["iam.serviceAccounts.getAccessToken", "iam.serviceAccounts.getOpenIdToken"], &["iam.serviceAccounts.actAs"]);
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
        for unknown in ["", "roles/", "run.invoker", "roles/run.Invoker", "roles/secretmanager.admin"] {
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
