//! One request: what the function sees of it, what the caller sees, what is logged.

use futures_util::FutureExt;
use model::log::{LogName, Severity};

use crate::world::{Check, World, full, host, request, text};

pub const CHECKS: &[Check] = &[
    ("a cold start answers and is logged", |world| cold_start(world).boxed()),
    ("the environment is the container contract's", |world| environment(world).boxed()),
    ("headers are the platform's both ways", |world| headers(world).boxed()),
    ("output is logged line by line", |world| output(world).boxed()),
    ("a crash is 503 and the next request is answered", |world| crash(world).boxed()),
    ("an answer that is no HTTP is 503", |world| garbage(world).boxed()),
    ("an answer that dies half way is cut and logged", |world| halfway(world).boxed()),
    ("going over the memory is said in Google's words", |world| memory(world).boxed()),
    ("a function that exits at its start is 500", |world| exits(world).boxed()),
];

async fn cold_start(world: &World) {
    let service = world.service().deploy().await;
    let answer = world.get(&host(&service), "/some/path?query=1").await;
    assert_eq!((answer.status, answer.body.as_str()), (200, "Hello World! /some/path?query=1"));
    let starting = world.system_log_until(&service, "Starting new instance. Reason: AUTOSCALING - ").await;
    assert_eq!(starting.source.instance.len(), 128);
    let probe = world.system_log_until(&service, "Default STARTUP TCP probe succeeded").await;
    assert_eq!(text(&probe), format!("Default STARTUP TCP probe succeeded after 1 attempt for container \"{}-1\" on port 8080.", service.service));
    let entry = world.request_log_until(&service, 200).await;
    let http = entry.http.clone().unwrap();
    assert_eq!(http.url, format!("https://{}/some/path?query=1", host(&service)));
    assert_eq!((http.method.as_ref(), http.remote_ip.as_str(), http.response_bytes), ("GET", "192.0.2.7", answer.body.len() as u64));
    assert_eq!((entry.severity, entry.source.instance.as_str()), (Severity::Info, starting.source.instance.as_str()));
    assert!(entry.trace.starts_with("projects/my-project/traces/") && http.latency_us > 0);
    let requests = world.log(&service).await.into_iter().filter(|entry| entry.log == LogName::Requests).count();
    assert_eq!(requests, 1, "once");
    // The same instance answers the next one.
    assert_eq!(world.get(&host(&service), "/").await.status, 200);
    assert_eq!(world.instances(&service).len(), 1);
}

async fn environment(world: &World) {
    let change = |template: &mut model::revision::RevisionTemplate| template.container.env = vec![("GREETING".to_owned(), "こんにちは".to_owned())];
    let service = world.service().template(change).deploy().await;
    let answer = world.get(&host(&service), "/env").await;
    let env: std::collections::BTreeMap<String, String> = serde_json::from_str(&answer.body).unwrap();
    for (name, expect) in [
        ("PORT", "8080"),
        ("K_SERVICE", service.service.as_str()),
        ("K_REVISION", &format!("{}-00001-abc", service.service)),
        ("K_CONFIGURATION", service.service.as_str()),
        ("FUNCTION_TARGET", "hello_http"),
        ("CLOUD_RUN_TIMEOUT_SECONDS", "60"),
        ("GREETING", "こんにちは"),
        ("SSL_CERT_FILE", "/etc/ssl/certs/ca-certificates.crt"),
    ] {
        assert_eq!(env.get(name).map(String::as_str), Some(expect), "{name} of {env:?}");
    }
}

async fn headers(world: &World) {
    let service = world.service().deploy().await;
    let call = request("GET", &host(&service), "/headers")
        .header("x-forwarded-for", "10.0.0.1")
        .header("connection", "x-secret")
        .header("x-secret", "1")
        .header("traceparent", "00-105445aa7843bc8bf206b12000100000-00000000000000ff-01")
        .header("x-plain", "2");
    let answer = world.send(call.body(full("")).unwrap()).await;
    let seen: Vec<(String, String)> = serde_json::from_str(&answer.body).unwrap();
    let seen = |name: &str| seen.iter().filter(|(seen, _)| seen.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str()).collect::<Vec<_>>();
    assert_eq!(seen("host"), [host(&service)]);
    assert_eq!(seen("x-forwarded-for"), ["192.0.2.7"]);
    assert_eq!(seen("x-forwarded-proto"), ["https"]);
    assert_eq!(seen("x-cloud-trace-context"), ["105445aa7843bc8bf206b12000100000/255;o=1"]);
    assert_eq!(seen("x-plain"), ["2"]);
    assert!(seen("x-secret").is_empty());
    assert_eq!(answer.header("server"), "Google Frontend");
    assert_eq!(answer.header("cache-control"), "private");
    assert_eq!((answer.header("x-mine"), answer.header("connection")), ("", ""));
    let entry = world.request_log_until(&service, 200).await;
    assert_eq!((entry.trace.as_str(), entry.trace_sampled), ("projects/my-project/traces/105445aa7843bc8bf206b12000100000", true));
}

async fn output(world: &World) {
    let service = world.service().deploy().await;
    assert_eq!(world.get(&host(&service), "/log").await.status, 200);
    let plain = world.log_until(&service, "plain", |entry| text(entry) == "a plain line").await;
    assert_eq!((plain.log, plain.severity), (LogName::Stdout, Severity::Default));
    let structured = world.log_until(&service, "structured", |entry| text(entry).contains("a structured one")).await;
    assert_eq!(structured.severity, Severity::Warning);
    let stderr = world.log_until(&service, "stderr", |entry| text(entry) == "to stderr").await;
    assert_eq!(stderr.log, LogName::Stderr);
}

async fn crash(world: &World) {
    let service = world.service().deploy().await;
    let answer = world.get(&host(&service), "/crash").await;
    assert_eq!((answer.status, answer.body.as_str()), (503, "Service Unavailable"));
    world.system_log_until(&service, "Container called exit(3).").await;
    let entry = world.request_log_until(&service, 503).await;
    assert!(text(&entry).starts_with("The request failed because either the HTTP response was malformed or connection to the instance had an error."));
    assert_eq!(entry.severity, Severity::Error);
    assert_eq!(world.get(&host(&service), "/").await.status, 200);
}

async fn garbage(world: &World) {
    let service = world.service().deploy().await;
    for path in ["/garbage", "/unasked", "/headers-many?2000", "/headers-many?800"] {
        let answer = world.get(&host(&service), path).await;
        assert_eq!((answer.status, answer.body.as_str()), (503, "Service Unavailable"), "{path}");
    }
    assert_eq!(world.get(&host(&service), "/headers-many?500").await.status, 200);
    assert_eq!(world.instances(&service).len(), 1, "it did not harm the instance");
}

async fn halfway(world: &World) {
    use http_body_util::BodyExt;
    let service = world.service().deploy().await;
    let call = request("GET", &host(&service), "/halfway").body(full("")).unwrap();
    let response = world.serving.handle(crate::world::outside(), call).await;
    assert_eq!(response.status(), 200);
    assert!(response.into_body().collect().await.is_err(), "the caller must see that it is not whole");
    world.request_log_until(&service, 503).await;
}

async fn memory(world: &World) {
    let service = world.service().template(|template| template.container.memory_bytes = Some(128 << 20)).deploy().await;
    let answer = world.get(&host(&service), "/memory").await;
    assert_eq!(answer.status, 503);
    let entry = world.system_log_until(&service, "Memory limit of 128 MiB exceeded with ").await;
    assert!(text(&entry).ends_with("see https://cloud.google.com/run/docs/configuring/memory-limits"), "{}", text(&entry));
}

async fn exits(world: &World) {
    let service = world.service().mode("exit").deploy().await;
    let answer = world.get(&host(&service), "/").await;
    assert_eq!(answer.status, 500);
    assert!(answer.body.contains("<h1>Error: Server Error</h1>"));
    let entry = world.request_log_until(&service, 500).await;
    assert!(text(&entry).starts_with("The request was aborted because there was no available instance."));
    world.log_until(&service, "its output", |entry| text(entry) == "cannot go on").await;
    world.system_log_until(&service, "Container called exit(7).").await;
}
