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
    // A map takes in what is sent, as gcloud's --update-headers expects, and is emptied by none.
    let headers = async |headers: Json| {
        let body = json!({ "httpTarget": { "headers": headers } });
        world.good("PATCH", HOST, &format!("{path}?updateMask=httpTarget.headers"), Some(body)).await["httpTarget"]["headers"].clone()
    };
    let agent = "Google-Cloud-Scheduler";
    assert_eq!(headers(json!({ "A": "1", "B": "2" })).await, json!({ "A": "1", "B": "2", "User-Agent": agent }));
    assert_eq!(headers(json!({ "b": "3", "C": "4" })).await, json!({ "A": "1", "b": "3", "C": "4", "User-Agent": agent }));
    // What is null goes, by whatever case it is written in; the rest stays.
    assert_eq!(headers(json!({ "B": null, "none": null })).await, json!({ "A": "1", "C": "4", "User-Agent": agent }));
    assert_eq!(headers(json!({ "A": null, "D": "5" })).await, json!({ "C": "4", "D": "5", "User-Agent": agent }));
    assert_eq!(headers(json!({})).await, json!({ "User-Agent": agent }));
    let paused = world.good("POST", HOST, &format!("{path}:pause"), Some(json!({}))).await;
    assert_eq!((&paused["state"], &paused["scheduleTime"]), (&json!("PAUSED"), &Json::Null));
    assert_eq!(world.bad("POST", HOST, &format!("{path}:pause"), Some(json!({}))).await.1, "FAILED_PRECONDITION");
    world.good("POST", HOST, &format!("{path}:resume"), Some(json!({}))).await;
    assert_eq!(world.good("GET", HOST, &jobs(), None).await["jobs"].as_array().map(Vec::len), Some(1));
    world.good("DELETE", HOST, &path, None).await;
    assert_eq!(world.bad("GET", HOST, &path, None).await.1, "NOT_FOUND");
}

/// Limits that a request can meet; that of jobs in a region is met in `crates/events/tests/scheduler/many.rs`.
pub async fn every_limit(world: &World) {
    let path = format!("{}/limits", jobs());
    let name = |id: &str| format!("projects/{PROJECT}/locations/{REGION}/jobs/{id}");
    world.good("POST", HOST, &jobs(), Some(json!({ "name": name("limits"), "schedule": "* * * * *", "httpTarget": { "uri": uri(world) } }))).await;
    let check = async |change: Json, mask: &str, words: &str| {
        let (status, answer) = world.call(Some(&world.owner), "PATCH", HOST, &format!("{path}?updateMask={mask}"), Some(change)).await;
        let told = answer["error"]["message"].as_str().unwrap_or_default();
        assert!(status.is_success() == words.is_empty() && told.contains(words), "{mask}: {status} {told}, not {words:?}");
    };
    for (s, words) in [(14, "attempt_deadline"), (15, ""), (1800, ""), (1801, "attempt_deadline")] {
        check(json!({ "attemptDeadline": format!("{s}s") }), "attemptDeadline", words).await;
    }
    for (count, words) in [(-1, "retry_count"), (5, ""), (6, "retry_count"), (0, "")] {
        check(json!({ "retryConfig": { "retryCount": count } }), "retryConfig.retryCount", words).await;
    }
    for (least, most, words) in [("10s", "10s", ""), ("11s", "10s", "min_backoff_duration"), ("5s", "3600s", "")] {
        let retry = json!({ "retryConfig": { "minBackoffDuration": least, "maxBackoffDuration": most } });
        check(retry, "retryConfig.minBackoffDuration,retryConfig.maxBackoffDuration", words).await;
    }
    for (chars, words) in [(500, ""), (501, "description")] {
        check(json!({ "description": "時".repeat(chars) }), "description", words).await;
    }
    let host = uri(world);
    for (bytes, words) in [(2083, ""), (2084, "job.http_target.uri")] {
        check(json!({ "httpTarget": { "uri": format!("{host}{}", "a".repeat(bytes - host.len())) } }), "httpTarget.uri", words).await;
    }
    for (bytes, words) in [(80 * 1024 - 1, ""), (80 * 1024, "headers")] {
        let agent = "User-AgentGoogle-Cloud-Scheduler".len();
        check(json!({ "httpTarget": { "headers": { "x": "a".repeat(bytes - 1 - agent) } } }), "httpTarget.headers", words).await;
    }
    check(json!({}), "httpTarget.headers", "").await;
    for (method, words) in [("POST", ""), ("PUT", ""), ("PATCH", ""), ("GET", "body"), ("HEAD", "body"), ("DELETE", "body"), ("OPTIONS", "body")] {
        check(json!({ "httpTarget": { "httpMethod": method, "body": "eA==" } }), "httpTarget.httpMethod,httpTarget.body", words).await;
    }
    // A megabyte, of which base64 makes more: counted as it is kept.
    for (bytes, words) in [(760_000, ""), (800_000, "job")] {
        check(json!({ "httpTarget": { "body": "AAAA".repeat(bytes / 3) } }), "httpTarget.body", words).await;
    }
    world.good("DELETE", HOST, &path, None).await;
    for (id, words) in [("a".repeat(500), ""), ("a".repeat(501), "job.name"), ("a.b".to_owned(), "job.name")] {
        let body = json!({ "name": name(&id), "schedule": "* * * * *", "httpTarget": { "uri": uri(world) } });
        let (status, answer) = world.call(Some(&world.owner), "POST", HOST, &jobs(), Some(body)).await;
        let told = answer["error"]["message"].as_str().unwrap_or_default();
        assert!(status.is_success() == words.is_empty() && told.contains(words), "{id}: {told}");
        if words.is_empty() {
            world.good("DELETE", HOST, &format!("{}/{id}", jobs()), None).await;
        }
    }
    // A page has 500 at most: more is as much.
    world.good("GET", HOST, &format!("{}?pageSize=1000", jobs()), None).await;
    assert_eq!(world.bad("GET", HOST, &format!("{}?pageSize=-1", jobs()), None).await.1, "INVALID_ARGUMENT");
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
