//! Who may call: every method that is served, called without what it needs.

use api::Needs;
use axum::body::Body;
use http::{Request, StatusCode};
use proto::google::cloud::run::v2 as pb;
use serde_json::json;

use crate::world::{PROJECT, REGION, RUN_REGION, World};

/// A path of a template: names that are good, in a project that is there (or `project`).
fn path_of(template: &str, project: &str) -> String {
    let (path, verb) = template.split_once(':').map_or((template, None), |(path, verb)| (path, Some(verb)));
    let mut out = String::new();
    let mut before = "";
    for part in path.split('/').skip(1) {
        let name = match (part, before) {
            ("*", "projects" | "namespaces") => project,
            ("*", "locations") => REGION,
            // The kind of what has an API enabled, or logs: a project, here.
            ("*", "v1" | "v2") => "projects",
            ("*", "b") => "no-such-bucket-1",
            ("*", "serviceAccounts") => "nobody@local-project.iam.gserviceaccount.com",
            ("*" | "**", _) => "name-1",
            (literal, _) => literal,
        };
        out.push('/');
        out.push_str(name);
        before = name;
    }
    if let Some(verb) = verb {
        out.push(':');
        out.push_str(verb);
    }
    // The one place where Google has the project in the query.
    if out == "/storage/v1/b" { format!("{out}?project={project}") } else { out }
}

pub async fn no_method_answers_without_credentials(world: &World) {
    let mut checked = 0;
    for method in world.api.served() {
        if method.needs == Needs::Nothing {
            continue;
        }
        let path = path_of(&method.path, PROJECT);
        for token in [None, Some("ya29.forged"), Some("")] {
            // Not even the form of the body is discussed.
            let (status, body) = world.raw(token, method.verb.as_str(), method.host, &path, "application/json", b"{".to_vec()).await;
            assert_eq!(status, StatusCode::UNAUTHORIZED, "{} {path} ({}): {}", method.verb, method.api, String::from_utf8_lossy(&body));
        }
        checked += 1;
    }
    assert!(checked > 60, "only {checked} methods were checked");
}

pub async fn no_method_answers_a_stranger(world: &World) {
    for method in world.api.served() {
        let Needs::Permission(permission) = method.needs else { continue };
        let path = path_of(&method.path, PROJECT);
        if method.api == "storage XML" {
            let (status, _) = world.raw(Some(&world.stranger), method.verb.as_str(), method.host, &path, "text/plain", Vec::new()).await;
            assert_eq!(status, StatusCode::NOT_FOUND, "{} {path}", method.verb);
            continue;
        }
        let (status, body) = world.call(Some(&world.stranger), method.verb.as_str(), method.host, &path, Some(json!({}))).await;
        let expect = match &path {
            // Buckets' names are global: one that does not exist is not found, whoever asks.
            path if path.contains("/b/no-such-bucket-1") => StatusCode::NOT_FOUND,
            // Log entries name their projects in the body, and this one names none.
            path if path.starts_with("/v2/entries:") => StatusCode::BAD_REQUEST,
            _ => StatusCode::FORBIDDEN,
        };
        assert_eq!(status, expect, "{} {path} ({}): {body:#}", method.verb, method.api);
        let message = body["error"]["message"].as_str().unwrap();
        assert!(expect != StatusCode::FORBIDDEN || message.contains(permission), "{path}: {message}");
    }
}

pub async fn a_project_that_does_not_exist_looks_like_one_that_is_not_yours(world: &World) {
    let mut checked = 0;
    for method in world.api.served() {
        for project in ["some-other-project", "123456789012", "-"] {
            let path = path_of(&method.path, project);
            // `-` is a wildcard where accounts are named, and nowhere else.
            let is_wildcard = project == "-" && !matches!(method.needs, Needs::Permission(_));
            if method.needs == Needs::Nothing || path == path_of(&method.path, PROJECT) || is_wildcard {
                continue;
            }
            let (status, body) = world.call(Some(&world.owner), method.verb.as_str(), method.host, &path, Some(json!({}))).await;
            assert_eq!(status, StatusCode::FORBIDDEN, "{} {path} ({}): {body:#}", method.verb, method.api);
            let message = body["error"]["message"].as_str().unwrap();
            assert!(message.starts_with("Permission '") && message.contains(project), "{path}: {message}");
            checked += 1;
        }
    }
    assert!(checked > 150, "only {checked} calls were made");
}

/// Projects are named in other places than the path, too.
pub async fn a_project_that_does_not_exist_is_refused_wherever_it_is_named(world: &World) {
    const OTHER: &str = "some-other-project";
    let email = world.compute();
    let refused = async |method: &str, host: &str, path: &str, body: Option<serde_json::Value>| {
        let (status, body) = world.call(Some(&world.owner), method, host, path, body).await;
        assert_eq!(status, StatusCode::FORBIDDEN, "{method} {host} {path}: {body:#}");
        assert!(body["error"]["message"].as_str().unwrap().contains(OTHER), "{path}: {body:#}");
    };
    let (iam, credentials, storage) = ("iam.googleapis.com", "iamcredentials.googleapis.com", "storage.googleapis.com");
    // An account that is there, under a project that is not.
    refused("GET", iam, &format!("/v1/projects/{OTHER}/serviceAccounts/{email}"), None).await;
    refused(
        "POST",
        iam,
        &format!("/v1/projects/{OTHER}/serviceAccounts/{email}:testIamPermissions"),
        Some(json!({ "permissions": ["iam.serviceAccounts.get"] })),
    )
    .await;
    let wanted = json!({ "audience": "a" });
    refused("POST", credentials, &format!("/v1/projects/{OTHER}/serviceAccounts/{email}:generateIdToken"), Some(wanted)).await;
    let delegated = json!({ "audience": "a", "delegates": [format!("projects/{OTHER}/serviceAccounts/{email}")] });
    refused("POST", credentials, &format!("/v1/projects/-/serviceAccounts/{email}:generateIdToken"), Some(delegated)).await;
    refused("GET", iam, &format!("/v1/roles?parent=projects/{OTHER}"), None).await;
    let resource = json!({ "fullResourceName": format!("//run.googleapis.com/projects/{OTHER}/locations/{REGION}/services/s") });
    refused("POST", iam, "/v1/roles:queryGrantableRoles", Some(resource)).await;
    refused(
        "POST",
        "logging.googleapis.com",
        "/v2/entries:list",
        Some(json!({ "resourceNames": [format!("projects/{PROJECT}"), format!("projects/{OTHER}")] })),
    )
    .await;
    let build = format!("/v1/projects/{OTHER}/builds/b?name=projects/{PROJECT}/locations/{REGION}/builds/b");
    refused("GET", "cloudbuild.googleapis.com", &build, None).await;
    // Whose quota it is.
    refused("GET", storage, &format!("/storage/v1/b?project={PROJECT}&userProject={OTHER}"), None).await;
    refused("GET", RUN_REGION, &format!("/v2/projects/{PROJECT}/locations/{REGION}/services?$userProject={OTHER}"), None).await;
    world.good("GET", storage, &format!("/storage/v1/b?project={PROJECT}&userProject={}", world.number), None).await;
    for (host, path) in [("cloudresourcemanager.googleapis.com", "/v1/projects".to_owned()), (RUN_REGION, format!("/v1/projects/{PROJECT}/locations"))] {
        for (project, expect) in [(OTHER, StatusCode::FORBIDDEN), (PROJECT, StatusCode::OK)] {
            let request = Request::get(&path).header("authorization", format!("Bearer {}", world.owner)).header("x-goog-user-project", project);
            let response = world.api.handle(host, request.body(Body::empty()).unwrap()).await;
            assert_eq!(response.status(), expect, "{path} {project}");
        }
    }
}

pub async fn a_viewer_reads_and_does_not_write(world: &World) {
    let services = format!("/v2/projects/{PROJECT}/locations/{REGION}/services");
    let (status, _) = world.call(Some(&world.viewer), "GET", RUN_REGION, &services, None).await;
    assert_eq!(status, StatusCode::OK);
    let (status, body) = world.call(Some(&world.viewer), "POST", RUN_REGION, &format!("{services}?serviceId=s"), Some(world.v2_service())).await;
    assert_eq!(status, StatusCode::FORBIDDEN, "{body:#}");
    // Changing what is not there is no way round the right to make it.
    let (status, body) = world.call(Some(&world.viewer), "PATCH", RUN_REGION, &format!("{services}/s?allowMissing=true"), Some(world.v2_service())).await;
    assert_eq!(status, StatusCode::FORBIDDEN, "{body:#}");
}

pub async fn grpc_calls_need_the_same(world: &World) {
    let request = pb::ListServicesRequest { parent: format!("projects/{PROJECT}/locations/{REGION}"), ..Default::default() };
    let list = async |token: Option<&str>| world.grpc::<pb::ListServicesResponse>(token, "google.cloud.run.v2.Services/ListServices", &request).await;
    assert_eq!(list(None).await.unwrap_err().0, tonic::Code::Unauthenticated);
    assert_eq!(list(Some(&world.stranger)).await.unwrap_err().0, tonic::Code::PermissionDenied);
    assert!(list(Some(&world.viewer)).await.is_ok());
    let jobs = world.grpc::<pb::ListServicesResponse>(Some(&world.owner), "google.cloud.run.v2.Jobs/ListJobs", &request).await;
    assert_eq!(jobs.unwrap_err().0, tonic::Code::Unimplemented);
}
