//! Multipart uploads: an object in up to 10,000 parts, which may come in any order and at the same time.
//!
//! An upload is a record, each part another with its blob. What is neither completed nor aborted is given up by
//! `control::reconcile::lifecycle`, when a rule of the bucket says so, when no part has come for a week, or when the bucket is gone;
//! it reads the fields `bucket`, `bucket_created`, `name`, `begun` and `touched`.
//! Source: cloud.google.com/storage/docs/multipart-uploads.

use axum::{body::Body, response::IntoResponse};
use base64::{Engine, engine::general_purpose::STANDARD};
use control::Preconditions;
use http::{HeaderValue, StatusCode, header};
use model::{
    Status, Timestamp, key,
    limits::{MULTIPART_PART_MIN_BYTES, MULTIPART_PARTS_MAX, MULTIPART_UPLOADS_MAX},
    storage::{Bucket, Object},
};
use rand::Rng;
use serde::{Deserialize, Serialize};
use store::{CommitError, Expect, Store, Write};

use super::{
    super::{
        error::Error,
        ingest::{Ingest, Stored, blocking, concatenate},
        object::{Draft, write_check},
        upload::claims_add,
    },
    MULTIPART_NAMESPACE, Query, element,
    object::etag,
    xml,
};
use crate::{
    Deps, Response,
    surface::{Call, body_read},
};

/// One upload's record, under `upload/multipart/ID`.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Upload {
    bucket: String,
    /// When the bucket was made: a later one of its name is another. Absent in records of before it was kept.
    #[serde(default)]
    bucket_created: Option<Timestamp>,
    name: String,
    begun: Timestamp,
    /// When the last part came.
    #[serde(default)]
    touched: Option<Timestamp>,
    draft: Draft,
    generation_match: Option<i64>,
    metageneration_match: Option<i64>,
}

/// One part's record, under `upload/multipartpart/ID/NUMBER`.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Part {
    stored: Stored,
    at: Timestamp,
}

impl Part {
    fn etag(&self) -> String {
        format!("\"{}\"", hex::encode(STANDARD.decode(&self.stored.md5).unwrap_or_default()))
    }
}

fn part_key(id: &str, number: u32) -> String {
    format!("{}{number:05}", key::multipart_parts(id))
}

/// `?uploads`
pub(super) async fn start(deps: Deps, bucket: &Bucket, draft: Draft, conditions: Preconditions) -> Result<Response, Error> {
    let store = deps.control.store();
    if open_count(store, bucket).await? >= MULTIPART_UPLOADS_MAX {
        let text = format!("{MULTIPART_UPLOADS_MAX} multipart uploads into the bucket {} are open: complete or abort some.", bucket.name);
        return Err(Status::new(model::Code::ResourceExhausted, text).into());
    }
    let mut secret = [0u8; 32];
    rand::rng().fill_bytes(&mut secret);
    let id = hex::encode(secret);
    let Preconditions { generation_match, metageneration_match, .. } = conditions;
    let name = draft.name.clone();
    let upload = Upload {
        bucket: bucket.name.clone(),
        bucket_created: Some(bucket.created),
        name: name.clone(),
        begun: deps.clock.now(),
        touched: None,
        draft,
        generation_match,
        metageneration_match,
    };
    store.commit(vec![Write::put(key::multipart_upload(&id), Expect::Absent, &upload)]).await.map_err(Status::internal)?;
    Ok(xml("InitiateMultipartUploadResult", MULTIPART_NAMESPACE, &(element("Bucket", &bucket.name) + &element("Key", &name) + &element("UploadId", &id))))
}

/// How many uploads into the bucket are open.
async fn open_count(store: &Store, bucket: &Bucket) -> Result<usize, Status> {
    const BATCH: usize = 500;
    let (store, name) = (store.clone(), bucket.name.clone());
    blocking(move || {
        let (mut count, mut after) = (0, None::<String>);
        loop {
            let records = store.scan(key::MULTIPART_UPLOADS, after.as_deref(), BATCH).map_err(Status::internal)?;
            let Some(last) = records.last() else { return Ok(count) };
            after = Some(last.key.clone());
            for record in &records {
                count += usize::from(record.json::<Upload>().map_err(Status::internal)?.bucket == name);
            }
        }
    })
    .await
}

/// The upload that a call's query names, if it is of the call's object.
fn find(deps: &Deps, call: &Call, query: &Query) -> Result<(String, Upload, u64), Error> {
    let gone = || Error::not_found("The requested upload was not found.");
    let id = query.get("uploadId").unwrap_or_default().to_owned();
    if id.len() != 64 || !id.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(gone());
    }
    let record = deps.control.store().get(&key::multipart_upload(&id)).map_err(Status::internal)?.ok_or_else(gone)?;
    let upload: Upload = record.json().map_err(Status::internal)?;
    if upload.bucket != call.var("bucket")? || upload.name != call.var("object")? {
        return Err(gone());
    }
    let bucket = deps.control.bucket_get(&upload.bucket)?.value;
    if upload.bucket_created.is_some_and(|created| created != bucket.created) {
        return Err(gone());
    }
    Ok((id, upload, record.revision))
}

/// `PUT ?partNumber=N&uploadId=ID`
pub(super) async fn part_put(deps: Deps, call: Call, query: &Query, body: &mut Body) -> Result<Response, Error> {
    let number: Option<u32> = query.number("partNumber")?;
    let number = number
        .filter(|number| (1..=MULTIPART_PARTS_MAX).contains(number))
        .ok_or_else(|| Error::invalid(format!("partNumber is no number from 1 to {MULTIPART_PARTS_MAX}.")))?;
    let (id, _, revision) = find(&deps, &call, query)?;
    let mut claimed = Draft::default();
    claims_add(&mut claimed, &call.headers, true)?;
    let mut ingest = Ingest::new(deps.control.store()).await?;
    ingest.body(body).await??;
    let part = Part { stored: ingest.finish().await?, at: deps.clock.now() };
    claimed.verify(&part.stored)?;
    // The upload is written again: one that was completed or aborted meanwhile takes no more parts.
    let store = deps.control.store();
    let mut revision = revision;
    loop {
        let (_, mut upload, now) = find(&deps, &call, query)?;
        revision = revision.max(now);
        upload.touched = Some(part.at);
        let writes = vec![Write::put(key::multipart_upload(&id), Expect::Revision(revision), &upload), Write::put(part_key(&id, number), Expect::Any, &part)];
        match store.commit(writes).await {
            Ok(_) => break,
            Err(CommitError::Conflict { .. }) => {}
            Err(CommitError::Store(error)) => return Err(Status::internal(error).into()),
        }
    }
    let text = |text: String| HeaderValue::from_str(&text).map_err(Status::internal);
    let hash = text(format!("crc32c={},md5={}", part.stored.crc32c, part.stored.md5))?;
    Ok((StatusCode::OK, [(header::ETAG, text(part.etag())?), (http::HeaderName::from_static("x-goog-hash"), hash)]).into_response())
}

fn parts(store: &Store, id: &str) -> Result<Vec<(u32, Part)>, Status> {
    let prefix = key::multipart_parts(id);
    let records = store.scan(&prefix, None, MULTIPART_PARTS_MAX as usize).map_err(Status::internal)?;
    records
        .iter()
        .map(|record| {
            let number = record.key[prefix.len()..].parse().map_err(Status::internal)?;
            Ok((number, record.json().map_err(Status::internal)?))
        })
        .collect()
}

/// `GET ?uploadId=ID`
pub(super) async fn parts_list(deps: Deps, call: Call, query: &Query) -> Result<Response, Error> {
    let (id, upload, _) = find(&deps, &call, query)?;
    let after = query.number("part-number-marker")?.unwrap_or(0u32);
    let most = query.number("max-parts")?.unwrap_or(1000usize).clamp(1, 1000);
    let mut found = parts(deps.control.store(), &id)?;
    found.retain(|(number, _)| *number > after);
    let is_truncated = found.len() > most;
    found.truncate(most);
    let mut content = element("Bucket", &upload.bucket) + &element("Key", &upload.name) + &element("UploadId", &id) + &element("StorageClass", "STANDARD");
    content +=
        &(element("PartNumberMarker", &after.to_string()) + &element("MaxParts", &most.to_string()) + &element("IsTruncated", &is_truncated.to_string()));
    if let (true, Some((last, _))) = (is_truncated, found.last()) {
        content += &element("NextPartNumberMarker", &last.to_string());
    }
    for (number, part) in &found {
        let lines = element("PartNumber", &number.to_string())
            + &element("LastModified", &format!("{:.3}", part.at))
            + &element("ETag", &part.etag())
            + &element("Size", &part.stored.size.to_string());
        content += &format!("<Part>{lines}</Part>");
    }
    Ok(xml("ListPartsResult", MULTIPART_NAMESPACE, &content))
}

/// `POST ?uploadId=ID` with the parts in their order.
pub(super) async fn complete(deps: Deps, mut call: Call, query: &Query) -> Result<Response, Error> {
    let (id, upload, revision) = find(&deps, &call, query)?;
    let body = body_read(std::mem::replace(&mut call.body, Body::empty())).await?;
    let wanted = wanted(&body)?;
    let store = deps.control.store();
    let mut have: std::collections::HashMap<u32, Part> = parts(store, &id)?.into_iter().collect();
    let mut blobs = Vec::new();
    for (at, (number, claimed)) in wanted.iter().enumerate() {
        let part = have.remove(number).filter(|part| part.etag().trim_matches('"') == claimed.trim_matches('"'));
        let part = part.ok_or_else(|| Error::invalid(format!("One or more of the specified parts could not be found: part {number} with ETag {claimed}.")))?;
        if at + 1 < wanted.len() && part.stored.size < MULTIPART_PART_MIN_BYTES {
            return Err(Error::invalid(format!("Part {number} has {} bytes; all but the last have at least {MULTIPART_PART_MIN_BYTES}.", part.stored.size)));
        }
        blobs.push((part.stored.blob, part.stored.size));
    }
    let bucket = deps.control.bucket_get(&upload.bucket)?.value;
    let conditions = Preconditions { generation_match: upload.generation_match, metageneration_match: upload.metageneration_match, ..Preconditions::default() };
    write_check(&deps, call.who.as_ref(), &bucket, &upload.name, &conditions)?;
    let stored = concatenate(store, blobs).await?;
    let object = Object { md5: String::new(), ..upload.draft.object(stored, deps.clock.now()) };
    let object = deps.control.object_put(object, &conditions).await.map_err(Error::of_write)?.value;
    remove(store, &id, Expect::Revision(revision)).await?;
    let location = format!("{}/{}/{}", super::super::base(&call), object.bucket, object.name);
    let content = element("Location", &location) + &element("Bucket", &object.bucket) + &element("Key", &object.name) + &element("ETag", &etag(&object));
    let mut response = xml("CompleteMultipartUploadResult", MULTIPART_NAMESPACE, &content);
    response.headers_mut().insert("x-goog-generation", HeaderValue::from(object.generation));
    Ok(response)
}

/// `DELETE ?uploadId=ID`
pub(super) async fn abort(deps: Deps, call: Call, query: &Query) -> Result<Response, Error> {
    let (id, ..) = find(&deps, &call, query)?;
    remove(deps.control.store(), &id, Expect::Any).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// The upload with its parts, in one commit; their blobs are left to the sweep.
async fn remove(store: &Store, id: &str, expect: Expect) -> Result<(), Error> {
    let records = store.scan(&key::multipart_parts(id), None, MULTIPART_PARTS_MAX as usize).map_err(Status::internal)?;
    let mut writes: Vec<Write> = records.into_iter().map(|record| Write::delete(record.key, Expect::Any)).collect();
    writes.push(Write::delete(key::multipart_upload(id), expect));
    match store.commit(writes).await {
        Ok(_) => Ok(()),
        // A part came after the object was made: the upload is gone all the same, the next look finds it whole.
        Err(CommitError::Conflict { .. }) => Err(Error::conflict("The upload was changed while it was completed.")),
        Err(CommitError::Store(error)) => Err(Status::internal(error).into()),
    }
}

/// The parts of a `CompleteMultipartUpload`: numbers that rise, with their ETags.
fn wanted(body: &[u8]) -> Result<Vec<(u32, String)>, Error> {
    let bad = |why: &str| Error::invalid(format!("The list of parts is malformed: {why}."));
    let text = std::str::from_utf8(body).map_err(|_| bad("it is not UTF-8"))?;
    let document = roxmltree::Document::parse(text).map_err(|why| bad(&why.to_string()))?;
    let root = document.root_element();
    if root.tag_name().name() != "CompleteMultipartUpload" {
        return Err(bad("it is no CompleteMultipartUpload"));
    }
    let mut found: Vec<(u32, String)> = Vec::new();
    for part in root.children().filter(|node| node.has_tag_name(("", "Part")) || node.tag_name().name() == "Part") {
        let child = |name: &str| part.children().find(|node| node.tag_name().name() == name).and_then(|node| node.text()).map(str::trim);
        let number = child("PartNumber").and_then(|number| number.parse().ok()).ok_or_else(|| bad("a part has no number"))?;
        let etag = child("ETag").ok_or_else(|| bad("a part has no ETag"))?.to_owned();
        if found.last().is_some_and(|(last, _)| *last >= number) {
            return Err(bad("the parts are not in ascending order"));
        }
        found.push((number, etag));
    }
    if found.is_empty() { Err(bad("it names no part")) } else { Ok(found) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_parts_are_read_strictly() {
        let part = |number: u32| format!("<Part><PartNumber>{number}</PartNumber><ETag>\"e{number}\"</ETag></Part>");
        let list = |parts: String| format!("<CompleteMultipartUpload>{parts}</CompleteMultipartUpload>");
        assert_eq!(wanted(list(part(1) + &part(7)).as_bytes()).unwrap(), [(1, "\"e1\"".to_owned()), (7, "\"e7\"".to_owned())]);
        let with_space = list(part(1)).replace("<CompleteMultipartUpload>", "<CompleteMultipartUpload xmlns='http://s3.amazonaws.com/doc/2006-03-01/'>");
        assert_eq!(wanted(with_space.as_bytes()).unwrap().len(), 1);
        for bad in [String::new(), list(String::new()), list(part(2) + &part(1)), list(part(1) + &part(1)), "<X/>".to_owned(), list("<Part/>".to_owned())] {
            assert!(wanted(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
