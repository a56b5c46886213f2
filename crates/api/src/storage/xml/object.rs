//! One object: `/BUCKET/OBJECT`.

use axum::{body::Body, response::IntoResponse};
use base64::{Engine, engine::general_purpose::STANDARD};
use control::Preconditions;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use model::{
    Code,
    storage::{Bucket, Object},
};
use serde_json::{Map, Value, json};

use super::{
    super::{
        download,
        error::Error,
        ingest::{Ingest, Stored, drain},
        object::{Draft, object_find, read_check, write_check},
        resumable,
        upload::claims_add,
    },
    Query, header_text, multipart,
};
use crate::{Deps, Response, surface::Call};

/// Headers that ask for what this server does not have, with what to do instead.
const REFUSED: &[(&str, &str)] = &[
    ("x-goog-copy-source", "copy by rewriteTo of the JSON API"),
    ("x-goog-acl", "access is by IAM only; leave it out"),
    ("x-goog-encryption-kms-key-name", "objects are not encrypted with keys of Cloud KMS; leave it out"),
];
const OVERRIDES: &[(&str, HeaderName)] = &[
    ("response-content-type", header::CONTENT_TYPE),
    ("response-content-disposition", header::CONTENT_DISPOSITION),
    ("response-content-encoding", header::CONTENT_ENCODING),
    ("response-content-language", header::CONTENT_LANGUAGE),
    ("response-cache-control", header::CACHE_CONTROL),
];

/// GET and HEAD.
pub(super) async fn get(deps: Deps, call: Call) -> Result<Response, Error> {
    let mut known: Vec<&str> = OVERRIDES.iter().map(|(name, _)| *name).collect();
    known.extend(["generation", "uploadId", "max-parts", "part-number-marker"]);
    let query = Query::of(&call.uri, &known)?;
    if query.get("uploadId").is_some() {
        return multipart::parts_list(deps, call, &query).await;
    }
    refuse(&call.headers)?;
    let bucket = deps.control.bucket_get(call.var("bucket")?)?.value;
    let object = object_find(&deps, call.who.as_ref(), &bucket, call.var("object")?, query.number("generation")?)?;
    read_check(&object, &conditions(&call.headers)?)?;
    let etag = etag(&object);
    let names = |name: HeaderName| {
        call.headers.get(name).and_then(|value| value.to_str().ok()).map(|value| value.split(',').any(|one| matches!(one.trim(), "*") || one.trim() == etag))
    };
    if names(header::IF_MATCH) == Some(false) {
        return Err(Error::condition_not_met());
    }
    if names(header::IF_NONE_MATCH) == Some(true) {
        return Err(Error::not_modified());
    }
    let mut response = download::respond(&deps, &call.headers, &bucket, &object).await?;
    let headers = response.headers_mut();
    headers.insert(header::ETAG, value(&etag)?);
    for (key, text) in &object.metadata {
        // A key that is no header's name cannot be told by one.
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(format!("x-goog-meta-{key}").as_bytes()), HeaderValue::from_bytes(text.as_bytes())) {
            headers.insert(name, value);
        }
    }
    if object.components > 0 {
        headers.insert("x-goog-component-count", HeaderValue::from(object.components));
    }
    for (parameter, name) in OVERRIDES {
        if let Some(text) = query.get(parameter).filter(|text| !text.is_empty()) {
            headers.insert(name, value(text)?);
        }
    }
    Ok(response)
}

pub(super) async fn put(deps: Deps, mut call: Call) -> Result<Response, Error> {
    let mut body = std::mem::replace(&mut call.body, Body::empty());
    let answer = put_inner(deps, call, &mut body).await;
    if answer.is_err() {
        // A client that still writes would not read why it was refused.
        drain(&mut body).await;
    }
    answer
}

async fn put_inner(deps: Deps, call: Call, body: &mut Body) -> Result<Response, Error> {
    let query = Query::of(&call.uri, &["uploadId", "partNumber", "name"])?;
    refuse(&call.headers)?;
    if query.get("uploadId").is_some() {
        range_refuse(&call)?;
        return multipart::part_put(deps, call, &query, body).await;
    }
    let bucket = deps.control.bucket_get(call.var("bucket")?)?.value;
    let (draft, conditions) = (draft(&call, &bucket)?, conditions(&call.headers)?);
    write_check(&deps, call.who.as_ref(), &bucket, &draft.name, &conditions)?;
    let stored = ingested(&deps, body, header_text(&call, "x-goog-content-length-range")).await?;
    let object = store(&deps, draft, stored, &conditions).await?;
    Ok((StatusCode::OK, written(&object)?).into_response())
}

/// A size that was signed must not be passed over.
fn range_refuse(call: &Call) -> Result<(), Error> {
    const RANGE: &str = "x-goog-content-length-range";
    if call.headers.contains_key(RANGE) { Err(Error::not_served(RANGE, "it limits an object that is uploaded by one PUT, and by a form")) } else { Ok(()) }
}

/// The beginning of a resumable upload, or of a multipart one, or its end.
pub(super) async fn post(deps: Deps, call: Call) -> Result<Response, Error> {
    let query = Query::of(&call.uri, &["uploads", "uploadId"])?;
    refuse(&call.headers)?;
    range_refuse(&call)?;
    if query.get("uploadId").is_some() {
        return multipart::complete(deps, call, &query).await;
    }
    let bucket = deps.control.bucket_get(call.var("bucket")?)?.value;
    let (draft, conditions) = (draft(&call, &bucket)?, conditions(&call.headers)?);
    write_check(&deps, call.who.as_ref(), &bucket, &draft.name, &conditions)?;
    if query.get("uploads").is_some() {
        return multipart::start(deps, &bucket, draft, conditions).await;
    }
    if header_text(&call, "x-goog-resumable") != Some("start") {
        return Err(Error::invalid("A POST to an object begins an upload: with x-goog-resumable: start, or ?uploads."));
    }
    let mut response = resumable::start(&deps, &super::super::base(&call), conditions, draft, call.headers.get("x-upload-content-length")).await?;
    *response.status_mut() = StatusCode::CREATED;
    Ok(response)
}

pub(super) async fn delete(deps: Deps, call: Call) -> Result<Response, Error> {
    let query = Query::of(&call.uri, &["generation", "uploadId"])?;
    if query.get("uploadId").is_some() {
        return multipart::abort(deps, call, &query).await;
    }
    let (bucket, name) = (call.var("bucket")?, call.var("object")?);
    deps.control.object_delete(bucket, name, query.number("generation")?, &conditions(&call.headers)?).await.map_err(|status| match status.code {
        Code::NotFound => status.into(),
        _ => Error::of_write(status),
    })?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

fn refuse(headers: &HeaderMap) -> Result<(), Error> {
    super::super::encryption_refuse(headers)?;
    match REFUSED.iter().find(|(name, _)| headers.contains_key(*name)) {
        Some((name, hint)) => Err(Error::not_served(name, hint)),
        None => Ok(()),
    }
}

/// What the headers say of the object.
fn draft(call: &Call, bucket: &Bucket) -> Result<Draft, Error> {
    const FIELDS: &[(&str, &str)] = &[
        ("content-type", "contentType"),
        ("content-encoding", "contentEncoding"),
        ("content-disposition", "contentDisposition"),
        ("content-language", "contentLanguage"),
        ("cache-control", "cacheControl"),
        ("x-goog-storage-class", "storageClass"),
        ("x-goog-custom-time", "customTime"),
    ];
    let mut body: Map<String, Value> = FIELDS.iter().filter_map(|(header, field)| Some(((*field).to_owned(), header_text(call, header)?.into()))).collect();
    let metadata: Map<String, Value> = call
        .headers
        .iter()
        .filter_map(|(name, value)| Some((name.as_str().strip_prefix("x-goog-meta-")?.to_owned(), String::from_utf8_lossy(value.as_bytes()).into())))
        .collect();
    if !metadata.is_empty() {
        body.insert("metadata".to_owned(), metadata.into());
    }
    let mut draft = draft_of(body, bucket, call.var("object")?)?;
    claims_add(&mut draft, &call.headers, true)?;
    Ok(draft)
}

pub(super) fn draft_of(body: Map<String, Value>, bucket: &Bucket, name: &str) -> Result<Draft, Error> {
    let mut draft = Draft::default();
    draft.apply(&body)?;
    draft.place(&bucket.name, Some(name), &Map::new())?;
    Ok(draft)
}

/// A whole body, of a size within `range` (`MIN,MAX` in bytes).
async fn ingested(deps: &Deps, body: &mut Body, range: Option<&str>) -> Result<Stored, Error> {
    let range = match range {
        None => (0, u64::MAX),
        Some(text) => {
            let parsed = text.split_once(',').and_then(|(least, most)| Some((least.trim().parse().ok()?, most.trim().parse().ok()?)));
            parsed.ok_or_else(|| Error::invalid("x-goog-content-length-range has not the form MIN,MAX."))?
        }
    };
    let mut ingest = Ingest::new(deps.control.store()).await?;
    while let Some(bytes) = super::super::ingest::frame(body).await? {
        ingest.push(bytes).await?;
        if ingest.size() > range.1 {
            break;
        }
    }
    if !(range.0..=range.1).contains(&ingest.size()) {
        return Err(Error::invalid(format!("The object's size is not within x-goog-content-length-range: {},{}.", range.0, range.1)));
    }
    Ok(ingest.finish().await?)
}

pub(super) async fn store(deps: &Deps, draft: Draft, stored: Stored, conditions: &Preconditions) -> Result<Object, Error> {
    draft.verify(&stored)?;
    let object = draft.object(stored, deps.clock.now());
    Ok(deps.control.object_put(object, conditions).await.map_err(Error::of_write)?.value)
}

/// The headers that tell a writer what was written.
pub(super) fn written(object: &Object) -> Result<HeaderMap, Error> {
    let mut headers = HeaderMap::new();
    headers.insert(header::ETAG, value(&etag(object))?);
    headers.insert("x-goog-generation", HeaderValue::from(object.generation));
    headers.insert("x-goog-metageneration", HeaderValue::from(object.metageneration));
    let md5 = if object.md5.is_empty() { String::new() } else { format!(",md5={}", object.md5) };
    headers.insert("x-goog-hash", value(&format!("crc32c={}{md5}", object.crc32c))?);
    headers.insert("x-goog-stored-content-length", HeaderValue::from(object.size));
    headers.insert("x-goog-stored-content-encoding", value(if object.content_encoding.is_empty() { "identity" } else { &object.content_encoding })?);
    Ok(headers)
}

/// The MD5 in hexadecimal, as this API has it; what has none is told by its generation.
pub(super) fn etag(object: &Object) -> String {
    match STANDARD.decode(&object.md5) {
        Ok(md5) if !md5.is_empty() => format!("\"{}\"", hex::encode(md5)),
        _ => format!("\"{}\"", events::storage::object_etag(object)),
    }
}

pub(super) fn conditions(headers: &HeaderMap) -> Result<Preconditions, Error> {
    let number = |name: &str| {
        let text = headers.get(name).map(|value| value.to_str().unwrap_or_default());
        let parse = |text: &str| text.parse().map_err(|_| Error::invalid(format!("Invalid value for {name}: {text:?} is no whole number.")));
        text.map(parse).transpose()
    };
    Ok(Preconditions {
        generation_match: number("x-goog-if-generation-match")?,
        metageneration_match: number("x-goog-if-metageneration-match")?,
        ..Preconditions::default()
    })
}

fn value(text: &str) -> Result<HeaderValue, Error> {
    HeaderValue::from_bytes(text.as_bytes()).map_err(|_| Error::invalid(format!("{text:?} cannot be the value of a header.")))
}

/// Fields of an object resource from the fields of a form.
pub(super) fn form_fields<'a>(fields: impl Iterator<Item = (&'a str, &'a str)>) -> Map<String, Value> {
    let (mut body, mut metadata) = (Map::new(), Map::new());
    for (name, value) in fields {
        let name = name.to_ascii_lowercase();
        let field = match name.as_str() {
            "content-type" => "contentType",
            "content-encoding" => "contentEncoding",
            "content-disposition" => "contentDisposition",
            "cache-control" => "cacheControl",
            "x-goog-storage-class" => "storageClass",
            "x-goog-custom-time" => "customTime",
            _ => {
                if let Some(key) = name.strip_prefix("x-goog-meta-") {
                    metadata.insert(key.to_owned(), json!(value));
                }
                continue;
            }
        };
        body.insert(field.to_owned(), json!(value));
    }
    if !metadata.is_empty() {
        body.insert("metadata".to_owned(), metadata.into());
    }
    body
}
