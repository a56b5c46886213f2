//! Many calls in one: `multipart/mixed` with an HTTP request in each part, and the answers in the same order.
//!
//! Who carries the calls out is the front, to which each is a request like any other.
//! Source: cloud.google.com/storage/docs/batch.

use axum::{body::Body, response::IntoResponse};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, Uri, header};

use model::limits::BATCH_CALLS_MAX;

use super::error::Error;
use crate::{OverTls, Response, surface::body_read};

/// Where batches of this API arrive.
pub(crate) const PATH: &str = "/batch/storage/v1";
/// The bodies of one answer, and of all answers together, in bytes: a call whose answer is over it is told so.
const ANSWER_MAX_BYTES: usize = 10 << 20;
const ANSWERS_MAX_BYTES: usize = 16 << 20;

/// One call.
pub(crate) struct Part {
    /// As the client named it, with its angle brackets.
    id: Option<String>,
    pub request: Request<Body>,
}

/// Reads a batch. Each call has the credentials of the batch, unless it brings its own.
pub(crate) async fn read(request: Request<Body>) -> Result<Vec<Part>, Error> {
    let (head, body) = request.into_parts();
    let kind: Option<mime::Mime> = head.headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()?.parse().ok());
    let boundary = kind.as_ref().filter(|kind| kind.essence_str() == "multipart/mixed").and_then(|kind| kind.get_param("boundary"));
    let boundary = boundary.ok_or_else(|| Error::invalid("A batch is multipart/mixed and names its boundary."))?;
    let body = body_read(body).await?;
    let mut parts = Vec::new();
    for text in split(&body, boundary.as_str()).ok_or_else(|| Error::invalid("The batch is not framed by its boundary."))? {
        if parts.len() == BATCH_CALLS_MAX {
            return Err(Error::invalid(format!("The batch has more than {BATCH_CALLS_MAX} calls.")));
        }
        let mut part = part(&body, text).ok_or_else(|| Error::invalid(format!("Call {} of the batch is no HTTP request.", parts.len() + 1)))?;
        // A part goes to the host that the batch came to; a signature over another one must not hold.
        part.request.headers_mut().remove(header::HOST);
        if let Some(authority) = head.uri.authority().and_then(|authority| HeaderValue::from_str(authority.as_str()).ok()) {
            part.request.headers_mut().insert(header::HOST, authority);
        }
        for name in [header::AUTHORIZATION, header::HOST] {
            if let Some(value) = head.headers.get(&name).filter(|_| !part.request.headers().contains_key(&name)) {
                part.request.headers_mut().insert(name, value.clone());
            }
        }
        if head.extensions.get::<OverTls>().is_some() {
            part.request.extensions_mut().insert(OverTls);
        }
        if part.request.uri().path() == PATH {
            return Err(Error::invalid("A batch within a batch is not carried out."));
        }
        parts.push(part);
    }
    if parts.is_empty() { Err(Error::invalid("The batch has no calls.")) } else { Ok(parts) }
}

/// Where the parts lie between their delimiters. `None` when there is no closing one.
fn split(body: &[u8], boundary: &str) -> Option<Vec<(usize, usize)>> {
    let delimiter = format!("--{boundary}");
    let mut found = memchr::memmem::find_iter(body, &delimiter).filter(|at| *at == 0 || body[at - 1] == b'\n');
    let mut begin = found.next()? + delimiter.len();
    let mut parts = Vec::new();
    for at in found {
        parts.push((begin, at));
        begin = at + delimiter.len();
    }
    body[begin..].starts_with(b"--").then_some(parts)
}

fn part(body: &Bytes, (begin, end): (usize, usize)) -> Option<Part> {
    let (at, _) = line_end(body, begin)?;
    let (outer, at) = headers(body, at, end)?;
    let (after_line, line) = line_end(body, at)?;
    let mut words = std::str::from_utf8(&body[at..line]).ok()?.split_ascii_whitespace();
    let (method, target) = (Method::from_bytes(words.next()?.as_bytes()).ok()?, words.next()?);
    // Some clients write the whole URL.
    let target: Uri = target.parse().ok()?;
    let target: Uri = target.path_and_query()?.as_str().parse().ok()?;
    let (inner, at) = headers(body, after_line, end)?;
    // The line end before the delimiter belongs to it.
    let mut content = body.slice(at.min(end)..end);
    if content.ends_with(b"\n") {
        content.truncate(content.len() - 1);
        if content.ends_with(b"\r") {
            content.truncate(content.len() - 1);
        }
    }
    if let Some(length) = inner.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<usize>().ok()) {
        content.truncate(length);
    }
    let mut request = Request::new(Body::from(content));
    (*request.method_mut(), *request.uri_mut(), *request.headers_mut()) = (method, target, inner);
    Some(Part { id: outer.get("content-id").and_then(|id| id.to_str().ok()).map(str::to_owned), request })
}

/// The next line's end and where its text ends.
fn line_end(body: &[u8], from: usize) -> Option<(usize, usize)> {
    let at = from + memchr::memchr(b'\n', body.get(from..)?)?;
    Some((at + 1, if at > from && body[at - 1] == b'\r' { at - 1 } else { at }))
}

/// Headers up to an empty line or `end`, and where what follows begins.
fn headers(body: &[u8], mut at: usize, end: usize) -> Option<(HeaderMap, usize)> {
    let mut headers = HeaderMap::new();
    while at < end {
        let (next, text_end) = line_end(body, at)?;
        let line = std::str::from_utf8(&body[at..text_end]).ok()?;
        at = next;
        if line.is_empty() {
            break;
        }
        let (name, value) = line.split_once(':')?;
        headers.append(HeaderName::from_bytes(name.trim().as_bytes()).ok()?, HeaderValue::from_str(value.trim()).ok()?);
    }
    Some((headers, at))
}

/// The answers as one.
pub(crate) async fn write(answers: Vec<(Option<String>, Response)>) -> Response {
    let boundary = format!("batch_{:032x}", rand::random::<u128>());
    let (mut text, mut left) = (Vec::new(), ANSWERS_MAX_BYTES);
    for (id, answer) in answers {
        let (mut head, body) = answer.into_parts();
        let body = match axum::body::to_bytes(body, ANSWER_MAX_BYTES.min(left)).await {
            Ok(body) => body,
            Err(_) => {
                (head.status, head.headers) = (StatusCode::PAYLOAD_TOO_LARGE, HeaderMap::new());
                Bytes::from_static(b"The answer is too large for a batch; make the call alone.")
            }
        };
        left -= body.len().min(left);
        text.extend_from_slice(format!("--{boundary}\r\nContent-Type: application/http\r\n").as_bytes());
        if let Some(id) = id {
            // `<x>` is answered as `<response-x>`.
            let id = id.strip_prefix('<').map_or_else(|| format!("response-{id}"), |rest| format!("<response-{rest}"));
            text.extend_from_slice(format!("Content-ID: {id}\r\n").as_bytes());
        }
        text.extend_from_slice(format!("\r\nHTTP/1.1 {} {}\r\n", head.status.as_u16(), head.status.canonical_reason().unwrap_or_default()).as_bytes());
        for (name, value) in head.headers.iter().filter(|(name, _)| **name != header::CONTENT_LENGTH) {
            text.extend_from_slice(name.as_str().as_bytes());
            text.extend_from_slice(b": ");
            text.extend_from_slice(value.as_bytes());
            text.extend_from_slice(b"\r\n");
        }
        text.extend_from_slice(format!("Content-Length: {}\r\n\r\n", body.len()).as_bytes());
        text.extend_from_slice(&body);
        text.extend_from_slice(b"\r\n");
    }
    text.extend_from_slice(format!("--{boundary}--\r\n").as_bytes());
    (StatusCode::OK, [(header::CONTENT_TYPE, format!("multipart/mixed; boundary={boundary}"))], text).into_response()
}

impl Part {
    /// The request, and what the client calls it.
    pub(crate) fn take(self) -> (Option<String>, Request<Body>) {
        (self.id, self.request)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As google-cloud-storage for Python writes it, and with bare line ends.
    const BODY: &str = "--===1==\r\nContent-Type: application/http\r\nMIME-Version: 1.0\r\nContent-ID: <a+1>\r\n\r\nPATCH /storage/v1/b/b/o/x?projection=full HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}\r\n--===1==\r\nContent-Type: application/http\r\n\r\nDELETE https://storage.googleapis.com/storage/v1/b/b/o/y HTTP/1.1\r\n\r\n\r\n--===1==--";

    /// Its id, method, target and body.
    type Call = (Option<String>, String, String, Vec<u8>);

    async fn parts(kind: &str, body: String) -> Result<Vec<Call>, Error> {
        let request = Request::post(PATH).header(header::CONTENT_TYPE, kind).header(header::AUTHORIZATION, "Bearer x").body(Body::from(body)).unwrap();
        let mut read_parts = Vec::new();
        for part in read(request).await? {
            let (id, request) = part.take();
            assert_eq!(request.headers()[header::AUTHORIZATION], "Bearer x");
            let (method, uri) = (request.method().to_string(), request.uri().to_string());
            read_parts.push((id, method, uri, axum::body::to_bytes(request.into_body(), 1000).await.unwrap().to_vec()));
        }
        Ok(read_parts)
    }

    #[tokio::test]
    async fn a_part_goes_where_the_batch_went_and_an_answer_too_large_says_so() {
        let body = BODY.replace("PATCH /storage/v1/b/b/o/x?projection=full HTTP/1.1\r\n", "GET /b/x HTTP/1.1\r\nHost: a.storage.googleapis.com\r\n");
        let kind = "multipart/mixed; boundary=\"===1==\"";
        let request = Request::post(PATH).header(header::CONTENT_TYPE, kind).header(header::HOST, "storage.googleapis.com").body(Body::from(body)).unwrap();
        for part in read(request).await.unwrap() {
            assert_eq!(part.request.headers().get_all(header::HOST).iter().collect::<Vec<_>>(), ["storage.googleapis.com"]);
        }
        let answer = |size: usize| (None, (StatusCode::OK, vec![b'x'; size]).into_response());
        let written = write(vec![answer(9 << 20), answer(9 << 20), answer(1)]).await;
        let text = axum::body::to_bytes(written.into_body(), usize::MAX).await.unwrap();
        let count = |text_wanted: &str| memchr::memmem::find_iter(&text, text_wanted).count();
        assert_eq!((count("HTTP/1.1 200 OK"), count("HTTP/1.1 413 Payload Too Large")), (2, 1));
    }

    #[tokio::test]
    async fn calls_are_read_and_malformed_batches_refused() {
        let kind = "multipart/mixed; boundary=\"===1==\"";
        for body in [BODY.to_owned(), BODY.replace("\r\n", "\n")] {
            let found = parts(kind, body).await.unwrap();
            let expect =
                |id: Option<&str>, method: &str, uri: &str, body: &str| (id.map(str::to_owned), method.to_owned(), uri.to_owned(), body.as_bytes().to_vec());
            let first = expect(Some("<a+1>"), "PATCH", "/storage/v1/b/b/o/x?projection=full", "{}");
            assert_eq!(found, [first, expect(None, "DELETE", "/storage/v1/b/b/o/y", "")]);
        }
        for (kind, body) in [
            ("text/plain", BODY.to_owned()),
            ("multipart/mixed", BODY.to_owned()),
            ("multipart/mixed; boundary=other", BODY.to_owned()),
            (kind, BODY.trim_end_matches('-').to_owned()),
            (kind, "--===1==--".to_owned()),
            (kind, BODY.replace("PATCH /", "PATCH")),
            (kind, BODY.replace("/storage/v1/b/b/o/y", PATH)),
        ] {
            assert!(parts(kind, body.clone()).await.is_err(), "{kind} {body}");
        }
    }
}
