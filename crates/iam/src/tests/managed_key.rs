//! Signatures that this server makes for an account.

use jsonwebtoken::{Algorithm, DecodingKey, crypto};
use model::Code;
use serde_json::json;

use super::*;

const DAY: Duration = Duration::from_secs(24 * 3600);

async fn account(world: &World) -> String {
    world.iam.service_account_create(&project(), "signer", "", "").await.unwrap().email
}

/// Whether a published key of the account made this signature.
fn is_published(world: &World, email: &str, key_id: &str, signature: &[u8], blob: &[u8]) -> bool {
    let keys = world.iam.key_list(email).unwrap();
    let Some(key) = keys.iter().find(|key| key.id == key_id) else { return false };
    let key = DecodingKey::from_rsa_pem(key.public_key_pem.as_bytes()).unwrap();
    crypto::verify(&URL_SAFE_NO_PAD.encode(signature), blob, &key, Algorithm::RS256).unwrap()
}

#[tokio::test]
async fn a_key_signs_for_two_weeks_and_is_published_for_two_more() {
    let world = World::new().await;
    let email = account(&world).await;
    assert_eq!(world.iam.key_list(&email).unwrap(), [], "made when it is needed");
    let first = world.iam.blob_sign(&email, b"blob").await.unwrap();
    let holds = || is_published(&world, &email, &first.key_id, &first.value, b"blob");
    assert!(holds() && !is_published(&world, &email, &first.key_id, &first.value, b"blub"));
    world.clock.advance(13 * DAY);
    assert_eq!(world.iam.blob_sign(&email, b"blob").await.unwrap(), first);
    world.clock.advance(DAY);
    let second = world.iam.blob_sign(&email, b"blob").await.unwrap();
    assert_ne!(second.key_id, first.key_id);
    assert!(holds() && is_published(&world, &email, &second.key_id, &second.value, b"blob"));
    world.clock.advance(14 * DAY);
    assert!(!holds(), "published no more");
    world.iam.blob_sign(&email, b"blob").await.unwrap();
    let kept = world.store.scan(&model::key::service_account_key(&email, ""), None, 10).unwrap();
    assert!(kept.len() == 2 && kept.iter().all(|record| !record.key.ends_with(&first.key_id)), "what is past is deleted");
}

#[tokio::test]
async fn a_restart_keeps_the_key_and_the_account_takes_it_along() {
    let World { iam, clock, store, dir } = World::new().await;
    let email = iam.service_account_create(&project(), "signer", "", "").await.unwrap().email;
    let first = iam.blob_sign(&email, b"blob").await.unwrap();
    drop(iam);
    drop(store);
    let store = store_open(&dir.path().join("data")).await;
    let iam = iam_open(&store, &clock).await;
    assert_eq!(iam.blob_sign(&email, b"blob").await.unwrap(), first);
    let refused = iam.key_delete(&email, &first.key_id).await.unwrap_err();
    assert_eq!(refused.code, Code::FailedPrecondition);
    iam.service_account_delete(&email).await.unwrap();
    assert_eq!(store.scan(model::key::SERVICE_ACCOUNT_KEYS, None, 10).unwrap().len(), 0);
    assert_eq!(iam.blob_sign(&email, b"blob").await.unwrap_err().code, Code::NotFound);
}

#[tokio::test]
async fn claims_are_looked_at_before_they_are_signed() {
    let world = World::new().await;
    let email = account(&world).await;
    let check = async |claims: &str, expect: bool| {
        let signed = world.iam.jwt_sign(&email, claims).await;
        assert_eq!(signed.as_ref().map_err(|error| error.code).err(), (!expect).then_some(Code::InvalidArgument), "{claims}");
        if let Ok(signed) = signed {
            let payload = signed.value.split('.').nth(1).unwrap();
            assert_eq!(URL_SAFE_NO_PAD.decode(payload).unwrap(), claims.as_bytes(), "as they are written");
        }
    };
    check("{}", true).await;
    check(r#"{ "sub": "u",  "n": 1.50 }"#, true).await;
    for (exp, expect) in [(START, true), (START + 12 * 3600, true), (START - 1, false), (START + 12 * 3600 + 1, false)] {
        check(&json!({ "exp": exp }).to_string(), expect).await;
    }
    for bad in ["", "x", "[]", "1", r#"{"exp":"1"}"#, r#"{"exp":1e9}"#, r#"{"exp":null}"#, r#"{"a":1,"a":2}"#] {
        check(bad, false).await;
    }
}

#[tokio::test]
async fn what_was_signed_ahead_of_time_ends_with_the_key() {
    let world = World::new().await;
    let email = account(&world).await;
    let assertion = async |iat: i64| {
        let claims = json!({ "iss": email, "aud": "https://oauth2.googleapis.com/token", "iat": iat, "exp": iat + 3600, "scope": "email" });
        let text = format!("{}.{}", URL_SAFE_NO_PAD.encode(r#"{"alg":"RS256","typ":"JWT"}"#), URL_SAFE_NO_PAD.encode(claims.to_string()));
        format!("{text}.{}", URL_SAFE_NO_PAD.encode(world.iam.blob_sign(&email, text.as_bytes()).await.unwrap().value))
    };
    let (early, late) = (assertion(START + 27 * 24 * 3600).await, assertion(START + 29 * 24 * 3600).await);
    world.clock.advance(27 * DAY);
    assert_eq!(world.iam.assertion_check(&early).unwrap().identity, world.iam.identity(&email));
    world.clock.advance(2 * DAY);
    assert_eq!(world.iam.assertion_check(&late), Err(crate::TokenError::Subject));
}

#[tokio::test]
async fn a_signed_jwt_is_an_assertion_of_the_account() {
    let world = World::new().await;
    let email = account(&world).await;
    let claims = json!({ "iss": email, "aud": "https://oauth2.googleapis.com/token", "iat": START, "exp": START + 3600, "scope": "email" });
    let signed = world.iam.jwt_sign(&email, &claims.to_string()).await.unwrap();
    assert_eq!(world.iam.assertion_check(&signed.value).unwrap().identity, world.iam.identity(&email));
    // For half a day it is good elsewhere, not here.
    let long = json!({ "iss": email, "aud": "https://oauth2.googleapis.com/token", "iat": START, "exp": START + 12 * 3600 });
    let signed = world.iam.jwt_sign(&email, &long.to_string()).await.unwrap();
    assert_eq!(world.iam.assertion_check(&signed.value), Err(crate::TokenError::Time));
    // No token of this issuer, whatever it claims.
    let forged = json!({ "iss": crate::ISSUER, "azp": "a", "aud": "a", "sub": "1", "email": OWNER, "email_verified": true, "iat": START, "exp": START + 60 });
    let signed = world.iam.jwt_sign(&email, &forged.to_string()).await.unwrap();
    assert_eq!(world.iam.id_token_check(&signed.value, &|_| true), Err(crate::TokenError::Signature));
}
