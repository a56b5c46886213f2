//! Access tokens: `ya29.` and a JWT of our own that only we read.
//!
//! Access tokens and ID tokens are told apart three times: by the prefix, by `typ` in the signed header, and by claims of
//! which neither kind's are the other's. One is never taken for the other.
//!
//! It does not say what a scope allows.

use std::{sync::Arc, time::Duration};

use base64::{
    Engine, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use model::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    AccessToken, ISSUER, Iam, Identity, Kind, TokenError,
    jws::{self, Jws, TOKEN_MAX_BYTES},
    keys,
    verified::{Claims, Verified},
};

/// What Google's access tokens begin with; clients tell kinds of credentials by it.
const PREFIX: &str = "ya29.";
/// RFC 9068.
const ACCESS_TYP: &str = "at+jwt";
/// As Google's ID tokens.
pub(crate) const ID_TYP: &str = "JWT";
/// How far another's clock, or ours after it was set, may be off.
pub(crate) const SKEW_S: i64 = 60;
/// The longest life of a token.
pub(crate) const LIFETIME_MAX: Duration = Duration::from_secs(3600);
/// Scopes that fit into a token: with the rest it stays below 2 KB, for it travels in a header.
const SCOPE_MAX_BYTES: usize = 700;

/// Of each claim that is told to people.
const SAID_MAX_CHARS: usize = 200;
/// A longer token, as one for a very long audience, is verified each time: what is remembered stays within 32 MiB.
const REMEMBERED_MAX_BYTES: usize = 4 << 10;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct AccessClaims {
    pub(crate) iss: String,
    pub(crate) sub: String,
    pub(crate) email: String,
    pub(crate) kind: KindClaim,
    pub(crate) scope: String,
    pub(crate) iat: i64,
    pub(crate) exp: i64,
}

#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum KindClaim {
    User,
    ServiceAccount,
}

impl From<Kind> for KindClaim {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::User => Self::User,
            Kind::ServiceAccount => Self::ServiceAccount,
        }
    }
}

/// What a token says of itself: nobody's word but its bearer's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenClaims {
    pub email: String,
    pub audience: String,
    pub expires: Option<Timestamp>,
}

/// What an access token says, for `tokeninfo`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Access {
    pub identity: Identity,
    /// Scopes with spaces between.
    pub scope: String,
    pub expires: Timestamp,
}

impl Iam {
    /// Issues an access token: `ya29.` and a signed text, opaque to clients, below 2 KB.
    ///
    /// It lives `lifetime`, whole seconds, at least one and at most an hour: a longer life is for the caller to refuse.
    /// Scopes that do not fit into 700 bytes are left out, whole ones from the end (RFC 6749, section 3.3, lets an issuer give less).
    pub fn access_token_issue(&self, who: &Identity, scope: &str, lifetime: Duration) -> AccessToken {
        let iat = self.now_s();
        let lifetime_s = lifetime.clamp(Duration::from_secs(1), LIFETIME_MAX).as_secs();
        let exp = iat.saturating_add_unsigned(lifetime_s);
        let claims = AccessClaims {
            iss: ISSUER.to_owned(),
            sub: who.subject.clone(),
            email: who.email.clone(),
            kind: who.kind.into(),
            scope: scope_fit(scope).to_owned(),
            iat,
            exp,
        };
        let key = self.signer();
        let token = format!("{PREFIX}{}", jws::sign(&key.private, &key.kid, ACCESS_TYP, &claims));
        AccessToken { token, expires: Timestamp::from_second(exp).unwrap_or(Timestamp::MAX) }
    }

    /// Who calls with this access token: one issued here, or a JWT that a service account signed itself (see `assertion`).
    ///
    /// A token seen before costs microseconds. Its times, its key and its subject are looked at each time.
    /// # Errors
    /// Why it is not good.
    pub fn access_token_check(&self, token: &str) -> Result<Identity, TokenError> {
        self.access_token_read(token).map(|access| access.identity)
    }

    /// The same with scope and expiry.
    ///
    /// # Errors
    /// As [`Iam::access_token_check`].
    pub fn access_token_read(&self, token: &str) -> Result<Access, TokenError> {
        if !token.starts_with(PREFIX) {
            return self.self_signed_check(token);
        }
        let verified = self.token_verify(token)?;
        let Claims::Access(claims) = &verified.claims else {
            return Err(TokenError::Malformed);
        };
        self.times_check(claims.iat, claims.exp)?;
        let identity = self.subject_check(Some(&claims.email), &claims.sub)?;
        if KindClaim::from(identity.kind) != claims.kind {
            return Err(TokenError::Subject);
        }
        Ok(Access { identity, scope: claims.scope.clone(), expires: Timestamp::from_second(claims.exp).unwrap_or(Timestamp::MAX) })
    }

    /// Whether `token` carries the signature of a key of this issuer, whatever it is for: such a token must not reach a function usable.
    ///
    /// Looser than the checks on purpose: an expired token is ours, and so is one whose signature is spelled in a way that
    /// other verifiers take (padded, or in the standard alphabet).
    pub fn is_own(&self, token: &str) -> bool {
        if token.len() > TOKEN_MAX_BYTES {
            return false;
        }
        let token = token.trim();
        if self.verified_get(&keys::digest(token.as_bytes())).is_some() {
            return true;
        }
        let token = token.strip_prefix(PREFIX).unwrap_or(token);
        let Some((signed, signature)) = token.rsplit_once('.') else {
            return false;
        };
        let standard = signature.trim_end_matches('=').replace('-', "+").replace('_', "/");
        let Ok(signature) = LOOSE.decode(standard) else {
            return false;
        };
        // The header is part of what was signed: any key's signature over it makes it ours, so the `kid` is not needed.
        self.inner.tables.signing_keys.any(|key| key.public.verify(signed.as_bytes(), &signature))
    }

    /// What a token says of itself, whether it is true or not; `None` for what is no token.
    pub fn token_claims(&self, token: &str) -> Option<TokenClaims> {
        #[derive(Deserialize)]
        struct Said {
            #[serde(default)]
            email: String,
            #[serde(default)]
            aud: serde_json::Value,
            #[serde(default)]
            exp: serde_json::Value,
        }
        if token.len() > TOKEN_MAX_BYTES {
            return None;
        }
        let payload = token.strip_prefix(PREFIX).unwrap_or(token).split('.').nth(1)?;
        let said: Said = serde_json::from_slice(&base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(payload).ok()?).ok()?;
        let short = |text: &str| text.chars().take(SAID_MAX_CHARS).collect();
        Some(TokenClaims {
            email: short(&said.email),
            audience: short(said.aud.as_str().unwrap_or_default()),
            expires: said.exp.as_i64().and_then(|second| Timestamp::from_second(second).ok()),
        })
    }

    // --- what access tokens and ID tokens share ---

    /// The claims of a token that a published key of ours signed.
    pub(crate) fn token_verify(&self, token: &str) -> Result<Arc<Verified>, TokenError> {
        if token.len() > TOKEN_MAX_BYTES {
            return Err(TokenError::Malformed);
        }
        let digest = keys::digest(token.as_bytes());
        if let Some(verified) = self.verified_get(&digest) {
            return Ok(verified);
        }
        let (bare, typ) = match token.strip_prefix(PREFIX) {
            Some(bare) => (bare, ACCESS_TYP),
            None => (token, ID_TYP),
        };
        let jws = Jws::parse(bare)?;
        if jws.header.typ.as_deref() != Some(typ) {
            return Err(TokenError::Malformed);
        }
        let kid = jws.header.kid.as_deref().ok_or(TokenError::Signature)?;
        let key = self.inner.tables.signing_keys.get(kid).ok_or(TokenError::Signature)?;
        jws.verify(&key.public)?;
        let claims = if typ == ACCESS_TYP { Claims::Access(jws.claims()?) } else { Claims::Id(jws.claims()?) };
        let issuer = match &claims {
            Claims::Access(claims) => &claims.iss,
            Claims::Id(claims) => &claims.iss,
        };
        if issuer != ISSUER {
            return Err(TokenError::Malformed);
        }
        let verified = Arc::new(Verified { kid: kid.to_owned(), claims });
        if token.len() <= REMEMBERED_MAX_BYTES {
            self.inner.verified.put(digest, verified.clone());
        }
        Ok(verified)
    }

    /// A token verified before, by a key that is still published.
    fn verified_get(&self, digest: &[u8; 32]) -> Option<Arc<Verified>> {
        self.inner.verified.get(digest).filter(|verified| self.inner.tables.signing_keys.contains(&verified.kid))
    }

    /// Seconds since 1970.
    pub(crate) fn now_s(&self) -> i64 {
        self.inner.clock.now().as_second()
    }

    /// # Errors
    /// `Time` before `iat` or from `exp` on, with 60 s of grace for clocks.
    pub(crate) fn times_check(&self, iat: i64, exp: i64) -> Result<(), TokenError> {
        let now = self.now_s();
        if iat > now.saturating_add(SKEW_S) || exp.saturating_add(SKEW_S) <= now || exp <= iat {
            return Err(TokenError::Time);
        }
        Ok(())
    }
}

/// The whole scopes from the front that fit.
fn scope_fit(scope: &str) -> &str {
    if scope.len() <= SCOPE_MAX_BYTES {
        return scope;
    }
    let end = (0..=SCOPE_MAX_BYTES).rev().find(|at| scope.as_bytes()[*at] == b' ').unwrap_or(0);
    &scope[..end]
}

/// The standard alphabet, taking set trailing bits.
const LOOSE: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_allow_trailing_bits(true).with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_are_cut_between_scopes() {
        let long = format!("a {} b", "x".repeat(SCOPE_MAX_BYTES - 2));
        for (scope, expect) in [
            ("", ""),
            ("a b", "a b"),
            (&"x".repeat(SCOPE_MAX_BYTES), &"x".repeat(SCOPE_MAX_BYTES)),
            (&"x".repeat(SCOPE_MAX_BYTES + 1), ""),
            (&long, &long[..SCOPE_MAX_BYTES]),
        ] {
            assert_eq!(scope_fit(scope), expect);
        }
    }
}
