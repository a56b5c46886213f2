//! Session affinity: a client that brings its cookie back comes to the instance that gave it.
//!
//! Best effort, as at Google: an instance that is gone or full is replaced by another, and so is the cookie. It goes before the
//! split of traffic, as long as the instance's revision has a share. Source: Cloud Run's documentation of session affinity.

use std::sync::Arc;

use http::{HeaderMap, HeaderValue, header};
use model::Timestamp;

use crate::{
    instances::Instance,
    pool::{Pool, Slot},
};

/// Google's name of it.
const COOKIE: &str = "GAESA";
const TTL_S: i64 = 30 * 24 * 3600;
/// Hexadecimal digits of an instance's id that name it to its clients.
const TOKEN_LEN: usize = 32;

/// A slot of the instance that the caller's cookie names, when it is one of `pools`.
pub(crate) fn slot<'a>(pools: impl Iterator<Item = &'a Arc<Pool>>, headers: &HeaderMap) -> Option<(Arc<Pool>, Slot)> {
    let mut pools = pools.peekable();
    pools.peek()?;
    let cookie = token_of(headers)?;
    pools.find_map(|pool| Some((pool.clone(), pool.enter_at(|instance| token(instance) == cookie)?)))
}

/// What an answer of `instance` sets, unless the caller has that already.
pub(crate) fn cookie(instance: &Instance, headers: &HeaderMap, now: Timestamp) -> Option<HeaderValue> {
    let token = token(instance);
    if token_of(headers) == Some(token) {
        return None;
    }
    let expires = Timestamp::from_second(now.as_second() + TTL_S).unwrap_or(Timestamp::MAX).strftime("%a, %d-%b-%Y %H:%M:%S GMT");
    HeaderValue::try_from(format!("{COOKIE}={token}; expires={expires}; path=/")).ok()
}

/// The end of its id, of which its sandbox's name shows the beginning.
fn token(instance: &Instance) -> &str {
    &instance.id[instance.id.len() - TOKEN_LEN..]
}

/// The first such cookie.
fn token_of(headers: &HeaderMap) -> Option<&str> {
    let pairs = headers.get_all(header::COOKIE).into_iter().filter_map(|field| field.to_str().ok()).flat_map(|field| field.split(';'));
    pairs.filter_map(|pair| pair.trim().split_once('=')).find_map(|(name, value)| (name == COOKIE && value.len() == TOKEN_LEN).then_some(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cookie_is_found_among_others() {
        let check = |fields: &[&str], expect: Option<&str>| {
            let mut headers = HeaderMap::new();
            for field in fields {
                headers.append(header::COOKIE, field.parse().unwrap());
            }
            assert_eq!(token_of(&headers), expect, "{fields:?}");
        };
        const TOKEN: &str = "0123456789abcdef0123456789abcdef";
        check(&[], None);
        check(&["a=b; GAESA=0123456789abcdef0123456789abcdef; c=d"], Some(TOKEN));
        check(&["a=b", "GAESA=0123456789abcdef0123456789abcdef"], Some(TOKEN));
        check(&["GAESA=; xGAESA=0123456789abcdef0123456789abcdef"], None);
    }
}
