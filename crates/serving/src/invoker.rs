//! Whether the caller may invoke the service, and what of its token the function gets to see.
//!
//! `X-Serverless-Authorization` is looked at first and then leaves `Authorization` to the application; else `Authorization`.
//! Keys and policies are `iam`'s; this file knows only Google's order of answers:
//! no token: 403, a bad one: 401, a good one without the permission: 403.
//!
//! A public service's callers may send tokens that are the application's own business (a Firebase user's, a session's).
//! A token that is not of this issuer is therefore no token there. One of this issuer that is expired or for
//! another service is refused with 401 as everywhere.

use http::{HeaderMap, HeaderName, HeaderValue, header};
use iam::{Iam, Identity, TokenError};

use crate::{
    denials::{Caller, Denied},
    refusal::Refusal,
};

/// What a caller needs on the service's resource.
const PERMISSION: &str = "run.routes.invoke";
const SERVERLESS: HeaderName = HeaderName::from_static("x-serverless-authorization");
const REMOVED: &str = "SIGNATURE_REMOVED_BY_GOOGLE";

/// The resource that is to be invoked.
pub(crate) struct Target<'a> {
    /// `projects/P/locations/R/services/S`.
    pub(crate) resource: &'a str,
    pub(crate) project: &'a str,
    pub(crate) is_audience: &'a dyn Fn(&str) -> bool,
}

/// Who calls; `None` for a caller without a token.
///
/// # Errors
/// `NoToken`, `NotPermitted` (403) or `BadToken` (401), and whom it met.
pub(crate) fn check(iam: &Iam, target: &Target<'_>, headers: &HeaderMap) -> Result<Option<Identity>, Denied> {
    let permitted = |who: Option<&Identity>| iam.may(who, PERMISSION, target.resource, target.project);
    let Some(token) = token(headers) else {
        return if permitted(None) { Ok(None) } else { Err(Denied { refusal: Refusal::NoToken, caller: Caller::Nobody }) };
    };
    match iam.id_token_check(token, target.is_audience) {
        Ok(who) if permitted(Some(&who)) => Ok(Some(who)),
        Ok(who) => Err(Denied { refusal: Refusal::NotPermitted, caller: Caller::Known(who) }),
        Err(TokenError::Malformed | TokenError::Signature) if permitted(None) => Ok(None),
        Err(error) => {
            tracing::debug!(resource = target.resource, %error, "token refused");
            Err(Denied { refusal: Refusal::BadToken, caller: Caller::Unknown(error, iam.token_claims(token)) })
        }
    }
}

/// Who calls, by a token that is good for the service; `None` for all others.
pub(crate) fn caller(iam: &Iam, target: &Target<'_>, headers: &HeaderMap) -> Option<Identity> {
    iam.id_token_check(token(headers)?, target.is_audience).ok()
}

/// The bearer token that counts; `None` when there is none or it is of another scheme.
fn token(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(SERVERLESS).or_else(|| headers.get(header::AUTHORIZATION))?.to_str().ok()?;
    let (scheme, token) = value.trim_start().split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

/// Makes every token of this issuer in `headers` useless before the function sees it: the signature is replaced, the claims stay.
pub(crate) fn signatures_remove(iam: &Iam, headers: &mut HeaderMap) {
    for name in [header::AUTHORIZATION, SERVERLESS] {
        if headers.get_all(&name).iter().any(|value| own_token(iam, value).is_some()) {
            let values: Vec<HeaderValue> = headers.get_all(&name).iter().map(|value| signature_removed(iam, value)).collect();
            headers.remove(&name);
            for value in values {
                headers.append(name.clone(), value);
            }
        }
    }
}

/// The first word of `value` that is a token of this issuer, as a range of its bytes.
fn own_token(iam: &Iam, value: &HeaderValue) -> Option<std::ops::Range<usize>> {
    let bytes = value.as_bytes();
    let mut begin = 0;
    while begin < bytes.len() {
        let len = bytes[begin..].iter().position(|b| !is_token_byte(*b)).unwrap_or(bytes.len() - begin);
        if len > 0 && std::str::from_utf8(&bytes[begin..begin + len]).is_ok_and(|word| word.contains('.') && !word.ends_with(REMOVED) && iam.is_own(word)) {
            return Some(begin..begin + len);
        }
        begin += len + 1;
    }
    None
}

fn is_token_byte(b: u8) -> bool {
    b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_' | b'~' | b'+' | b'/' | b'=')
}

fn signature_removed(iam: &Iam, value: &HeaderValue) -> HeaderValue {
    let mut value = value.clone();
    // Each round makes one token useless, so that the rounds come to an end.
    while let Some(range) = own_token(iam, &value) {
        let bytes = value.as_bytes();
        let word = &bytes[range.clone()];
        let claims = word.iter().rposition(|b| *b == b'.').map_or(0, |dot| dot + 1);
        let mut next = bytes[..range.start + claims].to_vec();
        next.extend_from_slice(REMOVED.as_bytes());
        next.extend_from_slice(&bytes[range.end..]);
        value = HeaderValue::from_bytes(&next).expect("bytes of a header value and letters make a header value");
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_serverless_header_comes_first() {
        fn check(headers: &[(&'static str, &'static str)], expect: Option<&str>) {
            let map: HeaderMap = headers.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value))).collect();
            assert_eq!(token(&map), expect, "{headers:?}");
        }
        check(&[], None);
        check(&[("authorization", "Bearer a.b.c")], Some("a.b.c"));
        check(&[("authorization", "bearer a.b.c")], Some("a.b.c"));
        check(&[("authorization", "BEARER  a.b.c ")], Some("a.b.c"));
        check(&[("authorization", "Basic abc")], None);
        check(&[("authorization", "Bearer")], None);
        check(&[("authorization", "Bearer ")], None);
        check(&[("authorization", "Bearer app"), ("x-serverless-authorization", "Bearer run")], Some("run"));
        check(&[("authorization", "Bearer app"), ("x-serverless-authorization", "Basic x")], None);
    }
}
