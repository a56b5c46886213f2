//! Forms that only this server made, and only the browser that was given them can post.
//!
//! A form carries what it is about, signed with a key of this process together with a random cookie: SameSite=Strict, so that no other
//! site's request brings it. The Origin must be this server's too.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use hmac::{Hmac, KeyInit, Mac};
use http::{HeaderMap, header};
use model::Timestamp;
use serde::{Serialize, de::DeserializeOwned};
use sha2::Sha256;

const COOKIE: &str = "tanebi_sign_in";
/// How long a page may stand open.
const LIFE: jiff::SignedDuration = jiff::SignedDuration::from_mins(30);

/// Makes and reads forms.
pub(super) struct Forms {
    key: [u8; 32],
}

#[derive(Serialize, serde::Deserialize)]
struct Sealed<T> {
    about: T,
    /// Seconds.
    made: i64,
}

impl Forms {
    pub(super) fn new() -> Self {
        Self { key: rand::random() }
    }

    /// A form about something, and the cookie that belongs to it: the browser's own, if it has one, so that two tabs both work.
    pub(super) fn make<T: Serialize>(&self, headers: &HeaderMap, about: &T, now: Timestamp) -> (String, String) {
        let nonce = cookie(headers).unwrap_or_else(|| hex::encode(rand::random::<[u8; 16]>()));
        let payload = serde_json::to_vec(&Sealed { about, made: now.as_second() }).expect("plain texts have a JSON form");
        let payload = URL_SAFE_NO_PAD.encode(payload);
        let seal = URL_SAFE_NO_PAD.encode(self.seal(&nonce, &payload).finalize().into_bytes());
        // Google's names are reached by TLS only, this server's own may be without.
        let secure = headers.get(header::HOST).is_some_and(|host| host == "accounts.google.com");
        (format!("{payload}.{seal}"), format!("{COOKIE}={nonce}; Path=/; HttpOnly; SameSite=Strict; Max-Age=1800{}", if secure { "; Secure" } else { "" }))
    }

    /// What a posted form is about; `None` for one that is forged, of another browser, or older than 30 minutes.
    pub(super) fn read<T: DeserializeOwned>(&self, headers: &HeaderMap, form: &str, now: Timestamp) -> Option<T> {
        let (payload, seal) = form.split_once('.')?;
        let seal = URL_SAFE_NO_PAD.decode(seal).ok()?;
        self.seal(&cookie(headers)?, payload).verify_slice(&seal).ok()?;
        let sealed: Sealed<T> = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).ok()?).ok()?;
        let age = now.duration_since(Timestamp::from_second(sealed.made).ok()?);
        (age <= LIFE && age >= -LIFE).then_some(sealed.about)
    }

    fn seal(&self, nonce: &str, payload: &str) -> Hmac<Sha256> {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.key).expect("HMAC takes keys of any length");
        mac.update(nonce.as_bytes());
        mac.update(b".");
        mac.update(payload.as_bytes());
        mac
    }
}

/// The nonce that the browser was given.
fn cookie(headers: &HeaderMap) -> Option<String> {
    let mut values = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(';'));
    let nonce = values.find_map(|pair| pair.trim().strip_prefix(COOKIE)?.strip_prefix('='))?;
    (nonce.len() == 32 && nonce.bytes().all(|b| b.is_ascii_hexdigit())).then(|| nonce.to_owned())
}

/// Whether the request was made by a page of this very host, as the browser says.
pub(super) fn is_same_origin(headers: &HeaderMap, host: Option<&str>) -> bool {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    if text("sec-fetch-site").is_some_and(|site| site != "same-origin") {
        return false;
    }
    match (text("origin"), host) {
        (Some(origin), Some(host)) => {
            let from = origin.strip_prefix("https://").or_else(|| origin.strip_prefix("http://"));
            from.is_some_and(|from| from.eq_ignore_ascii_case(host))
        }
        (None, Some(_)) => text("sec-fetch-site") == Some("same-origin"),
        (_, None) => false,
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (http::HeaderName::from_static(name), HeaderValue::from_str(value).unwrap())).collect()
    }

    #[test]
    fn a_form_is_of_one_browser_and_for_half_an_hour() {
        let forms = Forms::new();
        let at = |second: i64| Timestamp::from_second(second).unwrap();
        let (form, set) = forms.make(&HeaderMap::new(), &"about", at(1000));
        let own = headers(&[("cookie", set.split(';').next().unwrap())]);
        let read = |headers: &HeaderMap, form: &str, now: i64| forms.read::<String>(headers, form, at(now));
        assert_eq!(read(&own, &form, 1001).as_deref(), Some("about"));
        assert_eq!(read(&own, &form, 1000 + 1801), None);
        assert_eq!(read(&HeaderMap::new(), &form, 1001), None);
        assert_eq!(read(&headers(&[("cookie", "tanebi_sign_in=00000000000000000000000000000000")]), &form, 1001), None);
        assert_eq!(read(&own, &form.replacen('e', "f", 1), 1001), None);
        assert_eq!(read(&own, "", 1001), None);
        assert_eq!(Forms::new().read::<String>(&own, &form, at(1001)), None);
        // A second tab has the same cookie.
        let (second, _) = forms.make(&own, &"other", at(1002));
        assert_eq!(read(&own, &second, 1003).as_deref(), Some("other"));
    }

    #[test]
    fn only_our_own_page_posts() {
        let check =
            |pairs: &[(&'static str, &str)], host: Option<&str>, expect: bool| assert_eq!(is_same_origin(&headers(pairs), host), expect, "{pairs:?} {host:?}");
        check(&[("origin", "https://accounts.google.com")], Some("accounts.google.com"), true);
        check(&[("origin", "http://127.0.0.1:8080"), ("sec-fetch-site", "same-origin")], Some("127.0.0.1:8080"), true);
        check(&[("sec-fetch-site", "same-origin")], Some("127.0.0.1:8080"), true);
        check(&[("origin", "http://127.0.0.1:9090")], Some("127.0.0.1:8080"), false);
        check(&[("origin", "https://evil.com"), ("sec-fetch-site", "cross-site")], Some("accounts.google.com"), false);
        check(&[("origin", "https://accounts.google.com"), ("sec-fetch-site", "same-site")], Some("accounts.google.com"), false);
        check(&[("origin", "null")], Some("accounts.google.com"), false);
        check(&[], Some("accounts.google.com"), false);
        check(&[("origin", "https://accounts.google.com")], None, false);
    }
}
