//! Secret Manager: the same secrets by REST and by gRPC, in Google's shapes.

use base64::{Engine, engine::general_purpose::STANDARD};
use proto::google::cloud::secretmanager::v1 as pb;
use serde_json::{Value as Json, json};

use crate::world::{PROJECT, World};

const HOST: &str = "secretmanager.googleapis.com";

fn secrets() -> String {
    format!("/v1/projects/{PROJECT}/secrets")
}

async fn create(world: &World, id: &str, secret: Json) -> Json {
    world.good("POST", HOST, &format!("{}?secretId={id}", secrets()), Some(secret)).await
}

async fn add(world: &World, id: &str, bytes: &[u8]) -> Json {
    let payload = json!({ "payload": { "data": STANDARD.encode(bytes), "dataCrc32c": crc32c::crc32c(bytes).to_string() } });
    world.good("POST", HOST, &format!("{}/{id}:addVersion", secrets()), Some(payload)).await
}

pub async fn a_secret_lives_and_dies(world: &World) {
    let name = format!("projects/{}/secrets/life", world.number);
    let made = create(world, "life", json!({ "replication": { "automatic": {} }, "labels": { "env": "test" } })).await;
    assert_eq!((&made["name"], &made["replication"]), (&json!(name), &json!({ "automatic": {} })));
    let (status, code, message) = world.bad("POST", HOST, &format!("{}?secretId=life", secrets()), Some(json!({ "replication": { "automatic": {} } }))).await;
    assert_eq!((status, code.as_str(), message), (409, "ALREADY_EXISTS", format!("Secret [{name}] already exists.")));
    let version = add(world, "life", b"canary-of-life").await;
    assert_eq!(
        (&version["name"], &version["state"], &version["clientSpecifiedPayloadChecksum"], &version["replicationStatus"]),
        (&json!(format!("{name}/versions/1")), &json!("ENABLED"), &json!(true), &json!({ "automatic": {} }))
    );
    // By number or id of the project, by REST or gRPC.
    let by_rest = world.good("GET", HOST, &format!("/v1/{name}/versions/latest:access"), None).await;
    let crc = crc32c::crc32c(b"canary-of-life");
    assert_eq!(
        by_rest,
        json!({ "name": format!("{name}/versions/1"), "payload": { "data": STANDARD.encode("canary-of-life"), "dataCrc32c": crc.to_string() } })
    );
    let request = pb::AccessSecretVersionRequest { name: format!("projects/{PROJECT}/secrets/life/versions/1") };
    let method = "google.cloud.secretmanager.v1.SecretManagerService/AccessSecretVersion";
    let by_grpc: pb::AccessSecretVersionResponse = world.grpc(Some(&world.owner), method, &request).await.unwrap();
    assert_eq!(by_grpc.payload.unwrap(), pb::SecretPayload { data: b"canary-of-life".to_vec(), data_crc32c: Some(i64::from(crc)) });
    // Who may see it may not read it.
    world.good("GET", HOST, &format!("{}/life/versions/1", secrets()), None).await;
    let (status, _) = world.call(Some(&world.viewer), "GET", HOST, &format!("{}/life/versions/1", secrets()), None).await;
    assert_eq!(status, 200);
    let (status, _) = world.call(Some(&world.viewer), "GET", HOST, &format!("{}/life/versions/1:access", secrets()), None).await;
    assert_eq!(status, 403);

    let disabled = world.good("POST", HOST, &format!("{}/life/versions/1:disable", secrets()), Some(json!({}))).await;
    assert_eq!(disabled["state"], "DISABLED");
    let refused = world.bad("GET", HOST, &format!("{}/life/versions/1:access", secrets()), None).await;
    assert_eq!(refused, (400, "FAILED_PRECONDITION".to_owned(), format!("Secret Version [{name}/versions/1] is in DISABLED state.")));
    let stale = world.bad("POST", HOST, &format!("{}/life/versions/1:enable", secrets()), Some(json!({ "etag": version["etag"] }))).await;
    assert_eq!((stale.0, stale.1.as_str()), (400, "FAILED_PRECONDITION"));
    world.good("POST", HOST, &format!("{}/life/versions/1:enable", secrets()), Some(json!({ "etag": disabled["etag"] }))).await;
    let destroyed = world.good("POST", HOST, &format!("{}/life/versions/1:destroy", secrets()), Some(json!({}))).await;
    assert!(destroyed["state"] == "DESTROYED" && destroyed["destroyTime"].is_string(), "{destroyed:#}");
    assert_eq!(world.good("DELETE", HOST, &format!("{}/life", secrets()), None).await, json!({}));
    let gone = world.bad("GET", HOST, &format!("{}/life/versions/1:access", secrets()), None).await;
    assert_eq!(gone, (404, "NOT_FOUND".to_owned(), format!("Secret [{name}] not found.")));
}

pub async fn masks_say_what_of_a_secret_changes(world: &World) {
    create(world, "masked", json!({ "replication": { "userManaged": { "replicas": [{ "location": "asia-northeast1" }] } }, "ttl": "3600s" })).await;
    add(world, "masked", b"x").await;
    let patch = async |mask: &str, body: Json| world.good("PATCH", HOST, &format!("{}/masked?updateMask={mask}", secrets()), Some(body)).await;
    let before = world.good("GET", HOST, &format!("{}/masked", secrets()), None).await;
    assert!(before["expireTime"].is_string() && before.get("ttl").is_none(), "{before:#}");
    let labelled = patch("labels", json!({ "labels": { "a": "b" }, "annotations": { "not": "named" } })).await;
    assert_eq!((&labelled["labels"], labelled.get("annotations"), &labelled["expireTime"]), (&json!({ "a": "b" }), None, &before["expireTime"]));
    let more = patch(
        "annotations,version_aliases,versionDestroyTtl,expire_time",
        json!({
            "annotations": { "x": "y" }, "versionAliases": { "prod": "1" }, "versionDestroyTtl": "86400s"
        }),
    )
    .await;
    assert_eq!(
        (&more["annotations"], &more["versionAliases"], &more["versionDestroyTtl"], more.get("expireTime"), &more["labels"]),
        (&json!({ "x": "y" }), &json!({ "prod": "1" }), &json!("86400s"), None, &json!({ "a": "b" }))
    );
    world.good("GET", HOST, &format!("{}/masked/versions/prod:access", secrets()), None).await;
    let scheduled = world.good("POST", HOST, &format!("{}/masked/versions/1:destroy", secrets()), Some(json!({}))).await;
    assert!(scheduled["state"] == "DISABLED" && scheduled["scheduledDestroyTime"].is_string(), "{scheduled:#}");
    let bad = async |mask: &str, body: Json, field: &str| {
        let (status, reply) = world.call(Some(&world.owner), "PATCH", HOST, &format!("{}/masked?updateMask={mask}", secrets()), Some(body)).await;
        assert_eq!((status.as_u16(), &reply["error"]["details"][0]["fieldViolations"][0]["field"]), (400, &json!(field)), "{reply:#}");
    };
    bad("", json!({}), "update_mask").await;
    bad("replication", json!({ "replication": { "automatic": {} } }), "update_mask").await;
    bad("topics", json!({ "topics": [{ "name": "projects/p/topics/t" }] }), "secret.topics").await;
    bad("rotation", json!({ "rotation": { "nextRotationTime": "2030-01-01T00:00:00Z" } }), "secret.rotation").await;
    bad("expireTime", json!({ "expireTime": "2020-01-01T00:00:00Z" }), "secret.expire_time").await;
    bad("ttl", json!({ "ttl": "0s" }), "secret.ttl").await;
    bad("versionAliases", json!({ "versionAliases": { "prod": "9" } }), "secret.version_aliases").await;
    let stale = json!({ "labels": {}, "etag": labelled["etag"] });
    let refused = world.bad("PATCH", HOST, &format!("{}/masked?updateMask=labels", secrets()), Some(stale)).await;
    assert_eq!((refused.0, refused.1.as_str()), (400, "FAILED_PRECONDITION"));
    for body in [json!({}), json!({ "replication": { "automatic": { "customerManagedEncryption": { "kmsKeyName": "k" } } } })] {
        assert_eq!(world.bad("POST", HOST, &format!("{}?secretId=refused", secrets()), Some(body)).await.0, 400);
    }
    assert_eq!(world.bad("POST", HOST, &format!("{}?secretId=a.b", secrets()), Some(json!({ "replication": { "automatic": {} } }))).await.0, 400);
}

pub async fn lists_are_paged_and_filtered(world: &World) {
    for n in 0..5 {
        let env = if n % 2 == 0 { "even" } else { "odd" };
        create(world, &format!("listed-{n}"), json!({ "replication": { "automatic": {} }, "labels": { "list": env } })).await;
    }
    for n in 0..3 {
        add(world, "listed-0", &[n]).await;
    }
    let names = async |path: &str, list: &str| {
        let (mut names, mut token) = (Vec::new(), String::new());
        loop {
            let page = world.good("GET", HOST, &format!("{path}&pageToken={token}"), None).await;
            names.extend(page[list].as_array().into_iter().flatten().map(|item| item["name"].as_str().unwrap().rsplit('/').next().unwrap().to_owned()));
            match page["nextPageToken"].as_str() {
                Some(next) => next.clone_into(&mut token),
                None => return (names, page["totalSize"].clone()),
            }
        }
    };
    let (found, total) = names(&format!("{}?pageSize=2&filter=labels.list:*", secrets()), "secrets").await;
    assert_eq!((found, total), (["listed-4", "listed-3", "listed-2", "listed-1", "listed-0"].map(str::to_owned).to_vec(), Json::Null));
    assert_eq!(names(&format!("{}?filter=labels.list%3Dodd", secrets()), "secrets").await.0, ["listed-3", "listed-1"]);
    assert_eq!(names(&format!("{}?filter=name:listed-2", secrets()), "secrets").await.0, ["listed-2"]);
    let versions = format!("{}/listed-0/versions", secrets());
    world.good("POST", HOST, &format!("{versions}/2:disable"), Some(json!({}))).await;
    assert_eq!(names(&format!("{versions}?pageSize=1"), "versions").await, (["3", "2", "1"].map(str::to_owned).to_vec(), json!(3)));
    assert_eq!(names(&format!("{versions}?filter=state:disabled"), "versions").await.0, ["2"]);
    assert_eq!(world.bad("GET", HOST, &format!("{}?filter=name%3D~x", secrets()), None).await.0, 400);
}

pub async fn a_policy_of_a_secret_lets_one_in(world: &World) {
    create(world, "shared", json!({ "replication": { "automatic": {} } })).await;
    add(world, "shared", b"x").await;
    let access = format!("{}/shared/versions/latest:access", secrets());
    let (status, refusal) = world.call(Some(&world.stranger), "GET", HOST, &access, None).await;
    assert_eq!(status, 403, "{refusal:#}");
    let policy = json!({ "policy": { "bindings": [{ "role": "roles/secretmanager.secretAccessor", "members": ["user:stranger@example.com"] }] } });
    world.good("POST", HOST, &format!("{}/shared:setIamPolicy", secrets()), Some(policy)).await;
    let read = world.good("GET", HOST, &format!("{}/shared:getIamPolicy?options.requestedPolicyVersion=3", secrets()), None).await;
    assert_eq!(read["bindings"][0]["role"], "roles/secretmanager.secretAccessor");
    let (status, _) = world.call(Some(&world.stranger), "GET", HOST, &access, None).await;
    assert_eq!(status, 200);
    let (status, _) = world.call(Some(&world.stranger), "GET", HOST, &format!("{}/shared", secrets()), None).await;
    assert_eq!(status, 403, "accessors see no metadata");
    let asked = json!({ "permissions": ["secretmanager.versions.access", "secretmanager.versions.add"] });
    let (_, tested) = world.call(Some(&world.stranger), "POST", HOST, &format!("{}/shared:testIamPermissions", secrets()), Some(asked)).await;
    assert_eq!(tested["permissions"], json!(["secretmanager.versions.access"]));
    // With the secret its policy goes.
    world.good("DELETE", HOST, &format!("{}/shared", secrets()), None).await;
    create(world, "shared", json!({ "replication": { "automatic": {} } })).await;
    add(world, "shared", b"y").await;
    let (status, _) = world.call(Some(&world.stranger), "GET", HOST, &access, None).await;
    assert_eq!(status, 403);
}
