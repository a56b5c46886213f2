//! run v2: services and builds.

use proto::google::{cloud::run::v2 as pb, longrunning as lro};
use serde_json::json;

use crate::world::{PROJECT, REGION, RUN_REGION, World};

fn services() -> String {
    format!("/v2/projects/{PROJECT}/locations/{REGION}/services")
}

/// Waits for an operation by its name.
async fn done(world: &World, operation: &serde_json::Value) -> serde_json::Value {
    let name = operation["name"].as_str().unwrap();
    for _ in 0..20 {
        let found = world.good("POST", RUN_REGION, &format!("/v2/{name}:wait"), Some(json!({ "timeout": "10s" }))).await;
        if found["done"] == true {
            return found;
        }
    }
    panic!("{name} does not end");
}

pub async fn a_service_lives_and_dies(world: &World) {
    let path = format!("{}/v2-life", services());
    let operation = world.good("POST", RUN_REGION, &format!("{}?serviceId=v2-life", services()), Some(world.v2_service())).await;
    assert_eq!(operation["metadata"]["@type"], "type.googleapis.com/google.cloud.run.v2.Service");
    let again = world.bad("POST", RUN_REGION, &format!("{}?serviceId=v2-life", services()), Some(world.v2_service())).await;
    assert_eq!((again.0, again.1.as_str()), (409, "ALREADY_EXISTS"));

    // Its command does not exist: the deploy fails, and says so.
    let failed = done(world, &operation).await;
    assert!(failed["error"]["message"].as_str().is_some_and(|message| !message.is_empty()), "{failed:#}");
    let service = world.good("GET", RUN_REGION, &path, None).await;
    assert_eq!(service["name"], path.trim_start_matches("/v2/"));
    assert_eq!(service["terminalCondition"]["state"], "CONDITION_FAILED", "{service:#}");
    assert_eq!(service["traffic"], json!([{ "type": "TRAFFIC_TARGET_ALLOCATION_TYPE_LATEST", "percent": 100 }]));
    assert_eq!(service["uri"], format!("https://v2-life-{}.{REGION}.run.app", world.number));
    assert_eq!(service["generation"], "1");
    assert!(service.get("reconciling").is_none(), "{service:#}");

    let revisions = world.good("GET", RUN_REGION, &format!("{path}/revisions"), None).await;
    let revision = revisions["revisions"][0]["name"].as_str().unwrap().to_owned();
    assert_eq!(world.good("GET", RUN_REGION, &format!("/v2/{revision}"), None).await["service"], "v2-life");

    let operation = world.good("DELETE", RUN_REGION, &path, None).await;
    assert!(done(world, &operation).await["response"]["deleteTime"].is_string());
    let gone = world.bad("GET", RUN_REGION, &path, None).await;
    assert_eq!(gone.2, format!("Resource 'v2-life' of kind 'SERVICE' in region '{REGION}' in project '{PROJECT}' does not exist."));
}

pub async fn masks_and_etags_guard_an_update(world: &World) {
    let path = format!("{}/v2-update", services());
    let made = world.good("POST", RUN_REGION, &format!("{}?serviceId=v2-update", services()), Some(world.v2_service())).await;
    done(world, &made).await;
    let before = world.good("GET", RUN_REGION, &path, None).await;
    let etag = before["etag"].clone();

    // Only the named field changes, whatever else the body says.
    let body = json!({ "ingress": "INGRESS_TRAFFIC_INTERNAL_ONLY", "description": "not meant", "etag": etag });
    world.good("PATCH", RUN_REGION, &format!("{path}?updateMask=ingress"), Some(body.clone())).await;
    let after = world.good("GET", RUN_REGION, &path, None).await;
    assert_eq!(after["ingress"], "INGRESS_TRAFFIC_INTERNAL_ONLY");
    assert_eq!((&after["description"], &after["template"]), (&before["description"], &before["template"]));
    assert_eq!(after["latestCreatedRevision"], before["latestCreatedRevision"], "no revision was made");

    let stale = world.bad("PATCH", RUN_REGION, &format!("{path}?updateMask=ingress"), Some(body)).await;
    assert_eq!((stale.0, stale.1.as_str()), (409, "ABORTED"), "{}", stale.2);
    let unknown = world.bad("PATCH", RUN_REGION, &format!("{path}?updateMask=nothing"), Some(json!({}))).await;
    assert_eq!((unknown.0, unknown.1.as_str()), (400, "INVALID_ARGUMENT"));

    // What is only checked is not kept.
    let checked = world.good("PATCH", RUN_REGION, &format!("{path}?updateMask=description&validateOnly=true"), Some(json!({ "description": "new" }))).await;
    assert_eq!(checked["response"]["description"], "new");
    assert!(world.good("GET", RUN_REGION, &path, None).await.get("description").is_none());

    // A whole service that was read and written back is the same service.
    let whole = world.good("GET", RUN_REGION, &path, None).await;
    world.good("PATCH", RUN_REGION, &path, Some(whole.clone())).await;
    assert_eq!(world.good("GET", RUN_REGION, &path, None).await["generation"], whole["generation"]);
}

pub async fn grpc_and_rest_are_one(world: &World) {
    let parent = format!("projects/{PROJECT}/locations/{REGION}");
    let service = pb::Service {
        template: Some(pb::RevisionTemplate { containers: vec![pb::Container { image: world.image.clone(), ..Default::default() }], ..Default::default() }),
        labels: [("made".to_owned(), "by-grpc".to_owned())].into(),
        ..Default::default()
    };
    let request = pb::CreateServiceRequest { parent: parent.clone(), service_id: "v2-grpc".to_owned(), service: Some(service), validate_only: false };
    let operation: lro::Operation = world.grpc(Some(&world.owner), "google.cloud.run.v2.Services/CreateService", &request).await.unwrap();
    assert!(operation.name.starts_with(&format!("{parent}/operations/")));
    let seen = world.good("GET", RUN_REGION, &format!("{}/v2-grpc", services()), None).await;
    assert_eq!(seen["labels"], json!({ "made": "by-grpc" }));

    let bad = pb::CreateServiceRequest { service: None, ..request };
    let error = world.grpc::<lro::Operation>(Some(&world.owner), "google.cloud.run.v2.Services/CreateService", &bad).await.unwrap_err();
    assert_eq!(error.0, tonic::Code::InvalidArgument);
    let malformed = pb::GetServiceRequest { name: "services/x".to_owned() };
    let error = world.grpc::<pb::Service>(Some(&world.owner), "google.cloud.run.v2.Services/GetService", &malformed).await.unwrap_err();
    assert_eq!(error.0, tonic::Code::InvalidArgument);
    assert!(error.1.contains("projects/{project}/locations/{location}/services/{service}"), "{}", error.1);
}

pub async fn a_build_without_its_source_is_refused(world: &World) {
    let path = format!("/v2/projects/{PROJECT}/locations/{REGION}/builds:submit");
    let submit = |pack: serde_json::Value| {
        json!({
            "storageSource": { "bucket": "no-such-bucket-1", "object": "source.zip", "generation": "1" },
            "imageUri": format!("{REGION}-docker.pkg.dev/{PROJECT}/cloud-run-source-deploy/f"),
            "buildpackBuild": pack,
        })
    };
    let (status, _, message) = world.bad("POST", RUN_REGION, &path, Some(submit(json!({ "baseImage": "python312", "functionTarget": "f" })))).await;
    assert!((400..500).contains(&status), "{status} {message}");
    for (body, field) in [
        (json!({}), "storage_source"),
        (json!({ "storageSource": { "bucket": "b", "object": "o" }, "dockerBuild": {} }), "docker_build"),
        (json!({ "storageSource": { "bucket": "b", "object": "o" } }), "buildpack_build"),
        (json!({ "workerPool": "p" }), "worker_pool"),
        (submit(json!({ "projectDescriptor": "x" })), "buildpack_build.project_descriptor"),
    ] {
        let (status, name, message) = world.bad("POST", RUN_REGION, &path, Some(body)).await;
        assert_eq!((status, name.as_str()), (400, "INVALID_ARGUMENT"), "{message}");
        assert!(message.starts_with(field), "{message}");
    }
}
