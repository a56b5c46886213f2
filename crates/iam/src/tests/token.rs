//! Real tokens: taken, for as long as they should be.

use super::{
    forged::{AUDIENCE, good_claims, header, id_check},
    *,
};
use crate::{
    Kind,
    TokenError::{self, Subject},
};

#[tokio::test]
async fn real_tokens_are_taken() {
    let world = World::new().await;
    let iam = &world.iam;
    for who in [world.owner(), iam.identity(COMPUTE)] {
        for include_email in [true, false] {
            let token = iam.id_token_issue(&who, AUDIENCE, include_email);
            assert_eq!(id_check(iam, &token), Ok(who.clone()));
            assert_eq!(id_check(iam, &token), Ok(who.clone()), "from memory");
        }
        let gcloud = iam.id_token_issue(&who, crate::GCLOUD_CLIENT_ID, true);
        assert_eq!(id_check(iam, &gcloud), Ok(who.clone()));
        let scope = "https://www.googleapis.com/auth/cloud-platform ".repeat(40);
        let access = iam.access_token_issue(&who, &scope, Duration::from_secs(3600));
        assert!(access.token.starts_with("ya29.") && access.token.len() < 2048, "{}", access.token.len());
        assert_eq!(access.expires.as_second(), START + 3600);
        assert_eq!(iam.access_token_check(&access.token), Ok(who.clone()));
        assert_eq!(iam.access_token_check(&access.token), Ok(who.clone()), "from memory");
    }
    let brief = iam.access_token_issue(&world.owner(), "", Duration::from_secs(300));
    assert_eq!(brief.expires.as_second(), START + 300);
    let long = iam.access_token_issue(&world.owner(), "", Duration::from_secs(12 * 3600));
    assert_eq!(long.expires.as_second(), START + 3600);
    assert_eq!(iam.access_token_read(&brief.token).unwrap().scope, "");
}

#[tokio::test]
async fn times_have_sixty_seconds_of_grace() {
    let world = World::new().await;
    let iam = &world.iam;
    let id = iam.id_token_issue(&world.owner(), AUDIENCE, true);
    let access = iam.access_token_issue(&world.owner(), "", Duration::from_secs(3600)).token;
    for (second, expect) in [(0, true), (3600, true), (3659, true), (3660, false), (1 << 40, false), (-60, true), (-61, false), (30, true)] {
        world.clock.set(START + second.min(200_000_000_000));
        assert_eq!(id_check(iam, &id).is_ok(), expect, "{second}");
        assert_eq!(iam.access_token_check(&access).is_ok(), expect, "{second}");
    }
}

#[tokio::test]
async fn what_is_ours_is_known_whatever_it_is_for() {
    let world = World::new().await;
    let iam = &world.iam;
    let id = iam.id_token_issue(&world.owner(), "https://elsewhere.example", true);
    let access = iam.access_token_issue(&world.owner(), "", Duration::from_secs(60)).token;
    let (signed, signature) = id.rsplit_once('.').unwrap();
    let standard = signature.replace('-', "+").replace('_', "/");
    let ours = [
        id.clone(),
        access.clone(),
        access.strip_prefix("ya29.").unwrap().to_owned(),
        format!("{id}=="),
        format!(" {id}\n"),
        format!("{signed}.{standard}"),
        format!("{signed}.{standard}=="),
        format!("ya29.{id}"),
    ];
    for token in &ours {
        assert!(iam.is_own(token), "{token}");
    }
    world.clock.advance(Duration::from_secs(24 * 3600));
    assert!(iam.is_own(&id), "an expired one too");
    let header = header(&iam.signer().kid, "JWT", "");
    let foreign = token_of(&header, &good_claims(), |bytes| FOREIGN_KEY.sign(bytes).to_vec());
    for token in ["", ".", "a.b.c", "ya29.x", signed, &foreign, &"a".repeat(1 << 20), &format!("{signed}.AAAA")] {
        assert!(!iam.is_own(token), "{token:.80}");
    }
}

#[tokio::test]
async fn tokens_end_with_their_account() {
    let world = World::new().await;
    let iam = &world.iam;
    let account = iam.service_account_create(&project(), "worker", "", "").await.unwrap();
    let who = iam.identity(&account.email);
    assert_eq!(who.kind, Kind::ServiceAccount);
    let tokens = [iam.id_token_issue(&who, AUDIENCE, true), iam.id_token_issue(&who, AUDIENCE, false)];
    let access = iam.access_token_issue(&who, "", Duration::from_secs(3600)).token;
    let check = |expect: Result<Identity, TokenError>| {
        for token in &tokens {
            assert_eq!(id_check(iam, token), expect);
        }
        assert_eq!(iam.access_token_check(&access), expect);
    };
    check(Ok(who.clone()));
    iam.service_account_disable(&account.email, true).await.unwrap();
    check(Err(Subject));
    iam.service_account_disable(&account.email, false).await.unwrap();
    check(Ok(who.clone()));
    iam.service_account_delete(&account.email).await.unwrap();
    check(Err(Subject));
    // The same name again is someone else.
    let again = iam.service_account_create(&project(), "worker", "", "").await.unwrap();
    assert_ne!(again.unique_id, account.unique_id);
    check(Err(Subject));
}
