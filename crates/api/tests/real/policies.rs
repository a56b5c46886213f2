//! IAM policies of services and projects, in the shapes of every API that has them.

use serde_json::{Value as Json, json};

use crate::world::{PROJECT, REGION, RUN, RUN_REGION, World};

const MANAGER: &str = "cloudresourcemanager.googleapis.com";

pub async fn a_policy_is_set_and_read_in_every_shape(world: &World) {
    let name = format!("projects/{PROJECT}/locations/{REGION}/services/policed");
    world.good("POST", RUN_REGION, &format!("/v2/projects/{PROJECT}/locations/{REGION}/services?serviceId=policed"), Some(world.v2_service())).await;
    // As gcloud: unprefixed host, v1, read before written.
    let empty = world.good("GET", RUN, &format!("/v1/{name}:getIamPolicy?options.requestedPolicyVersion=3"), None).await;
    assert_eq!(empty, json!({ "version": 1, "etag": "ACAB" }));
    let bindings = json!([{ "role": "roles/run.invoker", "members": ["allUsers"] }]);
    let policy = json!({ "policy": { "bindings": bindings, "etag": empty["etag"], "version": 3 } });
    let set = world.good("POST", RUN, &format!("/v1/{name}:setIamPolicy"), Some(policy.clone())).await;
    assert_eq!(set["bindings"], bindings);
    assert_eq!(world.good("GET", RUN, &format!("/v2/{name}:getIamPolicy"), None).await, set);

    // The second writer has read the old one.
    let stale = world.bad("POST", RUN, &format!("/v1/{name}:setIamPolicy"), Some(policy)).await;
    assert_eq!((stale.0, stale.1.as_str()), (409, "ABORTED"), "{}", stale.2);
    let bad = |binding: Json| json!({ "policy": { "bindings": [binding] } });
    for (binding, field) in [
        (json!({ "role": "roles/run.invoker", "members": ["allUsers"], "condition": { "expression": "true" } }), "policy.bindings[0].condition"),
        (json!({ "role": "roles/run.invoker", "members": ["who"] }), "policy.bindings.members"),
        (json!({ "role": "roles/nothing", "members": ["allUsers"] }), "policy.bindings"),
    ] {
        let (status, _, message) = world.bad("POST", RUN, &format!("/v1/{name}:setIamPolicy"), Some(bad(binding))).await;
        assert_eq!(status, 400, "{message}");
        assert!(message.starts_with(field) || message.contains("roles/nothing"), "{message}");
    }
    assert_eq!(world.bad("GET", RUN, &format!("/v1/{name}-not:getIamPolicy"), None).await.0, 404);
    assert_eq!(world.bad("GET", RUN, &format!("/v1/{name}:getIamPolicy?options.requestedPolicyVersion=2"), None).await.0, 400);

    // A project's, by v1 and v3.
    let v1 = world.good("POST", MANAGER, &format!("/v1/projects/{PROJECT}:getIamPolicy"), Some(json!({ "options": { "requestedPolicyVersion": 3 } }))).await;
    let v3 = world.good("POST", MANAGER, &format!("/v3/projects/{PROJECT}:getIamPolicy"), Some(json!({}))).await;
    assert_eq!(v1, v3);
    assert!(v1["bindings"].as_array().unwrap().iter().any(|binding| binding["role"] == "roles/viewer"));
    assert_eq!(world.good("POST", MANAGER, &format!("/v1/projects/{PROJECT}:setIamPolicy"), Some(json!({ "policy": v1 }))).await["bindings"], v3["bindings"]);
}

pub async fn permissions_are_tested(world: &World) {
    let asked = json!({ "permissions": ["run.services.get", "run.services.delete"] });
    let path = format!("/v1/projects/{PROJECT}:testIamPermissions");
    let (_, viewer) = world.call(Some(&world.viewer), "POST", MANAGER, &path, Some(asked.clone())).await;
    assert_eq!(viewer, json!({ "permissions": ["run.services.get"] }));
    let (_, stranger) = world.call(Some(&world.stranger), "POST", MANAGER, &path, Some(asked)).await;
    assert_eq!(stranger, json!({}));
    assert_eq!(world.bad("POST", MANAGER, &path, Some(json!({ "permissions": ["run.*"] }))).await.0, 400);
}
