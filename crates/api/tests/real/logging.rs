//! Logging v2: entries written and read.

use serde_json::{Value as Json, json};

use crate::world::{PROJECT, REGION, World};

const LOGGING: &str = "logging.googleapis.com";

fn entry(service: &str, at: &str, text: &str) -> Json {
    json!({
        "logName": format!("projects/{PROJECT}/logs/run.googleapis.com%2Fstdout"),
        "resource": { "type": "cloud_run_revision", "labels": { "service_name": service, "revision_name": format!("{service}-1"), "location": REGION } },
        "timestamp": at, "severity": "WARNING", "textPayload": text, "labels": { "instanceId": "i1" },
    })
}

pub async fn entries_are_written_and_read(world: &World) {
    let now = model::Timestamp::now();
    let at = |seconds: i64| (now - jiff::SignedDuration::from_secs(seconds)).to_string();
    let mut request = entry("logged-1", &at(1), "last");
    request["logName"] = format!("projects/{PROJECT}/logs/run.googleapis.com%2Frequests").into();
    request["httpRequest"] =
        json!({ "requestMethod": "POST", "requestUrl": "https://x/", "status": 200, "responseSize": "16", "latency": "0.123s", "protocol": "HTTP/1.1" });
    request.as_object_mut().unwrap().remove("textPayload");
    let entries = json!([entry("logged-1", &at(3), "first"), entry("logged-1", &at(2), "second"), request, entry("logged-2", &at(2), "other")]);
    world.good("POST", LOGGING, "/v2/entries:write", Some(json!({ "entries": entries }))).await;

    // As `gcloud run services logs read` asks.
    let filter = format!(
        "resource.type = cloud_run_revision \n AND resource.labels.service_name = logged-1 \n AND resource.labels.location = {REGION} \n AND severity >= DEFAULT \n AND timestamp>=\"{}\"",
        at(3600)
    );
    let mut ask = json!({ "filter": filter, "orderBy": "timestamp desc", "pageSize": 2, "resourceNames": [format!("projects/{PROJECT}")] });
    let first = world.good("POST", LOGGING, "/v2/entries:list", Some(ask.clone())).await;
    assert_eq!((&first["entries"][0]["httpRequest"]["latency"], &first["entries"][0]["httpRequest"]["responseSize"]), (&json!("0.123s"), &json!("16")));
    assert_eq!((&first["entries"][1]["textPayload"], &first["entries"][1]["severity"]), (&json!("second"), &json!("WARNING")));
    assert_eq!(first["entries"][1]["resource"]["labels"]["configuration_name"], "logged-1");
    assert_eq!(first["entries"][1]["labels"]["instanceId"], "i1");
    ask["pageToken"] = first["nextPageToken"].clone();
    let second = world.good("POST", LOGGING, "/v2/entries:list", Some(ask.clone())).await;
    assert_eq!(second["entries"].as_array().unwrap().iter().map(|entry| &entry["textPayload"]).collect::<Vec<_>>(), [&json!("first")]);
    // A token is of one list only.
    ask["filter"] = "".into();
    assert_eq!(world.bad("POST", LOGGING, "/v2/entries:list", Some(ask)).await.0, 400);
    let logs = world.good("GET", LOGGING, &format!("/v2/projects/{PROJECT}/logs"), None).await;
    assert!(logs["logNames"].as_array().unwrap().contains(&json!(format!("projects/{PROJECT}/logs/run.googleapis.com%2Fstdout"))), "{logs:#}");
}

pub async fn lists_and_writes_are_checked(world: &World) {
    let list = async |token: &str, body: Json| world.call(Some(token), "POST", LOGGING, "/v2/entries:list", Some(body)).await;
    let own = json!({ "resourceNames": [format!("projects/{PROJECT}")] });
    assert_eq!(list(&world.viewer, own.clone()).await.0, 200);
    assert_eq!(list(&world.stranger, own.clone()).await.0, 403);
    assert_eq!(list(&world.owner, json!({ "resourceNames": ["projects/no-such-project"] })).await.0, 403);
    for (body, field) in [
        (json!({}), "resource_names"),
        (json!({ "resourceNames": ["organizations/1"] }), "organizations/1"),
        (json!({ "resourceNames": [format!("projects/{PROJECT}")], "orderBy": "severity" }), "order_by"),
        (json!({ "resourceNames": [format!("projects/{PROJECT}")], "filter": "((" }), "filter"),
    ] {
        let (status, answer) = list(&world.owner, body).await;
        assert_eq!(status, 400, "{answer:#}");
        assert!(answer["error"]["message"].as_str().unwrap().contains(field), "{answer:#}");
    }
    let write = async |token: &str, change: fn(&mut Json)| {
        let mut entry = entry("logged-3", &model::Timestamp::now().to_string(), "x");
        change(&mut entry);
        world.call(Some(token), "POST", LOGGING, "/v2/entries:write", Some(json!({ "entries": [entry] }))).await.0.as_u16()
    };
    assert_eq!(write(&world.viewer, |_| ()).await, 403);
    assert_eq!(write(&world.owner, |entry| entry["logName"] = "projects/local-project/logs/python".into()).await, 400);
    assert_eq!(write(&world.owner, |entry| entry["logName"] = "projects/no-such-project/logs/run.googleapis.com%2Fstdout".into()).await, 403);
    assert_eq!(write(&world.owner, |entry| entry["operation"] = json!({ "id": "x" })).await, 400);
}
