//! `POST /upload/storage/v1/b/B/o`: an object in one request (`media`, `multipart`), or the beginning of a resumable upload.

use axum::body::Body;
use base64::{Engine, engine::general_purpose::STANDARD};
use http::{HeaderMap, header};
use model::storage::Bucket;
use serde_json::{Map, Value};

use super::{
    error::Error,
    ingest::{Ingest, Stored, drain, frame},
    multipart::{Event, Multipart, MultipartError},
    object::{Draft, object_json, retention_check, write_check},
    query::{CONDITIONS, Query},
    resumable,
};
use crate::{Deps, Response, surface::Call};

pub(crate) async fn insert(deps: Deps, mut call: Call) -> Result<Response, Error> {
    let mut body = std::mem::replace(&mut call.body, Body::empty());
    let answer = inserted(deps, call, &mut body).await;
    if answer.is_err() {
        // A client that still writes would not read why it was refused.
        drain(&mut body).await;
    }
    answer
}

async fn inserted(deps: Deps, mut call: Call, body: &mut Body) -> Result<Response, Error> {
    let query = Query::of(&call, &[&["name", "contentEncoding"], CONDITIONS])?;
    super::encryption_refuse(&call.headers)?;
    let bucket = deps.control.bucket_get(call.var("bucket")?)?.value;
    if call.headers.get(header::CONTENT_ENCODING).is_some_and(|coding| coding != "identity") {
        return Err(Error::not_served(
            "Content-Encoding of the request",
            "send the bytes as they are to be stored or packed by gzip for the way, and contentEncoding if they are to be stored packed",
        ));
    }
    match query.required("uploadType")? {
        "media" => media(deps, call, body, query, bucket).await,
        "multipart" => multipart(deps, call, body, query, bucket).await,
        "resumable" => {
            call.body = std::mem::replace(body, Body::empty());
            let metadata: Map<String, Value> = call.json().await?;
            let mut draft = draft(&metadata, &query, &bucket)?;
            if draft.content_type.is_empty() {
                draft.content_type = text(&call.headers, "x-upload-content-type").unwrap_or_default().to_owned();
            }
            let conditions = query.preconditions()?;
            write_check(&deps, call.who.as_ref(), &bucket, &draft.name, &conditions)?;
            retention_check(&deps, call.who.as_ref(), &bucket, &draft)?;
            resumable::start(&deps, &super::base(&call), conditions, draft, call.headers.get("x-upload-content-length")).await
        }
        other => Err(Error::invalid(format!("Invalid value for uploadType: {other:?} is none of media, multipart, resumable."))),
    }
}

async fn media(deps: Deps, call: Call, body: &mut Body, query: Query, bucket: Bucket) -> Result<Response, Error> {
    let base = super::base(&call);
    let mut draft = draft(&Map::new(), &query, &bucket)?;
    if let Some(content_type) = text(&call.headers, "content-type") {
        draft.content_type = content_type.to_owned();
    }
    claims_add(&mut draft, &call.headers, true)?;
    write_check(&deps, call.who.as_ref(), &bucket, &draft.name, &query.preconditions()?)?;
    let mut ingest = Ingest::new(deps.control.store()).await?;
    ingest.body(body).await??;
    let stored = ingest.finish().await?;
    store(&deps, &base, &query, &bucket, draft, stored).await
}

async fn multipart(deps: Deps, call: Call, body: &mut Body, query: Query, bucket: Bucket) -> Result<Response, Error> {
    let base = super::base(&call);
    let content_type = text(&call.headers, "content-type").unwrap_or_default();
    let mut parser = Multipart::new(content_type).map_err(malformed)?;
    let (mut drafted, mut ingest): (Option<Draft>, Option<Ingest>) = (None, None);
    while let Some(bytes) = frame(body).await? {
        for event in parser.push(&bytes).map_err(malformed)? {
            match event {
                Event::Metadata(json) => {
                    let json = if json.trim_ascii().is_empty() { &b"{}"[..] } else { &json };
                    let json: Map<String, Value> =
                        serde_json::from_slice(json).map_err(|why| Error::invalid(format!("The metadata is no JSON object: {why}")))?;
                    let mut made = draft(&json, &query, &bucket)?;
                    claims_add(&mut made, &call.headers, false)?;
                    write_check(&deps, call.who.as_ref(), &bucket, &made.name, &query.preconditions()?)?;
                    retention_check(&deps, call.who.as_ref(), &bucket, &made)?;
                    drafted = Some(made);
                }
                Event::Media { content_type } => {
                    if let Some(draft) = drafted.as_mut().filter(|draft| draft.content_type.is_empty()) {
                        draft.content_type = content_type;
                    }
                    ingest = Some(Ingest::new(deps.control.store()).await?);
                }
                Event::Bytes(bytes) => {
                    if let Some(ingest) = &mut ingest {
                        ingest.push(bytes).await?;
                    }
                }
                Event::End => {}
            }
        }
    }
    parser.finish().map_err(malformed)?;
    let (Some(draft), Some(ingest)) = (drafted, ingest) else { return Err(malformed(MultipartError::OnePart)) };
    let stored = ingest.finish().await?;
    store(&deps, &base, &query, &bucket, draft, stored).await
}

/// What metadata and query say of the object.
fn draft(body: &Map<String, Value>, query: &Query, bucket: &Bucket) -> Result<Draft, Error> {
    let mut draft = Draft::default();
    draft.apply(body)?;
    draft.place(&bucket.name, query.get("name"), body)?;
    if let Some(coding) = query.get("contentEncoding") {
        draft.content_encoding = coding.to_owned();
    }
    Ok(draft)
}

async fn store(deps: &Deps, base: &str, query: &Query, bucket: &Bucket, draft: Draft, stored: Stored) -> Result<Response, Error> {
    draft.verify(&stored)?;
    let object = draft.object(stored, deps.clock.now());
    let put = deps.control.object_put(object, &query.preconditions()?).await.map_err(Error::of_write)?.value;
    query.answer(object_json(&put, bucket, base))
}

/// Hashes that the request's headers claim: `x-goog-hash: crc32c=...,md5=...`, and `Content-MD5` when the body is the object.
pub(crate) fn claims_add(draft: &mut Draft, headers: &HeaderMap, body_is_object: bool) -> Result<(), Error> {
    let values = headers.get_all("x-goog-hash").iter().filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(','));
    let mut claims: Vec<(&str, &str)> = values.filter_map(|claim| claim.trim().split_once('=')).collect();
    if let Some(md5) = text(headers, "content-md5").filter(|_| body_is_object) {
        claims.push(("md5", md5));
    }
    for (kind, value) in claims {
        let (claimed, length) = match kind {
            "md5" => (&mut draft.md5, 16),
            "crc32c" => (&mut draft.crc32c, 4),
            // Newer hashes may come beside these.
            _ => continue,
        };
        if STANDARD.decode(value).map(|bytes| bytes.len()) != Ok(length) {
            return Err(Error::invalid(format!("The {kind} {value:?} is no Base64 of {length} bytes.")));
        }
        if !claimed.is_empty() && claimed != value {
            return Err(Error::invalid(format!("The request claims two {kind} hashes: {claimed:?} and {value:?}.")));
        }
        value.clone_into(claimed);
    }
    Ok(())
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

fn malformed(error: MultipartError) -> Error {
    Error::invalid(format!("Malformed multipart body: {error}."))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn claims_come_from_headers_and_must_agree() {
        let check = |before: &str, hash: &'static str, content_md5: Option<&'static str>, expect: Option<(&str, &str)>| {
            let mut headers = HeaderMap::new();
            headers.insert("x-goog-hash", HeaderValue::from_static(hash));
            if let Some(md5) = content_md5 {
                headers.insert("content-md5", HeaderValue::from_static(md5));
            }
            let mut draft = Draft { crc32c: before.into(), ..Draft::default() };
            let result = claims_add(&mut draft, &headers, true).ok().map(|()| (draft.crc32c.as_str(), draft.md5.as_str()));
            assert_eq!(result, expect, "{hash}");
        };
        check("", "crc32c=cg1bLA==,md5=UzMvP0QhXzrRhlHCjwUtsA==", None, Some(("cg1bLA==", "UzMvP0QhXzrRhlHCjwUtsA==")));
        check("cg1bLA==", "crc32c=cg1bLA==", None, Some(("cg1bLA==", "")));
        check("cg1bLA==", "crc32c=AAAAAA==", None, None);
        check("", "crc32c=x", None, None);
        check("", "md5=UzMvP0QhXzrRhlHCjwUtsA==", Some("AAAAAAAAAAAAAAAAAAAAAA=="), None);
        check("", "sha256=xyz", Some("UzMvP0QhXzrRhlHCjwUtsA=="), Some(("", "UzMvP0QhXzrRhlHCjwUtsA==")));
    }
}
