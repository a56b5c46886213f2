//! Secrets that are good once: authorization codes (RFC 6749, 7636) and sign-in links.
//!
//! They live in memory only, for minutes, and as hashes; a restart ends them. What they are exchanged for is in `token`,
//! `id_token` and `refresh_token`.

use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};

use aws_lc_rs::constant_time::verify_slices_are_equal;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use model::Timestamp;
use parking_lot::Mutex;

use crate::{Grant, Iam, Identity, TokenError, keys};

const CODE_LIFE: Duration = Duration::from_secs(10 * 60);
const LINK_LIFE: Duration = Duration::from_secs(15 * 60);
/// Outstanding secrets of one kind; the oldest makes room.
const SECRETS_MAX: usize = 1000;
/// RFC 7636, section 4.1.
const VERIFIER_BYTES: std::ops::RangeInclusive<usize> = 43..=128;

/// What an authorization code stands for.
pub(crate) struct CodeGrant {
    identity: Identity,
    client_id: String,
    redirect_uri: String,
    challenge: Option<String>,
    scope: String,
}

/// Outstanding secrets of one kind. Found by their hash, so that the time a look-up takes tells nothing about a secret.
pub(crate) struct Secrets<V>(Mutex<Outstanding<V>>);

struct Outstanding<V> {
    by_hash: HashMap<[u8; 32], (V, Timestamp)>,
    /// Oldest first; a hash that was taken may still stand here.
    order: VecDeque<[u8; 32]>,
}

impl<V> Default for Secrets<V> {
    fn default() -> Self {
        Self(Mutex::new(Outstanding { by_hash: HashMap::new(), order: VecDeque::new() }))
    }
}

impl<V> Secrets<V> {
    fn put(&self, secret: &str, value: V, expires: Timestamp) {
        let hash = keys::digest(secret.as_bytes());
        let mut outstanding = self.0.lock();
        if outstanding.order.len() >= SECRETS_MAX
            && let Some(oldest) = outstanding.order.pop_front()
        {
            outstanding.by_hash.remove(&oldest);
        }
        outstanding.order.push_back(hash);
        outstanding.by_hash.insert(hash, (value, expires));
    }

    /// Takes it out, whatever comes of it: nobody tries the same secret twice.
    fn take(&self, secret: &str, now: Timestamp) -> Result<V, TokenError> {
        let hash = keys::digest(secret.as_bytes());
        let (value, expires) = self.0.lock().by_hash.remove(&hash).ok_or(TokenError::Malformed)?;
        if now < expires { Ok(value) } else { Err(TokenError::Time) }
    }
}

impl Iam {
    /// A secret good once, for 15 minutes, to sign `email` in by a link that `serve` prints.
    pub fn sign_in_link_issue(&self, email: &str) -> String {
        let secret = secret();
        self.inner.links.put(&secret, email.to_ascii_lowercase(), after(self.inner.clock.now(), LINK_LIFE));
        secret
    }

    /// `None` for a secret that is unknown, used or too old, and when there is no such user.
    pub fn sign_in_link_redeem(&self, secret: &str) -> Option<Identity> {
        let email = self.inner.links.take(secret, self.inner.clock.now()).ok()?;
        self.user_exists(&email).then(|| self.identity(&email))
    }

    /// An authorization code, bound to client, redirect and PKCE challenge (S256; `None` when the client sent none), good once, for 10 minutes.
    pub fn code_issue(&self, who: &Identity, client_id: &str, redirect_uri: &str, challenge: Option<&str>, scope: &str) -> String {
        let code = format!("4/0A{}", secret());
        let grant = CodeGrant {
            identity: who.clone(),
            client_id: client_id.to_owned(),
            redirect_uri: redirect_uri.to_owned(),
            challenge: challenge.map(str::to_owned),
            scope: scope.to_owned(),
        };
        self.inner.codes.put(&code, grant, after(self.inner.clock.now(), CODE_LIFE));
        code
    }

    /// Exchanges a code for a grant with a refresh token. The first attempt uses the code up, also when it fails.
    ///
    /// # Errors
    /// `Malformed` for a code that is unknown or used, `Time`, `Audience` for another client or redirect, `Signature` when the
    /// verifier is not the challenge's (or one comes without the other), `Subject`, `Store` when the refresh token could not be kept.
    pub async fn code_redeem(&self, code: &str, client_id: &str, redirect_uri: &str, verifier: Option<&str>) -> Result<Grant, TokenError> {
        let grant = self.inner.codes.take(code, self.inner.clock.now())?;
        if grant.client_id != client_id || grant.redirect_uri != redirect_uri {
            return Err(TokenError::Audience);
        }
        match (&grant.challenge, verifier) {
            (None, None) => {}
            (Some(challenge), Some(verifier)) if challenge_holds(challenge, verifier) => {}
            // A verifier without a challenge is refused too: someone may have taken the challenge out of the first request.
            _ => return Err(TokenError::Signature),
        }
        let identity = self.subject_check(Some(&grant.identity.email), &grant.identity.subject)?;
        let refresh_token = self.refresh_token_issue(&identity, client_id, &grant.scope).await.map_err(|error| {
            tracing::error!(%error, "refresh token not kept");
            TokenError::Store
        })?;
        Ok(Grant { identity, refresh_token: Some(refresh_token), scope: grant.scope, client_id: grant.client_id, issued: self.inner.clock.now() })
    }
}

/// PKCE's S256: the challenge is the base64url of the verifier's SHA-256.
fn challenge_holds(challenge: &str, verifier: &str) -> bool {
    let is_verifier = VERIFIER_BYTES.contains(&verifier.len()) && verifier.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b'~'));
    let expect = URL_SAFE_NO_PAD.encode(keys::digest(verifier.as_bytes()));
    is_verifier && verify_slices_are_equal(expect.as_bytes(), challenge.as_bytes()).is_ok()
}

/// 256 random bits in base64url.
pub(crate) fn secret() -> String {
    URL_SAFE_NO_PAD.encode(rand::random::<[u8; 32]>())
}

fn after(now: Timestamp, life: Duration) -> Timestamp {
    now.saturating_add(life).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_rfc_7636_holds() {
        let (verifier, challenge) = ("dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk", "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM");
        assert!(challenge_holds(challenge, verifier));
        for (challenge, verifier) in [
            (challenge, "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXl"),
            (challenge, ""),
            (challenge, challenge),
            (verifier, verifier),
            ("", verifier),
            (&challenge[1..], verifier),
            (&format!("{challenge}="), verifier),
        ] {
            assert!(!challenge_holds(challenge, verifier), "{challenge} {verifier}");
        }
        let (short, long) = ("a".repeat(42), "a".repeat(129));
        for verifier in [&short, &long] {
            assert!(!challenge_holds(&URL_SAFE_NO_PAD.encode(keys::digest(verifier.as_bytes())), verifier));
        }
    }

    #[test]
    fn secrets_are_bounded_and_the_oldest_goes() {
        let secrets = Secrets::default();
        let (now, later) = (Timestamp::UNIX_EPOCH, Timestamp::from_second(60).unwrap());
        for at in 0..=SECRETS_MAX {
            secrets.put(&at.to_string(), at, later);
        }
        assert_eq!(secrets.take("0", now), Err(TokenError::Malformed));
        assert_eq!(secrets.take("1", now), Ok(1));
        assert_eq!(secrets.take("1", now), Err(TokenError::Malformed));
        assert_eq!(secrets.take("2", later), Err(TokenError::Time));
        assert_eq!(secrets.take("2", now), Err(TokenError::Malformed));
        for at in 0..10 * SECRETS_MAX {
            secrets.put("again", at, later);
            assert_eq!(secrets.take("again", now), Ok(at));
        }
        let outstanding = secrets.0.lock();
        assert!(outstanding.by_hash.len() <= SECRETS_MAX && outstanding.order.len() <= SECRETS_MAX);
    }
}
