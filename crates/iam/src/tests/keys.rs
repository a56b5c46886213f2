//! Rotation, publication, and what a restart keeps.

use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header, jwk::JwkSet};
use serde_json::Value;

use super::*;

const HOUR: Duration = Duration::from_secs(3600);

fn kids(iam: &Iam) -> Vec<String> {
    let jwks: Value = serde_json::from_str(&iam.jwks()).unwrap();
    jwks["keys"].as_array().unwrap().iter().map(|key| key["kid"].as_str().unwrap().to_owned()).collect()
}

fn signer(iam: &Iam) -> String {
    decode_header(iam.id_token_issue(&iam.identity(OWNER), "x", true)).unwrap().kid.unwrap()
}

#[tokio::test]
async fn keys_rotate_daily_and_stay_for_two_days_more() {
    let world = World::new().await;
    let iam = &world.iam;
    let first = signer(iam);
    assert_eq!(kids(iam), std::slice::from_ref(&first));
    for _ in 0..23 {
        world.clock.advance(HOUR);
        iam.rotate().await.unwrap();
    }
    assert_eq!(kids(iam), std::slice::from_ref(&first), "not within a day");
    let token = iam.id_token_issue(&world.owner(), "x", true);
    world.clock.advance(HOUR);
    iam.rotate().await.unwrap();
    iam.rotate().await.unwrap();
    let both = kids(iam);
    assert_eq!(both.len(), 2, "once, however often it is called");
    assert_eq!(both[1], first);
    assert_eq!(signer(iam), first, "the new key is published before it signs");
    assert!(iam.id_token_check(&token, &|_| true).is_ok());
    world.clock.advance(HOUR);
    iam.rotate().await.unwrap();
    assert_eq!(signer(iam), both[0]);
    let mut gone_after_h = None;
    for hour in 1..=72 {
        world.clock.advance(HOUR);
        iam.rotate().await.unwrap();
        let now = kids(iam);
        assert!(now.len() <= 4, "{now:?}");
        if !now.contains(&first) {
            gone_after_h.get_or_insert(hour);
        }
    }
    // 48 h after it was superseded, at the next tick.
    assert!(gone_after_h.is_some_and(|hours| (47..=49).contains(&hours)), "{gone_after_h:?}");
    world.clock.set(START + 24 * 3600);
    assert_eq!(iam.id_token_check(&token, &|_| true), Err(crate::TokenError::Signature), "remembered or not, its key is gone");
}

#[tokio::test]
async fn a_key_that_signed_for_long_is_not_cut_short() {
    let world = World::new().await;
    let iam = &world.iam;
    world.clock.advance(30 * 24 * HOUR);
    let token = iam.id_token_issue(&world.owner(), "x", true);
    iam.rotate().await.unwrap();
    assert_eq!(kids(iam).len(), 2);
    world.clock.advance(HOUR / 2);
    iam.rotate().await.unwrap();
    assert!(iam.id_token_check(&token, &|_| true).is_ok());
}

#[tokio::test]
async fn a_clock_set_back_stops_nothing() {
    let world = World::new().await;
    let iam = &world.iam;
    world.clock.set(START - 10 * 24 * 3600);
    iam.rotate().await.unwrap();
    let token = iam.id_token_issue(&world.owner(), "x", true);
    assert!(iam.id_token_check(&token, &|_| true).is_ok());
    assert_eq!(kids(iam).len(), 1);
}

/// Another library, given the published keys, takes our tokens: signature, `kid`, audience, issuer.
#[tokio::test]
async fn others_verify_our_tokens_by_the_published_keys() {
    let world = World::new().await;
    let iam = &world.iam;
    let jwks: JwkSet = serde_json::from_str(&iam.jwks()).unwrap();
    for who in [world.owner(), iam.identity(COMPUTE)] {
        let token = iam.id_token_issue(&who, "https://f.example", true);
        let kid = decode_header(&token).unwrap().kid.unwrap();
        let jwk = jwks.find(&kid).unwrap();
        assert_eq!(jwk.thumbprint(jsonwebtoken::jwk::ThumbprintHash::SHA256).unwrap(), kid);
        let mut validation = Validation::new(Algorithm::RS256);
        validation.set_audience(&["https://f.example"]);
        validation.set_issuer(&[crate::ISSUER]);
        validation.validate_exp = false;
        let claims = decode::<Value>(&token, &DecodingKey::from_jwk(jwk).unwrap(), &validation).unwrap().claims;
        let azp = if who.email == COMPUTE { who.subject.as_str() } else { "https://f.example" };
        let expect = serde_json::json!({
            "iss": "https://accounts.google.com", "azp": azp, "aud": "https://f.example", "sub": who.subject,
            "email": who.email, "email_verified": true, "iat": START, "exp": START + 3600,
        });
        assert_eq!(claims, expect);
    }
    let pems: Value = serde_json::from_str(&iam.public_keys_pem()).unwrap();
    assert!(DecodingKey::from_rsa_pem(pems[&kids(iam)[0]].as_str().unwrap().as_bytes()).is_ok());
}

#[tokio::test]
async fn a_restart_keeps_everything_but_codes_and_links() {
    let World { iam, clock, store, dir } = World::new().await;
    let who = iam.identity(OWNER);
    let token = iam.id_token_issue(&who, "x", true);
    let jwks = iam.jwks();
    iam.user_create("alice@example.com").await.unwrap();
    let account = iam.service_account_create(&project(), "worker", "Worker", "does work").await.unwrap();
    let (key, _) = iam.key_create(&account.email).await.unwrap();
    let refresh = iam.refresh_token_issue(&who, "client", "openid").await.unwrap();
    let service = format!("projects/{PROJECT}/locations/asia-northeast1/services/f");
    let policy = super::policy::policy(&[("roles/run.invoker", &["allUsers"])]);
    let set = iam.policy_set(&service, policy, "").await.unwrap();
    let link = iam.sign_in_link_issue(OWNER);
    drop((iam, store));

    let store = store_open(&dir.path().join("data")).await;
    let iam = iam_open(&store, &clock).await;
    assert_eq!(iam.jwks(), jwks);
    assert_eq!(iam.id_token_check(&token, &|_| true), Ok(who.clone()));
    assert!(iam.user_exists("alice@example.com"));
    assert_eq!(iam.service_account_get(None, &account.email).unwrap(), account);
    assert_eq!(iam.service_account_get(Some(&project()), &account.unique_id).unwrap(), account);
    assert_eq!(iam.key_list(&account.email).unwrap(), [key]);
    assert_eq!(iam.refresh_token_redeem(&refresh, "client").unwrap().identity, who);
    assert_eq!(iam.policy_get(&service).unwrap(), set);
    assert!(iam.may(None, "run.routes.invoke", &service, PROJECT));
    assert_eq!(iam.sign_in_link_redeem(&link), None);
}

/// Another writer on the same store, as another node would be.
#[tokio::test]
async fn changes_of_another_writer_are_seen() {
    let world = World::new().await;
    let (ours, theirs) = (&world.iam, iam_open(&world.store, &world.clock).await);
    let service = format!("projects/{PROJECT}/locations/asia-northeast1/services/f");
    let open = || super::policy::policy(&[("roles/run.invoker", &["allUsers"])]);
    theirs.policy_set(&service, open(), "").await.unwrap();
    until("a policy", || ours.may(None, "run.routes.invoke", &service, PROJECT)).await;
    theirs.policy_delete(&service).await.unwrap();
    until("its end", || !ours.may(None, "run.routes.invoke", &service, PROJECT)).await;
    let account = theirs.service_account_create(&project(), "worker", "", "").await.unwrap();
    until("an account", || ours.service_account_get(None, &account.email).is_ok()).await;
    let token = ours.id_token_issue(&ours.identity(&account.email), "x", true);
    assert!(ours.id_token_check(&token, &|_| true).is_ok());
    theirs.service_account_disable(&account.email, true).await.unwrap();
    until("its disabling", || ours.id_token_check(&token, &|_| true).is_err()).await;
    world.clock.advance(24 * HOUR);
    theirs.rotate().await.unwrap();
    world.clock.advance(HOUR);
    theirs.rotate().await.unwrap();
    let token = theirs.id_token_issue(&world.owner(), "x", true);
    until("a key", || ours.id_token_check(&token, &|_| true).is_ok()).await;
}

#[tokio::test]
async fn an_owner_must_be_a_person() {
    let world = World::new().await;
    for bad in ["", "owner", "x@p.iam.gserviceaccount.com", "a b@x.y"] {
        let opened = Iam::open(world.store.clone(), world.clock.clone(), project(), ProjectNumber(9_000_000_000_001), bad).await;
        assert_eq!(opened.err().map(|status| status.code), Some(model::Code::InvalidArgument), "{bad}");
    }
}
