//! Signed URLs: who asks, by a signature of a service account in the query. Versions 4 and 2.
//!
//! The signature is of the request, so that it is good for nothing else. Whoever holds the URL acts as the account, whose
//! permissions are then asked for as always. Source: cloud.google.com/storage/docs/authentication/{canonical-requests,signatures}.

use std::collections::BTreeMap;

use axum::body::Body;
use base64::{Engine, engine::general_purpose::STANDARD};
use futures_util::StreamExt as _;
use http::{HeaderMap, Method, Uri, header};
use iam::Identity;
use jiff::{SignedDuration, civil::DateTime, tz::TimeZone};
use model::Timestamp;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use sha2::{Digest, Sha256};

use super::error::Error;
use crate::Deps;

/// The only algorithm of accounts' keys; `GOOG4-HMAC-SHA256` needs HMAC keys, which are not served.
pub(crate) const ALGORITHM: &str = "GOOG4-RSA-SHA256";
/// How long a URL lives, at most.
const EXPIRES_MAX_S: i64 = model::limits::SIGNED_URL_MAX_S.cast_signed();
/// How far ahead its beginning may lie: clocks differ.
const SKEW: SignedDuration = SignedDuration::from_mins(15);
const PAYLOAD_HASH: &str = "x-goog-content-sha256";
const UNSIGNED_PAYLOAD: &str = "UNSIGNED-PAYLOAD";
const UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// The parameters of a signature, which methods pass over.
pub(crate) fn is_parameter(name: &str) -> bool {
    name.get(..7).is_some_and(|begin| begin.eq_ignore_ascii_case("x-goog-")) || matches!(name, "GoogleAccessId" | "Expires" | "Signature")
}

/// A caller that a signature names: an extension of the request.
#[derive(Clone, Debug)]
pub(crate) struct SignedBy(pub Identity);

/// Who signed the request; `None` when nobody did.
///
/// # Errors
/// 400 for a malformed or expired signature, 403 for one that is not of this request.
pub(crate) fn caller(deps: &Deps, method: &Method, uri: &Uri, resource: &str, headers: &HeaderMap) -> Result<Option<Identity>, Error> {
    let query: Vec<(String, String)> = uri.query().map(|query| form_urlencoded::parse(query.as_bytes()).into_owned().collect()).unwrap_or_default();
    let parameter = |name: &str| query.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str());
    if parameter("X-Goog-Signature").is_some() {
        let needed = |name: &str| parameter(name).ok_or_else(|| malformed(&format!("{name} is missing")));
        let signature = hex::decode(needed("X-Goog-Signature")?).map_err(|_| malformed("X-Goog-Signature is not hexadecimal"))?;
        let expires = needed("X-Goog-Expires")?.parse().ok().filter(|seconds| (1..=EXPIRES_MAX_S).contains(seconds));
        let expires = expires.ok_or_else(|| malformed(&format!("X-Goog-Expires is no number from 1 to {EXPIRES_MAX_S}")))?;
        let date = needed("X-Goog-Date")?;
        let (email, scope) = credential(needed("X-Goog-Credential")?, needed("X-Goog-Algorithm")?, date)?;
        let begin = instant(date)?;
        times_check(deps.clock.now(), begin, begin.saturating_add(SignedDuration::from_secs(expires)).unwrap_or(Timestamp::MAX))?;
        let canonical = canonical_request(method, uri, headers, needed("X-Goog-SignedHeaders")?)?;
        let text = format!("{ALGORITHM}\n{date}\n{scope}\n{}", hex::encode(Sha256::digest(&canonical)));
        return verified(deps, &email, &text, &signature, Some(&canonical)).map(Some);
    }
    let (Some(email), Some(signature)) = (parameter("GoogleAccessId"), parameter("Signature")) else { return Ok(None) };
    let signature = STANDARD.decode(signature).map_err(|_| malformed("Signature is no Base64"))?;
    let expires = parameter("Expires").unwrap_or_default();
    let end = expires.parse().ok().and_then(|second| Timestamp::from_second(second).ok()).ok_or_else(|| malformed("Expires is no time in seconds"))?;
    times_check(deps.clock.now(), Timestamp::UNIX_EPOCH, end)?;
    let text = |name| headers.get(name).and_then(|value: &http::HeaderValue| value.to_str().ok()).unwrap_or_default();
    let extensions: String = extension_headers(headers).into_iter().map(|(name, value)| format!("{name}:{value}\n")).collect();
    let text = format!("{method}\n{}\n{}\n{expires}\n{extensions}{}", text("content-md5"), text("content-type"), resource);
    verified(deps, email, &text, &signature, None).map(Some)
}

/// A URL by which anyone reads an object for `seconds`, with the rights of the account `email`.
///
/// # Errors
/// `NOT_FOUND` for an unknown account; `INTERNAL` when a new key cannot be stored.
pub(crate) async fn download_url(deps: &Deps, email: &str, bucket: &str, object: &str, seconds: i64) -> Result<String, model::Status> {
    const HOST: &str = "storage.googleapis.com";
    const PATH: &AsciiSet = &UNRESERVED.remove(b'/');
    let date = deps.clock.now().strftime("%Y%m%dT%H%M%SZ").to_string();
    let scope = format!("{}/auto/storage/goog4_request", &date[..8]);
    let path = format!("/{bucket}/{}", utf8_percent_encode(object, PATH));
    let credential = utf8_percent_encode(&format!("{email}/{scope}"), UNRESERVED).to_string();
    let query = format!("X-Goog-Algorithm={ALGORITHM}&X-Goog-Credential={credential}&X-Goog-Date={date}&X-Goog-Expires={seconds}&X-Goog-SignedHeaders=host");
    let canonical = format!("GET\n{path}\n{query}\nhost:{HOST}\n\nhost\nUNSIGNED-PAYLOAD");
    let text = format!("{ALGORITHM}\n{date}\n{scope}\n{}", hex::encode(Sha256::digest(&canonical)));
    let signature = deps.iam.blob_sign(email, text.as_bytes()).await?.value;
    Ok(format!("https://{HOST}{path}?{query}&X-Goog-Signature={}", hex::encode(signature)))
}

/// The body of a signed request, which must be the one that `x-goog-content-sha256` says, where it says one: it breaks at its end
/// when it is another, and nothing is stored of a body that broke.
///
/// # Errors
/// 400 for what is no hash.
pub(crate) fn payload_checked(headers: &HeaderMap, body: Body) -> Result<Body, Error> {
    let claimed = match headers.get(PAYLOAD_HASH).map(|value| value.to_str().unwrap_or_default()) {
        None | Some(UNSIGNED_PAYLOAD) => return Ok(body),
        Some(text) => hex::decode(text).ok().filter(|hash| hash.len() == 32),
    };
    let claimed = claimed.ok_or_else(|| malformed(&format!("{PAYLOAD_HASH} is neither {UNSIGNED_PAYLOAD} nor a SHA-256 in hexadecimal")))?;
    let state = (body.into_data_stream(), Sha256::new());
    Ok(Body::from_stream(futures_util::stream::try_unfold(state, move |(mut stream, mut hash)| {
        let claimed = claimed.clone();
        async move {
            if let Some(bytes) = stream.next().await.transpose()? {
                hash.update(&bytes);
                return Ok(Some((bytes, (stream, hash))));
            }
            if hash.finalize()[..] == claimed[..] {
                return Ok(None);
            }
            Err(axum::Error::new(format!("The provided '{PAYLOAD_HASH}' header does not match what was computed.")))
        }
    })))
}

/// The account that a credential names, and its scope, which must be of the day of `date`.
pub(crate) fn credential(credential: &str, algorithm: &str, date: &str) -> Result<(String, String), Error> {
    if algorithm != ALGORITHM {
        return Err(malformed(&format!("X-Goog-Algorithm is not {ALGORITHM}")));
    }
    let (email, scope) = credential.split_once('/').ok_or_else(|| malformed("X-Goog-Credential has no scope"))?;
    let parts: Vec<&str> = scope.split('/').collect();
    match parts.as_slice() {
        [day, _, "storage", "goog4_request"] if date.get(..8) == Some(day) => Ok((email.to_owned(), scope.to_owned())),
        _ => Err(malformed("X-Goog-Credential has not the form ACCOUNT/DAY/LOCATION/storage/goog4_request, with the day of X-Goog-Date")),
    }
}

/// `20261124T063645Z`.
fn instant(text: &str) -> Result<Timestamp, Error> {
    let parsed = DateTime::strptime("%Y%m%dT%H%M%SZ", text).ok().and_then(|at| TimeZone::UTC.to_timestamp(at).ok());
    parsed.ok_or_else(|| malformed("X-Goog-Date has not the form YYYYMMDDTHHMMSSZ"))
}

fn times_check(now: Timestamp, begin: Timestamp, end: Timestamp) -> Result<(), Error> {
    if begin > now.saturating_add(SKEW).unwrap_or(Timestamp::MAX) {
        return Err(malformed("the request lies in the future"));
    }
    if now >= end {
        return Err(Error::expired(&format!("The provided token has expired. Request signature expired at: {end}")));
    }
    Ok(())
}

/// Whether the account signed `text`.
pub(crate) fn verified(deps: &Deps, email: &str, text: &str, signature: &[u8], canonical: Option<&str>) -> Result<Identity, Error> {
    deps.iam.blob_verify(email, text.as_bytes(), signature).map_err(|why| {
        tracing::info!(%why, email, "a signed URL was refused");
        Error::signature(text, canonical)
    })
}

fn canonical_request(method: &Method, uri: &Uri, headers: &HeaderMap, signed: &str) -> Result<String, Error> {
    let mut query: Vec<String> = uri
        .query()
        .unwrap_or_default()
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .filter(|(name, _)| !name.eq_ignore_ascii_case("X-Goog-Signature"))
        .map(|(name, value)| format!("{}={}", written_again(name), written_again(value)))
        .collect();
    query.sort();
    let mut lines = String::new();
    for name in signed.split(';') {
        let values: Vec<String> = if name == "host" && !headers.contains_key(header::HOST) {
            uri.authority().map(|authority| authority.to_string()).into_iter().collect()
        } else {
            headers.get_all(name).iter().filter_map(|value| value.to_str().ok()).map(collapsed).collect()
        };
        if values.is_empty() {
            return Err(malformed(&format!("the request lacks the header {name}, which was signed")));
        }
        lines.push_str(&format!("{name}:{}\n", values.join(",")));
    }
    if !signed.split(';').any(|name| name == "host") {
        return Err(malformed("X-Goog-SignedHeaders lacks host"));
    }
    // What would change the meaning of the request must have been signed.
    if let Some((name, _)) = extension_headers(headers).into_iter().find(|(name, _)| !signed.split(';').any(|signed| signed == name)) {
        return Err(malformed(&format!("the header {name} was not signed")));
    }
    let payload = headers.get(PAYLOAD_HASH).and_then(|hash| hash.to_str().ok()).unwrap_or(UNSIGNED_PAYLOAD);
    Ok(format!("{method}\n{}\n{}\n{lines}\n{signed}\n{payload}", uri.path(), query.join("&")))
}

/// As the canonical form escapes it.
fn written_again(text: &str) -> String {
    let bytes: Vec<u8> = percent_decode_str(&text.replace('+', " ")).collect();
    utf8_percent_encode(&String::from_utf8_lossy(&bytes), UNRESERVED).to_string()
}

/// `x-goog-*`, by name, without those that only tell of the client.
fn extension_headers(headers: &HeaderMap) -> BTreeMap<String, String> {
    const OF_CLIENT: &[&str] =
        &["x-goog-api-client", "x-goog-user-project", "x-goog-encryption-key", "x-goog-encryption-key-sha256", "x-goog-gcs-idempotency-token"];
    let mut found: BTreeMap<String, String> = BTreeMap::new();
    for (name, value) in headers.iter().filter(|(name, _)| name.as_str().starts_with("x-goog-") && !OF_CLIENT.contains(&name.as_str())) {
        let value = collapsed(value.to_str().unwrap_or_default());
        found.entry(name.as_str().to_owned()).and_modify(|all| *all = format!("{all},{value}")).or_insert(value);
    }
    found
}

fn collapsed(value: &str) -> String {
    value.split_ascii_whitespace().collect::<Vec<_>>().join(" ")
}

fn malformed(why: &str) -> Error {
    Error::invalid(format!("The signature of the request is malformed: {why}."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_canonical_request_is_googles() {
        // The example of cloud.google.com/storage/docs/authentication/canonical-requests.
        let uri: Uri = "/example-bucket/cat%20pics/tabby.jpeg?X-Goog-SignedHeaders=host&X-Goog-Algorithm=GOOG4-RSA-SHA256&X-Goog-Expires=900&X-Goog-Signature=ab&X-Goog-Credential=example%40example-project.iam.gserviceaccount.com%2F20181026%2Fus-central1%2Fstorage%2Fgoog4_request&X-Goog-Date=20181026T211942Z".parse().unwrap();
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, "storage.googleapis.com".parse().unwrap());
        let expect = "GET\n/example-bucket/cat%20pics/tabby.jpeg\nX-Goog-Algorithm=GOOG4-RSA-SHA256&X-Goog-Credential=example%40example-project.iam.gserviceaccount.com%2F20181026%2Fus-central1%2Fstorage%2Fgoog4_request&X-Goog-Date=20181026T211942Z&X-Goog-Expires=900&X-Goog-SignedHeaders=host\nhost:storage.googleapis.com\n\nhost\nUNSIGNED-PAYLOAD";
        assert_eq!(canonical_request(&Method::GET, &uri, &headers, "host").unwrap(), expect);
        // What changes the request's meaning must have been signed.
        headers.insert("x-goog-resumable", "start".parse().unwrap());
        assert!(canonical_request(&Method::POST, &uri, &headers, "host").is_err());
        let signed = canonical_request(&Method::POST, &uri, &headers, "host;x-goog-resumable").unwrap();
        assert!(signed.contains("\nhost:storage.googleapis.com\nx-goog-resumable:start\n\nhost;x-goog-resumable\n"));
        assert!(canonical_request(&Method::GET, &uri, &HeaderMap::new(), "host").is_err());
    }

    #[test]
    fn credentials_and_times_are_checked() {
        let date = "20261124T063645Z";
        assert!(credential("a@p.iam/20261124/auto/storage/goog4_request", ALGORITHM, date).is_ok());
        for (text, algorithm) in [
            ("a@p.iam/20261125/auto/storage/goog4_request", ALGORITHM),
            ("a@p.iam/20261124/auto/run/goog4_request", ALGORITHM),
            ("a@p.iam", ALGORITHM),
            ("a@p.iam/20261124/auto/storage/goog4_request", "GOOG4-HMAC-SHA256"),
        ] {
            assert!(credential(text, algorithm, date).is_err(), "{text} {algorithm}");
        }
        let begin = instant(date).unwrap();
        let after = |seconds: i64| begin.checked_add(SignedDuration::from_secs(seconds)).unwrap();
        assert!(times_check(after(0), begin, after(10)).is_ok() && times_check(after(-800), begin, after(10)).is_ok());
        assert!(times_check(after(10), begin, after(10)).is_err() && times_check(after(-901), begin, after(10)).is_err());
        assert!(instant("2026-11-24").is_err());
    }
}
