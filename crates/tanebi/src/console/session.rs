//! Who has signed in: a cookie that only this origin has and no script sees.
//!
//! It holds a refresh token for a client of its own that no token endpoint knows: the store keeps its hash, so a session outlives a
//! restart, and signing out ends it at once. Nobody is asked for a password while it is good.

use http::{HeaderMap, header};
use model::Status;

use super::Console;

const COOKIE: &str = "tanebi_console";
/// The client that sessions are issued to.
const CLIENT: &str = "tanebi-console";
const LIFE: jiff::SignedDuration = jiff::SignedDuration::from_hours(7 * 24);

impl Console {
    /// The identity that the request's cookie stands for.
    pub(super) fn signed_in(&self, headers: &HeaderMap) -> Option<iam::Identity> {
        let grant = self.iam.refresh_token_redeem(cookie(headers)?, CLIENT).ok()?;
        let age = self.clock.now().duration_since(grant.issued);
        (age < LIFE).then_some(grant.identity)
    }

    /// Begins a session: its cookie.
    pub(super) async fn begin(&self, who: &iam::Identity, is_tls: bool) -> Result<String, Status> {
        let token = self.iam.refresh_token_issue(who, CLIENT, "").await?;
        Ok(set(&token, LIFE.as_secs(), is_tls))
    }

    /// Ends the request's session: the cookie that takes its place.
    pub(super) async fn end(&self, headers: &HeaderMap) -> Result<String, Status> {
        if let Some(token) = cookie(headers).filter(|token| self.iam.refresh_token_redeem(token, CLIENT).is_ok()) {
            self.iam.refresh_token_revoke(token).await?;
        }
        Ok(set("", 0, false))
    }
}

/// The host's alone (no Domain), for this server's own pages only.
fn set(token: &str, life_s: i64, is_tls: bool) -> String {
    format!("{COOKIE}={token}; Path=/; HttpOnly; SameSite=Strict; Max-Age={life_s}{}", if is_tls { "; Secure" } else { "" })
}

/// A cookie written twice is nobody's.
fn cookie(headers: &HeaderMap) -> Option<&str> {
    let values = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(';'));
    let mut own = values.filter_map(|pair| pair.trim().strip_prefix(COOKIE)?.strip_prefix('='));
    own.next().filter(|_| own.next().is_none())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_is_one_cookie() {
        let check = |value: &'static str, expect: Option<&str>| {
            let headers: HeaderMap = [(header::COOKIE, header::HeaderValue::from_static(value))].into_iter().collect();
            assert_eq!(cookie(&headers), expect, "{value}");
        };
        check("tanebi_console=1//0a", Some("1//0a"));
        check("other=b; tanebi_console=1//0a; x=y", Some("1//0a"));
        check("tanebi_console=1//0a; tanebi_console=1//0b", None);
        check("xtanebi_console=1//0a", None);
        check("tanebi_console_x=1//0a", None);
        assert!(set("t", 60, false).ends_with("; Path=/; HttpOnly; SameSite=Strict; Max-Age=60"));
    }
}
