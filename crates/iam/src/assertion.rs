//! What a service account signs itself with a key of its own: assertions, to be exchanged for tokens (RFC 7523), and JWTs
//! that client libraries send to an API in place of an access token (Google's AIP-4111).
//!
//! The two differ by audience: an assertion is for the token endpoint, a self-signed JWT for an API. Neither does for the other.
//! Neither is remembered: within its life of at most an hour it may be used again, as at Google.

use model::Timestamp;
use serde::Deserialize;

use crate::{
    Access, Assertion, Iam, Identity, Kind, TokenError,
    jws::Jws,
    token::{LIFETIME_MAX, SKEW_S},
};

/// Audiences of assertions: what Google's libraries and its key files name, old ones included.
const TOKEN_URIS: [&str; 4] = [
    "https://oauth2.googleapis.com/token",
    "https://www.googleapis.com/oauth2/v4/token",
    "https://accounts.google.com/o/oauth2/token",
    "https://www.googleapis.com/oauth2/v3/token",
];
/// Token URIs of our own that an operator may name.
const TOKEN_URIS_MAX: usize = 16;

/// Claims that count; libraries add others, which Google ignores.
#[derive(Deserialize)]
struct SelfSignedClaims {
    iss: String,
    sub: Option<String>,
    aud: Option<String>,
    iat: i64,
    exp: i64,
    nbf: Option<i64>,
    scope: Option<String>,
    target_audience: Option<String>,
}

impl Iam {
    /// Accepts `uri`, ending in `/token`, as the audience of assertions: the token endpoint under an operator's own name.
    /// Google's and those on loopback names are accepted without.
    pub fn token_uri_add(&self, uri: &str) {
        let mut uris = self.inner.token_uris.write();
        if uri.ends_with("/token") && uris.len() < TOKEN_URIS_MAX && !uris.iter().any(|known| known == uri) {
            uris.push(uri.to_owned());
        }
    }

    /// Reads the `assertion` of a `jwt-bearer` grant: RS256 by a key of the account that `iss` names, for a token endpoint, at most an hour long.
    ///
    /// Without `kid` (Node's library sends none) each of the account's keys is tried. Domain-wide delegation, a `sub` that
    /// is not `iss`, is refused: there is no directory to delegate for.
    /// # Errors
    /// Why it is not good; `Subject` for an account or key that is disabled.
    pub fn assertion_check(&self, jwt: &str) -> Result<Assertion, TokenError> {
        let (identity, claims) = self.self_signed_read(jwt)?;
        let audience = claims.aud.ok_or(TokenError::Audience)?;
        if !self.is_token_uri(&audience) {
            return Err(TokenError::Audience);
        }
        let target_audience = claims.target_audience.filter(|audience| !audience.is_empty());
        Ok(Assertion { identity, target_audience, scope: claims.scope.unwrap_or_default() })
    }

    /// Reads a self-signed JWT sent as an access token: for `https://SERVICE.googleapis.com/`, or for any API by its `scope`.
    pub(crate) fn self_signed_check(&self, jwt: &str) -> Result<Access, TokenError> {
        let (identity, claims) = self.self_signed_read(jwt)?;
        match (&claims.aud, &claims.scope) {
            (Some(audience), _) if is_api(audience) => {}
            (None, Some(scope)) if !scope.is_empty() => {}
            _ => return Err(TokenError::Audience),
        }
        if claims.target_audience.is_some() {
            return Err(TokenError::Audience);
        }
        let expires = Timestamp::from_second(claims.exp).map_err(|_| TokenError::Time)?;
        Ok(Access { identity, scope: claims.scope.unwrap_or_default(), expires })
    }

    /// The signature, the times, and that the account signs for itself.
    fn self_signed_read(&self, jwt: &str) -> Result<(Identity, SelfSignedClaims), TokenError> {
        let jws = Jws::parse(jwt)?;
        if !matches!(jws.header.typ.as_deref(), None | Some("JWT")) {
            return Err(TokenError::Malformed);
        }
        // Read before the signature is known to be good, only to learn whose keys to try.
        let claims: SelfSignedClaims = jws.claims()?;
        let email = &claims.iss;
        let keys = match &jws.header.kid {
            Some(kid) => self.inner.tables.account_keys.get(&format!("{email}/{kid}")).into_iter().collect(),
            None => self.inner.tables.account_keys.select(|_, key| key.key.email == *email),
        };
        let key = keys.iter().find(|key| jws.verify(&key.public).is_ok()).ok_or(TokenError::Signature)?;
        // What a key of the account's own signed ahead of time ends with the key.
        if key.key.disabled || key.key.expires.as_second() <= self.now_s() {
            return Err(TokenError::Subject);
        }
        let account = self.inner.tables.accounts.get(email).ok_or(TokenError::Subject)?;
        if account.disabled {
            return Err(TokenError::Subject);
        }
        if claims.sub.as_ref().is_some_and(|sub| sub != email) {
            return Err(TokenError::Subject);
        }
        self.times_check(claims.iat, claims.exp)?;
        if claims.exp.saturating_sub(claims.iat) > LIFETIME_MAX.as_secs().cast_signed() {
            return Err(TokenError::Time);
        }
        if claims.nbf.is_some_and(|nbf| nbf > self.now_s().saturating_add(SKEW_S)) {
            return Err(TokenError::Time);
        }
        let identity = Identity { kind: Kind::ServiceAccount, email: account.email.clone(), subject: account.unique_id.clone() };
        Ok((identity, claims))
    }

    fn is_token_uri(&self, audience: &str) -> bool {
        TOKEN_URIS.contains(&audience) || is_loopback_token_uri(audience) || self.inner.token_uris.read().iter().any(|uri| uri == audience)
    }
}

/// Whether `uri` is `http(s)://HOST[:PORT]/token` (or Google's path `/o/oauth2/token`) on a name that only this machine has.
fn is_loopback_token_uri(uri: &str) -> bool {
    let Some(rest) = uri.strip_prefix("http://").or_else(|| uri.strip_prefix("https://")) else {
        return false;
    };
    let Some((authority, path)) = rest.split_once('/') else {
        return false;
    };
    if !matches!(path, "token" | "o/oauth2/token") {
        return false;
    }
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (authority, None),
    };
    if port.is_some_and(|port| port.parse::<u16>().is_err()) {
        return false;
    }
    let name = host.strip_suffix(".localhost").unwrap_or("");
    let is_local_name = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'.');
    host == "localhost" || host == "[::1]" || is_local_name || host.parse::<std::net::Ipv4Addr>().is_ok_and(|ip| ip.is_loopback())
}

/// Whether `audience` is an API: `https://SERVICE.googleapis.com/`.
fn is_api(audience: &str) -> bool {
    let host = audience.strip_prefix("https://").and_then(|rest| rest.strip_suffix('/'));
    let service = host.and_then(|host| host.strip_suffix(".googleapis.com")).unwrap_or("");
    // `oauth2` is the token endpoint's host: what is for it is an assertion.
    !service.is_empty() && service != "oauth2" && service.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_token_uris() {
        for good in [
            "http://127.0.0.1:8080/token",
            "http://localhost/token",
            "https://localhost:8443/token",
            "http://[::1]:80/token",
            "http://oauth2.localhost:8080/token",
            "http://localhost:8080/o/oauth2/token",
        ] {
            assert!(is_loopback_token_uri(good), "{good}");
        }
        for bad in [
            "",
            "/token",
            "http:///token",
            "http://example.com/token",
            "http://localhost.example.com/token",
            "http://localhost:8080/tokens",
            "http://localhost:8080/x/token",
            "http://localhost:x/token",
            "http://user@localhost/token",
            "http://evil.com:80@127.0.0.1/token",
            "http://127.0.0.1.evil.com/token",
            "http://10.0.0.1/token",
            "http://.localhost/token",
            "http://a b.localhost/token",
            "ftp://localhost/token",
        ] {
            assert!(!is_loopback_token_uri(bad), "{bad}");
        }
    }

    #[test]
    fn apis_are_hosts_of_google() {
        for good in ["https://run.googleapis.com/", "https://storage.googleapis.com/"] {
            assert!(is_api(good), "{good}");
        }
        for bad in [
            "",
            "https://run.googleapis.com",
            "http://run.googleapis.com/",
            "https://oauth2.googleapis.com/",
            "https://oauth2.googleapis.com/token",
            "https://googleapis.com/",
            "https://evil.com/.googleapis.com/",
            "https://evil.com#.googleapis.com/",
            "https://a.b.googleapis.com.evil/",
        ] {
            assert!(!is_api(bad), "{bad}");
        }
    }
}
