//! What Google's HTTP front undoes before a method sees a request: a method that is named in a header, a body that is packed.
//!
//! Google's Java library packs every body and asks for PATCH and DELETE by header; its Go library sends the pieces of an upload by POST.
//! Source: google-http-java-client's `MethodOverride` and `GZipEncoding`, google-api-go-client's `gensupport`, and what both were seen to send.

use std::io::Write;

use axum::body::Body;
use bytes::Bytes;
use http::{HeaderName, Method, header};
use http_body_util::BodyExt;

use crate::Request;

const METHOD_OVERRIDE: HeaderName = HeaderName::from_static("x-http-method-override");
/// How much of a packed body is unpacked at a time, in bytes: it is a thousand times as much then, at most.
const STEP_BYTES: usize = 4 << 10;

/// The request with the method that it means.
pub(crate) fn method_restore(request: &mut Request) {
    if *request.method() != Method::POST {
        return;
    }
    let named = request.headers_mut().remove(METHOD_OVERRIDE).and_then(|name| Method::from_bytes(name.as_bytes()).ok());
    if let Some(method) = named.filter(|method| [Method::GET, Method::PUT, Method::PATCH, Method::DELETE].contains(method)) {
        *request.method_mut() = method;
    } else if is_upload(request) && request.uri().query().is_some_and(|query| form_urlencoded::parse(query.as_bytes()).any(|(name, _)| name == "upload_id")) {
        *request.method_mut() = Method::PUT;
    }
}

/// The request with its body unpacked. What continues an upload is left alone: its `Content-Range` counts the bytes as they come.
pub(crate) fn body_unpack(request: Request) -> Request {
    let is_packed = request.headers().get(header::CONTENT_ENCODING).is_some_and(|coding| coding == "gzip");
    if !is_packed || *request.method() == Method::PUT && is_upload(&request) {
        return request;
    }
    let (mut parts, body) = request.into_parts();
    parts.headers.remove(header::CONTENT_ENCODING);
    parts.headers.remove(header::CONTENT_LENGTH);
    Request::from_parts(parts, unpacked(body))
}

fn is_upload(request: &Request) -> bool {
    let path = request.uri().path();
    path.starts_with("/upload/") || path.starts_with("/resumable/upload/")
}

fn unpacked(body: Body) -> Body {
    let decoder = flate2::write::MultiGzDecoder::new(Vec::new());
    let start = (body, Bytes::new(), Some(decoder));
    Body::from_stream(futures_util::stream::try_unfold(start, |(mut body, mut rest, decoder)| async move {
        let Some(mut decoder) = decoder else { return Ok(None) };
        loop {
            if rest.is_empty() {
                match body.frame().await {
                    Some(Ok(frame)) => rest = frame.into_data().unwrap_or_default(),
                    Some(Err(error)) => return Err(std::io::Error::other(error)),
                    None => {
                        let last = decoder.finish()?;
                        return Ok((!last.is_empty()).then(|| (Bytes::from(last), (body, rest, None))));
                    }
                }
            }
            decoder.write_all(&rest.split_to(rest.len().min(STEP_BYTES)))?;
            let piece = std::mem::take(decoder.get_mut());
            if !piece.is_empty() {
                return Ok(Some((Bytes::from(piece), (body, rest, Some(decoder)))));
            }
        }
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(method: &str, uri: &str, fields: &[(&str, &str)], body: Vec<u8>) -> Request {
        let mut request = http::Request::builder().method(method).uri(uri);
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        request.body(Body::from(body)).unwrap()
    }

    fn packed(text: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn the_method_that_is_meant() {
        let check = |method: &str, uri: &str, fields: &[(&str, &str)], expect: &str| {
            let mut request = request(method, uri, fields, Vec::new());
            method_restore(&mut request);
            assert_eq!(request.method().as_str(), expect, "{method} {uri} {fields:?}");
        };
        check("POST", "/storage/v1/b/a", &[("x-http-method-override", "PATCH")], "PATCH");
        check("POST", "/storage/v1/b/a", &[("x-http-method-override", "CONNECT")], "POST");
        check("GET", "/storage/v1/b/a", &[("x-http-method-override", "DELETE")], "GET");
        check("POST", "/upload/storage/v1/b/a/o?uploadType=resumable&upload_id=1", &[], "PUT");
        check("POST", "/upload/storage/v1/b/a/o?uploadType=resumable", &[], "POST");
        check("POST", "/storage/v1/b?upload_id=1", &[], "POST");
    }

    #[tokio::test]
    async fn packed_bodies() {
        let text = "夏の星".repeat(100_000).into_bytes();
        let read = |request: Request| async { axum::body::to_bytes(body_unpack(request).into_body(), usize::MAX).await };
        let gzip = [("content-encoding", "gzip")];
        assert_eq!(read(request("POST", "/storage/v1/b", &gzip, packed(&text))).await.unwrap(), text);
        let two = [packed(b"one"), packed(b"two")].concat();
        assert_eq!(read(request("POST", "/storage/v1/b", &gzip, two)).await.unwrap(), "onetwo");
        assert_eq!(read(request("POST", "/storage/v1/b", &gzip, packed(b""))).await.unwrap(), "");
        assert!(read(request("POST", "/storage/v1/b", &gzip, b"{}".to_vec())).await.is_err());
        assert!(read(request("POST", "/storage/v1/b", &gzip, packed(&text)[..100].to_vec())).await.is_err());
        // As they came.
        let piece = packed(b"piece");
        assert_eq!(read(request("PUT", "/upload/storage/v1/b/a/o?upload_id=1", &gzip, piece.clone())).await.unwrap(), piece);
        assert_eq!(read(request("POST", "/storage/v1/b", &[], piece.clone())).await.unwrap(), piece);
    }
}
