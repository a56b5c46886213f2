//! Who calls: the access token of a request, checked once.
//!
//! Tokens in the query (`?access_token=`) are not taken: they would stand in logs and histories.

use http::{HeaderMap, header};
use iam::{Iam, Identity};
use model::Status;

/// The identity behind `Authorization: Bearer ...`; `None` without such a header.
///
/// # Errors
/// `UNAUTHENTICATED` for a header of another scheme or a token that is not good.
pub(crate) fn caller_check(iam: &Iam, headers: &HeaderMap) -> Result<Option<Identity>, Status> {
    let Some(token) = bearer(headers)? else {
        return Ok(None);
    };
    match iam.access_token_check(token) {
        Ok(who) => Ok(Some(who)),
        Err(why) => {
            tracing::info!(%why, "an access token was refused");
            Err(Status::unauthenticated())
        }
    }
}

fn bearer(headers: &HeaderMap) -> Result<Option<&str>, Status> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    // Two headers are two answers to one question: neither is taken.
    if values.next().is_some() {
        return Err(Status::unauthenticated());
    }
    match value.to_str().ok().and_then(|text| text.split_once(' ')) {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") && !token.trim().is_empty() => Ok(Some(token.trim())),
        _ => Err(Status::unauthenticated()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_bearer_token_is_taken() {
        let check = |values: &[&str], expect: Result<Option<&str>, ()>| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(header::AUTHORIZATION, value.parse().unwrap());
            }
            assert_eq!(bearer(&headers).map_err(drop), expect, "{values:?}");
        };
        check(&[], Ok(None));
        check(&["Bearer ya29.x"], Ok(Some("ya29.x")));
        check(&["bearer ya29.x"], Ok(Some("ya29.x")));
        check(&["Basic eDp5"], Err(()));
        check(&["Bearer "], Err(()));
        check(&["Bearer a", "Bearer b"], Err(()));
    }
}
