//! An object's bytes: whole, in part, or unpacked.
//!
//! They are read as the client takes them, at most [`READ_BYTES`] ahead.

use std::io::Read;

use axum::{body::Body, response::IntoResponse};
use events::storage::object_etag;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use model::{
    Status,
    storage::{Bucket, Object},
};
use tokio::io::{AsyncReadExt, AsyncSeekExt};
use tokio_util::io::ReaderStream;

use super::{
    error::Error,
    ingest::blocking,
    object::{object_find, read_check},
    query::{CONDITIONS, Query},
    range::{Wanted, range_parse},
};
use crate::{Deps, Response, surface::Call};

const READ_BYTES: usize = 256 << 10;

/// `GET /download/storage/v1/b/B/o/O`, which the field `mediaLink` names.
pub(crate) async fn get(deps: Deps, call: Call) -> Result<Response, Error> {
    let query = Query::of(&call, &[&["generation"], CONDITIONS])?;
    answer(deps, call, query).await
}

pub(crate) async fn answer(deps: Deps, call: Call, query: Query) -> Result<Response, Error> {
    super::encryption_refuse(&call.headers)?;
    let bucket = deps.control.bucket_get(call.var("bucket")?)?.value;
    let object = object_find(&deps, call.who.as_ref(), &bucket, call.var("object")?, query.integer("generation")?)?;
    read_check(&object, &query.preconditions()?)?;
    respond(&deps, &call.headers, &bucket, &object).await
}

/// The bytes that a request with `asked` gets of `object`.
pub(crate) async fn respond(deps: &Deps, asked: &HeaderMap, bucket: &Bucket, object: &Object) -> Result<Response, Error> {
    let (store, blob) = (deps.control.store().clone(), object.blob.clone());
    let file =
        blocking(move || store.blobs().open(&blob).map_err(Status::internal)?.ok_or_else(|| Status::internal(format!("blob {blob} of an object is missing"))))
            .await?;
    let class = if object.storage_class.is_empty() { &bucket.storage_class } else { &object.storage_class };
    let mut headers = headers(object, class);
    if unpacks(object, asked) {
        headers.remove(header::CONTENT_ENCODING);
        headers.remove(header::ACCEPT_RANGES);
        headers.insert(header::WARNING, HeaderValue::from_static("214 UploadServer gunzipped"));
        return Ok((StatusCode::OK, headers, unpacked(file)).into_response());
    }
    let range = asked.get(header::RANGE).and_then(|value| value.to_str().ok());
    let (status, first, length) = match range_parse(range, object.size) {
        Wanted::All => (StatusCode::OK, 0, object.size),
        Wanted::Part { first, last } => {
            headers.insert(header::CONTENT_RANGE, text(&format!("bytes {first}-{last}/{}", object.size)));
            (StatusCode::PARTIAL_CONTENT, first, last - first + 1)
        }
        Wanted::Unsatisfiable => {
            let mut response = Error::range_unsatisfiable().into_response();
            response.headers_mut().insert(header::CONTENT_RANGE, text(&format!("bytes */{}", object.size)));
            return Ok(response);
        }
    };
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    let mut file = tokio::fs::File::from_std(file);
    file.set_max_buf_size(READ_BYTES);
    if first > 0 {
        file.seek(std::io::SeekFrom::Start(first)).await.map_err(|error| Status::internal(format!("reading a blob: {error}")))?;
    }
    let body = Body::from_stream(ReaderStream::with_capacity(file.take(length), READ_BYTES));
    Ok((status, headers, body).into_response())
}

fn headers(object: &Object, storage_class: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    let content_type = if object.content_type.is_empty() { "application/octet-stream" } else { &object.content_type };
    headers.insert(header::CONTENT_TYPE, text(content_type));
    let kept = [
        (header::CONTENT_ENCODING, &object.content_encoding),
        (header::CONTENT_DISPOSITION, &object.content_disposition),
        (header::CONTENT_LANGUAGE, &object.content_language),
        (header::CACHE_CONTROL, &object.cache_control),
    ];
    for (name, value) in kept.into_iter().filter(|(_, value)| !value.is_empty()) {
        headers.insert(name, text(value));
    }
    if object.cache_control.is_empty() {
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache, no-store, max-age=0, must-revalidate"));
    }
    headers.insert(header::ETAG, text(&object_etag(object)));
    headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    headers.insert(header::LAST_MODIFIED, text(&object.updated.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string()));
    headers.insert("x-goog-generation", HeaderValue::from(object.generation));
    headers.insert("x-goog-metageneration", HeaderValue::from(object.metageneration));
    headers.insert("x-goog-storage-class", text(storage_class));
    // A composed object has no MD5.
    let md5 = if object.md5.is_empty() { String::new() } else { format!(",md5={}", object.md5) };
    headers.insert("x-goog-hash", text(&format!("crc32c={}{md5}", object.crc32c)));
    headers.insert("x-goog-stored-content-length", HeaderValue::from(object.size));
    headers.insert("x-goog-stored-content-encoding", text(if object.content_encoding.is_empty() { "identity" } else { &object.content_encoding }));
    // An object is not a page of this server: in a browser it has no origin and runs nothing.
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static("sandbox; default-src 'none'"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers
}

fn text(value: &str) -> HeaderValue {
    HeaderValue::from_bytes(value.as_bytes()).unwrap_or_else(|_| HeaderValue::from_static(""))
}

/// Whether a client that cannot read gzip gets an object that is stored so. Source: cloud.google.com/storage/docs/transcoding.
fn unpacks(object: &Object, headers: &HeaderMap) -> bool {
    let takes_gzip = headers.get_all(header::ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(',')).any(|coding| {
        let (name, quality) = coding.split_once(';').unwrap_or((coding, ""));
        matches!(name.trim(), "gzip" | "x-gzip" | "*") && !matches!(quality.trim().strip_prefix("q="), Some("0" | "0.0" | "0.00" | "0.000"))
    });
    object.content_encoding.eq_ignore_ascii_case("gzip") && !takes_gzip && !object.cache_control.to_ascii_lowercase().contains("no-transform")
}

/// What the gzip file `file` holds. A broken one breaks the connection in the middle, which is all that HTTP offers then. No thread
/// waits for a slow client: each piece is unpacked when the last one was taken.
fn unpacked(file: std::fs::File) -> Body {
    let decoder = flate2::read::MultiGzDecoder::new(std::io::BufReader::with_capacity(READ_BYTES, file));
    Body::from_stream(futures_util::stream::try_unfold(decoder, |mut decoder| async move {
        let (decoder, piece) = tokio::task::spawn_blocking(move || {
            let mut piece = Vec::with_capacity(READ_BYTES);
            decoder.by_ref().take(READ_BYTES as u64).read_to_end(&mut piece)?;
            Ok::<_, std::io::Error>((decoder, piece))
        })
        .await
        .map_err(std::io::Error::other)??;
        Ok::<_, std::io::Error>((!piece.is_empty()).then(|| (bytes::Bytes::from(piece), decoder)))
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_clients_without_gzip_get_unpacked_bytes() {
        let check = |encoding: &str, cache: &str, accept: Option<&'static str>, expect: bool| {
            let mut headers = HeaderMap::new();
            if let Some(accept) = accept {
                headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static(accept));
            }
            let object: Object = serde_json::from_value(serde_json::json!({
                "bucket": "", "name": "", "generation": 1, "metageneration": 1, "created": "2026-11-24T06:20:13Z", "updated": "2026-11-24T06:20:13Z",
                "size": 0, "blob": "", "crc32c": "", "md5": "", "content_encoding": encoding, "cache_control": cache,
            }))
            .unwrap();
            assert_eq!(unpacks(&object, &headers), expect, "{encoding} {cache} {accept:?}");
        };
        check("gzip", "", None, true);
        check("gzip", "", Some("identity"), true);
        check("gzip", "", Some("gzip;q=0"), true);
        check("gzip", "", Some("deflate, gzip"), false);
        check("gzip", "no-transform", None, false);
        check("", "", None, false);
    }
}
