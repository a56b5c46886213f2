//! The table of gRPC methods: which are served, and what each needs. REST calls that are transcoded pass through it too.

use super::{Need, on};

/// One method.
pub(crate) struct Row {
    /// `google.cloud.run.v2.Services/GetService`.
    pub method: &'static str,
    /// What its caller needs.
    pub need: Need,
    /// The field of the request that names the resource, dotted; empty when the need has none.
    pub field: &'static str,
    /// How its value is read, such as `projects/{project}/locations/{location}`. More may follow at its end.
    pub pattern: &'static str,
}

const PROJECT: &str = "projects/{project}";
const LOCATION: &str = "projects/{project}/locations/{location}";
const SERVICE: &str = "projects/{project}/locations/{location}/services/{service}";
const REVISION: &str =
    "projects/{project}/locations/{location}/services/{service}/revisions/{revision}";
const OPERATION: &str = "projects/{project}/locations/{location}/operations/{operation}";

/// Every gRPC method that is served.
pub(crate) const TABLE: &[Row] = &[
    row(
        "google.cloud.run.v2.Services/CreateService",
        on("run.services.create", PROJECT),
        "parent",
        LOCATION,
    ),
    row(
        "google.cloud.run.v2.Services/GetService",
        on("run.services.get", SERVICE),
        "name",
        SERVICE,
    ),
    row(
        "google.cloud.run.v2.Services/ListServices",
        on("run.services.list", PROJECT),
        "parent",
        LOCATION,
    ),
    row(
        "google.cloud.run.v2.Services/UpdateService",
        on("run.services.update", SERVICE),
        "service.name",
        SERVICE,
    ),
    row(
        "google.cloud.run.v2.Services/DeleteService",
        on("run.services.delete", SERVICE),
        "name",
        SERVICE,
    ),
    row(
        "google.cloud.run.v2.Services/GetIamPolicy",
        on("run.services.getIamPolicy", SERVICE),
        "resource",
        SERVICE,
    ),
    row(
        "google.cloud.run.v2.Services/SetIamPolicy",
        on("run.services.setIamPolicy", SERVICE),
        "resource",
        SERVICE,
    ),
    row(
        "google.cloud.run.v2.Services/TestIamPermissions",
        Need::SignedIn,
        "resource",
        SERVICE,
    ),
    row(
        "google.cloud.run.v2.Revisions/GetRevision",
        on("run.revisions.get", SERVICE),
        "name",
        REVISION,
    ),
    row(
        "google.cloud.run.v2.Revisions/ListRevisions",
        on("run.revisions.list", PROJECT),
        "parent",
        SERVICE,
    ),
    row(
        "google.cloud.run.v2.Revisions/DeleteRevision",
        on("run.revisions.delete", SERVICE),
        "name",
        REVISION,
    ),
    row(
        "google.cloud.run.v2.Builds/SubmitBuild",
        on("run.builds.create", PROJECT),
        "parent",
        LOCATION,
    ),
    row(
        "google.longrunning.Operations/ListOperations",
        on("run.operations.list", PROJECT),
        "name",
        LOCATION,
    ),
    row(
        "google.longrunning.Operations/GetOperation",
        on("run.operations.get", PROJECT),
        "name",
        OPERATION,
    ),
    row(
        "google.longrunning.Operations/WaitOperation",
        on("run.operations.get", PROJECT),
        "name",
        OPERATION,
    ),
];

const fn row(method: &'static str, need: Need, field: &'static str, pattern: &'static str) -> Row {
    Row {
        method,
        need,
        field,
        pattern,
    }
}
