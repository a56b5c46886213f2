//! Calls whose headers matter.

use api::Api;
use axum::body::Body;
use http::{HeaderMap, Request, StatusCode, header};
use serde_json::Value as Json;

pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn json(&self) -> Json {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("{} {}", self.status, self.text()))
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// The answer, which went well.
    pub fn good(self) -> Self {
        assert!(self.status.is_success(), "{} {}", self.status, self.text());
        self
    }

    /// HTTP status and the first error's reason, as storage writes it.
    pub fn reason(&self) -> (u16, String) {
        let reason = if self.body.is_empty() { String::new() } else { self.json()["error"]["errors"][0]["reason"].as_str().unwrap_or_default().to_owned() };
        (self.status.as_u16(), reason)
    }
}

/// `METHOD https://host/path` with headers and a body.
pub async fn send(api: &Api, token: Option<&str>, method: &str, url: &str, headers: &[(&str, &str)], body: impl Into<Body>) -> Answer {
    let (scheme, rest) = url.split_once("://").unwrap();
    let (host, path) = rest.split_at(rest.find('/').unwrap());
    let mut request = Request::builder().method(method).uri(path);
    if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
        request = request.header(header::HOST, host);
    }
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    if let Some(token) = token {
        request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
    }
    if scheme == "https" {
        request = request.extension(api::OverTls);
    }
    let response = api.handle(host.split(':').next().unwrap(), request.body(body.into()).unwrap()).await;
    let (head, body) = response.into_parts();
    let body = axum::body::to_bytes(body, usize::MAX).await.unwrap().to_vec();
    Answer { status: head.status, headers: head.headers, body }
}

/// A form.
pub fn form(pairs: &[(&str, &str)]) -> String {
    form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish()
}

pub const FORM: (&str, &str) = ("content-type", "application/x-www-form-urlencoded");
pub const JSON: (&str, &str) = ("content-type", "application/json");
