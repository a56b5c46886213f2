//! Secret Manager v1: secrets and versions. The rules are `control`'s.
//!
//! Not served, and refused by name: topics and rotation, customer-managed keys, tags, secret types and managed rotation; regional
//! secrets (`projects/*/locations/*/secrets/*`) are not found. Source: google/cloud/secretmanager/v1/{service,resources}.proto.

use std::collections::BTreeMap;

use iam::Payload;
use model::{
    ProjectId, Status, Timestamp,
    secret::{Replication, Secret, SecretId, SecretKey, SecretVersion, VersionState},
};
use proto::google::{cloud::secretmanager::v1 as pb, iam::v1 as iam_pb};

use crate::{
    app::App,
    convert::{refuse, time},
    filter::Filter,
    grpc::{Context, Group, Method},
    page::Asked,
    permission::{Need, on},
    policy, transcode,
};

const HOSTS: &[&str] = &["secretmanager.googleapis.com"];
const PROJECT: &str = "projects/{project}";
const SECRET: &str = "projects/{project}/secrets/{secret}";
const VERSION: &str = "projects/{project}/secrets/{secret}/versions/{version}";

pub(crate) fn methods(app: &App) -> Vec<Method> {
    let secrets = Group::new(app.clone(), HOSTS)
        .unary(
            "google.cloud.secretmanager.v1.SecretManagerService/ListSecrets",
            on("secretmanager.secrets.list", PROJECT),
            |r: &pb::ListSecretsRequest| r.parent.clone(),
            ("parent", PROJECT),
            secret_list,
        )
        .unary(
            "google.cloud.secretmanager.v1.SecretManagerService/CreateSecret",
            on("secretmanager.secrets.create", PROJECT),
            |r: &pb::CreateSecretRequest| r.parent.clone(),
            ("parent", PROJECT),
            secret_create,
        )
        .unary(
            "google.cloud.secretmanager.v1.SecretManagerService/GetSecret",
            on("secretmanager.secrets.get", SECRET),
            |r: &pb::GetSecretRequest| r.name.clone(),
            ("name", SECRET),
            secret_get,
        )
        .unary(
            "google.cloud.secretmanager.v1.SecretManagerService/UpdateSecret",
            on("secretmanager.secrets.update", SECRET),
            |r: &pb::UpdateSecretRequest| r.secret.as_ref().map(|s| s.name.clone()).unwrap_or_default(),
            ("secret.name", SECRET),
            secret_update,
        )
        .unary(
            "google.cloud.secretmanager.v1.SecretManagerService/DeleteSecret",
            on("secretmanager.secrets.delete", SECRET),
            |r: &pb::DeleteSecretRequest| r.name.clone(),
            ("name", SECRET),
            secret_delete,
        )
        .unary(
            "google.cloud.secretmanager.v1.SecretManagerService/GetIamPolicy",
            on("secretmanager.secrets.getIamPolicy", SECRET),
            |r: &iam_pb::GetIamPolicyRequest| r.resource.clone(),
            ("resource", SECRET),
            policy_get,
        )
        .unary(
            "google.cloud.secretmanager.v1.SecretManagerService/SetIamPolicy",
            on("secretmanager.secrets.setIamPolicy", SECRET),
            |r: &iam_pb::SetIamPolicyRequest| r.resource.clone(),
            ("resource", SECRET),
            policy_set,
        )
        .unary(
            "google.cloud.secretmanager.v1.SecretManagerService/TestIamPermissions",
            Need::SignedIn,
            |r: &iam_pb::TestIamPermissionsRequest| r.resource.clone(),
            ("resource", SECRET),
            permissions_test,
        );
    let versions = Group::new(app.clone(), HOSTS)
        .unary(
            "google.cloud.secretmanager.v1.SecretManagerService/AddSecretVersion",
            on("secretmanager.versions.add", SECRET),
            |r: &pb::AddSecretVersionRequest| r.parent.clone(),
            ("parent", SECRET),
            version_add,
        )
        .unary(
            "google.cloud.secretmanager.v1.SecretManagerService/ListSecretVersions",
            on("secretmanager.versions.list", SECRET),
            |r: &pb::ListSecretVersionsRequest| r.parent.clone(),
            ("parent", SECRET),
            version_list,
        )
        .unary(
            "google.cloud.secretmanager.v1.SecretManagerService/GetSecretVersion",
            on("secretmanager.versions.get", SECRET),
            |r: &pb::GetSecretVersionRequest| r.name.clone(),
            ("name", VERSION),
            version_get,
        )
        .unary(
            "google.cloud.secretmanager.v1.SecretManagerService/AccessSecretVersion",
            on("secretmanager.versions.access", SECRET),
            |r: &pb::AccessSecretVersionRequest| r.name.clone(),
            ("name", VERSION),
            version_access,
        )
        .unary(
            "google.cloud.secretmanager.v1.SecretManagerService/EnableSecretVersion",
            on("secretmanager.versions.enable", SECRET),
            |r: &pb::EnableSecretVersionRequest| r.name.clone(),
            ("name", VERSION),
            version_enable,
        )
        .unary(
            "google.cloud.secretmanager.v1.SecretManagerService/DisableSecretVersion",
            on("secretmanager.versions.disable", SECRET),
            |r: &pb::DisableSecretVersionRequest| r.name.clone(),
            ("name", VERSION),
            version_disable,
        )
        .unary(
            "google.cloud.secretmanager.v1.SecretManagerService/DestroySecretVersion",
            on("secretmanager.versions.destroy", SECRET),
            |r: &pb::DestroySecretVersionRequest| r.name.clone(),
            ("name", VERSION),
            version_destroy,
        );
    secrets.into_methods().into_iter().chain(versions.into_methods()).collect()
}

fn key(context: &Context) -> Result<SecretKey, Status> {
    Ok(SecretKey { project: context.project()?, secret: SecretId::parse(context.var("secret")?)? })
}

async fn secret_list(app: App, context: Context, request: pb::ListSecretsRequest) -> Result<pb::ListSecretsResponse, Status> {
    let project = context.project()?;
    let scope = format!("secrets/{project}/{}", request.filter);
    let asked = app.pages.read(&scope, &request.page_token, i64::from(request.page_size)).await?;
    let number = number(&app, &project)?;
    let secrets: Vec<pb::Secret> = app.control.secret_list(&project)?.iter().map(|secret| secret_to(secret, number)).collect();
    let page = page(secrets, &asked, &request.filter, |secret| secret.create_time.map(|at| at.seconds * 1_000_000 + i64::from(at.nanos / 1000)))?;
    let next_page_token = match page.next {
        Some(after) => app.pages.token(&scope, &after.to_string()).await?,
        None => String::new(),
    };
    Ok(pb::ListSecretsResponse { secrets: page.items, next_page_token, total_size: page.total })
}

async fn secret_create(app: App, context: Context, request: pb::CreateSecretRequest) -> Result<pb::Secret, Status> {
    let project = context.project()?;
    let key = SecretKey { secret: SecretId::parse(&request.secret_id)?, project };
    let written = request.secret.ok_or_else(|| Status::invalid_field("secret", "it is required"))?;
    let now = app.clock.now();
    let secret = Secret {
        replication: replication_from(written.replication.clone())?,
        labels: written.labels.clone().into_iter().collect(),
        annotations: written.annotations.clone().into_iter().collect(),
        expires: expiry_from(&written, now)?,
        destroy_ttl_s: destroy_ttl_from(&written)?,
        aliases: aliases_from(&written)?,
        key,
        created: now,
        etag: 0,
        versions: 0,
    };
    unsupported_refuse(&written)?;
    let made = app.control.secret_create(secret).await?;
    Ok(secret_to(&made, number(&app, &made.key.project)?))
}

async fn secret_get(app: App, context: Context, _: pb::GetSecretRequest) -> Result<pb::Secret, Status> {
    let secret = app.control.secret_get(&key(&context)?)?;
    Ok(secret_to(&secret, number(&app, &secret.key.project)?))
}

async fn secret_update(app: App, context: Context, request: pb::UpdateSecretRequest) -> Result<pb::Secret, Status> {
    let written = request.secret.ok_or_else(|| Status::invalid_field("secret", "it is required"))?;
    let paths = request.update_mask.map(|mask| mask.paths).unwrap_or_default();
    if paths.is_empty() {
        return Err(Status::invalid_field("update_mask", "it is required"));
    }
    unsupported_refuse(&written)?;
    let now = app.clock.now();
    let change = |secret: &mut Secret| {
        for path in &paths {
            match path.as_str() {
                "labels" => secret.labels = written.labels.clone().into_iter().collect(),
                "annotations" => secret.annotations = written.annotations.clone().into_iter().collect(),
                "ttl" | "expire_time" | "expireTime" => secret.expires = expiry_from(&written, now)?,
                "version_destroy_ttl" | "versionDestroyTtl" => secret.destroy_ttl_s = destroy_ttl_from(&written)?,
                "version_aliases" | "versionAliases" => secret.aliases = aliases_from(&written)?,
                // They are compared with what is there, or have none to set: see `unsupported_refuse`.
                "etag" | "topics" | "rotation" | "rotation.next_rotation_time" | "rotation.rotation_period" => {}
                other => return Err(Status::invalid_field("update_mask", format!("{other:?} cannot be changed"))),
            }
        }
        Ok(())
    };
    let updated = app.control.secret_update(&key(&context)?, etag_from(&written.etag), change).await?;
    Ok(secret_to(&updated, number(&app, &updated.key.project)?))
}

async fn secret_delete(app: App, context: Context, request: pb::DeleteSecretRequest) -> Result<(), Status> {
    app.control.secret_delete(&key(&context)?, etag_from(&request.etag)).await
}

async fn policy_get(app: App, context: Context, request: iam_pb::GetIamPolicyRequest) -> Result<iam_pb::Policy, Status> {
    let key = key(&context)?;
    app.control.secret_get(&key)?;
    policy::policy_get(&app, &key.resource(), &request)
}

async fn policy_set(app: App, context: Context, request: iam_pb::SetIamPolicyRequest) -> Result<iam_pb::Policy, Status> {
    let key = key(&context)?;
    app.control.secret_get(&key)?;
    policy::policy_set(&app, &context.who, ("secretmanager.secrets.setIamPolicy", key.project.as_str()), &key.resource(), request).await
}

async fn permissions_test(app: App, context: Context, request: iam_pb::TestIamPermissionsRequest) -> Result<iam_pb::TestIamPermissionsResponse, Status> {
    let key = key(&context)?;
    policy::permissions_test(&app, &context.who, &key.resource(), key.project.as_str(), &request)
}

async fn version_add(app: App, context: Context, request: pb::AddSecretVersionRequest) -> Result<pb::SecretVersion, Status> {
    let key = key(&context)?;
    let payload = request.payload.ok_or_else(|| Status::invalid_field("payload", "it is required"))?;
    let checksum = payload.data_crc32c;
    let version = app.control.secret_version_add(&key, &Payload::new(payload.data), checksum).await?;
    version_answer(&app, &key, &version)
}

async fn version_list(app: App, context: Context, request: pb::ListSecretVersionsRequest) -> Result<pb::ListSecretVersionsResponse, Status> {
    let key = key(&context)?;
    let scope = format!("secret-versions/{}/{}", key.resource(), request.filter);
    let asked = app.pages.read(&scope, &request.page_token, i64::from(request.page_size)).await?;
    let (secret, number) = (app.control.secret_get(&key)?, number(&app, &key.project)?);
    let versions: Vec<pb::SecretVersion> = app.control.secret_version_list(&key)?.iter().map(|version| version_to(version, &secret, number)).collect();
    let page = page(versions, &asked, &request.filter, |version| version.name.rsplit('/').next()?.parse().ok())?;
    let next_page_token = match page.next {
        Some(after) => app.pages.token(&scope, &after.to_string()).await?,
        None => String::new(),
    };
    Ok(pb::ListSecretVersionsResponse { versions: page.items, next_page_token, total_size: page.total })
}

async fn version_get(app: App, context: Context, _: pb::GetSecretVersionRequest) -> Result<pb::SecretVersion, Status> {
    let key = key(&context)?;
    version_answer(&app, &key, &app.control.secret_version_get(&key, context.var("version")?)?)
}

async fn version_access(app: App, context: Context, _: pb::AccessSecretVersionRequest) -> Result<pb::AccessSecretVersionResponse, Status> {
    let key = key(&context)?;
    let (version, payload) = app.control.secret_version_access(&key, context.var("version")?)?;
    let checksum = crc32c::crc32c(payload.as_bytes());
    Ok(pb::AccessSecretVersionResponse {
        name: format!("projects/{}/secrets/{}/versions/{}", number(&app, &key.project)?, key.secret, version.number),
        payload: Some(pb::SecretPayload { data: payload.as_bytes().to_vec(), data_crc32c: Some(i64::from(checksum)) }),
    })
}

async fn version_enable(app: App, context: Context, request: pb::EnableSecretVersionRequest) -> Result<pb::SecretVersion, Status> {
    let key = key(&context)?;
    let version = app.control.secret_version_enable(&key, context.var("version")?, etag_from(&request.etag)).await?;
    version_answer(&app, &key, &version)
}

async fn version_disable(app: App, context: Context, request: pb::DisableSecretVersionRequest) -> Result<pb::SecretVersion, Status> {
    let key = key(&context)?;
    let version = app.control.secret_version_disable(&key, context.var("version")?, etag_from(&request.etag)).await?;
    version_answer(&app, &key, &version)
}

async fn version_destroy(app: App, context: Context, request: pb::DestroySecretVersionRequest) -> Result<pb::SecretVersion, Status> {
    let key = key(&context)?;
    let version = app.control.secret_version_destroy(&key, context.var("version")?, etag_from(&request.etag)).await?;
    version_answer(&app, &key, &version)
}

/// One page of a list.
struct Page<T> {
    items: Vec<T>,
    /// Where the next one goes on.
    next: Option<i64>,
    /// Of the whole list; 0 under a filter, as the proto says.
    total: i32,
}

/// The page of a list in falling order of `place` that was asked for.
fn page<T: prost::Message + prost::Name>(list: Vec<T>, asked: &Asked, filter: &str, place: impl Fn(&T) -> Option<i64>) -> Result<Page<T>, Status> {
    let parsed = Filter::parse(filter)?;
    let total = if filter.is_empty() { i32::try_from(list.len()).unwrap_or(i32::MAX) } else { 0 };
    let after: Option<i64> = asked.after.as_deref().map(str::parse).transpose().map_err(Status::internal)?;
    let mut items = Vec::new();
    for item in list {
        if after.is_some_and(|after| place(&item).is_none_or(|at| at >= after)) || !(filter.is_empty() || parsed.matches(&transcode::to_json(&item)?)) {
            continue;
        }
        if items.len() == asked.size {
            return Ok(Page { next: items.last().and_then(&place), items, total });
        }
        items.push(item);
    }
    Ok(Page { items, next: None, total })
}

fn number(app: &App, project: &ProjectId) -> Result<u64, Status> {
    Ok(app.control.project_get(project.as_str())?.number.0)
}

fn version_answer(app: &App, key: &SecretKey, version: &SecretVersion) -> Result<pb::SecretVersion, Status> {
    Ok(version_to(version, &app.control.secret_get(key)?, number(app, &key.project)?))
}

fn secret_to(secret: &Secret, number: u64) -> pb::Secret {
    pb::Secret {
        name: format!("projects/{number}/secrets/{}", secret.key.secret),
        replication: Some(replication_to(&secret.replication)),
        create_time: Some(time(secret.created)),
        labels: secret.labels.clone().into_iter().collect(),
        annotations: secret.annotations.clone().into_iter().collect(),
        etag: etag_to(secret.etag),
        version_aliases: secret.aliases.iter().map(|(alias, version)| (alias.clone(), version.cast_signed())).collect(),
        version_destroy_ttl: (secret.destroy_ttl_s > 0).then(|| prost_types::Duration { seconds: secret.destroy_ttl_s.cast_signed(), nanos: 0 }),
        expiration: secret.expires.map(|at| pb::secret::Expiration::ExpireTime(time(at))),
        ..Default::default()
    }
}

fn version_to(version: &SecretVersion, secret: &Secret, number: u64) -> pb::SecretVersion {
    use pb::replication_status::{AutomaticStatus, ReplicationStatus as Kind, UserManagedStatus, user_managed_status::ReplicaStatus};
    let state = match version.state {
        VersionState::Enabled => pb::secret_version::State::Enabled,
        VersionState::Disabled => pb::secret_version::State::Disabled,
        VersionState::Destroyed => pb::secret_version::State::Destroyed,
    };
    let replication = match &secret.replication {
        Replication::Automatic => Kind::Automatic(AutomaticStatus { customer_managed_encryption: None }),
        Replication::UserManaged(locations) => Kind::UserManaged(UserManagedStatus {
            replicas: locations.iter().map(|location| ReplicaStatus { location: location.clone(), customer_managed_encryption: None }).collect(),
        }),
    };
    pb::SecretVersion {
        name: format!("projects/{number}/secrets/{}/versions/{}", version.secret.secret, version.number),
        create_time: Some(time(version.created)),
        destroy_time: version.destroyed.map(time),
        state: state as i32,
        replication_status: Some(pb::ReplicationStatus { replication_status: Some(replication) }),
        etag: etag_to(version.etag),
        client_specified_payload_checksum: version.checksum_given,
        scheduled_destroy_time: version.destroys.map(time),
        customer_managed_encryption: None,
    }
}

fn replication_to(replication: &Replication) -> pb::Replication {
    use pb::replication::{Automatic, Replication as Kind, UserManaged, user_managed::Replica};
    let kind = match replication {
        Replication::Automatic => Kind::Automatic(Automatic { customer_managed_encryption: None }),
        Replication::UserManaged(locations) => Kind::UserManaged(UserManaged {
            replicas: locations.iter().map(|location| Replica { location: location.clone(), customer_managed_encryption: None }).collect(),
        }),
    };
    pb::Replication { replication: Some(kind) }
}

fn replication_from(written: Option<pb::Replication>) -> Result<Replication, Status> {
    use pb::replication::Replication as Kind;
    match written.and_then(|written| written.replication) {
        None => Err(Status::invalid_field("secret.replication", "it is required: automatic, or user_managed with locations")),
        Some(Kind::Automatic(automatic)) => {
            refuse(automatic.customer_managed_encryption.is_some(), "secret.replication.automatic.customer_managed_encryption")?;
            Ok(Replication::Automatic)
        }
        Some(Kind::UserManaged(managed)) => {
            let encrypted = managed.replicas.iter().any(|replica| replica.customer_managed_encryption.is_some());
            refuse(encrypted, "secret.replication.user_managed.replicas.customer_managed_encryption")?;
            Ok(Replication::UserManaged(managed.replicas.into_iter().map(|replica| replica.location).collect()))
        }
    }
}

/// What would be kept without an effect.
fn unsupported_refuse(written: &pb::Secret) -> Result<(), Status> {
    refuse(!written.topics.is_empty(), "secret.topics")?;
    refuse(written.rotation.is_some(), "secret.rotation")?;
    refuse(written.customer_managed_encryption.is_some(), "secret.customer_managed_encryption")?;
    refuse(!written.tags.is_empty(), "secret.tags")?;
    refuse(written.secret_type != 0, "secret.secret_type")
}

fn expiry_from(written: &pb::Secret, now: Timestamp) -> Result<Option<Timestamp>, Status> {
    use pb::secret::Expiration;
    let at = match &written.expiration {
        None => return Ok(None),
        Some(Expiration::ExpireTime(at)) => {
            Timestamp::new(at.seconds, at.nanos).map_err(|error| Status::invalid_field("secret.expire_time", error.to_string()))?
        }
        Some(Expiration::Ttl(ttl)) => {
            let bad = || Status::invalid_field("secret.ttl", format!("{}s is not a time to live of 1 second to 100 years", ttl.seconds));
            let ttl = std::time::Duration::try_from(*ttl).ok().filter(|ttl| !ttl.is_zero()).ok_or_else(bad)?;
            now.checked_add(ttl).map_err(|_| bad())?
        }
    };
    Ok(Some(at))
}

/// In seconds; 0 for none.
fn destroy_ttl_from(written: &pb::Secret) -> Result<u64, Status> {
    let Some(ttl) = &written.version_destroy_ttl else { return Ok(0) };
    match u64::try_from(ttl.seconds) {
        // A part of a second is a second: zero would mean "at once".
        Ok(seconds) if (0..1_000_000_000).contains(&ttl.nanos) => Ok(seconds.saturating_add(u64::from(ttl.nanos > 0)).max(1)),
        _ => Err(Status::invalid_field("secret.version_destroy_ttl", "it is negative")),
    }
}

fn aliases_from(written: &pb::Secret) -> Result<BTreeMap<String, u64>, Status> {
    let number = |alias: &str, number: i64| {
        u64::try_from(number).map_err(|_| Status::invalid_field("secret.version_aliases", format!("{alias:?} names version {number}, which is not there")))
    };
    written.version_aliases.iter().map(|(alias, version)| Ok((alias.clone(), number(alias, *version)?))).collect()
}

/// As Google's look: a quoted hexadecimal number.
fn etag_to(etag: i64) -> String {
    format!("\"{etag:x}\"")
}

/// `None` for an empty one, which matches any; -1, which is nobody's, for one that was never given out.
fn etag_from(text: &str) -> Option<i64> {
    (!text.is_empty()).then(|| i64::from_str_radix(text.trim_matches('"'), 16).unwrap_or(-1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn etags_come_back() {
        for etag in [1, 1_764_316_800_000_000] {
            assert_eq!(etag_from(&etag_to(etag)), Some(etag));
            assert_eq!(etag_from(etag_to(etag).trim_matches('"')), Some(etag));
        }
        assert_eq!(etag_from(""), None);
        assert_eq!(etag_from("nonsense"), Some(-1));
    }
}
