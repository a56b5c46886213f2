//! Lists: pages, and the small ones that gcloud looks into before it does anything.

use serde_json::json;

use crate::world::{PROJECT, REGION, RUN, RUN_REGION, World};

pub async fn pages_follow_each_other(world: &World) {
    let services = format!("/v2/projects/{PROJECT}/locations/{REGION}/services");
    for name in ["page-a", "page-b", "page-c"] {
        world.good("POST", RUN_REGION, &format!("{services}?serviceId={name}"), Some(world.v2_service())).await;
    }
    let all = world.good("GET", RUN_REGION, &services, None).await;
    let (mut token, mut seen) = (String::new(), Vec::new());
    loop {
        let page = world.good("GET", RUN_REGION, &format!("{services}?pageSize=2&pageToken={token}"), None).await;
        let items = page["services"].as_array().unwrap();
        assert!(items.len() <= 2);
        seen.extend(items.iter().map(|item| item["name"].clone()));
        match page.get("nextPageToken").and_then(|token| token.as_str()) {
            Some(next) => next.clone_into(&mut token),
            None => break,
        }
    }
    assert_eq!(seen, all["services"].as_array().unwrap().iter().map(|item| item["name"].clone()).collect::<Vec<_>>());

    // A token is good for its own list only.
    let page = world.good("GET", RUN_REGION, &format!("{services}?pageSize=1"), None).await;
    let token = page["nextPageToken"].as_str().unwrap();
    for path in [
        format!("/v2/projects/{PROJECT}/locations/us-central1/services?pageToken={token}"),
        format!("{services}/page-a/revisions?pageToken={token}"),
        format!("{services}?pageToken={token}A"),
        format!("{services}?pageToken=AAAA"),
        format!("{services}?pageSize=-1"),
    ] {
        assert_eq!(world.bad("GET", RUN_REGION, &path, None).await.1, "INVALID_ARGUMENT", "{path}");
    }

    // As Kubernetes pages.
    let v1 = "/apis/serving.knative.dev/v1/namespaces/local-project/services";
    let first = world.good("GET", RUN_REGION, &format!("{v1}?limit=1"), None).await;
    let next = first["metadata"]["continue"].as_str().unwrap();
    let second = world.good("GET", RUN_REGION, &format!("{v1}?limit=1&continue={next}"), None).await;
    assert_ne!(first["items"][0]["metadata"]["name"], second["items"][0]["metadata"]["name"]);
    assert_eq!(world.good("GET", RUN_REGION, v1, None).await["items"].as_array().unwrap().len(), seen.len());
}

pub async fn regions_projects_apis_and_repositories_are_listed(world: &World) {
    let regions = world.good("GET", RUN, &format!("/v1/projects/{PROJECT}/locations?pageSize=100"), None).await;
    let regions = regions["locations"].as_array().unwrap();
    assert!(regions.iter().any(|region| region["locationId"] == REGION));
    assert_eq!(regions.len(), model::address::REGIONS.len());

    let project = world.good("GET", "cloudresourcemanager.googleapis.com", &format!("/v1/projects/{}", world.number), None).await;
    assert_eq!((&project["projectId"], &project["lifecycleState"]), (&json!(PROJECT), &json!("ACTIVE")));
    let search = world.good("GET", "cloudresourcemanager.googleapis.com", "/v3/projects:search", None).await;
    assert_eq!(search["projects"][0]["projectId"], PROJECT);
    let (_, nothing) = world.call(Some(&world.stranger), "GET", "cloudresourcemanager.googleapis.com", "/v1/projects", None).await;
    assert_eq!(nothing, json!({ "projects": [] }));

    let usage = "serviceusage.googleapis.com";
    let state = world.good("GET", usage, &format!("/v1/projects/{PROJECT}/services/compute.googleapis.com"), None).await;
    assert_eq!(state["state"], "DISABLED");
    let enable = format!("/v1/projects/{PROJECT}/services/compute.googleapis.com:enable");
    let (_, name, message) = world.bad("POST", usage, &enable, Some(json!({}))).await;
    assert_eq!(name, "FAILED_PRECONDITION");
    assert!(message.contains("compute.googleapis.com is not served"), "{message}");
    let enabled = world.good("POST", usage, &format!("/v1/projects/{PROJECT}/services/run.googleapis.com:enable"), Some(json!({}))).await;
    assert_eq!((enabled["done"].as_bool(), enabled["response"]["service"]["state"].as_str()), (Some(true), Some("ENABLED")));

    let artifacts = "artifactregistry.googleapis.com";
    let repositories = format!("/v1/projects/{PROJECT}/locations/{REGION}/repositories");
    let operation = world.good("POST", artifacts, &format!("{repositories}?repositoryId=cloud-run-source-deploy"), Some(json!({ "format": "DOCKER" }))).await;
    let name = operation["name"].as_str().unwrap();
    let done = world.good("GET", artifacts, &format!("/v1/{name}"), None).await;
    assert_eq!(done["response"]["@type"], "type.googleapis.com/google.devtools.artifactregistry.v1.Repository", "{done:#}");
    let found = world.good("GET", artifacts, &format!("{repositories}/cloud-run-source-deploy"), None).await;
    assert_eq!((found["format"].as_str(), found["mode"].as_str()), (Some("DOCKER"), Some("STANDARD_REPOSITORY")));
    assert_eq!(world.bad("POST", artifacts, &format!("{repositories}?repositoryId=n"), Some(json!({ "format": "NPM" }))).await.0, 400);

    let account = world.good("GET", "cloudbuild.googleapis.com", &format!("/v1/projects/{PROJECT}/locations/{REGION}/defaultServiceAccount"), None).await;
    let email = account["serviceAccountEmail"].as_str().unwrap();
    assert_eq!(email, format!("projects/{PROJECT}/serviceAccounts/{}-compute@developer.gserviceaccount.com", world.number));
}
