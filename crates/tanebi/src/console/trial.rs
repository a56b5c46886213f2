//! A test call of a service: made by the server, so that the page can show whatever comes back as text.
//!
//! It comes in by the front door, from where the browser is and with the caller's own ID token: ingress, invoker and traffic treat it as
//! the same call by curl.

use std::time::Instant;

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, header};
use http_body_util::{BodyExt, Full};
use model::Status;
use serde_json::{Value, json};
use serving::{Origin, Request};

use crate::{front::Front, own::field};

/// As much of an answer is shown.
const SHOWN_MAX_BYTES: usize = 256 << 10;
const HEADERS_MAX: usize = 50;

impl Front {
    pub(super) async fn trial(&self, origin: Origin, who: &iam::Identity, written: &Value) -> Result<Value, Status> {
        let region = model::Region::parse(&field(written, "region")?)?;
        let service = model::ServiceName::parse(&field(written, "service")?)?;
        let host = format!("{}.run.app", model::address::host_deterministic(&service, self.console.project.number, region.as_str()));
        let host = match written.get("tag").and_then(Value::as_str) {
            Some(tag) => format!("{tag}---{host}"),
            None => host,
        };
        let request = self.trial_request(who, written, &host)?;
        let began = Instant::now();
        let response = self.serving.handle(origin, request).await;
        let head_us = began.elapsed().as_micros();
        let (parts, mut body) = response.into_parts();
        let (mut bytes, mut is_cut) = (Vec::new(), false);
        while let Some(frame) = body.frame().await {
            let Ok(frame) = frame else { break };
            if let Some(data) = frame.data_ref() {
                let room = SHOWN_MAX_BYTES - bytes.len();
                bytes.extend_from_slice(&data[..data.len().min(room)]);
                if data.len() > room {
                    is_cut = true;
                    break;
                }
            }
        }
        let headers: Vec<_> = parts.headers.iter().map(|(name, value)| json!([name.as_str(), String::from_utf8_lossy(value.as_bytes())])).collect();
        let mut shown = json!({
            "status": parts.status.as_u16(), "headers": headers, "isCut": is_cut,
            "headMs": head_us as f64 / 1000.0, "wholeMs": began.elapsed().as_micros() as f64 / 1000.0,
        });
        match String::from_utf8(bytes) {
            Ok(text) => shown["text"] = json!(text),
            Err(other) => shown["base64"] = json!(STANDARD.encode(other.as_bytes())),
        }
        Ok(shown)
    }

    fn trial_request(&self, who: &iam::Identity, written: &Value, host: &str) -> Result<Request, Status> {
        let text = |name: &str, default: &str| written.get(name).and_then(Value::as_str).unwrap_or(default).to_owned();
        let method = Method::from_bytes(text("method", "POST").as_bytes()).map_err(|_| Status::invalid_field("method", "is no HTTP method"))?;
        let path = text("path", "/");
        let uri: http::Uri = path.parse().map_err(|_| Status::invalid_field("path", format!("{path:?} is no path")))?;
        if uri.authority().is_some() || !path.starts_with('/') {
            return Err(Status::invalid_field("path", "begins with /"));
        }
        let body = Bytes::from(text("body", ""));
        let mut request = Request::new(Full::new(body.clone()).map_err(|never| match never {}).boxed());
        (*request.method_mut(), *request.uri_mut()) = (method, uri);
        let headers = request.headers_mut();
        for (name, value) in written.get("headers").and_then(Value::as_object).into_iter().flatten().take(HEADERS_MAX) {
            let bad = || Status::invalid_field("headers", format!("{name:?} is no header that can be sent"));
            let value = value.as_str().and_then(|value| HeaderValue::from_str(value).ok()).ok_or_else(bad)?;
            headers.append(HeaderName::from_bytes(name.as_bytes()).map_err(|_| bad())?, value);
        }
        headers.insert(header::HOST, HeaderValue::from_str(host).map_err(|_| Status::invalid_field("tag", "is no part of a host"))?);
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(body.len()));
        for name in [header::CONNECTION, header::EXPECT, header::TE, header::TRANSFER_ENCODING, header::UPGRADE] {
            headers.remove(name);
        }
        if written.get("authenticate").and_then(Value::as_bool).unwrap_or(true) {
            let token = self.console.iam.id_token_issue(who, &format!("https://{host}"), true);
            headers.insert(header::AUTHORIZATION, HeaderValue::from_str(&format!("bearer {token}")).map_err(Status::internal)?);
        }
        Ok(request)
    }
}
