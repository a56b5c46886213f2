//! The audit log: who called what that changes something, and what became of it; `cloudaudit.googleapis.com/activity` of Logging.
//!
//! Written in one place for every way in: [`crate::grpc`] and [`crate::front`] come here after the permission was checked, whether it
//! was there or not. As at Google by default, reads and calls that move data (payloads of secrets, objects, messages, log entries,
//! tokens) are not in it. No request and no reply is in it either, so that nothing secret can be.
//!
//! The log may lose its last second. The triggers of Eventarc may not: for each that a call is an event for, the event lies on disk
//! before the call is answered. Source: google/cloud/audit/audit_log.proto; names of methods: "Audit logging" of each API's guide.

use std::{collections::BTreeMap, sync::Arc};

use events::eventarc::audit::Written;
use http::{Extensions, HeaderMap, Method as Verb, StatusCode};
use iam::Identity;
use model::{
    Code, Hops, ProjectId, Status, Timestamp,
    log::{Entry, LogName, Payload, Severity, Source},
};
use proto::google::{
    cloud::audit::{AuditLog, AuthenticationInfo, AuthorizationInfo, RequestMetadata, authorization_info::PermissionType},
    rpc,
};

use prost::Message as _;
use serde_json::Value as Json;

use crate::{CallerAddress, Deps, permission::Need, transcode};

/// Of a user agent, of a resource's name and of an error's text, in characters.
const TEXT_MAX: usize = 1000;

/// One audited call.
pub(crate) struct Call<'a> {
    /// The API's host.
    pub service: &'a str,
    /// Such as `google.cloud.run.v2.Services.CreateService`.
    pub method: &'a str,
    /// As the client wrote it.
    pub resource: String,
    /// Where that lies, as of before the call, which may take it away; `None` for nowhere.
    pub location: Option<String>,
    /// An id.
    pub project: String,
    pub permission: &'static str,
    pub who: &'a Identity,
    pub granted: bool,
    /// `None` when it went well.
    pub status: Option<&'a Status>,
    pub from: &'a Client,
}

/// Where a call came from.
#[derive(Clone, Debug, Default)]
pub(crate) struct Client {
    /// An address; `private` for one from inside, as at Google.
    pub address: String,
    /// What the caller says it is.
    pub user_agent: String,
    /// What lies behind the call.
    pub hops: Hops,
}

impl Client {
    pub(crate) fn of(headers: &HeaderMap, extensions: &Extensions) -> Self {
        let address = extensions.get::<CallerAddress>().map_or_else(|| "private".to_owned(), |address| address.0.to_canonical().to_string());
        let user_agent = headers.get(http::header::USER_AGENT).map(|value| cut(&String::from_utf8_lossy(value.as_bytes()))).unwrap_or_default();
        Self { address, user_agent, hops: extensions.get().cloned().unwrap_or_default() }
    }
}

/// Writes a call down, in the log of the project that it was about, and tells the triggers that ask for it; calls about a project that
/// is not here are in none.
pub(crate) async fn write(deps: &Deps, call: &Call<'_>) {
    let status = call.status.map_or("OK", |status| status.code.name());
    tracing::info!(target: "audit", method = call.method, who = call.who.email, resource = cut(&call.resource), status, "a call that may change something");
    let Ok(project) = deps.control.project_get(&call.project) else { return };
    let json = match transcode::to_json(&log_of(call)) {
        Ok(json) => json,
        Err(error) => {
            tracing::error!(%error, "an audited call could not be written down");
            return;
        }
    };
    let (at, severity) = (deps.clock.now(), if call.status.is_some() { Severity::Error } else { Severity::Notice });
    let source = Source {
        project: project.id.to_string(),
        region: String::new(),
        service: call.service.to_owned(),
        revision: call.method.to_owned(),
        instance: String::new(),
        build: String::new(),
        job: String::new(),
        managed_by: String::new(),
    };
    deps.telemetry.log(Entry {
        source: Arc::new(source),
        log: LogName::Activity,
        time: at,
        severity,
        payload: Payload::Audit(json.to_string()),
        http: None,
        trace: String::new(),
        span: String::new(),
        trace_sampled: false,
        labels: BTreeMap::new(),
    });
    // Who may not do a thing makes no events of it.
    if call.granted
        && let Err(error) = triggers_tell(deps, call, &project.id, at, severity, json).await
    {
        tracing::error!(%error, method = call.method, "triggers were not told of an audited call");
    }
}

/// Publishes the call to the transport of each trigger that it is an event for.
async fn triggers_tell(deps: &Deps, call: &Call<'_>, project: &ProjectId, at: Timestamp, severity: Severity, payload: Json) -> Result<(), Status> {
    let resource = &resource_of(&call.resource);
    let wanting = deps.control.triggers_wanting(project, (call.service, call.method, resource), call.location.as_deref())?;
    if wanting.is_empty() {
        return Ok(());
    }
    let message =
        Written { project: project.as_str(), service: call.service, method: call.method, resource, at, severity, payload }.message().behind(&call.from.hops);
    for trigger in wanting {
        match events::eventarc::publish(&deps.pubsub, &trigger, message.clone()).await {
            Ok(()) => {}
            // Its transport is not made yet, or was deleted by hand.
            Err(absent) if absent.code == Code::NotFound => tracing::warn!(trigger = trigger.key.resource(), %absent, "a trigger has no transport"),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Where a resource lies; `None` for nowhere.
pub(crate) fn location_of(deps: &Deps, resource: &str) -> Option<String> {
    let mut parts = resource.split('/');
    while let Some(part) = parts.next() {
        match part {
            "locations" => return parts.next().map(str::to_owned),
            "buckets" => {
                let bucket = deps.control.bucket_get(parts.next()?).ok()?;
                return Some(bucket.value.location.to_ascii_lowercase());
            }
            _ => {}
        }
    }
    None
}

/// A resource's name as the audit log has it: buckets are in no project.
fn resource_of(resource: &str) -> String {
    let full = if resource.starts_with("buckets/") { format!("projects/_/{resource}") } else { resource.to_owned() };
    cut(&full)
}

fn log_of(call: &Call<'_>) -> AuditLog {
    let authorization = AuthorizationInfo {
        resource: resource_of(&call.resource),
        permission: call.permission.to_owned(),
        granted: call.granted,
        permission_type: PermissionType::AdminWrite as i32,
        ..Default::default()
    };
    AuditLog {
        service_name: call.service.to_owned(),
        method_name: call.method.to_owned(),
        resource_name: resource_of(&call.resource),
        status: Some(call.status.map(|status| rpc::Status { code: status.code as i32, message: cut(&status.outer), details: Vec::new() }).unwrap_or_default()),
        authentication_info: Some(AuthenticationInfo { principal_email: call.who.email.clone(), ..Default::default() }),
        authorization_info: vec![authorization],
        request_metadata: Some(RequestMetadata {
            caller_ip: call.from.address.clone(),
            caller_supplied_user_agent: call.from.user_agent.clone(),
            ..Default::default()
        }),
        ..Default::default()
    }
}

/// The payload of an entry of the log, of the JSON that [`write`] made.
pub(crate) fn payload(json: &str) -> prost_types::Any {
    let log: AuditLog = serde_json::from_str(json).map_err(Status::internal).and_then(transcode::from_json).unwrap_or_else(|error| {
        tracing::error!(%error, "an entry of the audit log cannot be read");
        AuditLog::default()
    });
    prost_types::Any { type_url: <AuditLog as prost::Name>::type_url(), value: log.encode_to_vec() }
}

/// Services of protos whose methods hand out tokens or move data.
const DATA_SERVICES: [&str; 2] = ["google.iam.credentials.v1.IAMCredentials", "google.logging.v2."];
/// Methods that read, by how they begin, and those that move data, whatever service they are of.
const READS: [&str; 8] = ["Get", "List", "Search", "Query", "Test", "BatchGet", "Wait", "Lookup"];
const DATA: [&str; 8] =
    ["AccessSecretVersion", "Pull", "StreamingPull", "Acknowledge", "ModifyAckDeadline", "Publish", "GenerateUploadUrl", "GenerateDownloadUrl"];

/// The name in the audit log of a method of a proto (`SERVICE/METHOD`); `None` for what is not in it.
pub(crate) fn method_of(name: &str) -> Option<String> {
    let (service, method) = name.split_once('/')?;
    let is_data = DATA.contains(&method) || DATA_SERVICES.iter().any(|data| name.starts_with(data));
    if is_data || READS.iter().any(|read| method.starts_with(read)) {
        return None;
    }
    Some(match service {
        // IAM's leave their service out; those of projects are the method alone.
        "google.iam.admin.v1.IAM" => format!("google.iam.admin.v1.{method}"),
        "google.cloud.resourcemanager.v3.Projects" if method == "SetIamPolicy" => method.to_owned(),
        _ => format!("{service}.{method}"),
    })
}

/// Service and method of an endpoint without a proto, by the permission that it needs; `None` for what is not in the audit log.
pub(crate) fn endpoint_of(surface: &str, host: &'static str, verb: &Verb, need: Need) -> Option<(&'static str, String)> {
    if verb == Verb::GET || verb == Verb::HEAD {
        return None;
    }
    let permission = need.permission();
    let (kind, action) = permission.rsplit_once('.')?;
    let method = match (kind, action) {
        (_, "get" | "list" | "getIamPolicy") => return None,
        ("run.services", "create") => "google.cloud.run.v1.Services.CreateService".to_owned(),
        ("run.services", "update") => "google.cloud.run.v1.Services.ReplaceService".to_owned(),
        ("run.services", "delete") => "google.cloud.run.v1.Services.DeleteService".to_owned(),
        ("run.services", "setIamPolicy") => "google.cloud.run.v1.Services.SetIamPolicy".to_owned(),
        ("run.revisions", "delete") => "google.cloud.run.v1.Revisions.DeleteRevision".to_owned(),
        ("resourcemanager.projects", "setIamPolicy") => "SetIamPolicy".to_owned(),
        // Google's name for every change of a group.
        _ if host == "cloudidentity.googleapis.com" => "google.apps.cloudidentity.groups.v1.GroupsService.UpdateGroup".to_owned(),
        ("storage.buckets", "setIamPolicy") => "storage.setIamPermissions".to_owned(),
        // What happens to objects is data.
        ("storage.buckets", _) => permission.to_owned(),
        ("storage.objects" | "storage.multipartUploads", _) => return None,
        _ => format!("{surface}.{permission}"),
    };
    Some((host, method))
}

/// An answer that was already written, as a status; `None` when it went well.
pub(crate) fn status_of(answer: StatusCode) -> Option<Status> {
    let code = match answer.as_u16() {
        ..400 => return None,
        401 => Code::Unauthenticated,
        403 => Code::PermissionDenied,
        404 => Code::NotFound,
        409 => Code::AlreadyExists,
        412 => Code::FailedPrecondition,
        429 => Code::ResourceExhausted,
        400..500 => Code::InvalidArgument,
        503 => Code::Unavailable,
        504 => Code::DeadlineExceeded,
        _ => Code::Internal,
    };
    Some(Status::new(code, answer.canonical_reason().unwrap_or_default()))
}

fn cut(text: &str) -> String {
    text.chars().take(TEXT_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::permission::on;

    #[test]
    fn what_changes_something_is_audited() {
        let check = |name: &str, expect: Option<&str>| assert_eq!(method_of(name).as_deref(), expect, "{name}");
        check("google.cloud.run.v2.Services/CreateService", Some("google.cloud.run.v2.Services.CreateService"));
        check(
            "google.cloud.secretmanager.v1.SecretManagerService/AddSecretVersion",
            Some("google.cloud.secretmanager.v1.SecretManagerService.AddSecretVersion"),
        );
        check("google.iam.admin.v1.IAM/CreateServiceAccount", Some("google.iam.admin.v1.CreateServiceAccount"));
        check("google.cloud.resourcemanager.v3.Projects/SetIamPolicy", Some("SetIamPolicy"));
        for name in [
            "google.cloud.run.v2.Services/GetService",
            "google.cloud.secretmanager.v1.SecretManagerService/AccessSecretVersion",
            "google.iam.credentials.v1.IAMCredentials/GenerateAccessToken",
            "google.logging.v2.LoggingServiceV2/WriteLogEntries",
            "google.iam.admin.v1.IAM/QueryGrantableRoles",
        ] {
            check(name, None);
        }
        let check = |verb: Verb, permission: &'static str, expect: Option<&str>| {
            let found = endpoint_of("run v1", "run.googleapis.com", &verb, on(permission, "projects/{project}"));
            assert_eq!(found.map(|(_, method)| method).as_deref(), expect, "{permission}");
        };
        check(Verb::POST, "run.services.create", Some("google.cloud.run.v1.Services.CreateService"));
        check(Verb::PATCH, "storage.buckets.update", Some("storage.buckets.update"));
        check(Verb::PUT, "storage.buckets.setIamPolicy", Some("storage.setIamPermissions"));
        check(Verb::POST, "storage.objects.create", None);
        check(Verb::GET, "run.services.get", None);
    }

    #[test]
    fn a_call_is_written_down_and_read_back() {
        let who = Identity { kind: iam::Kind::User, email: "a@example.com".into(), subject: "1".into() };
        let refusal = Status::permission_denied("p", "projects/x");
        let call = Call {
            service: "run.googleapis.com",
            method: "google.cloud.run.v2.Services.DeleteService",
            resource: "projects/x/locations/y/services/z".into(),
            location: Some("y".into()),
            project: "x".into(),
            permission: "run.services.delete",
            who: &who,
            granted: false,
            status: Some(&refusal),
            from: &Client { address: "192.0.2.1".into(), user_agent: "curl".into(), hops: Hops::default() },
        };
        let json = transcode::to_json(&log_of(&call)).unwrap();
        assert_eq!((&json["status"]["code"], &json["authenticationInfo"]["principalEmail"]), (&7.into(), &"a@example.com".into()));
        assert_eq!(json["authorizationInfo"][0]["permissionType"], "ADMIN_WRITE");
        assert_eq!(json["requestMetadata"], serde_json::json!({ "callerIp": "192.0.2.1", "callerSuppliedUserAgent": "curl" }));
        let any = payload(&json.to_string());
        assert_eq!(any.type_url, "type.googleapis.com/google.cloud.audit.AuditLog");
        assert_eq!(AuditLog::decode(any.value.as_slice()).unwrap(), log_of(&call));
    }
}
