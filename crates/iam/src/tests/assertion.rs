//! Assertions and self-signed JWTs, made by another library with the key file that `key_create` gives.

use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::{Value, json};

use super::*;
use crate::TokenError::{self, Audience, Malformed, Signature, Subject, Time};

const TOKEN_URI: &str = "https://oauth2.googleapis.com/token";

struct Signer {
    email: String,
    kid: String,
    pem: String,
}

impl Signer {
    async fn new(world: &World, id: &str) -> Self {
        let account = world.iam.service_account_create(&project(), id, "", "").await.unwrap();
        let (key, pem) = world.iam.key_create(&account.email).await.unwrap();
        Self { email: account.email, kid: key.id, pem }
    }

    fn sign(&self, claims: &Value) -> String {
        self.sign_with(Some(&self.kid), claims)
    }

    fn sign_with(&self, kid: Option<&str>, claims: &Value) -> String {
        let mut header = Header::new(Algorithm::RS256);
        header.kid = kid.map(str::to_owned);
        encode(&header, claims, &EncodingKey::from_rsa_pem(self.pem.as_bytes()).unwrap()).unwrap()
    }

    /// As google-auth makes them.
    fn claims(&self) -> Value {
        json!({"iss": self.email, "aud": TOKEN_URI, "iat": START, "exp": START + 3600, "scope": "openid email"})
    }
}

/// Good claims with one changed; null takes it away.
fn changed(mut claims: Value, name: &str, value: Value) -> Value {
    let object = claims.as_object_mut().unwrap();
    if value.is_null() {
        object.remove(name)
    } else {
        object.insert(name.to_owned(), value)
    };
    claims
}

#[tokio::test]
async fn assertions_of_googles_libraries_are_taken() {
    let world = World::new().await;
    let signer = Signer::new(&world, "worker").await;
    let identity = world.iam.identity(&signer.email);
    let check = |name: &str, claims: Value| {
        for token in [signer.sign(&claims), signer.sign_with(None, &claims)] {
            let assertion = world.iam.assertion_check(&token).unwrap_or_else(|error| panic!("{name}: {error}"));
            assert_eq!(assertion.identity, identity, "{name}");
            assert_eq!(assertion.scope, claims["scope"].as_str().unwrap_or(""), "{name}");
            assert_eq!(assertion.target_audience.as_deref(), claims["target_audience"].as_str(), "{name}");
            assert_eq!(world.iam.assertion_check(&token), Ok(assertion), "{name}, again within its life");
        }
    };
    let good = signer.claims();
    check("scope", good.clone());
    check("ID token", changed(changed(good.clone(), "scope", Value::Null), "target_audience", json!("https://run.example")));
    check("sub", changed(good.clone(), "sub", json!(signer.email)));
    check("jti and others", changed(changed(good.clone(), "jti", json!("1")), "prn", json!("")));
    check("nbf", changed(good.clone(), "nbf", json!(START)));
    check("go's iat", changed(changed(good.clone(), "iat", json!(START - 10)), "exp", json!(START + 3590)));
    check("clock ahead", changed(changed(good.clone(), "iat", json!(START + 60)), "exp", json!(START + 3660)));
    check("old endpoint", changed(good.clone(), "aud", json!("https://accounts.google.com/o/oauth2/token")));
    check("loopback", changed(good.clone(), "aud", json!("http://127.0.0.1:8080/token")));
    world.iam.token_uri_add("https://tanebi.example.com/token");
    check("the operator's", changed(good, "aud", json!("https://tanebi.example.com/token")));
}

#[tokio::test]
async fn odd_assertions_are_refused() {
    let world = World::new().await;
    let signer = Signer::new(&world, "worker").await;
    let other = Signer::new(&world, "another").await;
    let good = signer.claims();
    // Those two are self-signed JWTs, good for an API as they are and not to be exchanged.
    let for_api = ["aud an API", "aud missing"];
    let check = |name: &str, token: String, expect: TokenError| {
        assert_eq!(world.iam.assertion_check(&token), Err(expect), "{name}");
        assert_eq!(world.iam.access_token_check(&token).is_ok(), for_api.contains(&name), "{name} as access token");
    };
    let token = signer.sign(&good);
    assert!(world.iam.assertion_check(&token).is_ok() && world.iam.access_token_check(&token).is_err());
    let with = |name: &str, value: Value| signer.sign(&changed(good.clone(), name, value));
    check("iss of another", with("iss", json!(other.email)), Signature);
    check("iss of nobody", with("iss", json!("nobody@local-project.iam.gserviceaccount.com")), Signature);
    check("iss a user", with("iss", json!(OWNER)), Signature);
    check("iss in other case", with("iss", json!(signer.email.to_uppercase())), Signature);
    check("iss with a path", with("iss", json!(format!("../{}", signer.email))), Signature);
    check("iss missing", with("iss", Value::Null), Malformed);
    check("sub of another", with("sub", json!(other.email)), Subject);
    check("sub a user, as for delegation", with("sub", json!(OWNER)), Subject);
    check("aud elsewhere", with("aud", json!("https://evil.example/token")), Audience);
    check("aud an API", with("aud", json!("https://run.googleapis.com/")), Audience);
    check("aud missing", with("aud", Value::Null), Audience);
    check("aud list", with("aud", json!([TOKEN_URI])), Malformed);
    check("aud with a slash", with("aud", json!("https://oauth2.googleapis.com/token/")), Audience);
    check("exp over an hour", with("exp", json!(START + 3601)), Time);
    check("exp past", signer.sign(&changed(changed(good.clone(), "iat", json!(START - 3660)), "exp", json!(START - 60))), Time);
    check("exp before iat", with("exp", json!(START - 1)), Time);
    check("exp text", with("exp", json!((START + 3600).to_string())), Malformed);
    check("exp missing", with("exp", Value::Null), Malformed);
    check("iat missing", with("iat", Value::Null), Malformed);
    check("iat in the future", signer.sign(&changed(changed(good.clone(), "iat", json!(START + 61)), "exp", json!(START + 3600))), Time);
    check("nbf in the future", with("nbf", json!(START + 61)), Time);
    check("exp huge", with("exp", json!(i64::MAX)), Time);
    check("kid unknown", signer.sign_with(Some("0123456789012345678901234567890123456789"), &good), Signature);
    check("kid of another's key", signer.sign_with(Some(&other.kid), &good), Signature);
    check("kid with a path", signer.sign_with(Some(&format!("../{}/{}", signer.email, signer.kid)), &good), Signature);
    check("signed by another's key", other.sign_with(Some(&signer.kid), &good), Signature);
    check("signed by another's key, no kid", other.sign_with(None, &good), Signature);
    let key = EncodingKey::from_secret(signer.pem.as_bytes());
    check("HS256", encode(&Header::new(Algorithm::HS256), &good, &key).unwrap(), Malformed);
    let own = world.iam.signer();
    let by_us = token_of(&format!(r#"{{"alg":"RS256","kid":"{}","typ":"JWT"}}"#, own.kid), &good.to_string(), |bytes| own.private.sign(bytes).to_vec());
    check("by the issuer's key", by_us, Signature);
    check("an ID token", world.iam.id_token_issue(&world.iam.identity(&signer.email), TOKEN_URI, true), Signature);

    let token = signer.sign(&good);
    assert!(world.iam.assertion_check(&token).is_ok());
    world.iam.service_account_disable(&signer.email, true).await.unwrap();
    check("account disabled", token.clone(), Subject);
    world.iam.service_account_disable(&signer.email, false).await.unwrap();
    assert!(world.iam.assertion_check(&token).is_ok());
    world.iam.key_delete(&signer.email, &signer.kid).await.unwrap();
    check("key deleted", token, Signature);
    let token = other.sign(&other.claims());
    assert!(world.iam.assertion_check(&token).is_ok());
    world.iam.service_account_delete(&other.email).await.unwrap();
    check("account deleted", token, Signature);
}

#[tokio::test]
async fn self_signed_tokens_are_for_apis() {
    let world = World::new().await;
    let signer = Signer::new(&world, "worker").await;
    let identity = world.iam.identity(&signer.email);
    let good = json!({"iss": signer.email, "sub": signer.email, "aud": "https://run.googleapis.com/", "iat": START, "exp": START + 3600});
    let check = |name: &str, claims: Value, expect: Result<Identity, TokenError>| {
        let token = signer.sign(&claims);
        assert_eq!(world.iam.access_token_check(&token), expect, "{name}");
        assert!(world.iam.assertion_check(&token).is_err(), "{name} as assertion");
        assert!(world.iam.id_token_check(&token, &|_| true).is_err(), "{name} as ID token");
    };
    check("an API", good.clone(), Ok(identity.clone()));
    let scoped = changed(changed(good.clone(), "aud", Value::Null), "scope", json!("https://www.googleapis.com/auth/cloud-platform"));
    check("a scope", scoped.clone(), Ok(identity));
    check("no scope", changed(scoped, "scope", json!("")), Err(Audience));
    check("elsewhere", changed(good.clone(), "aud", json!("https://evil.example/")), Err(Audience));
    check("a service", changed(good.clone(), "aud", json!("https://f-1.asia-northeast1.run.app")), Err(Audience));
    check("expired", changed(changed(good.clone(), "iat", json!(START - 4000)), "exp", json!(START - 400)), Err(Time));
    check("another's sub", changed(good, "sub", json!(OWNER)), Err(Subject));
}

#[tokio::test]
async fn accounts_have_at_most_ten_keys() {
    let world = World::new().await;
    let account = world.iam.service_account_create(&project(), "worker", "", "").await.unwrap();
    for _ in 0..10 {
        world.iam.key_create(&account.email).await.unwrap();
    }
    let refused = world.iam.key_create(&account.email).await.unwrap_err();
    assert_eq!(refused.code, model::Code::FailedPrecondition, "{refused}");
    let keys = world.iam.key_list(&account.email).unwrap();
    assert_eq!(keys.len(), 10);
    for key in &keys {
        assert!(key.id.len() == 40 && key.id.bytes().all(|b| b.is_ascii_hexdigit()), "{}", key.id);
        assert!(key.public_key_pem.starts_with("-----BEGIN PUBLIC KEY-----\n"));
    }
    world.iam.key_delete(&account.email, &keys[0].id).await.unwrap();
    assert_eq!(world.iam.key_delete(&account.email, &keys[0].id).await.unwrap_err().code, model::Code::NotFound);
    world.iam.key_create(&account.email).await.unwrap();
    assert_eq!(world.iam.key_create("nobody@local-project.iam.gserviceaccount.com").await.unwrap_err().code, model::Code::NotFound);
}
