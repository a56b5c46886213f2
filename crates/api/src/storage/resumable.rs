//! Resumable uploads: an object in several requests, across broken connections and restarts.
//!
//! A session is a record; bytes that have arrived before the last request are blobs, one a request, each with a record of its own.
//! A blob of a session ends in a mark that no other has, so that it shares its name with nothing and can be deleted.
//! An upload whose bytes all come in one request, which is the usual one, is written once, straight into the object's blob.
//!
//! Two requests to one session at the same time are told apart by the session's revision: one of them counts.
//! The id of a session is a secret of 256 bits and the only credential that its requests need, as at Google.

use std::sync::atomic::{AtomicBool, Ordering};

use axum::{body::Body, response::IntoResponse};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use model::{Code, Status, Timestamp, key::UPLOADS, storage::Object};
use rand::Rng;
use serde::{Deserialize, Serialize};
use store::{CommitError, Expect, Store, Write};

use super::{
    error::Error,
    ingest::{Ingest, Stored, blocking, concatenate, drain, frame},
    object::{Draft, object_json},
    query::Query,
    range::{Chunk, content_range_parse},
    upload::claims_add,
};
use crate::{Deps, Response, surface::Call};

/// Sessions that wait for bytes, of all projects together; and as many that are done.
const SESSIONS_MAX: usize = 1000;
/// How long a done session tells what became of it, to who did not get the answer.
const DONE_MAX: jiff::SignedDuration = jiff::SignedDuration::from_hours(1);
/// How long a session lives. Source: cloud.google.com/storage/docs/resumable-uploads.
const AGE_MAX: jiff::SignedDuration = jiff::SignedDuration::from_secs(model::limits::RESUMABLE_MAX_S.cast_signed());
/// Records deleted by one commit.
const BATCH: usize = 500;

/// A session's record, under `upload/session/ID`.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Session {
    draft: Draft,
    /// When the bucket was made: a later one of its name is another. Absent in records of before it was kept.
    #[serde(default)]
    bucket_created: Option<Timestamp>,
    conditions: Conditions,
    created: Timestamp,
    /// The object's size, once it was said.
    total: Option<u64>,
    /// How many bytes are durable.
    received: u64,
    state: State,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
enum State {
    Open,
    /// All bytes are one blob; the object may be there or not.
    Whole(Stored),
    /// The object was made. Asked again, the answer is the same.
    Done(Box<Object>),
}

impl Session {
    /// Whether its bucket is still the one that it was begun in.
    fn has_bucket(&self, deps: &Deps) -> Result<bool, Status> {
        match deps.control.bucket_get(&self.draft.bucket) {
            Ok(bucket) => Ok(self.bucket_created.is_none_or(|created| created == bucket.value.created)),
            Err(status) if status.code == Code::NotFound => Ok(false),
            Err(status) => Err(status),
        }
    }
}

/// [`control::Preconditions`], as they are kept.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Conditions {
    generation_match: Option<i64>,
    generation_not_match: Option<i64>,
    metageneration_match: Option<i64>,
    metageneration_not_match: Option<i64>,
}

impl From<control::Preconditions> for Conditions {
    fn from(from: control::Preconditions) -> Self {
        let control::Preconditions { generation_match, generation_not_match, metageneration_match, metageneration_not_match } = from;
        Self { generation_match, generation_not_match, metageneration_match, metageneration_not_match }
    }
}

impl From<Conditions> for control::Preconditions {
    fn from(from: Conditions) -> Self {
        let Conditions { generation_match, generation_not_match, metageneration_match, metageneration_not_match } = from;
        Self { generation_match, generation_not_match, metageneration_match, metageneration_not_match }
    }
}

/// Bytes of one request, under `upload/part/ID/OFFSET`.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Part {
    blob: String,
    size: u64,
}

fn session_key(id: &str) -> String {
    format!("{UPLOADS}session/{id}")
}

fn parts_key(id: &str) -> String {
    format!("{UPLOADS}part/{id}/")
}

fn part_key(id: &str, offset: u64) -> String {
    format!("{}{offset:020}", parts_key(id))
}

/// Makes a session, whose URI is the answer's `Location`. `size` is the object's, where it is known.
pub(super) async fn start(deps: &Deps, base: &str, conditions: control::Preconditions, draft: Draft, size: Option<&HeaderValue>) -> Result<Response, Error> {
    let store = deps.control.store();
    let total = match size {
        Some(value) => Some(value.to_str().ok().and_then(|text| text.parse().ok()).ok_or_else(|| Error::invalid("X-Upload-Content-Length is no number."))?),
        None => None,
    };
    if total.is_some_and(|total| total > super::ingest::OBJECT_MAX_BYTES) {
        return Err(Error::invalid(format!("The object is larger than this server takes: {} bytes.", super::ingest::OBJECT_MAX_BYTES)));
    }
    let now = deps.clock.now();
    sweep(deps, now).await?;
    let mut secret = [0u8; 32];
    rand::rng().fill_bytes(&mut secret);
    let id = hex::encode(secret);
    let bucket = draft.bucket.clone();
    let bucket_created = Some(deps.control.bucket_get(&bucket)?.value.created);
    let session = Session { draft, bucket_created, conditions: conditions.into(), created: now, total, received: 0, state: State::Open };
    commit(store, vec![Write::put(session_key(&id), Expect::Absent, &session)]).await?;
    let location = format!("{base}/upload/storage/v1/b/{bucket}/o?uploadType=resumable&upload_id={id}");
    let location = HeaderValue::from_str(&location).map_err(|_| Error::invalid("The Host header is malformed."))?;
    let id = HeaderValue::from_str(&id).map_err(Status::internal)?;
    Ok(([(header::LOCATION, location), (http::HeaderName::from_static("x-guploader-uploadid"), id)], Body::empty()).into_response())
}

/// Makes a session for an object that somebody else is to upload: path and query of its URI, which is the only credential that is needed.
pub(crate) async fn begin(deps: &Deps, bucket: &str, name: &str, content_type: &str) -> Result<String, Status> {
    let draft = Draft { bucket: bucket.to_owned(), name: name.to_owned(), content_type: content_type.to_owned(), ..Draft::default() };
    let (store, now) = (deps.control.store(), deps.clock.now());
    let mut secret = [0u8; 32];
    rand::rng().fill_bytes(&mut secret);
    let id = hex::encode(secret);
    let bucket_created = Some(deps.control.bucket_get(bucket)?.value.created);
    let session = Session { draft, bucket_created, conditions: Conditions::default(), created: now, total: None, received: 0, state: State::Open };
    store.commit(vec![Write::put(session_key(&id), Expect::Absent, &session)]).await.map_err(Status::internal)?;
    Ok(format!("/upload/storage/v1/b/{bucket}/o?uploadType=resumable&upload_id={id}"))
}

/// Bytes for a session, or a question how much has arrived.
pub(super) async fn put(deps: Deps, mut call: Call) -> Result<Response, Error> {
    let mut body = std::mem::replace(&mut call.body, Body::empty());
    // Go's library takes a 308 for a redirect and asks for another status.
    let is_308_hidden = call.headers.get("x-guploader-no-308").is_some_and(|value| value == "yes");
    let answer = answered(deps, call, &mut body).await;
    // A client that still writes would not read why it was refused.
    drain(&mut body).await;
    let mut response = answer?;
    if is_308_hidden && response.status() == StatusCode::PERMANENT_REDIRECT {
        *response.status_mut() = StatusCode::OK;
        response.headers_mut().insert("x-http-status-code-override", HeaderValue::from_static("308"));
    }
    Ok(response)
}

async fn answered(deps: Deps, call: Call, body: &mut Body) -> Result<Response, Error> {
    let query = Query::of(&call, &[&["upload_id", "name", "contentEncoding"], super::query::CONDITIONS])?;
    let id = query.required("upload_id")?.to_owned();
    let at = Place { bucket: call.var("bucket")?.to_owned(), base: super::base(&call), query };
    let open = Open::find(&deps, &at, &id)?;
    match &open.session.state {
        State::Done(object) => return answer(&deps, &at, object),
        State::Whole(stored) => {
            let stored = stored.clone();
            return open.complete(&deps, &at, stored).await;
        }
        State::Open => {}
    }
    let chunk = match call.headers.get(header::CONTENT_RANGE) {
        Some(value) => {
            value.to_str().ok().and_then(content_range_parse).ok_or_else(|| Error::invalid(format!("Failed to parse Content-Range header: {value:?}.")))?
        }
        // All of it in one request.
        None => match call.headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok()) {
            Some(0) => Chunk::Status { total: Some(0) },
            Some(length) => Chunk::Bytes { first: 0, last: Some(length - 1), total: Some(length) },
            None => return Err(Error::invalid("Content-Range or Content-Length is needed.")),
        },
    };
    let (Chunk::Bytes { total, .. } | Chunk::Status { total }) = chunk;
    if let (Some(said), Some(before)) = (total, open.session.total)
        && said != before
    {
        return Err(Error::invalid(format!("The request says that the object has {said} bytes; the upload was begun for {before}.")));
    }
    match chunk {
        Chunk::Status { total: Some(total) } if total == open.session.received => open.finish(&deps, &at).await,
        Chunk::Status { .. } => Ok(open.progress()),
        Chunk::Bytes { first, last, total } => open.receive(&deps, &at, &call.headers, body, (first, last), total).await,
    }
}

/// Ends a session without an object. Answers 499, as Google does.
pub(super) async fn cancel(deps: Deps, call: Call) -> Result<Response, Error> {
    let query = Query::of(&call, &[&["upload_id", "name"]])?;
    let id = query.required("upload_id")?.to_owned();
    let at = Place { bucket: call.var("bucket")?.to_owned(), base: super::base(&call), query };
    let open = Open::find(&deps, &at, &id)?;
    session_delete(deps.control.store(), &open.id).await?;
    let status = StatusCode::from_u16(499).map_err(Status::internal)?;
    Ok((status, [(header::CONTENT_LENGTH, HeaderValue::from_static("0"))]).into_response())
}

/// Where a request came to.
struct Place {
    bucket: String,
    base: String,
    query: Query,
}

/// A session that was found.
struct Open {
    id: String,
    session: Session,
    /// The record's revision.
    revision: u64,
}

impl Open {
    fn find(deps: &Deps, at: &Place, id: &str) -> Result<Self, Error> {
        let gone = || Error::not_found("The upload session does not exist or has expired: begin a new upload.");
        if id.len() != 64 || !id.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(gone());
        }
        let record = deps.control.store().get(&session_key(id)).map_err(Status::internal)?.ok_or_else(gone)?;
        let session: Session = record.json().map_err(Status::internal)?;
        if expired(&session, deps.clock.now()) || session.draft.bucket != at.bucket || !session.has_bucket(deps)? {
            return Err(gone());
        }
        Ok(Self { id: id.to_owned(), session, revision: record.revision })
    }

    /// 308 with what is durable.
    fn progress(&self) -> Response {
        let mut response = (StatusCode::PERMANENT_REDIRECT, [(header::CONTENT_LENGTH, HeaderValue::from_static("0"))]).into_response();
        if let Some(last) = self.session.received.checked_sub(1) {
            let range = HeaderValue::from_str(&format!("bytes=0-{last}")).expect("digits are visible ASCII");
            response.headers_mut().insert(header::RANGE, range);
        }
        response
    }

    async fn receive(
        mut self,
        deps: &Deps,
        at: &Place,
        headers: &HeaderMap,
        body: &mut Body,
        range: (u64, Option<u64>),
        total: Option<u64>,
    ) -> Result<Response, Error> {
        let ((first, last), received) = (range, self.session.received);
        if first > received {
            return Err(Error::invalid(format!(
                "Invalid request. According to the Content-Range header, the upload offset is {first} byte(s), which exceeds already uploaded size of {received} byte(s)."
            )));
        }
        if last.is_some_and(|last| last < received) {
            return Ok(self.progress());
        }
        let store = deps.control.store().clone();
        let is_last = last.is_none_or(|last| total == Some(last + 1));
        let end = last.map(|last| last + 1).or(total).or(self.session.total);
        if is_last {
            // Those that come with the last bytes are of the whole object.
            claims_add(&mut self.session.draft, headers, first == 0)?;
        }
        let mut ingest = Ingest::new(&store).await?;
        let ended = self.read(&mut ingest, body, received - first, end.map(|end| end.saturating_sub(received))).await?;
        self.session.total = total.or(self.session.total);
        let mark = format!("\n{} {received} {:032x}", self.id, rand::random::<u128>());
        match ended {
            Ended::Whole if is_last && received > 0 && ingest.size() == 0 => self.finish(deps, at).await,
            Ended::Whole if is_last && received == 0 => {
                let stored = ingest.finish().await?;
                self.complete(deps, at, stored).await
            }
            Ended::Whole if is_last => {
                let stored = ingest.finish_marked(&mark).await?;
                match self.part_add(&store, stored).await? {
                    Some(open) => open.finish(deps, at).await,
                    None => Ok(Self::find(deps, at, &self.id)?.progress()),
                }
            }
            Ended::Whole | Ended::Early(_) => {
                let open = match ingest.finish_quanta(&mark).await? {
                    Some(stored) => self.part_add(&store, stored).await?,
                    None => None,
                };
                let open = match open {
                    Some(open) => open,
                    None => Self::find(deps, at, &self.id)?,
                };
                match ended {
                    Ended::Early(Some(error)) => Err(error),
                    _ => Ok(open.progress()),
                }
            }
        }
    }

    /// Reads `wanted` bytes of `body`, or all, after `skip` that are durable already.
    async fn read(&self, ingest: &mut Ingest, body: &mut Body, mut skip: u64, wanted: Option<u64>) -> Result<Ended, Error> {
        loop {
            let mut bytes = match frame(body).await {
                Ok(Some(bytes)) => bytes,
                Ok(None) if skip == 0 && wanted.is_none_or(|wanted| ingest.size() == wanted) => return Ok(Ended::Whole),
                Ok(None) => return Ok(Ended::Early(None)),
                Err(broken) => return Ok(Ended::Early(Some(broken.into()))),
            };
            let skipped = usize::try_from(skip).unwrap_or(usize::MAX).min(bytes.len());
            bytes = bytes.split_off(skipped);
            skip -= skipped as u64;
            if wanted.is_some_and(|wanted| ingest.size() + bytes.len() as u64 > wanted) {
                return Err(Error::invalid("The body is longer than Content-Range says."));
            }
            ingest.push(bytes).await?;
        }
    }

    /// Adds durable bytes to the session. `None` when another request was faster.
    async fn part_add(&self, store: &Store, stored: Stored) -> Result<Option<Self>, Error> {
        let mut session = self.session.clone();
        session.received += stored.size;
        let part = Part { blob: stored.blob.clone(), size: stored.size };
        let writes = vec![
            Write::put(session_key(&self.id), Expect::Revision(self.revision), &session),
            Write::put(part_key(&self.id, self.session.received), Expect::Absent, &part),
        ];
        match store.commit(writes).await {
            Ok(revision) => Ok(Some(Self { id: self.id.clone(), session, revision })),
            Err(CommitError::Conflict { .. }) => {
                blob_delete(store, stored.blob).await?;
                Ok(None)
            }
            Err(CommitError::Store(error)) => Err(Status::internal(error).into()),
        }
    }

    /// All bytes are there: makes one blob of the parts, and the object.
    async fn finish(self, deps: &Deps, at: &Place) -> Result<Response, Error> {
        let store = deps.control.store();
        let mut parts = Vec::new();
        let mut after = None;
        loop {
            let records = store.scan(&parts_key(&self.id), after.as_deref(), BATCH).map_err(Status::internal)?;
            let Some(last) = records.last() else { break };
            after = Some(last.key.clone());
            for record in &records {
                let part: Part = record.json().map_err(Status::internal)?;
                parts.push((part.blob, part.size));
            }
        }
        let stored = concatenate(store, parts).await?;
        if stored.size != self.session.received {
            return Err(Status::internal(format!("the parts of an upload have {} bytes, not {}", stored.size, self.session.received)).into());
        }
        self.complete(deps, at, stored).await
    }

    async fn complete(mut self, deps: &Deps, at: &Place, stored: Stored) -> Result<Response, Error> {
        let store = deps.control.store();
        if let Err(error) = self.session.draft.verify(&stored) {
            session_delete(store, &self.id).await?;
            return Err(error);
        }
        (self.session.received, self.session.total) = (stored.size, Some(stored.size));
        if matches!(self.session.state, State::Open) {
            self.session.state = State::Whole(stored.clone());
            // Before the object: of two last requests one makes it.
            match store.commit(vec![Write::put(session_key(&self.id), Expect::Revision(self.revision), &self.session)]).await {
                Ok(revision) => self.revision = revision,
                Err(CommitError::Conflict { .. }) => return Ok(Self::find(deps, at, &self.id)?.progress()),
                Err(CommitError::Store(error)) => return Err(Status::internal(error).into()),
            }
        }
        let object = self.session.draft.clone().object(stored, deps.clock.now());
        let object = match deps.control.object_put(object, &self.session.conditions.clone().into()).await {
            Ok(put) => put.value,
            Err(status) if matches!(status.code, Code::Internal | Code::Unavailable | Code::ResourceExhausted) => return Err(status.into()),
            Err(status) => {
                session_delete(store, &self.id).await?;
                return Err(Error::of_write(status));
            }
        };
        self.session.state = State::Done(Box::new(object.clone()));
        commit(store, vec![Write::put(session_key(&self.id), Expect::Any, &self.session)]).await?;
        parts_delete(store, &self.id).await?;
        answer(deps, at, &object)
    }
}

fn answer(deps: &Deps, at: &Place, object: &Object) -> Result<Response, Error> {
    let bucket = deps.control.bucket_get(&object.bucket)?.value;
    at.query.answer(object_json(object, &bucket, &at.base))
}

/// How a request's body ended.
enum Ended {
    /// With the last byte that it was to have.
    Whole,
    /// Before it: the connection broke, or it was merely shorter.
    Early(Option<Error>),
}

fn expired(session: &Session, now: Timestamp) -> bool {
    let age_max = match &session.state {
        State::Done(object) => object.created.duration_since(session.created) + DONE_MAX,
        State::Open | State::Whole(_) => AGE_MAX,
    };
    now.duration_since(session.created) > age_max
}

/// Makes room for one more session: those that are too old, or of a bucket that is gone, go, and the oldest of those that are done.
async fn sweep(deps: &Deps, now: Timestamp) -> Result<(), Error> {
    let store = deps.control.store();
    /// Once a process: parts whose session was deleted right before the last one ended.
    static ORPHANS_SWEPT: AtomicBool = AtomicBool::new(false);
    if !ORPHANS_SWEPT.swap(true, Ordering::Relaxed) {
        orphans_delete(store).await?;
    }
    let records = store.scan(&session_key(""), None, 4 * SESSIONS_MAX).map_err(Status::internal)?;
    let (mut open, mut done) = (0, Vec::new());
    for record in records {
        let session: Session = record.json().map_err(Status::internal)?;
        let id = record.key[session_key("").len()..].to_owned();
        match session.state {
            _ if expired(&session, now) || !session.has_bucket(deps)? => session_delete(store, &id).await?,
            State::Done(_) => done.push((session.created, id)),
            State::Open | State::Whole(_) => open += 1,
        }
    }
    done.sort();
    for (_, id) in done.iter().take((done.len() + 1).saturating_sub(SESSIONS_MAX)) {
        session_delete(store, id).await?;
    }
    if open >= SESSIONS_MAX {
        return Err(Status::new(
            Code::ResourceExhausted,
            format!("{SESSIONS_MAX} resumable uploads are open: finish or cancel some, or upload in one request."),
        )
        .into());
    }
    Ok(())
}

/// First the session, so that nobody adds to it; then what belongs to it.
async fn session_delete(store: &Store, id: &str) -> Result<(), Error> {
    commit(store, vec![Write::delete(session_key(id), Expect::Any)]).await?;
    parts_delete(store, id).await
}

async fn parts_delete(store: &Store, id: &str) -> Result<(), Error> {
    loop {
        let records = store.scan(&parts_key(id), None, BATCH).map_err(Status::internal)?;
        if records.is_empty() {
            return Ok(());
        }
        records_delete(store, records).await?;
    }
}

async fn orphans_delete(store: &Store) -> Result<(), Error> {
    let mut after: Option<String> = None;
    loop {
        let records = store.scan(&format!("{UPLOADS}part/"), after.as_deref(), BATCH).map_err(Status::internal)?;
        let Some(last) = records.last() else { return Ok(()) };
        after = Some(last.key.clone());
        let mut orphans = Vec::new();
        for record in records {
            let id = record.key[UPLOADS.len() + "part/".len()..].split('/').next().unwrap_or_default();
            if store.get(&session_key(id)).map_err(Status::internal)?.is_none() {
                orphans.push(record);
            }
        }
        if !orphans.is_empty() {
            records_delete(store, orphans).await?;
        }
    }
}

/// Deletes parts: their blobs first, so that none is forgotten.
async fn records_delete(store: &Store, records: Vec<store::Record>) -> Result<(), Error> {
    let mut writes = Vec::new();
    for record in records {
        let part: Part = record.json().map_err(Status::internal)?;
        blob_delete(store, part.blob).await?;
        writes.push(Write::delete(record.key, Expect::Any));
    }
    commit(store, writes).await
}

async fn blob_delete(store: &Store, blob: String) -> Result<(), Error> {
    let store = store.clone();
    Ok(blocking(move || store.blobs().delete(&blob).map_err(Status::internal)).await?)
}

async fn commit(store: &Store, writes: Vec<Write>) -> Result<(), Error> {
    store.commit(writes).await.map_err(Status::internal)?;
    Ok(())
}
