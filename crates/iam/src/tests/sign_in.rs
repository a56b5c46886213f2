//! Users, passwords, links, codes and refresh tokens.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use model::Code;

use super::*;
use crate::{TokenError, keys};

const CLIENT: &str = "32555940559.apps.googleusercontent.com";
const REDIRECT: &str = "http://localhost:8085/";
const VERIFIER: &str = "IrpnOR8t2dRdKlmrGL9t6w3FDZ02PBz9onZW39vr_Geo~5GBB-5QHS~zgCgQv5PGKAzNnGbsLFGhUGLpmYZU";

fn challenge(verifier: &str) -> String {
    URL_SAFE_NO_PAD.encode(keys::digest(verifier.as_bytes()))
}

#[tokio::test]
async fn codes_are_good_once_and_only_for_whom_they_were_made() {
    let world = World::new().await;
    let iam = &world.iam;
    let good = challenge(VERIFIER);
    let short = "a".repeat(42);
    /// Name, challenge, client, redirect, verifier, why not.
    type Row<'a> = (&'a str, Option<&'a str>, &'a str, &'a str, Option<&'a str>, Option<TokenError>);
    let table: &[Row] = &[
        ("all as asked", Some(&good), CLIENT, REDIRECT, Some(VERIFIER), None),
        ("no PKCE", None, CLIENT, REDIRECT, None, None),
        ("other client", Some(&good), "other", REDIRECT, Some(VERIFIER), Some(TokenError::Audience)),
        ("other redirect", Some(&good), CLIENT, "http://localhost:8086/", Some(VERIFIER), Some(TokenError::Audience)),
        ("redirect without its slash", Some(&good), CLIENT, "http://localhost:8085", Some(VERIFIER), Some(TokenError::Audience)),
        ("no verifier", Some(&good), CLIENT, REDIRECT, None, Some(TokenError::Signature)),
        ("empty verifier", Some(&good), CLIENT, REDIRECT, Some(""), Some(TokenError::Signature)),
        ("other verifier", Some(&good), CLIENT, REDIRECT, Some(&VERIFIER[1..]), Some(TokenError::Signature)),
        ("the challenge as verifier", Some(&good), CLIENT, REDIRECT, Some(&good), Some(TokenError::Signature)),
        ("plain, not S256", Some(VERIFIER), CLIENT, REDIRECT, Some(VERIFIER), Some(TokenError::Signature)),
        ("verifier without challenge", None, CLIENT, REDIRECT, Some(VERIFIER), Some(TokenError::Signature)),
        ("verifier too short", Some(&challenge(&short)), CLIENT, REDIRECT, Some(&short), Some(TokenError::Signature)),
        ("empty challenge", Some(""), CLIENT, REDIRECT, Some(VERIFIER), Some(TokenError::Signature)),
    ];
    for (name, challenge, client, redirect, verifier, expect) in table {
        let code = iam.code_issue(&world.owner(), CLIENT, REDIRECT, *challenge, "openid email");
        assert!(code.starts_with("4/0A"), "{code}");
        let grant = iam.code_redeem(&code, client, redirect, *verifier).await;
        assert_eq!(grant.as_ref().err(), expect.as_ref(), "{name}");
        if let Ok(grant) = grant {
            assert_eq!((grant.identity, grant.scope.as_str(), grant.client_id.as_str()), (world.owner(), "openid email", CLIENT));
            let refresh = grant.refresh_token.unwrap();
            assert!(refresh.starts_with("1//0"));
            assert_eq!(iam.refresh_token_redeem(&refresh, CLIENT).unwrap().identity, world.owner());
        }
        let again = iam.code_redeem(&code, CLIENT, REDIRECT, Some(VERIFIER)).await;
        assert_eq!(again.err(), Some(TokenError::Malformed), "{name}, again");
    }
    for unknown in ["", "4/0A", "4/0Axyz"] {
        assert_eq!(iam.code_redeem(unknown, CLIENT, REDIRECT, None).await.err(), Some(TokenError::Malformed));
    }
}

#[tokio::test]
async fn codes_end_after_ten_minutes_and_with_their_user() {
    let world = World::new().await;
    let iam = &world.iam;
    for (after, expect) in [(599, None), (600, Some(TokenError::Time))] {
        let code = iam.code_issue(&world.owner(), CLIENT, REDIRECT, None, "");
        world.clock.advance(Duration::from_secs(after));
        assert_eq!(iam.code_redeem(&code, CLIENT, REDIRECT, None).await.err(), expect, "{after}");
    }
    let code = iam.code_issue(&iam.identity("nobody@example.com"), CLIENT, REDIRECT, None, "");
    assert_eq!(iam.code_redeem(&code, CLIENT, REDIRECT, None).await.err(), Some(TokenError::Subject));
}

#[tokio::test]
async fn links_are_good_once_for_fifteen_minutes() {
    let world = World::new().await;
    let iam = &world.iam;
    let link = iam.sign_in_link_issue("Owner@Example.com");
    assert_eq!(iam.sign_in_link_redeem(&link), Some(world.owner()));
    assert_eq!(iam.sign_in_link_redeem(&link), None);
    let (early, late) = (iam.sign_in_link_issue(OWNER), iam.sign_in_link_issue(OWNER));
    assert_ne!(early, late);
    world.clock.advance(Duration::from_secs(899));
    assert!(iam.sign_in_link_redeem(&early).is_some());
    world.clock.advance(Duration::from_secs(1));
    assert_eq!(iam.sign_in_link_redeem(&late), None);
    let link = iam.sign_in_link_issue("nobody@example.com");
    assert_eq!(iam.sign_in_link_redeem(&link), None);
    assert_eq!(iam.sign_in_link_redeem(""), None);
    // A code is no link.
    let code = iam.code_issue(&world.owner(), CLIENT, REDIRECT, None, "");
    assert_eq!(iam.sign_in_link_redeem(&code), None);
}

#[tokio::test]
async fn refresh_tokens_work_until_they_are_revoked() {
    let world = World::new().await;
    let iam = &world.iam;
    let token = iam.refresh_token_issue(&world.owner(), CLIENT, "openid").await.unwrap();
    for _ in 0..2 {
        let grant = iam.refresh_token_redeem(&token, CLIENT).unwrap();
        assert_eq!((grant.identity, grant.scope.as_str(), grant.refresh_token), (world.owner(), "openid", None));
    }
    assert_eq!(iam.refresh_token_redeem(&token, "other").err(), Some(TokenError::Audience));
    assert_eq!(iam.refresh_token_redeem(&format!("{token}x"), CLIENT).err(), Some(TokenError::Malformed));
    iam.refresh_token_revoke(&token).await.unwrap();
    assert_eq!(iam.refresh_token_redeem(&token, CLIENT).err(), Some(TokenError::Malformed));
    assert_eq!(iam.refresh_token_revoke(&token).await.unwrap_err().code, Code::InvalidArgument);
    // Only its hash is kept.
    let kept = iam.refresh_token_issue(&world.owner(), CLIENT, "").await.unwrap();
    for record in world.store.scan("", None, 1000).unwrap() {
        let text = format!("{} {}", record.key, String::from_utf8_lossy(&record.value));
        assert!(!text.contains(&kept), "{}", record.key);
    }
}

#[tokio::test]
async fn a_user_has_at_most_a_hundred_refresh_tokens() {
    let world = World::new().await;
    let iam = &world.iam;
    let mut tokens = Vec::new();
    for _ in 0..102 {
        world.clock.advance(Duration::from_secs(1));
        tokens.push(iam.refresh_token_issue(&world.owner(), CLIENT, "").await.unwrap());
    }
    let good: Vec<_> = tokens.iter().map(|token| iam.refresh_token_redeem(token, CLIENT).is_ok()).collect();
    assert_eq!(good.iter().filter(|good| **good).count(), 100);
    assert!(!good[0] && !good[1] && good[2] && good[101]);
}

#[tokio::test]
async fn passwords() {
    let world = World::new().await;
    let iam = &world.iam;
    assert!(!iam.password_check(OWNER, "correct horse"), "none is set");
    for (password, expect) in
        [("1234567", false), ("12345678", true), ("", false), (&"x".repeat(1024), true), (&"x".repeat(1025), false), ("correct horse", true)]
    {
        assert_eq!(iam.password_set(OWNER, password).await.is_ok(), expect, "{} bytes", password.len());
    }
    assert!(iam.password_check("Owner@Example.com", "correct horse"));
    for wrong in ["correct hors", "correct horsf", "", "12345678", &"x".repeat(2000)] {
        assert!(!iam.password_check(OWNER, wrong), "{wrong}");
    }
    assert!(!iam.password_check("nobody@example.com", "correct horse"));
    assert_eq!(iam.password_set("nobody@example.com", "correct horse").await.unwrap_err().code, Code::NotFound);
}

#[tokio::test]
async fn users_are_made_once() {
    let world = World::new().await;
    let iam = &world.iam;
    iam.user_create("Alice@Example.com").await.unwrap();
    assert!(iam.user_exists("alice@example.com") && iam.user_exists("ALICE@example.com"));
    assert_eq!(iam.user_create("alice@EXAMPLE.com").await.unwrap_err().code, Code::AlreadyExists);
    for bad in ["", "alice", "a/b@example.com", "x@p.iam.gserviceaccount.com"] {
        assert_eq!(iam.user_create(bad).await.unwrap_err().code, Code::InvalidArgument, "{bad}");
    }
    assert!(!iam.user_exists("bob@example.com"));
}

#[tokio::test]
async fn service_accounts_are_made_found_changed_and_deleted() {
    let world = World::new().await;
    let iam = &world.iam;
    let code = |result: Result<crate::ServiceAccount, model::Status>| result.unwrap_err().code;
    let account = iam.service_account_create(&project(), "worker", "Worker", "").await.unwrap();
    assert_eq!(account.email, "worker@local-project.iam.gserviceaccount.com");
    assert!(account.unique_id.len() == 21 && account.unique_id.bytes().all(|b| b.is_ascii_digit()), "{}", account.unique_id);
    assert_eq!(code(iam.service_account_create(&project(), "worker", "", "").await), Code::AlreadyExists);
    assert_eq!(code(iam.service_account_create(&project(), "w", "", "").await), Code::InvalidArgument);
    assert_eq!(code(iam.service_account_create(&project(), "worker-2", &"x".repeat(101), "").await), Code::InvalidArgument);
    assert_eq!(iam.service_account_list(&project()).unwrap().iter().map(|a| a.email.as_str()).collect::<Vec<_>>(), [COMPUTE, &account.email]);
    let elsewhere = ProjectId::parse("other-project").unwrap();
    assert_eq!(code(iam.service_account_get(Some(&elsewhere), &account.email)), Code::NotFound);
    assert_eq!(iam.service_account_list(&elsewhere).unwrap(), []);
    let updated = iam.service_account_update(&account.email, None, Some("new")).await.unwrap();
    assert_eq!((updated.display_name.as_str(), updated.description.as_str()), ("Worker", "new"));
    assert_eq!(code(iam.service_account_update(&account.email, None, Some(&"x".repeat(257))).await), Code::InvalidArgument);
    assert_eq!(iam.service_account_get(None, &account.unique_id).unwrap(), updated);
    iam.service_account_delete(&account.email).await.unwrap();
    assert_eq!(code(iam.service_account_get(None, &account.email)), Code::NotFound);
    assert_eq!(iam.service_account_delete(&account.email).await.unwrap_err().code, Code::NotFound);
    assert_eq!(iam.service_account_delete(COMPUTE).await.unwrap_err().code, Code::FailedPrecondition);
    assert_eq!(iam.service_account_disable("x@y", true).await.unwrap_err().code, Code::NotFound);
}

#[tokio::test]
async fn a_project_has_at_most_a_hundred_accounts() {
    let world = World::new().await;
    for at in 0..99 {
        world.iam.service_account_create(&project(), &format!("worker-{at}"), "", "").await.unwrap();
    }
    assert_eq!(world.iam.service_account_create(&project(), "worker-99", "", "").await.unwrap_err().code, Code::ResourceExhausted);
}
