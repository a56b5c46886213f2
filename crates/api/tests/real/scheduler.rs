//! Cloud Scheduler v1: what a job looks like, and what is refused.

use serde_json::{Value as Json, json};

use crate::world::{PROJECT, REGION, World};

const HOST: &str = "cloudscheduler.googleapis.com";

fn jobs() -> String {
    format!("/v1/projects/{PROJECT}/locations/{REGION}/jobs")
}

fn uri(world: &World) -> String {
    format!("https://f-{}.{REGION}.run.app/path", world.number)
}

pub async fn a_job_is_shown_with_googles_defaults(world: &World) {
    let name = format!("projects/{PROJECT}/locations/{REGION}/jobs/shown");
    let body = json!({ "name": name, "schedule": "0 9 * * *", "httpTarget": { "uri": uri(world), "oidcToken": { "serviceAccountEmail": world.compute() } } });
    let mut made = world.good("POST", HOST, &jobs(), Some(body)).await;
    for time in ["userUpdateTime", "scheduleTime"] {
        assert!(made.as_object_mut().unwrap().remove(time).is_some_and(|time| time.is_string()), "{made:#}");
    }
    let expect = json!({
        "name": name,
        "schedule": "0 9 * * *",
        "timeZone": "Etc/UTC",
        "state": "ENABLED",
        "attemptDeadline": "180s",
        "retryConfig": { "maxRetryDuration": "0s", "minBackoffDuration": "5s", "maxBackoffDuration": "3600s", "maxDoublings": 5 },
        "httpTarget": {
            "uri": uri(world),
            "httpMethod": "POST",
            "headers": { "User-Agent": "Google-Cloud-Scheduler" },
            "oidcToken": { "serviceAccountEmail": world.compute(), "audience": uri(world) },
        },
    });
    assert_eq!(made, expect);

    // What gcloud's flags name, one by one; a token whose fields are all cleared is none.
    let path = format!("{}/shown", jobs());
    let cleared =
        "httpTarget.oidcToken.serviceAccountEmail,httpTarget.oidcToken.audience,httpTarget.oauthToken.serviceAccountEmail,httpTarget.oauthToken.scope";
    let patched =
        world.good("PATCH", HOST, &format!("{path}?updateMask={cleared},retryConfig.retryCount"), Some(json!({ "retryConfig": { "retryCount": 3 } }))).await;
    assert_eq!((&patched["httpTarget"]["oidcToken"], &patched["retryConfig"]["retryCount"]), (&Json::Null, &json!(3)), "{patched:#}");
    let paused = world.good("POST", HOST, &format!("{path}:pause"), Some(json!({}))).await;
    assert_eq!((&paused["state"], &paused["scheduleTime"]), (&json!("PAUSED"), &Json::Null));
    assert_eq!(world.bad("POST", HOST, &format!("{path}:pause"), Some(json!({}))).await.1, "FAILED_PRECONDITION");
    world.good("POST", HOST, &format!("{path}:resume"), Some(json!({}))).await;
    assert_eq!(world.good("GET", HOST, &jobs(), None).await["jobs"].as_array().map(Vec::len), Some(1));
    world.good("DELETE", HOST, &path, None).await;
    assert_eq!(world.bad("GET", HOST, &path, None).await.1, "NOT_FOUND");
}

pub async fn jobs_that_cannot_run_are_refused(world: &World) {
    let check = async |change: Json, status: &str, words: &str| {
        let mut body = json!({ "schedule": "* * * * *", "httpTarget": { "uri": uri(world) } });
        for (name, value) in change.as_object().unwrap() {
            body[name] = value.clone();
        }
        let refused = world.bad("POST", HOST, &jobs(), Some(body)).await;
        assert!(refused.1 == status && refused.2.contains(words), "{refused:?}");
    };
    check(json!({ "httpTarget": { "uri": "https://example.com/" } }), "INVALID_ARGUMENT", "no host of a service here").await;
    check(json!({ "httpTarget": { "uri": "file:///etc/passwd" } }), "INVALID_ARGUMENT", "job.http_target.uri").await;
    check(json!({ "httpTarget": null, "appEngineHttpTarget": { "relativeUri": "/" } }), "INVALID_ARGUMENT", "App Engine").await;
    let topic =
        |project: &str, data: &str| json!({ "httpTarget": null, "pubsubTarget": { "topicName": format!("projects/{project}/topics/topic"), "data": data } });
    check(topic("another-project-1", "eA=="), "INVALID_ARGUMENT", "topic_name").await;
    check(topic(PROJECT, ""), "INVALID_ARGUMENT", "job.pubsub_target").await;
    check(json!({ "httpTarget": null }), "INVALID_ARGUMENT", "job.target").await;
    check(json!({ "schedule": "0 9 * * * *" }), "INVALID_ARGUMENT", "schedule").await;
    check(json!({ "timeZone": "Asia/Edo" }), "INVALID_ARGUMENT", "time_zone").await;
    check(json!({ "name": format!("projects/{PROJECT}/locations/us-central1/jobs/j") }), "INVALID_ARGUMENT", "job.name").await;
    check(json!({ "name": format!("projects/{PROJECT}/locations/{REGION}/jobs/j.j") }), "INVALID_ARGUMENT", "job.name").await;
    check(json!({ "attemptDeadline": "1s" }), "INVALID_ARGUMENT", "attempt_deadline").await;
    check(json!({ "retryConfig": { "retryCount": -1 } }), "INVALID_ARGUMENT", "retry_count").await;
    let account = |email: &str| json!({ "httpTarget": { "uri": uri(world), "oidcToken": { "serviceAccountEmail": email } } });
    check(account("nobody@local-project.iam.gserviceaccount.com"), "PERMISSION_DENIED", "iam.serviceAccounts.actAs").await;
    // Who may see jobs may not make them.
    let (status, _) = world.call(Some(&world.viewer), "POST", HOST, &jobs(), Some(json!({}))).await;
    assert_eq!(status, 403);
    let (status, _) = world.call(Some(&world.viewer), "GET", HOST, &jobs(), None).await;
    assert_eq!(status, 200);
}
