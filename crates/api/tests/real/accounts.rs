//! Service accounts, keys, roles, and tokens of other accounts.

use serde_json::{Value as Json, json};

use crate::world::{PROJECT, World};

const IAM: &str = "iam.googleapis.com";
const CREDENTIALS: &str = "iamcredentials.googleapis.com";

async fn account(world: &World, id: &str) -> String {
    world.good("POST", IAM, &format!("/v1/projects/{PROJECT}/serviceAccounts"), Some(json!({ "accountId": id }))).await["email"].as_str().unwrap().to_owned()
}

async fn bind(world: &World, account: &str, role: &str, member: &str) {
    let policy = json!({ "policy": { "bindings": [{ "role": role, "members": [member] }] } });
    world.good("POST", IAM, &format!("/v1/projects/{PROJECT}/serviceAccounts/{account}:setIamPolicy"), Some(policy)).await;
}

pub async fn an_account_lives_and_dies(world: &World) {
    let body = json!({ "accountId": "life-1", "serviceAccount": { "displayName": "One", "description": "first" } });
    let made = world.good("POST", IAM, &format!("/v1/projects/{PROJECT}/serviceAccounts"), Some(body)).await;
    let email = format!("life-1@{PROJECT}.iam.gserviceaccount.com");
    let name = format!("/v1/projects/{PROJECT}/serviceAccounts/{email}");
    assert_eq!((&made["email"], &made["displayName"], &made["name"]), (&json!(email), &json!("One"), &json!(&name[4..])));
    // As gcloud asks for the account of a build: by the wildcard project, and by its unique id.
    for id in [email.as_str(), made["uniqueId"].as_str().unwrap()] {
        assert_eq!(world.good("GET", IAM, &format!("/v1/projects/-/serviceAccounts/{id}"), None).await, made);
    }
    let patch = json!({ "serviceAccount": { "displayName": "Two" }, "updateMask": "displayName" });
    let patched = world.good("PATCH", IAM, &name, Some(patch)).await;
    assert_eq!((&patched["displayName"], &patched["description"]), (&json!("Two"), &json!("first")));
    assert_eq!(world.bad("PATCH", IAM, &name, Some(json!({ "serviceAccount": { "email": "x" }, "updateMask": "email" }))).await.0, 400);
    world.good("POST", IAM, &format!("{name}:disable"), Some(json!({}))).await;
    assert_eq!(world.good("GET", IAM, &name, None).await["disabled"], true);
    world.good("POST", IAM, &format!("{name}:enable"), Some(json!({}))).await;
    let mut seen = Vec::new();
    let mut token = String::new();
    loop {
        let page = world.good("GET", IAM, &format!("/v1/projects/{PROJECT}/serviceAccounts?pageSize=1&pageToken={token}"), None).await;
        seen.extend(page["accounts"].as_array().unwrap().iter().map(|account| account["email"].as_str().unwrap().to_owned()));
        match page["nextPageToken"].as_str() {
            Some(next) => token = next.to_owned(),
            None => break,
        }
    }
    assert!(seen.contains(&email) && seen.contains(&format!("{}-compute@developer.gserviceaccount.com", world.number)), "{seen:?}");
    world.good("DELETE", IAM, &name, None).await;
    let (status, body) = world.call(Some(&world.owner), "GET", IAM, &name, None).await;
    assert!(matches!(status.as_u16(), 403 | 404), "{body:#}");
    assert_eq!(world.bad("POST", IAM, &format!("/v1/projects/{PROJECT}/serviceAccounts"), Some(json!({ "accountId": "X" }))).await.0, 400);
}

pub async fn keys_are_listed_and_deleted(world: &World) {
    let email = account(world, "keys-1").await;
    let keys = format!("/v1/projects/{PROJECT}/serviceAccounts/{email}/keys");
    let made = world.good("POST", IAM, &keys, Some(json!({ "privateKeyType": "TYPE_GOOGLE_CREDENTIALS_FILE" }))).await;
    let listed = world.good("GET", IAM, &format!("{keys}?keyTypes=USER_MANAGED"), None).await;
    assert_eq!((&listed["keys"][0]["name"], listed["keys"][0].get("privateKeyData")), (&made["name"], None));
    assert_eq!(world.good("GET", IAM, &format!("{keys}?keyTypes=SYSTEM_MANAGED"), None).await, json!({}));
    let name = format!("/v1/{}", made["name"].as_str().unwrap());
    let public = world.good("GET", IAM, &format!("{name}?publicKeyType=TYPE_X509_PEM_FILE"), None).await;
    assert!(!public["publicKeyData"].as_str().unwrap().is_empty());
    assert_eq!(world.bad("POST", IAM, &keys, Some(json!({ "privateKeyType": "TYPE_PKCS12_FILE" }))).await.0, 400);
    world.good("DELETE", IAM, &name, None).await;
    assert_eq!(world.bad("GET", IAM, &name, None).await.0, 404);
}

pub async fn roles_are_listed(world: &World) {
    let role = world.good("GET", IAM, "/v1/roles/run.invoker", None).await;
    assert!(role["includedPermissions"].as_array().unwrap().contains(&json!("run.routes.invoke")), "{role:#}");
    assert_eq!(world.bad("GET", IAM, "/v1/roles/no.such", None).await.0, 404);
    let first = world.good("GET", IAM, "/v1/roles?pageSize=5", None).await;
    let second = world.good("GET", IAM, &format!("/v1/roles?pageSize=5&pageToken={}", first["nextPageToken"].as_str().unwrap()), None).await;
    assert_eq!((first["roles"].as_array().unwrap().len(), first["roles"][0].get("includedPermissions")), (5, None));
    assert!(first["roles"][4]["name"].as_str().unwrap() < second["roles"][0]["name"].as_str().unwrap());
    let asked = json!({ "fullResourceName": format!("//cloudresourcemanager.googleapis.com/projects/{PROJECT}"), "pageSize": 1000 });
    let grantable = world.good("POST", IAM, "/v1/roles:queryGrantableRoles", Some(asked)).await;
    assert!(grantable["roles"].as_array().unwrap().len() > 40);
    assert_eq!(world.good("GET", IAM, &format!("/v1/projects/{PROJECT}/roles"), None).await, json!({}));
}

pub async fn tokens_of_another_account_need_the_right_to_them(world: &World) {
    let email = account(world, "other-1").await;
    let path = |verb: &str| format!("/v1/projects/-/serviceAccounts/{email}:{verb}");
    let scope = json!({ "delegates": null, "scope": ["https://www.googleapis.com/auth/cloud-platform"], "lifetime": "600s" });
    // Owners of a project do not have the right by that.
    assert_eq!(world.bad("POST", CREDENTIALS, &path("generateAccessToken"), Some(scope.clone())).await.0, 403);
    bind(world, &email, "roles/iam.serviceAccountTokenCreator", "user:owner@example.com").await;
    let token = world.good("POST", CREDENTIALS, &path("generateAccessToken"), Some(scope)).await;
    assert_eq!(world.iam.access_token_check(token["accessToken"].as_str().unwrap()).unwrap().email, email);
    let expires: model::Timestamp = token["expireTime"].as_str().unwrap().parse().unwrap();
    assert!(expires.duration_since(model::Timestamp::now()).as_secs() <= 600);
    let id = world.good("POST", CREDENTIALS, &path("generateIdToken"), Some(json!({ "audience": "https://aud", "includeEmail": true }))).await;
    let claims = crate::oauth::claims(id["token"].as_str().unwrap());
    assert_eq!((&claims["aud"], &claims["email"]), (&json!("https://aud"), &json!(email)));
    for (verb, body, field) in [
        ("generateAccessToken", json!({}), "scope"),
        ("generateAccessToken", json!({ "scope": ["s"], "lifetime": "3601s" }), "lifetime"),
        ("generateIdToken", json!({}), "audience"),
        ("generateIdToken", json!({ "audience": "a", "delegates": ["who"] }), "delegates[0]"),
        ("signBlob", json!({}), "payload"),
        ("signJwt", json!({}), "payload"),
        ("signJwt", json!({ "payload": "[]" }), "payload"),
        ("signJwt", json!({ "payload": "{\"exp\":1}" }), "exp"),
    ] {
        let (status, _, message) = world.bad("POST", CREDENTIALS, &path(verb), Some(body)).await;
        assert_eq!(status, 400, "{message}");
        assert!(message.contains(field), "{verb}: {message}");
    }
    assert_eq!(world.bad("POST", CREDENTIALS, &path("generateIdToken").replace("other-1", "no-such"), Some(json!({ "audience": "a" }))).await.0, 403);
}

/// What storage's signed URLs and keyless libraries are made of.
pub async fn an_account_signs_for_who_may_ask(world: &World) {
    use jsonwebtoken::{Algorithm, DecodingKey, Validation, crypto, decode, decode_header};
    let email = account(world, "signer-1").await;
    let path = |verb: &str| format!("/v1/projects/-/serviceAccounts/{email}:{verb}");
    let blob = json!({ "payload": "aGVsbG8=" });
    let (status, _, message) = world.bad("POST", CREDENTIALS, &path("signBlob"), Some(blob.clone())).await;
    assert!(status == 403 && message.contains("iam.serviceAccounts.signBlob"), "{message}");
    bind(world, &email, "roles/iam.serviceAccountTokenCreator", "user:owner@example.com").await;

    let signed = world.good("POST", CREDENTIALS, &path("signBlob"), Some(blob)).await;
    let published = world.good("GET", "www.googleapis.com", &format!("/service_accounts/v1/jwk/{email}"), None).await;
    let key = published["keys"].as_array().unwrap().iter().find(|key| key["kid"] == signed["keyId"]).unwrap();
    let key = DecodingKey::from_rsa_components(key["n"].as_str().unwrap(), key["e"].as_str().unwrap()).unwrap();
    let url_safe = signed["signedBlob"].as_str().unwrap().replace('+', "-").replace('/', "_").replace('=', "");
    assert!(crypto::verify(&url_safe, b"hello", &key, Algorithm::RS256).unwrap());
    assert!(!crypto::verify(&url_safe, b"hellp", &key, Algorithm::RS256).unwrap());
    let certificates = world.good("GET", "www.googleapis.com", &format!("/robot/v1/metadata/x509/{email}"), None).await;
    assert!(certificates[signed["keyId"].as_str().unwrap()].as_str().unwrap().starts_with("-----BEGIN CERTIFICATE-----"));

    let now = model::Timestamp::now().as_second();
    let claims = json!({ "iss": email, "sub": email, "aud": "https://oauth2.googleapis.com/token", "iat": now, "exp": now + 3600, "scope": "email" });
    let name = format!("projects/-/serviceAccounts/{email}");
    let request = proto::google::iam::credentials::v1::SignJwtRequest { name, payload: claims.to_string(), ..Default::default() };
    let method = "google.iam.credentials.v1.IAMCredentials/SignJwt";
    let reply: proto::google::iam::credentials::v1::SignJwtResponse = world.grpc(Some(&world.owner), method, &request).await.unwrap();
    let header = decode_header(&reply.signed_jwt).unwrap();
    assert_eq!((header.kid.as_ref(), header.alg), (Some(&reply.key_id), Algorithm::RS256));
    assert_eq!(json!(reply.key_id), signed["keyId"], "one key signs");
    let mut rules = Validation::new(Algorithm::RS256);
    rules.set_audience(&["https://oauth2.googleapis.com/token"]);
    assert_eq!(decode::<Json>(&reply.signed_jwt, &key, &rules).unwrap().claims, claims);
    // As good as one that a key file has signed: keyless libraries exchange it.
    let form = crate::http::form(&[("grant_type", "urn:ietf:params:oauth:grant-type:jwt-bearer"), ("assertion", &reply.signed_jwt)]);
    let (status, token) = world.raw(None, "POST", "oauth2.googleapis.com", "/token", "application/x-www-form-urlencoded", form.into()).await;
    assert_eq!(status, 200, "{}", String::from_utf8_lossy(&token));

    let keys = format!("/v1/projects/{PROJECT}/serviceAccounts/{email}/keys");
    let managed = world.good("GET", IAM, &format!("{keys}?keyTypes=SYSTEM_MANAGED"), None).await;
    assert_eq!((managed["keys"].as_array().unwrap().len(), &managed["keys"][0]["keyType"]), (1, &json!("SYSTEM_MANAGED")));
    assert_eq!(world.good("GET", IAM, &format!("{keys}?keyTypes=USER_MANAGED"), None).await, json!({}));
    assert_eq!(world.bad("DELETE", IAM, &format!("/v1/{}", managed["keys"][0]["name"].as_str().unwrap()), None).await.0, 400);
}

pub async fn delegates_hand_the_right_on(world: &World) {
    let (first, last) = (account(world, "chain-1").await, account(world, "chain-2").await);
    let path = format!("/v1/projects/-/serviceAccounts/{last}:generateIdToken");
    let body = json!({ "audience": "a", "delegates": [format!("projects/-/serviceAccounts/{first}")] });
    let call = async || world.call(Some(&world.owner), "POST", CREDENTIALS, &path, Some(body.clone())).await.0.as_u16();
    bind(world, &last, "roles/iam.serviceAccountTokenCreator", &format!("serviceAccount:{first}")).await;
    assert_eq!(call().await, 403);
    bind(world, &first, "roles/iam.serviceAccountTokenCreator", "user:owner@example.com").await;
    assert_eq!(call().await, 200);
    // Without the delegate the caller has no right of its own.
    let direct: (u16, String, String) = world.bad("POST", CREDENTIALS, &path, Some(json!({ "audience": "a" }))).await;
    assert_eq!(direct.0, 403);
    world.good("POST", IAM, &format!("/v1/projects/{PROJECT}/serviceAccounts/{last}:disable"), Some(Json::Object(Default::default()))).await;
    assert_eq!(call().await, 400);
}
