//! `/api/HOST/PATH`: a call of one of Google's APIs by whoever has signed in.
//!
//! The session becomes an access token that lives for a minute and is seen by this process only; the API checks it and the caller's
//! permissions as for anyone. Of both heads only what is named here passes.

use std::time::Duration;

use http::{HeaderName, HeaderValue, StatusCode, Uri, header};
use model::Status;
use serving::{Request, Response};

use crate::{front::Front, own::error};

const TOKEN_LIFE: Duration = Duration::from_secs(60);
const SCOPE: &str = "https://www.googleapis.com/auth/cloud-platform";
/// Of a call. Uploads are whole: the page does not resume them.
const REQUEST_HEADERS: [HeaderName; 8] = [
    header::ACCEPT,
    header::CONTENT_TYPE,
    header::CONTENT_LENGTH,
    header::TRANSFER_ENCODING,
    header::RANGE,
    header::IF_MATCH,
    header::IF_NONE_MATCH,
    header::USER_AGENT,
];
/// Of an answer.
const RESPONSE_HEADERS: [HeaderName; 7] = [
    header::CONTENT_TYPE,
    header::CONTENT_LENGTH,
    header::CONTENT_RANGE,
    header::ETAG,
    header::RETRY_AFTER,
    header::LAST_MODIFIED,
    HeaderName::from_static("x-goog-generation"),
];

impl Front {
    pub(super) async fn gateway(&self, who: iam::Identity, request: Request) -> Response {
        let Some((host, target)) = target(request.uri()) else {
            return error(&Status::not_found("calls are /api/HOST/PATH, with the host of one of Google's APIs"));
        };
        let (mut parts, body) = request.into_parts();
        let token = self.console.iam.access_token_issue(&who, SCOPE, TOKEN_LIFE).token;
        let mut headers: http::HeaderMap =
            parts.headers.drain().filter_map(|(name, value)| Some((name?, value))).filter(|(name, _)| REQUEST_HEADERS.contains(name)).collect();
        let (Ok(host_value), Ok(bearer)) = (HeaderValue::from_str(&host), HeaderValue::from_str(&format!("Bearer {token}"))) else {
            return error(&Status::internal("a header that cannot be written"));
        };
        headers.insert(header::HOST, host_value);
        headers.insert(header::AUTHORIZATION, bearer);
        parts.headers = headers;
        parts.uri = target;
        parts.version = http::Version::HTTP_11;
        let mut response = self.api(&host, Request::from_parts(parts, body)).await;
        let kept = response.headers().iter().filter(|(name, _)| RESPONSE_HEADERS.contains(name)).map(|(name, value)| (name.clone(), value.clone())).collect();
        *response.headers_mut() = kept;
        if response.status() == StatusCode::UNAUTHORIZED {
            // The page takes 401 for the end of its session, and that has not ended.
            *response.status_mut() = StatusCode::FORBIDDEN;
        }
        response
    }
}

/// The API's host and what it is asked for.
fn target(uri: &Uri) -> Option<(String, Uri)> {
    let (host, path) = uri.path().strip_prefix("/api/")?.split_once('/')?;
    // No tokens, no sign-in pages, no metadata server: the APIs alone.
    let api = host.strip_suffix(".googleapis.com")?;
    let is_plain = !api.is_empty() && api.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    if !is_plain || api == "oauth2" || api == "www" {
        return None;
    }
    let query = uri.query().map(|query| format!("?{query}")).unwrap_or_default();
    Some((host.to_owned(), format!("/{path}{query}").parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_apis_are_reached() {
        let check = |uri: &str, expect: Option<(&str, &str)>| {
            let found = target(&uri.parse().unwrap());
            assert_eq!(found.as_ref().map(|(host, target)| (host.as_str(), target.path_and_query().unwrap().as_str())), expect, "{uri}");
        };
        check("/api/run.googleapis.com/v2/projects/p?x=1", Some(("run.googleapis.com", "/v2/projects/p?x=1")));
        check("/api/asia-northeast1-run.googleapis.com/v2/x", Some(("asia-northeast1-run.googleapis.com", "/v2/x")));
        check("/api/storage.googleapis.com/storage/v1/b/b/o/a%2Fb?alt=media", Some(("storage.googleapis.com", "/storage/v1/b/b/o/a%2Fb?alt=media")));
        for bad in [
            "/api/oauth2.googleapis.com/token",
            "/api/accounts.google.com/o/oauth2/auth",
            "/api/metadata.google.internal/computeMetadata/v1/",
            "/api/run.googleapis.com",
            "/api/evil.com/x",
            "/api/.googleapis.com/x",
            "/api/a.b.googleapis.com/x",
        ] {
            check(bad, None);
        }
    }
}
