//! The page, its scripts and styles: made by `web/`, compressed at build time, kept in the binary.
//!
//! Names below `/assets/` hold a hash of the content and stay good for ever. Any other path is a place in the console and gets the page.

use std::io::Read;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use http_body_util::{BodyExt, Full};
use serving::Response;

/// A file as Vite has left it.
pub struct File {
    path: &'static str,
    brotli: &'static [u8],
    gzip: &'static [u8],
}

include!(concat!(env!("OUT_DIR"), "/console.rs"));

const PAGE: &str = "/index.html";
/// Stands in the page where a response's own nonce belongs: the editor makes style elements with it.
const NONCE: &str = "NONCE_OF_THE_RESPONSE";

/// The answer to a request for `path`.
pub fn answer(method: &Method, path: &str, headers: &HeaderMap) -> Response {
    if method != Method::GET && method != Method::HEAD {
        return plain(StatusCode::METHOD_NOT_ALLOWED, "files are read");
    }
    match FILES.iter().find(|file| file.path == path && path != PAGE) {
        Some(file) => asset(file, headers),
        None if path.starts_with("/assets/") => plain(StatusCode::NOT_FOUND, "there is no such file; the page may be of an older version: reload it"),
        None => page(),
    }
}

fn page() -> Response {
    let Some(text) = FILES.iter().find(|file| file.path == PAGE).and_then(|file| String::from_utf8(inflate(file.gzip)).ok()) else {
        return plain(StatusCode::INTERNAL_SERVER_ERROR, "this binary was built without its console");
    };
    let nonce = hex::encode(rand::random::<[u8; 16]>());
    let mut response = with_body(Bytes::from(text.replace(NONCE, &nonce)), "text/html; charset=utf-8");
    let policy = format!(
        "default-src 'none'; script-src 'self'; style-src 'self' 'nonce-{nonce}'; img-src 'self' data:; font-src 'self'; connect-src 'self'; \
         form-action 'none'; frame-ancestors 'none'; base-uri 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
    );
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_str(&policy).expect("plain text"));
    for (name, value) in [
        (header::CACHE_CONTROL, "no-store"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
        (HeaderName::from_static("permissions-policy"), "camera=(), microphone=(), geolocation=()"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

fn asset(file: &File, headers: &HeaderMap) -> Response {
    // The name holds the content's hash, so it is the tag as well.
    let tag = format!("\"{}\"", file.path);
    let is_hashed = file.path.starts_with("/assets/");
    if is_hashed && headers.get(header::IF_NONE_MATCH).is_some_and(|known| known.as_bytes() == tag.as_bytes()) {
        return plain(StatusCode::NOT_MODIFIED, "");
    }
    let encodings = headers.get(header::ACCEPT_ENCODING).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let (bytes, encoding) = if accepts(encodings, "br") {
        (Bytes::from_static(file.brotli), Some("br"))
    } else if accepts(encodings, "gzip") {
        (Bytes::from_static(file.gzip), Some("gzip"))
    } else {
        (Bytes::from(inflate(file.gzip)), None)
    };
    let mut response = with_body(bytes, kind(file.path));
    let headers = response.headers_mut();
    if let Some(encoding) = encoding {
        headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static(encoding));
    }
    headers.insert(header::VARY, HeaderValue::from_static("Accept-Encoding"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(if is_hashed { "public, max-age=31536000, immutable" } else { "no-cache" }));
    if is_hashed {
        headers.insert(header::ETAG, HeaderValue::from_str(&tag).expect("paths of files are plain text"));
    }
    headers.insert(HeaderName::from_static("cross-origin-resource-policy"), HeaderValue::from_static("same-origin"));
    response
}

fn accepts(encodings: &str, name: &str) -> bool {
    encodings.split(',').map(|one| one.split(';').map(str::trim)).any(|mut one| one.next() == Some(name) && one.next() != Some("q=0"))
}

fn kind(path: &str) -> &'static str {
    match path.rsplit('.').next() {
        Some("js") => "text/javascript; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("svg") => "image/svg+xml",
        Some("woff2") => "font/woff2",
        _ => "application/octet-stream",
    }
}

fn inflate(gzip: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    flate2::read::GzDecoder::new(gzip).read_to_end(&mut bytes).expect("the build has compressed it");
    bytes
}

fn plain(status: StatusCode, text: &'static str) -> Response {
    let mut response = with_body(Bytes::from_static(text.as_bytes()), "text/plain; charset=utf-8");
    *response.status_mut() = status;
    response
}

fn with_body(bytes: Bytes, kind: &'static str) -> Response {
    let mut response = Response::new(Full::new(bytes).map_err(|never| match never {}).boxed());
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    response.headers_mut().insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn get(path: &str, headers: &[(HeaderName, &'static str)]) -> Response {
        answer(&Method::GET, path, &headers.iter().map(|(name, value)| (name.clone(), HeaderValue::from_static(value))).collect())
    }

    #[test]
    fn the_page_allows_its_own_files_only_and_is_small() {
        let response = get("/services/asia-northeast1/hello", &[]);
        let policy = response.headers()[header::CONTENT_SECURITY_POLICY].to_str().unwrap();
        assert!(policy.contains("script-src 'self';") && !policy.contains("unsafe"), "{policy}");
        assert_eq!(response.headers()[header::CACHE_CONTROL], "no-store");
        let whole: usize = FILES.iter().map(|file| file.brotli.len()).sum();
        assert!(whole <= 400_000, "the console has {whole} bytes, compressed");
        let page = FILES.iter().find(|file| file.path == PAGE).map(|file| String::from_utf8(inflate(file.gzip)).unwrap()).unwrap();
        assert_eq!(page.matches(NONCE).count(), 1);
        for inline in ["<style", "onload=", "style="] {
            assert!(!page.contains(inline), "{inline}");
        }
    }

    #[test]
    fn files_are_cached_by_their_hash() {
        let script = FILES.iter().find(|file| file.path.ends_with(".js")).expect("a script").path;
        let response = get(script, &[(header::ACCEPT_ENCODING, "gzip, br")]);
        assert_eq!(response.headers()[header::CONTENT_ENCODING], "br");
        assert_eq!(get(script, &[(header::ACCEPT_ENCODING, "gzip, br;q=0")]).headers()[header::CONTENT_ENCODING], "gzip");
        assert!(response.headers()[header::CACHE_CONTROL].to_str().unwrap().contains("immutable"));
        assert!(!get(script, &[]).headers().contains_key(header::CONTENT_ENCODING));
        assert_eq!(get("/assets/gone.js", &[]).status(), 404);
        assert_eq!(answer(&Method::POST, "/", &HeaderMap::new()).status(), 405);
    }
}
