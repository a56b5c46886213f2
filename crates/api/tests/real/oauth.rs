//! Tokens: a service account by its key, a person by the sign-in page, and what everyone may know.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use iam::GCLOUD_CLIENT_ID;
use serde_json::{Value as Json, json};
use sha2::{Digest, Sha256};

use crate::{
    http::{Answer, FORM, JSON, form, send},
    world::{PROJECT, World},
};

const TOKEN: &str = "https://oauth2.googleapis.com/token";
const IAM: &str = "https://iam.googleapis.com";
const JWT_BEARER: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";
const SCOPE: &str = "openid https://www.googleapis.com/auth/userinfo.email https://www.googleapis.com/auth/cloud-platform";
const VERIFIER: &str = "IrpnOR8t2dRdKlmrGL9t6w3FDZ02PBz9onZW39vr_Geo~5GBB-5QHS~zgCgQv5PG";

pub async fn token(world: &World, pairs: &[(&str, &str)]) -> Answer {
    send(&world.api, None, "POST", TOKEN, &[FORM], form(pairs)).await
}

/// A service account with a key: its key file.
pub async fn key_file(world: &World, id: &str) -> Json {
    let call =
        async |path: &str, body: Json| send(&world.api, Some(&world.owner), "POST", &format!("{IAM}{path}"), &[JSON], body.to_string()).await.good().json();
    let account = call(&format!("/v1/projects/{PROJECT}/serviceAccounts"), json!({ "accountId": id, "serviceAccount": { "displayName": "A robot" } })).await;
    let key = call(&format!("/v1/{}/keys", account["name"].as_str().unwrap()), json!({})).await;
    let file = base64::engine::general_purpose::STANDARD.decode(key["privateKeyData"].as_str().unwrap()).unwrap();
    serde_json::from_slice(&file).unwrap()
}

/// What `gcloud auth activate-service-account` signs.
fn assertion(file: &Json, more: Json) -> String {
    let now = model::Timestamp::now().as_second();
    let mut claims = json!({ "iss": file["client_email"], "aud": "https://oauth2.googleapis.com/token", "iat": now, "exp": now + 3600 });
    claims.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let mut header = jsonwebtoken::Header::new(jsonwebtoken::Algorithm::RS256);
    header.kid = file["private_key_id"].as_str().map(str::to_owned);
    let key = jsonwebtoken::EncodingKey::from_rsa_pem(file["private_key"].as_str().unwrap().as_bytes()).unwrap();
    jsonwebtoken::encode(&header, &claims, &key).unwrap()
}

pub fn claims(token: &str) -> Json {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(token.split('.').nth(1).unwrap()).unwrap()).unwrap()
}

pub async fn a_service_account_gets_tokens_by_its_key(world: &World) {
    let file = key_file(world, "robot-1").await;
    let email = format!("robot-1@{PROJECT}.iam.gserviceaccount.com");
    assert_eq!(file["client_email"], email.as_str());
    let ask = async |more: Json| token(world, &[("grant_type", JWT_BEARER), ("assertion", &assertion(&file, more))]).await;

    let access = ask(json!({ "scope": "https://www.googleapis.com/auth/cloud-platform" })).await.good();
    assert_eq!((access.header("cache-control"), access.json()["token_type"].as_str()), ("no-store", Some("Bearer")));
    let access = access.json()["access_token"].as_str().unwrap().to_owned();
    let me = send(&world.api, Some(&access), "GET", "https://www.googleapis.com/oauth2/v3/userinfo", &[], "").await.good().json();
    assert_eq!((&me["email"], &me["email_verified"]), (&json!(email), &json!(true)));
    let info = send(&world.api, None, "GET", &format!("https://oauth2.googleapis.com/tokeninfo?access_token={access}"), &[], "").await.good().json();
    assert_eq!((&info["email"], &info["scope"]), (&json!(email), &json!("https://www.googleapis.com/auth/cloud-platform")));

    let id = ask(json!({ "target_audience": "https://f.run.app" })).await.good().json()["id_token"].as_str().unwrap().to_owned();
    let said = claims(&id);
    assert_eq!((&said["aud"], &said["email"], &said["iss"]), (&json!("https://f.run.app"), &json!(email), &json!("https://accounts.google.com")));
    assert_eq!(world.iam.id_token_check(&id, &|audience| audience == "https://f.run.app").unwrap().email, email);

    let refused = async |more: Json, error: &str| {
        let answer = ask(more).await;
        assert_eq!((answer.status.as_u16(), answer.json()["error"].as_str()), (400, Some(error)));
    };
    refused(json!({ "aud": "https://evil.com/token", "scope": "s" }), "invalid_grant").await;
    refused(json!({ "exp": 1000, "iat": 0, "scope": "s" }), "invalid_grant").await;
    refused(json!({}), "invalid_scope").await;
    // Its key is published, and gone when it is deleted.
    let x509 = format!("https://www.googleapis.com/robot/v1/metadata/x509/{}", email.replace('@', "%40"));
    let id = file["private_key_id"].as_str().unwrap();
    let published = send(&world.api, None, "GET", &x509, &[], "").await.good().json();
    assert!(published[id].as_str().unwrap().starts_with("-----BEGIN CERTIFICATE-----"), "{published}");
    let jwk = send(&world.api, None, "GET", &x509.replace("x509", "jwk"), &[], "").await.good().json();
    assert_eq!((&jwk["keys"][0]["kid"], &jwk["keys"][0]["kty"]), (&json!(id), &json!("RSA")));
    let key = format!("{IAM}/v1/projects/-/serviceAccounts/{email}/keys/{id}");
    send(&world.api, Some(&world.owner), "DELETE", &key, &[], "").await.good();
    refused(json!({ "scope": "s" }), "invalid_grant").await;
}

/// The page's form and cookie.
async fn page(world: &World, url: &str) -> (String, String) {
    let answer = send(&world.api, None, "GET", url, &[("accept-language", "ja")], "").await.good();
    assert!(answer.text().contains("<html lang=\"ja\">"));
    assert!(answer.header("content-security-policy").contains("frame-ancestors 'none'"));
    let text = answer.text();
    let at = text.find("name=\"form\" value=\"").unwrap() + 19;
    let form = text[at..at + text[at..].find('"').unwrap()].to_owned();
    (form, answer.header("set-cookie").split(';').next().unwrap().to_owned())
}

fn auth_url(more: &str) -> String {
    let challenge = URL_SAFE_NO_PAD.encode(Sha256::digest(VERIFIER.as_bytes()));
    let query = form(&[
        ("response_type", "code"),
        ("client_id", GCLOUD_CLIENT_ID),
        ("redirect_uri", "http://localhost:8085/"),
        ("scope", SCOPE),
        ("state", "3XKwstFC0C64OnQtsG9tIRpNuaWnuR"),
        ("access_type", "offline"),
        ("code_challenge", &challenge),
        ("code_challenge_method", "S256"),
    ]);
    format!("https://accounts.google.com/o/oauth2/auth?{query}{more}")
}

/// Posts the sign-in form as a browser does.
async fn post(world: &World, url: &str, cookie: &str, pairs: &[(&str, &str)]) -> Answer {
    let headers = [FORM, ("origin", "https://accounts.google.com"), ("sec-fetch-site", "same-origin"), ("cookie", cookie)];
    send(&world.api, None, "POST", url, &headers, form(pairs)).await
}

pub async fn a_person_signs_in(world: &World) {
    world.iam.user_create("dev@example.com").await.unwrap();
    // The one-time link sets the password; looking at it does not use it up.
    let link = format!("https://accounts.google.com/sign-in?link={}", world.iam.sign_in_link_issue("dev@example.com"));
    page(world, &link).await;
    let (form, cookie) = page(world, &link).await;
    let password = "correct horse battery";
    assert_eq!(post(world, &link, &cookie, &[("form", &form), ("password", password), ("again", "other one!")]).await.status, 400);
    assert_eq!(post(world, &link, &cookie, &[("form", &form), ("password", "short"), ("again", "short")]).await.status, 400);
    let set = post(world, &link, &cookie, &[("form", &form), ("password", password), ("again", password)]).await.good();
    assert!(set.text().contains("dev@example.com"));
    assert_eq!(post(world, &link, &cookie, &[("form", &form), ("password", password), ("again", password)]).await.status, 403);

    // gcloud auth login.
    let url = auth_url("");
    let (form, cookie) = page(world, &url).await;
    let good = [("form", form.as_str()), ("email", "Dev@example.com"), ("password", password), ("secret", "")];
    let wrong = post(world, &url, &cookie, &[good[0], good[1], ("password", "wrong")]).await;
    assert_eq!((wrong.status.as_u16(), wrong.header("location")), (403, ""));
    assert!(wrong.text().contains("role=\"alert\""));
    let signed_in = post(world, &url, &cookie, &good).await;
    assert_eq!(signed_in.status, 303, "{}", signed_in.text());
    let location = signed_in.header("location").to_owned();
    assert!(location.starts_with("http://localhost:8085/?state=3XKwstFC0C64OnQtsG9tIRpNuaWnuR&code="), "{location}");
    let query: Vec<(String, String)> = form_urlencoded::parse(location.split_once('?').unwrap().1.as_bytes()).into_owned().collect();
    let get = |name: &str| query.iter().find(|(key, _)| key == name).unwrap().1.as_str();
    assert_eq!(get("scope"), SCOPE);

    let code = [
        ("grant_type", "authorization_code"),
        ("client_id", GCLOUD_CLIENT_ID),
        ("client_secret", "public"),
        ("code", get("code")),
        ("redirect_uri", "http://localhost:8085/"),
    ];
    let granted = token(world, &[&code[..], &[("code_verifier", VERIFIER)]].concat()).await.good().json();
    assert_eq!(granted["scope"], SCOPE);
    let said = claims(granted["id_token"].as_str().unwrap());
    assert_eq!((&said["email"], &said["aud"]), (&json!("dev@example.com"), &json!(GCLOUD_CLIENT_ID)));
    // A code is good once.
    let again = token(world, &[&code[..], &[("code_verifier", VERIFIER)]].concat()).await;
    assert_eq!(again.json()["error"], "invalid_grant");

    // gcloud auth print-identity-token.
    let refresh_token = granted["refresh_token"].as_str().unwrap();
    let refresh = [("grant_type", "refresh_token"), ("client_id", GCLOUD_CLIENT_ID), ("refresh_token", refresh_token)];
    let fresh = token(world, &[&refresh[..], &[("scope", "openid")]].concat()).await.good().json();
    assert_eq!((&fresh["scope"], fresh.get("refresh_token")), (&json!("openid"), None));
    assert_eq!(world.iam.id_token_check(fresh["id_token"].as_str().unwrap(), &|_| false).unwrap().email, "dev@example.com");
    assert_eq!(token(world, &[&refresh[..], &[("scope", "openid profile")]].concat()).await.json()["error"], "invalid_scope");
    let revoke =
        async |token: &str| send(&world.api, None, "POST", "https://oauth2.googleapis.com/revoke", &[FORM], crate::http::form(&[("token", token)])).await;
    assert_eq!(revoke(fresh["access_token"].as_str().unwrap()).await.json()["error"], "unsupported_token_type");
    revoke(refresh_token).await.good();
    assert_eq!(token(world, &refresh).await.json()["error"], "invalid_grant");
}

pub async fn a_code_is_shown_to_who_has_no_browser_there(world: &World) {
    let url = auth_url("").replace(&form(&[("r", "http://localhost:8085/")])[2..], &form(&[("r", "https://sdk.cloud.google.com/authcode.html")])[2..]);
    let (form, cookie) = page(world, &url).await;
    let secret = world.iam.sign_in_link_issue("owner@example.com");
    let shown = post(world, &url, &cookie, &[("form", &form), ("secret", &secret)]).await.good();
    let text = shown.text();
    let code = &text[text.find("<code>").unwrap() + 6..text.find("</code>").unwrap()];
    let pairs = [
        ("grant_type", "authorization_code"),
        ("client_id", GCLOUD_CLIENT_ID),
        ("code", code),
        ("redirect_uri", "https://sdk.cloud.google.com/authcode.html"),
        ("code_verifier", VERIFIER),
    ];
    let granted = token(world, &pairs).await.good().json();
    assert_eq!(claims(granted["id_token"].as_str().unwrap())["email"], "owner@example.com");
}

pub async fn pages_of_others_cannot_sign_anyone_in(world: &World) {
    let url = auth_url("");
    let (form, cookie) = page(world, &url).await;
    let pairs = crate::http::form(&[("form", form.as_str()), ("email", "owner@example.com"), ("password", "x")]);
    let post = async |headers: &[(&str, &str)]| send(&world.api, None, "POST", &url, &[&[FORM], headers].concat(), pairs.clone()).await.status.as_u16();
    let cookie = ("cookie", cookie.as_str());
    assert_eq!(post(&[cookie, ("origin", "https://evil.com")]).await, 403);
    assert_eq!(post(&[cookie]).await, 403);
    assert_eq!(post(&[("origin", "https://accounts.google.com")]).await, 403);
    for (from, to) in [("localhost%3A8085", "evil.com%3A80"), ("32555940559", "1"), ("S256", "plain"), ("response_type=code", "response_type=token")] {
        let answer = send(&world.api, None, "GET", &url.replace(from, to), &[], "").await;
        assert_eq!((answer.status.as_u16(), answer.header("location")), (400, ""), "{to}");
    }
    // On the name that functions are found under by path, nobody is asked for a password.
    let moved = send(&world.api, None, "GET", &url.replace("https://accounts.google.com", "http://localhost:8080"), &[], "").await;
    assert_eq!(moved.status, 307);
    assert!(moved.header("location").starts_with("http://127.0.0.1:8080/o/oauth2/auth?response_type=code&"), "{}", moved.header("location"));
    let shared = [FORM, cookie, ("origin", "http://localhost:8080")];
    assert_eq!(send(&world.api, None, "POST", &url.replace("https://accounts.google.com", "http://localhost:8080"), &shared, pairs.clone()).await.status, 403);
    let style = send(&world.api, None, "GET", "https://accounts.google.com/sign-in/style.css", &[], "").await.good();
    assert_eq!(style.header("content-type"), "text/css; charset=utf-8");
}

pub async fn token_requests_are_checked(world: &World) {
    let check = async |pairs: &[(&str, &str)], status: u16, error: &str| {
        let answer = token(world, pairs).await;
        assert_eq!((answer.status.as_u16(), answer.json()["error"].as_str()), (status, Some(error)), "{pairs:?}");
    };
    check(&[], 400, "invalid_request").await;
    check(&[("grant_type", "password")], 400, "unsupported_grant_type").await;
    check(&[("grant_type", "refresh_token"), ("client_id", "x"), ("refresh_token", "y")], 401, "invalid_client").await;
    check(&[("grant_type", "refresh_token"), ("client_id", GCLOUD_CLIENT_ID), ("refresh_token", "1//x")], 400, "invalid_grant").await;
    check(&[("grant_type", JWT_BEARER), ("assertion", "a.b.c")], 400, "invalid_grant").await;
    check(&[("grant_type", JWT_BEARER), ("grant_type", JWT_BEARER)], 400, "invalid_request").await;
    let json = send(&world.api, None, "POST", TOKEN, &[JSON], "{}").await;
    assert_eq!(json.json()["error"], "invalid_request");
}

pub async fn keys_and_endpoints_are_published(world: &World) {
    let read = async |url: &str| send(&world.api, None, "GET", url, &[], "").await.good().json();
    let discovery = read("https://accounts.google.com/.well-known/openid-configuration").await;
    let jwks = read(discovery["jwks_uri"].as_str().unwrap()).await;
    let certificates = read("https://www.googleapis.com/oauth2/v1/certs").await;
    let id = world.iam.id_token_issue(&world.iam.identity("owner@example.com"), "a", true);
    let header: Json = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(id.split('.').next().unwrap()).unwrap()).unwrap();
    let kid = header["kid"].as_str().unwrap();
    let key = jwks["keys"].as_array().unwrap().iter().find(|key| key["kid"] == kid).unwrap();
    assert!(certificates[kid].as_str().unwrap().starts_with("-----BEGIN CERTIFICATE-----"));
    // Another library verifies the token with the published key.
    let key = jsonwebtoken::DecodingKey::from_rsa_components(key["n"].as_str().unwrap(), key["e"].as_str().unwrap()).unwrap();
    let mut rules = jsonwebtoken::Validation::new(jsonwebtoken::Algorithm::RS256);
    rules.set_audience(&["a"]);
    rules.set_issuer(&[discovery["issuer"].as_str().unwrap()]);
    assert_eq!(jsonwebtoken::decode::<Json>(&id, &key, &rules).unwrap().claims["email"], "owner@example.com");
}
