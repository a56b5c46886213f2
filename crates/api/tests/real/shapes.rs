//! Requests and answers as such: errors in Google's words, system parameters, hosts.

use http::StatusCode;
use serde_json::json;

use crate::world::{PROJECT, REGION, RUN, RUN_REGION, World};

pub async fn what_is_not_served_is_not_found(world: &World) {
    let check = async |method: &str, host: &str, path: &str, says: &str| {
        let (status, name, message) = world.bad(method, host, path, None).await;
        assert_eq!((status, name.as_str()), (404, "NOT_FOUND"), "{path}: {message}");
        assert!(message.contains(says), "{path}: {message}");
    };
    check("GET", RUN_REGION, &format!("/apis/run.googleapis.com/v1/namespaces/{PROJECT}/jobs"), "Cloud Run jobs").await;
    check("POST", RUN_REGION, &format!("/v2/projects/{PROJECT}/locations/{REGION}/jobs?jobId=j"), "Cloud Run jobs").await;
    check("GET", RUN_REGION, &format!("/v2/projects/{PROJECT}/locations/{REGION}/workerPools"), "worker pools").await;
    check("GET", RUN, "/nothing", "GET /nothing").await;
    check("PATCH", RUN_REGION, &format!("/apis/serving.knative.dev/v1/namespaces/{PROJECT}/services/s"), "PATCH").await;
    check("GET", RUN, &format!("/v1/projects/{PROJECT}/locations/{REGION}/services/s:undelete"), "undelete").await;
    // An API does not answer on another's host.
    check("GET", "logging.googleapis.com", &format!("/v2/projects/{PROJECT}/locations/{REGION}/services"), "logging.googleapis.com").await;
    check("PUT", "storage.googleapis.com", "/storage/v1/nothing", "PUT /storage/v1/nothing").await;
}

pub async fn bad_requests_are_named(world: &World) {
    let services = format!("/v2/projects/{PROJECT}/locations/{REGION}/services");
    let create = format!("{services}?serviceId=s");
    let check = async |path: &str, body: serde_json::Value, field: &str| {
        let (status, reply) = world.call(Some(&world.owner), "POST", RUN_REGION, path, Some(body)).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{path}: {reply:#}");
        assert_eq!(reply["error"]["details"][0]["@type"], "type.googleapis.com/google.rpc.BadRequest", "{reply:#}");
        assert_eq!(reply["error"]["details"][0]["fieldViolations"][0]["field"], field, "{reply:#}");
    };
    check(&create, json!({ "surprise": 1 }), "service").await;
    check(&create, json!({ "template": { "containers": [{ "imagine": "x" }] } }), "service.template.containers[0]").await;
    check(&format!("{create}&surprise=1"), json!({}), "surprise").await;
    check(&format!("{create}&validateOnly=maybe"), json!({}), "validateOnly").await;
    check(&format!("{create}&alt=media"), json!({}), "alt").await;
    check(&format!("{create}&fields=("), json!({}), "fields").await;
    check(&create, json!({ "template": { "vpcAccess": {}, "containers": [{ "image": "i" }] } }), "template.vpc_access").await;
    check(&format!("{services}?serviceId=Bad_Name"), world.v2_service(), "service_id").await;

    let raw = async |body: Vec<u8>| {
        let (status, body) = world.raw(Some(&world.owner), "POST", RUN_REGION, &create, "application/json", body).await;
        (status, String::from_utf8(body).unwrap())
    };
    for body in [b"{".to_vec(), b"[]".to_vec(), b"\xff".to_vec(), "[".repeat(10_000).into_bytes()] {
        let (status, text) = raw(body).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{text}");
        assert!(text.contains("Invalid JSON payload received"), "{text}");
    }
    let (status, text) = raw(vec![b' '; (10 << 20) + 1]).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert!(text.contains("payload size exceeds the limit"), "{text}");
    let (status, _) = world.call(Some(&world.owner), "GET", RUN_REGION, &services, Some(json!({ "parent": "x" }))).await;
    assert_eq!(status, StatusCode::BAD_REQUEST, "a GET has no body");
}

pub async fn the_answer_is_as_asked_for(world: &World) {
    let regions = format!("/v1/projects/{PROJECT}/locations?pageSize=1");
    let text = async |path: &str| {
        let (status, body) = world.raw(Some(&world.owner), "GET", RUN, path, "application/json", Vec::new()).await;
        let text = String::from_utf8(body).unwrap();
        assert_eq!(status, StatusCode::OK, "{text}");
        text
    };
    assert!(text(&regions).await.starts_with("{\n  \"locations\": [\n"));
    assert!(text(&format!("{regions}&prettyPrint=false")).await.starts_with("{\"locations\":[{"));
    assert_eq!(text(&format!("{regions}&prettyPrint=false&fields=locations/locationId")).await, r#"{"locations":[{"locationId":"africa-south1"}]}"#);
    let api = format!("/v1/projects/{PROJECT}/services/run.googleapis.com?prettyPrint=false&fields=state");
    let state = async |path: &str| {
        let (_, body) = world.raw(Some(&world.owner), "GET", "serviceusage.googleapis.com", path, "application/json", Vec::new()).await;
        String::from_utf8(body).unwrap()
    };
    assert_eq!(state(&api).await, r#"{"state":"ENABLED"}"#);
    // As Google's Python clients ask.
    assert_eq!(state(&format!("{api}&%24alt=json%3Benum-encoding%3Dint")).await, r#"{"state":2}"#);
}

pub async fn everything_answers_on_one_host(world: &World) {
    for host in ["127.0.0.1", "localhost"] {
        world.good("GET", host, &format!("/v1/projects/{PROJECT}/services/run.googleapis.com"), None).await;
        world.good("GET", host, &format!("/v1/projects/{PROJECT}/locations"), None).await;
        world.good("GET", host, &format!("/v1/projects/{PROJECT}"), None).await;
        world.good("GET", host, &format!("/apis/serving.knative.dev/v1/namespaces/{PROJECT}/services"), None).await;
        world.good("GET", host, &format!("/v2/projects/{PROJECT}/locations/{REGION}/services"), None).await;
    }
    // The region in front of any host is the request's.
    let list = world.good("GET", "europe-west1-run.localhost", &format!("/apis/serving.knative.dev/v1/namespaces/{PROJECT}/services"), None).await;
    assert_eq!(list["items"], json!([]));
}
