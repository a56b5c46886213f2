//! The keys under which records lie in the store, in one place. Persisted: a change here needs a migration.
//!
//! A key is `kind/part/part...`; parts that users choose cannot hold a slash, except the last one.

use crate::{
    name::{ProjectId, Region, RevisionName, ServiceKey},
    secret::SecretKey,
    trigger::TriggerKey,
};

/// All services, all services of a project, of a region.
pub const SERVICES: &str = "service/";
pub const REVISIONS: &str = "revision/";
pub const OPERATIONS: &str = "operation/";
pub const BUILDS: &str = "build/";
pub const POLICIES: &str = "policy/";
pub const PROJECTS: &str = "project/";
pub const BUCKETS: &str = "bucket/";
pub const USERS: &str = "user/";
pub const SERVICE_ACCOUNTS: &str = "serviceaccount/";
pub const SERVICE_ACCOUNT_KEYS: &str = "serviceaccountkey/";
pub const SIGNING_KEYS: &str = "signingkey/";
pub const REFRESH_TOKENS: &str = "refreshtoken/";
pub const REPOSITORIES: &str = "repository/";
pub const UPLOADS: &str = "upload/";
pub const OBJECTS: &str = "object/";
pub const IMAGES: &str = "image/";
/// Versions of objects that are not live, and those that were deleted but can be restored.
pub const OBJECT_VERSIONS: &str = "objectversion/";
pub const OBJECTS_DELETED: &str = "objectdeleted/";
/// Multipart uploads, and their parts.
pub const MULTIPART_UPLOADS: &str = "upload/multipart/";
/// What happened to objects and was not yet told to anyone.
pub const OBJECT_CHANGES: &str = "objectchange/";
pub const NOTIFICATIONS: &str = "notification/";
pub const FUNCTIONS: &str = "function/";
pub const SECRETS: &str = "secret/";
pub const SECRET_VERSIONS: &str = "secretversion/";
/// Not JSON: what `iam::Vault` sealed.
pub const SECRET_PAYLOADS: &str = "secretpayload/";
pub const TOPICS: &str = "topic/";
pub const SUBSCRIPTIONS: &str = "subscription/";
pub const SNAPSHOTS: &str = "snapshot/";
/// Schemas of Pub/Sub, and the text of each of their revisions.
pub const SCHEMAS: &str = "schema/";
pub const SCHEMA_DEFINITIONS: &str = "schemadefinition/";
pub const JOBS: &str = "job/";
pub const TRIGGERS: &str = "trigger/";
/// Roles that a project's people made.
pub const ROLES: &str = "role/";
/// What nobody may, whatever roles say: all deny policies of a project.
pub const DENY_POLICIES: &str = "denypolicies/";
/// Members of groups.
pub const GROUPS: &str = "group/";
/// The instant at which a clock that is moved by hand stands.
pub const CLOCK: &str = "clock/manual";

pub fn service(key: &ServiceKey) -> String {
    format!("{SERVICES}{}/{}/{}", key.project, key.region, key.service)
}

pub fn services_of(project: &ProjectId, region: Option<&Region>) -> String {
    match region {
        Some(region) => format!("{SERVICES}{project}/{region}/"),
        None => format!("{SERVICES}{project}/"),
    }
}

/// Revisions are found by their service; their names are unique in a region anyway.
pub fn revision(service: &ServiceKey, name: &RevisionName) -> String {
    format!("{}{name}", revisions_of(service))
}

pub fn revisions_of(service: &ServiceKey) -> String {
    format!("{REVISIONS}{}/{}/{}/", service.project, service.region, service.service)
}

pub fn revisions_in(project: &ProjectId, region: Option<&Region>) -> String {
    match region {
        Some(region) => format!("{REVISIONS}{project}/{region}/"),
        None => format!("{REVISIONS}{project}/"),
    }
}

pub fn operation(project: &ProjectId, region: &Region, id: &str) -> String {
    format!("{OPERATIONS}{project}/{region}/{id}")
}

pub fn build(project: &ProjectId, region: &Region, id: &str) -> String {
    format!("{BUILDS}{project}/{region}/{id}")
}

/// `resource` is the full relative name: `projects/P`, `projects/P/locations/R/services/S`, `projects/P/serviceAccounts/EMAIL`, `buckets/B`.
pub fn policy(resource: &str) -> String {
    format!("{POLICIES}{resource}")
}

/// The record of a resource that has a policy, by the name that its policy lies under; `None` for what is no such resource.
pub fn policied(resource: &str) -> Option<String> {
    let parts: Vec<&str> = resource.split('/').collect();
    let kind = |collection: &str| {
        let kinds = [
            ("services", SERVICES),
            ("functions", FUNCTIONS),
            ("triggers", TRIGGERS),
            ("secrets", SECRETS),
            ("serviceAccounts", SERVICE_ACCOUNTS),
            ("topics", TOPICS),
            ("subscriptions", SUBSCRIPTIONS),
            ("snapshots", SNAPSHOTS),
            ("schemas", SCHEMAS),
        ];
        kinds.into_iter().find(|(name, _)| *name == collection).map(|(_, prefix)| prefix)
    };
    match parts[..] {
        ["projects", project] => Some(format!("{PROJECTS}{project}")),
        ["buckets", name] => Some(bucket(name)),
        ["projects", project, "locations", location, collection @ ("services" | "functions" | "triggers"), id] => {
            Some(format!("{}{project}/{location}/{id}", kind(collection)?))
        }
        ["projects", project, collection @ ("secrets" | "serviceAccounts" | "topics" | "subscriptions" | "snapshots" | "schemas"), id] => {
            Some(format!("{}{project}/{id}", kind(collection)?))
        }
        _ => None,
    }
}

/// `name` is `projects/P/roles/R`.
pub fn role(name: &str) -> String {
    format!("{ROLES}{name}")
}

pub fn deny_policies(project: &ProjectId) -> String {
    format!("{DENY_POLICIES}{project}")
}

pub fn group(email: &str) -> String {
    format!("{GROUPS}{email}")
}

pub fn project(id: &ProjectId) -> String {
    format!("{PROJECTS}{id}")
}

pub fn bucket(name: &str) -> String {
    format!("{BUCKETS}{name}")
}

/// A bucket made again under the same name does not own the old one's objects: `created_us` tells them apart.
pub fn objects_of(bucket: &str, created_us: i64) -> String {
    format!("{OBJECTS}{bucket}/{created_us}/")
}

pub fn object(bucket: &str, created_us: i64, name: &str) -> String {
    format!("{}{name}", objects_of(bucket, created_us))
}

/// Under [`OBJECT_VERSIONS`] or [`OBJECTS_DELETED`]: by name, then generation. No name has a NUL.
pub fn object_generation(prefix: &str, bucket: &str, created_us: i64, name: &str, generation: i64) -> String {
    format!("{prefix}{bucket}/{created_us}/{name}\0{generation:020}")
}

/// `number` rises with every change.
pub fn object_change(number: i64) -> String {
    format!("{OBJECT_CHANGES}{number:020}")
}

pub fn multipart_upload(id: &str) -> String {
    format!("{MULTIPART_UPLOADS}{id}")
}

pub fn multipart_parts(id: &str) -> String {
    format!("{UPLOADS}multipartpart/{id}/")
}

pub fn notifications_of(bucket: &str, created_us: i64) -> String {
    format!("{NOTIFICATIONS}{bucket}/{created_us}/")
}

pub fn user(email: &str) -> String {
    format!("{USERS}{email}")
}

pub fn service_account(project: &ProjectId, email: &str) -> String {
    format!("{SERVICE_ACCOUNTS}{project}/{email}")
}

pub fn service_account_key(email: &str, id: &str) -> String {
    format!("{SERVICE_ACCOUNT_KEYS}{email}/{id}")
}

/// `hash` is the token's SHA-256 in hexadecimal; the token itself is kept nowhere.
pub fn refresh_token(hash: &str) -> String {
    format!("{REFRESH_TOKENS}{hash}")
}

pub fn repository(project: &ProjectId, region: &Region, id: &str) -> String {
    format!("{REPOSITORIES}{project}/{region}/{id}")
}

/// The image that a tag or digest of a repository names: `uri` is `R-docker.pkg.dev/P/REPO/NAME`.
pub fn image(uri: &str) -> String {
    format!("{IMAGES}{uri}")
}

pub fn secrets_of(project: &ProjectId) -> String {
    format!("{SECRETS}{project}/")
}

pub fn secret(key: &SecretKey) -> String {
    format!("{}{}", secrets_of(&key.project), key.secret)
}

pub fn secret_versions_of(key: &SecretKey) -> String {
    format!("{SECRET_VERSIONS}{}/{}/", key.project, key.secret)
}

/// Numbers lie in their order.
pub fn secret_version(key: &SecretKey, number: u64) -> String {
    format!("{}{number:010}", secret_versions_of(key))
}

pub fn secret_payload(key: &SecretKey, number: u64) -> String {
    format!("{SECRET_PAYLOADS}{}/{}/{number:010}", key.project, key.secret)
}

pub fn function(key: &ServiceKey) -> String {
    format!("{FUNCTIONS}{}/{}/{}", key.project, key.region, key.service)
}

pub fn functions_of(project: &ProjectId, region: Option<&Region>) -> String {
    match region {
        Some(region) => format!("{FUNCTIONS}{project}/{region}/"),
        None => format!("{FUNCTIONS}{project}/"),
    }
}

pub fn topic(project: &ProjectId, id: &str) -> String {
    format!("{TOPICS}{project}/{id}")
}

pub fn subscription(project: &ProjectId, id: &str) -> String {
    format!("{SUBSCRIPTIONS}{project}/{id}")
}

pub fn snapshot(project: &ProjectId, id: &str) -> String {
    format!("{SNAPSHOTS}{project}/{id}")
}

pub fn trigger(key: &TriggerKey) -> String {
    format!("{}{}", triggers_of(&key.project, Some(&key.location)), key.id)
}

/// `location` `None`: of all of them.
pub fn triggers_of(project: &ProjectId, location: Option<&Region>) -> String {
    match location {
        Some(location) => format!("{TRIGGERS}{project}/{location}/"),
        None => format!("{TRIGGERS}{project}/"),
    }
}

pub fn schema(project: &ProjectId, id: &str) -> String {
    format!("{SCHEMAS}{project}/{id}")
}

/// By the uid of the schema, which another one of its name does not have.
pub fn schema_definition(uid: &str, revision: &str) -> String {
    format!("{SCHEMA_DEFINITIONS}{uid}/{revision}")
}

pub fn job(project: &ProjectId, region: &Region, id: &str) -> String {
    format!("{}{id}", jobs_of(project, Some(region)))
}

pub fn jobs_of(project: &ProjectId, region: Option<&Region>) -> String {
    match region {
        Some(region) => format!("{JOBS}{project}/{region}/"),
        None => format!("{JOBS}{project}/"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_a_policy_has_a_record() {
        let (project_id, region) = (ProjectId::parse("my-project").unwrap(), Region::parse("asia-northeast1").unwrap());
        let service_key = ServiceKey { project: project_id.clone(), region: region.clone(), service: crate::ServiceName::parse("s").unwrap() };
        let secret_key = SecretKey { project: project_id.clone(), secret: crate::secret::SecretId::parse("s").unwrap() };
        let trigger_key = TriggerKey::new(project_id.clone(), region, "t-1").unwrap();
        let email = "a@my-project.iam.gserviceaccount.com";
        for (resource, record) in [
            ("projects/my-project".to_owned(), project(&project_id)),
            ("buckets/b".to_owned(), bucket("b")),
            (service_key.resource(), service(&service_key)),
            (crate::function::resource(&service_key), function(&service_key)),
            (trigger_key.resource(), trigger(&trigger_key)),
            (secret_key.resource(), secret(&secret_key)),
            (format!("projects/my-project/serviceAccounts/{email}"), service_account(&project_id, email)),
            ("projects/my-project/topics/t".to_owned(), topic(&project_id, "t")),
            ("projects/my-project/subscriptions/s".to_owned(), subscription(&project_id, "s")),
            ("projects/my-project/snapshots/s".to_owned(), snapshot(&project_id, "s")),
            ("projects/my-project/schemas/s".to_owned(), schema(&project_id, "s")),
        ] {
            assert_eq!(policied(&resource), Some(record), "{resource}");
        }
        for other in ["", "projects", "projects/p/jobs/j", "projects/p/locations/l/topics/t", "buckets/b/o"] {
            assert_eq!(policied(other), None, "{other}");
        }
    }
}
