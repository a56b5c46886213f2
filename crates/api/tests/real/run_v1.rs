//! run v1, as gcloud uses it.

use serde_json::{Value as Json, json};

use crate::world::{PROJECT, REGION, RUN, RUN_REGION, World};

const SERVICES: &str = "/apis/serving.knative.dev/v1/namespaces/local-project/services";

fn condition<'a>(resource: &'a Json, kind: &str) -> &'a Json {
    resource["status"]["conditions"].as_array().unwrap().iter().find(|c| c["type"] == kind).unwrap_or(&Json::Null)
}

/// A service that was made, settled.
async fn made(world: &World, name: &str) -> Json {
    world.good("POST", RUN_REGION, SERVICES, Some(world.v1_service(name))).await
}

pub async fn a_deploy_ends_in_conditions_that_say_why(world: &World) {
    let service = made(world, "v1-deploy").await;
    // What gcloud reads. Its command does not exist, so the reply tells of the failure at once.
    assert_eq!(service["metadata"]["namespace"], world.number.to_string());
    assert_eq!(service["metadata"]["labels"]["cloud.googleapis.com/location"], REGION);
    assert_eq!(service["status"]["observedGeneration"], service["metadata"]["generation"]);
    assert_eq!(service["status"]["conditions"][0]["type"], "Ready");
    assert_eq!(condition(&service, "Ready")["status"], "False", "{service:#}");
    assert_eq!(condition(&service, "ConfigurationsReady")["status"], "False");
    assert!(!condition(&service, "Ready")["message"].as_str().unwrap().is_empty());
    assert!(service["metadata"]["annotations"]["run.googleapis.com/operation-id"].is_string());

    // The same by the project's number, and in the list of all regions.
    let by_number = format!("/apis/serving.knative.dev/v1/namespaces/{}/services/v1-deploy", world.number);
    assert_eq!(world.good("GET", RUN_REGION, &by_number, None).await["metadata"]["uid"], service["metadata"]["uid"]);
    let list = world.good("GET", RUN, &format!("/v1/projects/{PROJECT}/locations/-/services"), None).await;
    assert!(list["items"].as_array().unwrap().iter().any(|item| item["metadata"]["name"] == "v1-deploy"));

    let deleted = world.good("DELETE", RUN_REGION, &format!("{SERVICES}/v1-deploy"), None).await;
    assert_eq!((deleted["kind"].as_str(), deleted["status"].as_str()), (Some("Status"), Some("Success")));
    let gone = world.bad("GET", RUN_REGION, &format!("{SERVICES}/v1-deploy"), None).await;
    assert_eq!((gone.0, gone.1.as_str()), (404, "NOT_FOUND"));
}

pub async fn a_writer_who_has_not_read_is_told(world: &World) {
    let path = format!("{SERVICES}/v1-write");
    let first = made(world, "v1-write").await;
    let mut change = first.clone();
    change["metadata"]["annotations"]["run.googleapis.com/ingress"] = json!("internal");
    let second = world.good("PUT", RUN_REGION, &path, Some(change.clone())).await;
    assert_eq!(second["metadata"]["annotations"]["run.googleapis.com/ingress-status"], "internal");
    assert_eq!(second["metadata"]["generation"], 2);
    // Only the service changed: no revision was made.
    assert_eq!(second["status"]["latestCreatedRevisionName"], first["status"]["latestCreatedRevisionName"]);

    let stale = world.bad("PUT", RUN_REGION, &path, Some(change)).await;
    assert_eq!((stale.0, stale.1.as_str()), (409, "ABORTED"), "{}", stale.2);
    let mut other = second.clone();
    other["metadata"]["name"] = json!("another");
    assert_eq!(world.bad("PUT", RUN_REGION, &path, Some(other)).await.0, 400);
    let mut elsewhere = second.clone();
    elsewhere["metadata"]["namespace"] = json!("another-project");
    assert_eq!(world.bad("PUT", RUN_REGION, &path, Some(elsewhere)).await.0, 400);

    // A template with another nonce is another revision.
    let mut forced = second.clone();
    forced["spec"]["template"]["metadata"]["labels"] = json!({ "client.knative.dev/nonce": "another" });
    let third = world.good("PUT", RUN_REGION, &path, Some(forced)).await;
    assert_ne!(third["status"]["latestCreatedRevisionName"], second["status"]["latestCreatedRevisionName"]);
}

/// As `gcloud run services describe` of Google's shows a service that was made of an image alone.
pub async fn defaults_are_shown_and_written_back(world: &World) {
    made(world, "v1-default").await;
    let path = format!("{SERVICES}/v1-default");
    let shown = world.good("GET", RUN_REGION, &path, None).await;
    let spec = json!({
        "containerConcurrency": 80,
        "timeoutSeconds": 300,
        "serviceAccountName": world.compute(),
        "containers": [{
            "image": world.image,
            "name": "",
            "ports": [{ "name": "http1", "containerPort": 8080 }],
            "resources": { "limits": { "cpu": "1000m", "memory": "512Mi" } },
            "startupProbe": { "failureThreshold": 1, "periodSeconds": 240, "timeoutSeconds": 240, "tcpSocket": { "port": 8080 } },
        }],
    });
    assert_eq!(shown["spec"]["template"]["spec"], spec, "{shown:#}");
    // What was shown, and what it was made of: no difference, either way.
    let again = world.good("PUT", RUN_REGION, &path, Some(shown.clone())).await;
    let bare = world.good("PUT", RUN_REGION, &path, Some(world.v1_service("v1-default"))).await;
    for same in [again, bare] {
        assert_eq!((&same["metadata"]["generation"], &same["spec"]), (&shown["metadata"]["generation"], &shown["spec"]));
        assert_eq!(same["status"]["latestCreatedRevisionName"], shown["status"]["latestCreatedRevisionName"]);
    }

    let v2 = format!("/v2/projects/{PROJECT}/locations/{REGION}/services/v1-default");
    let service = world.good("GET", RUN_REGION, &v2, None).await;
    let template = json!({
        "maxInstanceRequestConcurrency": 80,
        "timeout": "300s",
        "serviceAccount": world.compute(),
        "containers": [{
            "image": world.image,
            "ports": [{ "name": "http1", "containerPort": 8080 }],
            "resources": { "limits": { "cpu": "1000m", "memory": "512Mi" }, "cpuIdle": true },
            "startupProbe": { "failureThreshold": 1, "periodSeconds": 240, "timeoutSeconds": 240, "tcpSocket": { "port": 8080 } },
        }],
    });
    assert_eq!(service["template"], template, "{service:#}");
    world.good("PATCH", RUN_REGION, &v2, Some(service.clone())).await;
    let bare = json!({ "template": world.v2_service()["template"] });
    world.good("PATCH", RUN_REGION, &format!("{v2}?updateMask=template"), Some(bare)).await;
    let after = world.good("GET", RUN_REGION, &v2, None).await;
    assert_eq!((&after["generation"], &after["template"]), (&service["generation"], &service["template"]));

    // A port moves its probe, as gcloud writes it; a fraction of a processor serves one request at a time.
    let mut moved = world.v1_service("v1-default");
    let container = &mut moved["spec"]["template"]["spec"]["containers"][0];
    container["ports"] = json!([{ "containerPort": 9090 }]);
    container["resources"] = json!({ "limits": { "cpu": "500m" } });
    let moved = world.good("PUT", RUN_REGION, &path, Some(moved)).await;
    let spec = &moved["spec"]["template"]["spec"];
    assert_eq!((&spec["containers"][0]["startupProbe"]["tcpSocket"]["port"], &spec["containerConcurrency"]), (&json!(9090), &json!(1)));
}

pub async fn a_dry_run_leaves_nothing(world: &World) {
    let service = world.good("POST", RUN_REGION, &format!("{SERVICES}?dryRun=all"), Some(world.v1_service("v1-dry"))).await;
    assert_eq!(service["metadata"]["name"], "v1-dry");
    assert_eq!(world.bad("GET", RUN_REGION, &format!("{SERVICES}/v1-dry"), None).await.0, 404);
    assert_eq!(world.bad("POST", RUN_REGION, &format!("{SERVICES}?dryRun=some"), Some(world.v1_service("v1-dry"))).await.0, 400);
}

/// The dry run of `gcloud beta run deploy --source`, before its build.
pub async fn a_dry_run_comes_before_the_build(world: &World) {
    let dry = |name: &str, image: String| {
        json!({
            "apiVersion": "serving.knative.dev/v1", "kind": "Service",
            "metadata": {
                "annotations": {
                    "run.googleapis.com/client-name": "gcloud", "run.googleapis.com/client-version": "528.0.0",
                    "run.googleapis.com/invoker-iam-disabled": "True", "run.googleapis.com/launch-stage": "BETA"
                },
                "labels": {}, "name": name, "namespace": PROJECT
            },
            "spec": { "template": {
                "metadata": {
                    "annotations": {
                        "run.googleapis.com/base-images": "{\"\":\"python312\"}", "run.googleapis.com/client-name": "gcloud",
                        "run.googleapis.com/client-version": "528.0.0", "run.googleapis.com/startup-cpu-boost": "True"
                    },
                    "labels": {}
                },
                "spec": { "containers": [{ "image": image, "name": "" }], "nodeSelector": {}, "runtimeClassName": "run.googleapis.com/linux-base-image-update" }
            } },
            "status": { "address": {} }
        })
    };
    let image = format!("{REGION}-docker.pkg.dev/{PROJECT}/cloud-run-source-deploy/v1-first");
    let first = world.good("POST", RUN_REGION, &format!("{SERVICES}?alt=json&dryRun=all"), Some(dry("v1-first", image.clone()))).await;
    assert_eq!(first["spec"]["template"]["spec"]["containers"][0]["image"], image);
    assert_eq!(world.bad("POST", RUN_REGION, SERVICES, Some(dry("v1-first", image.clone()))).await.0, 400);
    // Of a service that is there, as its second deploy sends it.
    let mut again = made(world, "v1-again").await;
    again["spec"]["template"]["spec"]["containers"][0]["image"] = json!(image);
    world.good("PUT", RUN_REGION, &format!("{SERVICES}/v1-again?dryRun=all"), Some(again)).await;

    let v2 = format!("/v2/projects/{PROJECT}/locations/{REGION}/services");
    let body = json!({ "template": { "containers": [{ "image": image }] } });
    let made = world.good("POST", RUN_REGION, &format!("{v2}?serviceId=v2-first&validateOnly=true"), Some(body.clone())).await;
    assert_eq!(made["response"]["template"]["containers"][0]["image"], image);
    world.good("PATCH", RUN_REGION, &format!("{v2}/v1-again?validateOnly=true&updateMask=template"), Some(body.clone())).await;
    assert_eq!(world.bad("PATCH", RUN_REGION, &format!("{v2}/v1-again?updateMask=template"), Some(body)).await.0, 400);
}

pub async fn operations_are_waited_for(world: &World) {
    let service = made(world, "v1-wait").await;
    let id = service["metadata"]["annotations"]["run.googleapis.com/operation-id"].as_str().unwrap().to_owned();
    let path = format!("/v1/projects/{PROJECT}/locations/{REGION}/operations/{id}");
    let mut operation = Json::Null;
    for _ in 0..20 {
        operation = world.good("POST", RUN_REGION, &format!("{path}:wait"), Some(json!({ "timeout": "30s" }))).await;
        if operation["done"] == true {
            break;
        }
    }
    assert_eq!(operation["done"], true, "{operation:#}");
    // It went wrong, and gcloud wants the service all the same: its conditions say which stage failed.
    assert!(operation.get("error").is_none());
    assert_eq!(operation["response"]["@type"], "type.googleapis.com/google.cloud.run.v1.Service");
    assert_eq!(condition(&operation["response"], "Ready")["status"], "False");
    assert_eq!(world.good("GET", RUN_REGION, &path, None).await["done"], true);
    assert_eq!(world.bad("POST", RUN_REGION, &format!("{path}0:wait"), Some(json!({}))).await.0, 404);
    assert_eq!(world.bad("POST", RUN_REGION, &format!("{path}:wait"), Some(json!({ "timeout": "soon" }))).await.0, 400);
}

pub async fn views_of_a_service_agree(world: &World) {
    let service = made(world, "v1-views").await;
    let base = "/apis/serving.knative.dev/v1/namespaces/local-project";
    let configuration = world.good("GET", RUN_REGION, &format!("{base}/configurations/v1-views"), None).await;
    assert_eq!(configuration["spec"]["template"], service["spec"]["template"]);
    assert_eq!(condition(&configuration, "Ready")["status"], condition(&service, "ConfigurationsReady")["status"]);
    let route = world.good("GET", RUN_REGION, &format!("{base}/routes/v1-views"), None).await;
    assert_eq!(route["status"]["url"], service["status"]["url"]);
    assert_eq!(route["spec"]["traffic"], service["spec"]["traffic"]);

    let revision = service["status"]["latestCreatedRevisionName"].as_str().unwrap();
    let selector = "serving.knative.dev%2Fservice%20%3D%20v1-views";
    let list = world.good("GET", RUN_REGION, &format!("{base}/revisions?labelSelector={selector}"), None).await;
    assert_eq!(list["items"].as_array().unwrap().len(), 1);
    let found = &list["items"][0];
    assert_eq!(found["metadata"]["name"], revision);
    assert_eq!(found["metadata"]["labels"]["serving.knative.dev/service"], "v1-views");
    assert_eq!(found["status"]["imageDigest"], world.image);
    assert_eq!(condition(found, "Ready")["status"], "False");
    let one = world.good("GET", RUN_REGION, &format!("{base}/revisions/{revision}"), None).await;
    assert_eq!((&one["spec"], &one["metadata"]["uid"]), (&found["spec"], &found["metadata"]["uid"]));
    let latest = world.bad("DELETE", RUN_REGION, &format!("{base}/revisions/{revision}"), None).await;
    assert!((400..500).contains(&latest.0), "{latest:?}");
}
