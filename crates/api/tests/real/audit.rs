//! The audit log: calls that change something, by every way in, and nothing secret.

use base64::{Engine, engine::general_purpose::STANDARD};
use proto::google::cloud::secretmanager::v1 as pb;
use serde_json::{Value as Json, json};

use crate::{
    http::{JSON, send},
    world::{PROJECT, REGION, RUN_REGION, World},
};

const SECRETS: &str = "secretmanager.googleapis.com";

/// The entries that `filter` matches, oldest first.
async fn entries(world: &World, filter: &str) -> Vec<Json> {
    let filter = format!("logName=\"projects/{PROJECT}/logs/cloudaudit.googleapis.com%2Factivity\" AND {filter}");
    let body = json!({ "resourceNames": [format!("projects/{PROJECT}")], "filter": filter, "pageSize": 100 });
    // A call is written down before its answer, and readable a moment later.
    for _ in 0..200 {
        let page = world.good("POST", "logging.googleapis.com", "/v2/entries:list", Some(body.clone())).await;
        if let Some(found) = page["entries"].as_array().filter(|found| !found.is_empty()) {
            return found.clone();
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    Vec::new()
}

pub async fn calls_that_change_something_are_written_down(world: &World) {
    let path = format!("/v1/projects/{PROJECT}/secrets");
    world.good("POST", SECRETS, &format!("{path}?secretId=audited"), Some(json!({ "replication": { "automatic": {} } }))).await;
    let found = entries(world, "protoPayload.methodName=\"google.cloud.secretmanager.v1.SecretManagerService.CreateSecret\" AND severity=NOTICE").await;
    let payload = &found.last().unwrap()["protoPayload"];
    assert_eq!(payload["@type"], "type.googleapis.com/google.cloud.audit.AuditLog");
    assert_eq!((&payload["serviceName"], &payload["authenticationInfo"]["principalEmail"]), (&json!(SECRETS), &json!("owner@example.com")));
    let allowed =
        json!([{ "resource": format!("projects/{PROJECT}"), "permission": "secretmanager.secrets.create", "granted": true, "permissionType": "ADMIN_WRITE" }]);
    assert_eq!(payload["authorizationInfo"], allowed, "{payload:#}");
    assert_eq!(found[0]["resource"]["type"], "audited_resource");

    // By gRPC, and refused: with the reason.
    let method = "google.cloud.secretmanager.v1.SecretManagerService/AddSecretVersion";
    let parent = format!("projects/{PROJECT}/secrets/audited");
    let request = pb::AddSecretVersionRequest {
        parent: parent.clone(),
        payload: Some(pb::SecretPayload { data: b"canary-of-the-audit-log".to_vec(), data_crc32c: None }),
    };
    let refused: Result<pb::SecretVersion, _> = world.grpc(Some(&world.viewer), method, &request).await;
    assert_eq!(refused.unwrap_err().0, tonic::Code::PermissionDenied);
    let _: pb::SecretVersion = world.grpc(Some(&world.owner), method, &request).await.unwrap();
    let filter = format!("protoPayload.methodName:AddSecretVersion AND protoPayload.resourceName=\"{parent}\"");
    let refused = entries(world, &format!("{filter} AND severity=ERROR")).await;
    let payload = &refused[0]["protoPayload"];
    assert_eq!((&payload["status"]["code"], &payload["authorizationInfo"][0].get("granted")), (&json!(7), &None), "{payload:#}");
    assert_eq!(payload["authenticationInfo"]["principalEmail"], "viewer@example.com");
    let written = entries(world, &format!("{filter} AND severity=NOTICE")).await;
    assert_eq!(written[0]["protoPayload"]["status"], json!({}));

    // Without a proto.
    world.good("POST", RUN_REGION, &format!("/apis/serving.knative.dev/v1/namespaces/{PROJECT}/services"), Some(world.v1_service("audited"))).await;
    let v1 = entries(world, "protoPayload.methodName=\"google.cloud.run.v1.Services.CreateService\" AND severity=NOTICE").await;
    assert_eq!(v1[0]["protoPayload"]["serviceName"], "run.googleapis.com");
    world.good("DELETE", RUN_REGION, &format!("/v2/projects/{PROJECT}/locations/{REGION}/services/audited"), None).await;
    let v2 = entries(world, "protoPayload.methodName=\"google.cloud.run.v2.Services.DeleteService\" AND protoPayload.resourceName:audited").await;
    assert_eq!(v2[0]["protoPayload"]["resourceName"], format!("projects/{PROJECT}/locations/{REGION}/services/audited"));

    // Neither a payload nor a read of one is in it.
    world.good("GET", SECRETS, &format!("{path}/audited/versions/1:access"), None).await;
    let all: String = entries(world, "timestamp>\"2020-01-01T00:00:00Z\"").await.iter().map(Json::to_string).collect();
    for absent in ["canary-of-the-audit-log", &STANDARD.encode("canary-of-the-audit-log"), "AccessSecretVersion", "ListLogEntries", "ya29."] {
        assert!(!all.contains(absent), "{absent}");
    }
    let logs = world.good("GET", "logging.googleapis.com", &format!("/v2/projects/{PROJECT}/logs"), None).await;
    assert!(logs["logNames"].as_array().unwrap().contains(&json!(format!("projects/{PROJECT}/logs/cloudaudit.googleapis.com%2Factivity"))), "{logs:#}");
}

/// A caller who hangs up while the change is being made, by either way in.
pub async fn a_call_that_its_caller_left_is_written_down(world: &World) {
    let secrets = format!("/v1/projects/{PROJECT}/secrets");
    for (host, path, body, method) in [
        (SECRETS, format!("{secrets}?secretId=left"), r#"{"replication":{"automatic":{}}}"#, "google.cloud.secretmanager.v1.SecretManagerService.CreateSecret"),
        ("storage.googleapis.com", format!("/storage/v1/b?project={PROJECT}"), r#"{"name":"left-1"}"#, "storage.buckets.create"),
    ] {
        {
            let (url, headers) = (format!("https://{host}{path}"), [JSON, ("user-agent", "left")]);
            let call = send(&world.api, Some(&world.owner), "POST", &url, &headers, body);
            tokio::pin!(call);
            assert!(futures_util::poll!(call).is_pending(), "{method}");
        }
        let filter = format!("protoPayload.methodName=\"{method}\" AND protoPayload.requestMetadata.callerSuppliedUserAgent=\"left\" AND severity=NOTICE");
        assert_eq!(entries(world, &filter).await.len(), 1, "{method}");
    }
    // What is gone afterwards is written down in the project that it was of.
    world.good("DELETE", SECRETS, &format!("{secrets}/left"), None).await;
    send(&world.api, Some(&world.owner), "DELETE", "https://storage.googleapis.com/storage/v1/b/left-1", &[], "").await.good();
    let deleted = entries(world, "protoPayload.methodName=\"storage.buckets.delete\" AND protoPayload.resourceName=\"projects/_/buckets/left-1\"").await;
    assert_eq!(deleted.len(), 1);
}

pub async fn the_callers_address_is_written_down(world: &World) {
    let path = |id: &str| format!("/v1/projects/{PROJECT}/secrets?secretId={id}");
    let body = r#"{"replication":{"automatic":{}}}"#;
    for (id, address, expect) in [("address-1", Some("::ffff:192.0.2.7"), "192.0.2.7"), ("address-2", None, "private")] {
        let mut request =
            http::Request::post(path(id)).header("host", SECRETS).header("authorization", format!("Bearer {}", world.owner)).header("user-agent", id);
        if let Some(address) = address {
            request = request.extension(api::CallerAddress(address.parse().unwrap()));
        }
        let answer = world.api.handle(SECRETS, request.body(axum::body::Body::from(body)).unwrap()).await;
        assert_eq!(answer.status(), 200);
        let found = entries(world, &format!("protoPayload.requestMetadata.callerSuppliedUserAgent=\"{id}\"")).await;
        assert_eq!(found[0]["protoPayload"]["requestMetadata"]["callerIp"], expect, "{id}");
        world.good("DELETE", SECRETS, &format!("/v1/projects/{PROJECT}/secrets/{id}"), None).await;
    }
}
