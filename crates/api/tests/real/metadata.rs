//! The metadata server: what gcloud and Google's libraries ask an instance's for.

use api::MetadataIdentity;
use axum::body::Body;
use http::Request;
use serde_json::{Value as Json, json};

use crate::{
    oauth::claims,
    world::{PROJECT, REGION, World},
};

async fn get(world: &World, account: &str, path: &str) -> (u16, String) {
    let identity =
        MetadataIdentity { project: PROJECT.to_owned(), region: REGION.to_owned(), instance: "00abc".to_owned(), service_account: account.to_owned() };
    let request = Request::get(format!("http://metadata.google.internal{path}")).header("metadata-flavor", "Google").body(Body::empty()).unwrap();
    let response = world.api.metadata(identity, request).await;
    assert_eq!(response.headers()["metadata-flavor"], "Google");
    assert_eq!(response.headers()["server"], "Metadata Server for VM");
    let status = response.status().as_u16();
    (status, String::from_utf8(axum::body::to_bytes(response.into_body(), usize::MAX).await.unwrap().to_vec()).unwrap())
}

pub async fn an_instance_learns_who_it_is(world: &World) {
    let account = format!("{}-compute@developer.gserviceaccount.com", world.number);
    let read = async |path: &str| get(world, &account, &format!("/computeMetadata/v1{path}")).await;
    let text = async |path: &str| {
        let (status, body) = read(path).await;
        assert_eq!(status, 200, "{path}: {body}");
        body
    };
    assert_eq!(text("/project/project-id").await, PROJECT);
    assert_eq!(text("/project/numeric-project-id").await, world.number.to_string());
    assert_eq!(text("/instance/region").await, format!("projects/{}/regions/{REGION}", world.number));
    assert_eq!(text("/instance/service-accounts/").await, format!("default/\n{account}/\n"));
    assert_eq!(text("/universe/universe-domain").await, "googleapis.com");
    let about: Json = serde_json::from_str(&text(&format!("/instance/service-accounts/{account}/?recursive=true")).await).unwrap();
    assert_eq!((&about["email"], &about["aliases"]), (&json!(account), &json!(["default"])));
    let token: Json = serde_json::from_str(&text("/instance/service-accounts/default/token?scopes=a,b").await).unwrap();
    let access = world.iam.access_token_read(token["access_token"].as_str().unwrap()).unwrap();
    assert_eq!((access.identity.email.as_str(), access.scope.as_str()), (account.as_str(), "a b"));
    let id = text("/instance/service-accounts/default/identity?audience=https%3A%2F%2Fx&format=standard&licenses=FALSE").await;
    assert_eq!((&claims(&id)["aud"], &claims(&id)["email"]), (&json!("https://x"), &json!(account)));
    for (path, status) in [
        ("/instance/service-accounts/default/identity", 400),
        ("/instance/service-accounts/default/identity?audience=x&format=odd", 400),
        ("/project/project-id?wait_for_change=true", 400),
        ("/instance/service-accounts/other@example.com/token", 404),
        ("/instance/disks/", 404),
        ("/instance", 301),
        ("x", 404),
    ] {
        assert_eq!(read(path).await.0, status, "{path}");
    }
    assert_eq!(get(world, &account, "/").await, (200, "computeMetadata/\n".to_owned()));
}

pub async fn a_disabled_account_has_no_tokens(world: &World) {
    let account = format!("nobody@{PROJECT}.iam.gserviceaccount.com");
    for path in ["token", "identity?audience=x"] {
        assert_eq!(get(world, &account, &format!("/computeMetadata/v1/instance/service-accounts/default/{path}")).await.0, 403, "{path}");
    }
}
