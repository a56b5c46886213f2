//! Objects: what a writer may say of one, and the methods on metadata. Their bytes: `upload`, `resumable`, `copy`, `download`.
//! Their JSON is that of events too: `events::storage`.

use std::collections::BTreeMap;

use control::{Preconditions, UnlockedRetention, object_place};
use http::HeaderValue;
use iam::Identity;
use model::{
    Code, Status, Timestamp,
    storage::{Bucket, Object, ObjectRetention},
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::{
    bucket::{self, off},
    error::Error,
    glob::Glob,
    ingest::{Stored, blocking},
    listing::{self, Ask, Names, Page},
    policy,
    query::{CONDITIONS, Query},
};
use crate::{Deps, Response, surface::Call};

/// Objects on a page, unless fewer are asked for.
const PAGE_MAX: usize = 1000;
/// Bytes of all keys and values of an object's own metadata. Source: cloud.google.com/storage/quotas.
const METADATA_MAX_BYTES: usize = model::limits::OBJECT_METADATA_MAX_BYTES;
/// Bytes of one of the other fields.
const FIELD_MAX_BYTES: usize = 1024;
/// Written by the server only.
const OUTPUT: &[&str] = &[
    "kind",
    "id",
    "selfLink",
    "mediaLink",
    "generation",
    "metageneration",
    "size",
    "etag",
    "timeCreated",
    "updated",
    "timeDeleted",
    "timeFinalized",
    "timeStorageClassUpdated",
    "componentCount",
    "owner",
    "bucket",
    "name",
    "softDeleteTime",
    "hardDeleteTime",
    "retentionExpirationTime",
    "restoreToken",
];
const OFF: &[(&str, &str)] = &[
    ("acl", "access is by IAM only"),
    ("kmsKeyName", "objects are not encrypted with keys of Cloud KMS"),
    ("customerEncryption", "objects are not encrypted with keys of their owners"),
    ("contexts", "nothing depends on them"),
];

/// What a writer says of an object: everything but its bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Draft {
    pub bucket: String,
    pub name: String,
    pub content_type: String,
    pub content_encoding: String,
    pub content_disposition: String,
    pub content_language: String,
    pub cache_control: String,
    pub metadata: BTreeMap<String, String>,
    /// Empty: the bucket's.
    #[serde(default)]
    pub storage_class: String,
    #[serde(default)]
    pub custom_time: Option<Timestamp>,
    #[serde(default)]
    pub event_based_hold: bool,
    #[serde(default)]
    pub temporary_hold: bool,
    #[serde(default)]
    pub retention: Option<ObjectRetention>,
    /// What the bytes must hash to, in Base64; empty for no claim.
    pub md5: String,
    pub crc32c: String,
}

impl Draft {
    /// Reads an object resource.
    pub(crate) fn apply(&mut self, body: &Map<String, Value>) -> Result<(), Error> {
        for (name, value) in body {
            let text = || match value {
                Value::Null => Ok(String::new()),
                Value::String(text) => field(name, text),
                _ => Err(Error::invalid(format!("Invalid value for field {name}: it is no string."))),
            };
            match name.as_str() {
                "contentType" => self.content_type = text()?,
                "contentEncoding" => self.content_encoding = text()?,
                "contentDisposition" => self.content_disposition = text()?,
                "contentLanguage" => self.content_language = text()?,
                "cacheControl" => self.cache_control = text()?,
                "md5Hash" => self.md5 = text()?,
                "crc32c" => self.crc32c = text()?,
                "metadata" => metadata(&mut self.metadata, value)?,
                "storageClass" if value.is_null() => self.storage_class = String::new(),
                "storageClass" => self.storage_class = bucket::storage_class(value)?,
                "customTime" => {
                    let next = instant(name, value)?;
                    if next.is_none_or(|next| self.custom_time.is_some_and(|before| next < before)) && self.custom_time.is_some() {
                        return Err(Error::invalid("Custom time cannot be removed or set to an earlier date time."));
                    }
                    self.custom_time = next;
                }
                "eventBasedHold" => self.event_based_hold = boolean(name, value)?,
                "temporaryHold" => self.temporary_hold = boolean(name, value)?,
                "retention" => self.retention = retention(value)?,
                output if OUTPUT.contains(&output) => {}
                other => off(other, value, OFF)?,
            }
        }
        Ok(())
    }

    /// Where it is to be: `bucket` from the path, the name from the query or else the body.
    pub(crate) fn place(&mut self, bucket: &str, name: Option<&str>, body: &Map<String, Value>) -> Result<(), Error> {
        if let Some(other) = body.get("bucket").filter(|b| !b.is_null() && *b != bucket) {
            return Err(Error::invalid(format!("Value {other} in the body does not agree with value {bucket:?} in the path: bucket.")));
        }
        let name = name.or_else(|| body.get("name").and_then(Value::as_str)).ok_or_else(|| Error::invalid("Required parameter: name"))?;
        name_check(name)?;
        (self.bucket, self.name) = (bucket.to_owned(), name.to_owned());
        Ok(())
    }

    pub(crate) fn of(object: &Object) -> Self {
        let object = object.clone();
        Self {
            bucket: object.bucket,
            name: object.name,
            content_type: object.content_type,
            content_encoding: object.content_encoding,
            content_disposition: object.content_disposition,
            content_language: object.content_language,
            cache_control: object.cache_control,
            metadata: object.metadata,
            storage_class: object.storage_class,
            custom_time: object.custom_time,
            event_based_hold: object.event_based_hold,
            temporary_hold: object.temporary_hold,
            retention: object.retention,
            md5: String::new(),
            crc32c: String::new(),
        }
    }

    /// Forgets all but the place, and what only another way of writing changes.
    fn clear(&mut self) {
        let Self { bucket, name, storage_class, custom_time, .. } = std::mem::take(self);
        *self = Self { bucket, name, storage_class, custom_time, ..Self::default() };
    }

    /// The same with what belongs to one object only taken away: its class, holds and retention.
    pub(crate) fn copied(self) -> Self {
        Self { storage_class: String::new(), event_based_hold: false, temporary_hold: false, retention: None, ..self }
    }

    /// Whether the bytes are those that were claimed.
    pub(crate) fn verify(&self, stored: &Stored) -> Result<(), Error> {
        let check = |kind: &str, claimed: &str, found: &str| match claimed.is_empty() || claimed == found {
            true => Ok(()),
            false => Err(Error::invalid(format!("Provided {kind} hash \"{claimed}\" doesn't match calculated {kind} hash \"{found}\"."))),
        };
        check("MD5", &self.md5, &stored.md5)?;
        check("CRC32C", &self.crc32c, &stored.crc32c)
    }

    /// The object with these bytes; generation and times are set by who stores it.
    pub(crate) fn object(self, stored: Stored, now: Timestamp) -> Object {
        Object {
            bucket: self.bucket,
            name: self.name,
            generation: 0,
            metageneration: 1,
            created: now,
            updated: now,
            size: stored.size,
            blob: stored.blob,
            crc32c: stored.crc32c,
            md5: stored.md5,
            content_type: self.content_type,
            content_encoding: self.content_encoding,
            content_disposition: self.content_disposition,
            content_language: self.content_language,
            cache_control: self.cache_control,
            metadata: self.metadata,
            storage_class: self.storage_class,
            class_changed: None,
            components: 0,
            custom_time: self.custom_time,
            event_based_hold: self.event_based_hold,
            temporary_hold: self.temporary_hold,
            hold_released: None,
            retention: self.retention,
            noncurrent: None,
            soft_deleted: None,
        }
    }
}

fn boolean(name: &str, value: &Value) -> Result<bool, Error> {
    match value {
        Value::Null => Ok(false),
        Value::Bool(on) => Ok(*on),
        _ => Err(Error::invalid(format!("Invalid value for field {name}: it is no boolean."))),
    }
}

fn instant(name: &str, value: &Value) -> Result<Option<Timestamp>, Error> {
    match value {
        Value::Null => Ok(None),
        Value::String(text) => text.parse().map(Some).map_err(|_| Error::invalid(format!("Invalid value for field {name}: {text:?} is no time of RFC 3339."))),
        _ => Err(Error::invalid(format!("Invalid value for field {name}: it is no string."))),
    }
}

fn retention(value: &Value) -> Result<Option<ObjectRetention>, Error> {
    let members = match value {
        Value::Null => return Ok(None),
        Value::Object(members) => members,
        _ => return Err(Error::invalid("Invalid value for field retention: it is no object.")),
    };
    if let Some(unknown) = members.keys().find(|name| !["mode", "retainUntilTime"].contains(&name.as_str())) {
        return Err(Error::not_served(&format!("retention.{unknown}"), "no field that it knows has this name"));
    }
    let until = instant("retention.retainUntilTime", members.get("retainUntilTime").unwrap_or(&Value::Null))?;
    match (members.get("mode").and_then(Value::as_str), until) {
        (None, None) => Ok(None),
        (Some("Locked"), Some(until)) => Ok(Some(ObjectRetention { locked: true, until })),
        (Some("Unlocked"), Some(until)) => Ok(Some(ObjectRetention { locked: false, until })),
        _ => Err(Error::invalid("Invalid value for field retention: mode (Locked or Unlocked) and retainUntilTime belong together.")),
    }
}

/// Google's rules of object names. Source: cloud.google.com/storage/docs/objects#naming.
pub(crate) fn name_check(name: &str) -> Result<(), Error> {
    let bad = |why: &str| Err(Error::invalid(format!("Invalid object name: {name:?} {why}.")));
    match name {
        "" => bad("is empty"),
        "." | ".." => bad("is not allowed"),
        long if long.len() > 1024 => bad("has more than 1024 bytes in UTF-8"),
        lines if lines.contains(['\r', '\n']) => bad("has a line end"),
        acme if acme.starts_with(".well-known/acme-challenge/") => bad("begins with .well-known/acme-challenge/"),
        _ => Ok(()),
    }
}

/// A text that becomes a header of downloads.
fn field(name: &str, text: &str) -> Result<String, Error> {
    if text.len() > FIELD_MAX_BYTES || HeaderValue::from_bytes(text.as_bytes()).is_err() {
        return Err(Error::invalid(format!("Invalid value for field {name}: it has control characters or more than {FIELD_MAX_BYTES} bytes.")));
    }
    Ok(text.to_owned())
}

fn metadata(metadata: &mut BTreeMap<String, String>, value: &Value) -> Result<(), Error> {
    match value {
        Value::Null => metadata.clear(),
        Value::Object(members) => {
            for (key, value) in members {
                match value {
                    Value::Null => {
                        metadata.remove(key);
                    }
                    Value::String(text) => {
                        metadata.insert(key.clone(), text.clone());
                    }
                    _ => return Err(Error::invalid(format!("Invalid value for field metadata.{key}: it is no string."))),
                }
            }
        }
        _ => return Err(Error::invalid("Invalid value for field metadata: it is no object.")),
    }
    let bytes: usize = metadata.iter().map(|(key, value)| key.len() + value.len()).sum();
    if bytes > METADATA_MAX_BYTES {
        return Err(Error::invalid(format!("The object's metadata has {bytes} bytes; at most {METADATA_MAX_BYTES} are allowed.")));
    }
    Ok(())
}

/// The resource `storage#object`. `base` is where the caller reaches this server, such as `https://storage.googleapis.com`.
pub(crate) fn object_json(object: &Object, bucket: &Bucket, base: &str) -> Value {
    events::storage::object_resource(object, Some(bucket), base)
}

/// The object that a call's path and `generation` name.
///
/// # Errors
/// 404; or 403 for a caller who may not list the bucket, since whether the object exists is not theirs to know.
pub(crate) fn object_find(deps: &Deps, who: Option<&Identity>, bucket: &Bucket, name: &str, generation: Option<i64>) -> Result<Object, Error> {
    let absent = || {
        if deps.iam.may(who, "storage.objects.list", &policy::resource(&bucket.name), bucket.project.as_str()) {
            Error::not_found(format!("No such object: {}/{name}", bucket.name))
        } else {
            denied(who, "storage.objects.list", bucket).into()
        }
    };
    let found = match generation {
        None => deps.control.object_get(&bucket.name, name),
        Some(generation) => deps.control.object_generation_get(&bucket.name, name, generation),
    };
    match found {
        Ok(found) => Ok(found.value),
        Err(status) if status.code == Code::NotFound => Err(absent()),
        Err(status) => Err(status.into()),
    }
}

/// Whether who asks may do that with the object, whose name conditions may ask for.
pub(crate) fn may_object(deps: &Deps, who: Option<&Identity>, permission: &str, bucket: &Bucket, name: &str) -> bool {
    let (resource, part) = (policy::resource(&bucket.name), format!("objects/{name}"));
    let about = iam::About { part: Some(&part), ..Default::default() };
    deps.iam.may_about(&iam::Question { who, permission, resource: &resource, project: bucket.project.as_str(), about })
}

/// Why not.
pub(crate) fn denied(who: Option<&Identity>, permission: &str, bucket: &Bucket) -> Status {
    match who {
        Some(_) => Status::permission_denied(permission, &policy::resource(&bucket.name)),
        None => Status::unauthenticated(),
    }
}

/// Whether who makes an object may also keep everybody from deleting it.
pub(crate) fn retention_check(deps: &Deps, who: Option<&Identity>, bucket: &Bucket, draft: &Draft) -> Result<(), Status> {
    const SET: &str = "storage.objects.setRetention";
    if draft.retention.is_none() || may_object(deps, who, SET, bucket, &draft.name) { Ok(()) } else { Err(denied(who, SET, bucket)) }
}

/// Whether the preconditions hold for a reader.
pub(crate) fn read_check(object: &Object, conditions: &Preconditions) -> Result<(), Error> {
    let Preconditions { generation_match, generation_not_match, metageneration_match, metageneration_not_match } = conditions;
    let differs = |wanted: &Option<i64>, found: i64| wanted.is_some_and(|wanted| wanted != found);
    if differs(generation_match, object.generation) || differs(metageneration_match, object.metageneration) {
        return Err(Error::condition_not_met());
    }
    if *generation_not_match == Some(object.generation) || *metageneration_not_match == Some(object.metageneration) {
        return Err(Error::not_modified());
    }
    Ok(())
}

/// Whether a write to `name` may begin: so that no bytes are taken for nothing. Who stores the object asks again.
///
/// # Errors
/// 412; 403 when the caller may not create an object of that name, or would overwrite what they may not delete.
pub(crate) fn write_check(deps: &Deps, who: Option<&Identity>, bucket: &Bucket, name: &str, conditions: &Preconditions) -> Result<(), Error> {
    const CREATE: &str = "storage.objects.create";
    if !may_object(deps, who, CREATE, bucket, name) {
        return Err(denied(who, CREATE, bucket).into());
    }
    let found = match deps.control.object_get(&bucket.name, name) {
        Ok(found) => Some(found.value),
        Err(status) if status.code == Code::NotFound => None,
        Err(status) => return Err(status.into()),
    };
    let (generation, metageneration) = found.as_ref().map_or((0, 0), |object| (object.generation, object.metageneration));
    let fails = conditions.generation_match.is_some_and(|wanted| wanted != generation)
        || conditions.generation_not_match == Some(generation)
        || conditions.metageneration_match.is_some_and(|wanted| wanted != metageneration)
        || conditions.metageneration_not_match == Some(metageneration);
    if fails {
        return Err(Error::condition_not_met());
    }
    if found.is_some() && !may_object(deps, who, "storage.objects.delete", bucket, name) {
        return Err(denied(who, "storage.objects.delete", bucket).into());
    }
    Ok(())
}

/// `GET b/B/o/O`: metadata, or with `alt=media` the bytes.
pub(crate) async fn get(deps: Deps, call: Call) -> Result<Response, Error> {
    let query = Query::of(&call, &[&["generation", "softDeleted"], CONDITIONS])?;
    match query.get("alt") {
        None | Some("json") => {}
        Some("media") => return super::download::answer(deps, call, query).await,
        Some(other) => return Err(Error::invalid(format!("Invalid value for alt: {other:?} is neither json nor media."))),
    }
    super::encryption_refuse(&call.headers)?;
    let bucket = deps.control.bucket_get(call.var("bucket")?)?.value;
    let name = call.var("object")?;
    let object = if query.flag("softDeleted")? {
        let generation = query.integer("generation")?.ok_or_else(|| Error::invalid("You must specify a generation to get a soft-deleted object."))?;
        deps.control.object_deleted_get(&bucket.name, name, generation)?.value
    } else {
        object_find(&deps, call.who.as_ref(), &bucket, name, query.integer("generation")?)?
    };
    read_check(&object, &query.preconditions()?)?;
    query.answer(object_json(&object, &bucket, &super::base(&call)))
}

/// What was deleted, live again.
pub(crate) async fn restore(deps: Deps, mut call: Call) -> Result<Response, Error> {
    let query = Query::of(&call, &[&["generation", "copySourceAcl"], CONDITIONS])?;
    let _: Map<String, Value> = call.json().await?;
    if query.flag("copySourceAcl")? {
        return Err(Error::not_served("copySourceAcl", "access is by IAM only; leave it out"));
    }
    let generation = query.integer("generation")?.ok_or_else(|| Error::invalid("Required parameter: generation"))?;
    let bucket = deps.control.bucket_get(call.var("bucket")?)?.value;
    let (name, conditions) = (call.var("object")?, query.preconditions()?);
    write_check(&deps, call.who.as_ref(), &bucket, name, &conditions)?;
    let object = deps.control.object_restore(&bucket.name, name, generation, &conditions).await.map_err(Error::of_write)?.value;
    query.answer(object_json(&object, &bucket, &super::base(&call)))
}

/// `deleteFiles` of the Node.js library sends its own option along, with the list and with each deletion. It means nothing to Google either.
const OF_NODEJS: &str = "force";

pub(crate) async fn list(deps: Deps, call: Call) -> Result<Response, Error> {
    const KNOWN: &[&str] = &[
        "prefix",
        "delimiter",
        "startOffset",
        "endOffset",
        "includeTrailingDelimiter",
        "includeFoldersAsPrefixes",
        "pageToken",
        "maxResults",
        "versions",
        "softDeleted",
        "matchGlob",
        OF_NODEJS,
    ];
    let query = Query::of(&call, &[KNOWN])?;
    query.flag(OF_NODEJS)?;
    // There are no folders but prefixes: both answers are the same.
    query.flag("includeFoldersAsPrefixes")?;
    let of = match (query.flag("versions")?, query.flag("softDeleted")?) {
        (true, true) => return Err(Error::invalid("softDeleted and versions cannot be asked for together.")),
        (true, false) => Of::Versions,
        (false, true) => Of::Deleted,
        (false, false) => Of::Live,
    };
    let glob = query.get("matchGlob").map(Glob::parse).transpose().map_err(|why| Error::invalid(format!("Invalid value for matchGlob: {why}.")))?;
    let bucket = deps.control.bucket_get(call.var("bucket")?)?.value;
    let text = |name| query.get(name).unwrap_or_default();
    let ask = Ask {
        prefix: text("prefix"),
        delimiter: text("delimiter"),
        start: text("startOffset"),
        end: text("endOffset"),
        trailing_delimiter: query.flag("includeTrailingDelimiter")?,
        token: text("pageToken"),
        limit: bucket::limit(&query, PAGE_MAX)?,
    };
    let page = page_read(&deps, &bucket.name, of, glob, &ask).await?;
    let base = super::base(&call);
    let mut body = json!({ "kind": "storage#objects" });
    if !page.items.is_empty() {
        body["items"] = page.items.iter().map(|object| object_json(object, &bucket, &base)).collect();
    }
    if !page.prefixes.is_empty() {
        body["prefixes"] = json!(page.prefixes);
    }
    if let Some(next) = page.next {
        body["nextPageToken"] = next.into();
    }
    query.answer(body)
}

/// Which objects are listed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Of {
    Live,
    Versions,
    Deleted,
}

/// Reads one page where it may wait for the disk: a pattern that few names match, or a delimiter with much behind it, makes it long.
///
/// # Errors
/// As [`listing::page`].
pub(crate) async fn page_read(deps: &Deps, bucket: &str, of: Of, glob: Option<Glob>, ask: &Ask<'_>) -> Result<Page<Object>, Status> {
    let (deps, bucket) = (deps.clone(), bucket.to_owned());
    let [prefix, delimiter, start, end, token] = [ask.prefix, ask.delimiter, ask.start, ask.end, ask.token].map(str::to_owned);
    let (trailing_delimiter, limit) = (ask.trailing_delimiter, ask.limit);
    blocking(move || {
        let ask = Ask { prefix: &prefix, delimiter: &delimiter, start: &start, end: &end, trailing_delimiter, token: &token, limit };
        listing::page(&InBucket { deps: &deps, bucket: &bucket, of, glob }, &ask)
    })
    .await
}

struct InBucket<'a> {
    deps: &'a Deps,
    bucket: &'a str,
    of: Of,
    glob: Option<Glob>,
}

impl Names for InBucket<'_> {
    type Item = Object;

    fn after(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<Vec<Object>, Status> {
        let (control, mut after) = (&self.deps.control, after.map(str::to_owned));
        loop {
            let found = match self.of {
                Of::Live => control.object_list(self.bucket, prefix, after.as_deref(), limit),
                Of::Versions => control.object_version_list(self.bucket, prefix, after.as_deref(), limit),
                Of::Deleted => control.object_deleted_list(self.bucket, prefix, after.as_deref(), limit),
            }?;
            let Some(last) = found.last() else { return Ok(Vec::new()) };
            after = Some(self.place(&last.value));
            let matching: Vec<Object> =
                found.into_iter().map(|found| found.value).filter(|object| self.glob.as_ref().is_none_or(|glob| glob.matches(&object.name))).collect();
            if !matching.is_empty() {
                return Ok(matching);
            }
        }
    }

    fn get(&self, name: &str) -> Result<Option<Object>, Status> {
        // The places of versions come after their name.
        if self.of != Of::Live || self.glob.as_ref().is_some_and(|glob| !glob.matches(name)) {
            return Ok(None);
        }
        match self.deps.control.object_get(self.bucket, name) {
            Ok(found) => Ok(Some(found.value)),
            Err(status) if status.code == Code::NotFound => Ok(None),
            Err(status) => Err(status),
        }
    }

    fn place(&self, item: &Object) -> String {
        if self.of == Of::Live { item.name.clone() } else { object_place(item) }
    }

    fn name(item: &Object) -> &str {
        &item.name
    }
}

pub(crate) async fn patch(deps: Deps, call: Call) -> Result<Response, Error> {
    change(deps, call, bucket::Body::Patch).await
}

pub(crate) async fn update(deps: Deps, call: Call) -> Result<Response, Error> {
    change(deps, call, bucket::Body::Update).await
}

async fn change(deps: Deps, mut call: Call, how: bucket::Body) -> Result<Response, Error> {
    let query = Query::of(&call, &[&["generation", "overrideUnlockedRetention"], CONDITIONS])?;
    super::encryption_refuse(&call.headers)?;
    let body: Map<String, Value> = call.json().await?;
    let bucket = deps.control.bucket_get(call.var("bucket")?)?.value;
    let found = object_find(&deps, call.who.as_ref(), &bucket, call.var("object")?, query.integer("generation")?)?;
    let mut draft = Draft::of(&found);
    if how == bucket::Body::Update {
        draft.clear();
    }
    draft.apply(&body)?;
    if draft.retention != found.retention && !may_object(&deps, call.who.as_ref(), "storage.objects.setRetention", &bucket, &found.name) {
        return Err(denied(call.who.as_ref(), "storage.objects.setRetention", &bucket).into());
    }
    let unlocked = if query.flag("overrideUnlockedRetention")? {
        if !may_object(&deps, call.who.as_ref(), "storage.objects.overrideUnlockedRetention", &bucket, &found.name) {
            return Err(denied(call.who.as_ref(), "storage.objects.overrideUnlockedRetention", &bucket).into());
        }
        UnlockedRetention::Overridden
    } else {
        UnlockedRetention::Kept
    };
    // Only a rewrite moves an object to another class.
    let class = if found.storage_class.is_empty() { &bucket.storage_class } else { &found.storage_class };
    if !draft.storage_class.is_empty() && draft.storage_class != *class {
        return Err(Error::invalid("The storage class of an object is changed by rewriting it."));
    }
    draft.storage_class.clone_from(&found.storage_class);
    // Those that the bytes decide are output here.
    (draft.md5, draft.crc32c) = (String::new(), String::new());
    // Between our reading and writing nobody else may have written.
    let mut conditions = query.preconditions()?;
    read_check(&found, &conditions).map_err(|_| Error::condition_not_met())?;
    conditions.generation_match = Some(found.generation);
    conditions.metageneration_match = Some(found.metageneration);
    let stored = Stored { blob: found.blob.clone(), size: found.size, crc32c: found.crc32c.clone(), md5: found.md5.clone() };
    let object =
        Object { generation: found.generation, metageneration: found.metageneration, created: found.created, ..draft.object(stored, deps.clock.now()) };
    let changed = deps.control.object_update(object, &conditions, unlocked).await.map_err(Error::of_write)?.value;
    query.answer(object_json(&changed, &bucket, &super::base(&call)))
}

pub(crate) async fn delete(deps: Deps, call: Call) -> Result<Response, Error> {
    let query = Query::of(&call, &[&["generation", OF_NODEJS], CONDITIONS])?;
    query.flag(OF_NODEJS)?;
    let bucket = deps.control.bucket_get(call.var("bucket")?)?.value;
    let name = call.var("object")?;
    let (conditions, generation) = (query.preconditions()?, query.integer("generation")?);
    deps.control.object_delete(&bucket.name, name, generation, &conditions).await.map_err(|status| match status.code {
        Code::NotFound => Error::not_found(format!("No such object: {}/{name}", bucket.name)),
        _ => Error::of_write(status),
    })?;
    Ok(super::no_content())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored() -> Stored {
        Stored { blob: "b".into(), size: 400, crc32c: "cg1bLA==".into(), md5: "UzMvP0QhXzrRhlHCjwUtsA==".into() }
    }

    #[test]
    fn an_object_has_the_fields_that_clients_read() {
        let mut draft = Draft::default();
        let body = json!({ "bucket": "my-bucket", "contentType": "text/x-python", "name": "a b/main.py", "metadata": { "k": "v" } });
        draft.apply(body.as_object().unwrap()).unwrap();
        draft.place("my-bucket", None, body.as_object().unwrap()).unwrap();
        let mut object = draft.object(stored(), "2026-11-24T06:36:45.012664Z".parse().unwrap());
        object.generation = 1795502205012144;
        let json = events::storage::object_resource(&object, None, "https://storage.googleapis.com");
        let check = |name: &str, expect: &str| assert_eq!(json[name], expect, "{name}");
        check("id", "my-bucket/a b/main.py/1795502205012144");
        check("mediaLink", "https://storage.googleapis.com/download/storage/v1/b/my-bucket/o/a%20b%2Fmain.py?generation=1795502205012144&alt=media");
        check("selfLink", "https://www.googleapis.com/storage/v1/b/my-bucket/o/a%20b%2Fmain.py");
        check("size", "400");
        check("generation", "1795502205012144");
        check("timeCreated", "2026-11-24T06:36:45.012Z");
        check("contentType", "text/x-python");
        assert_eq!((&json["metadata"], json.get("cacheControl")), (&json!({ "k": "v" }), None));
    }

    #[test]
    fn fields_have_an_effect_or_are_refused_by_name() {
        let check = |body: Value, refused: Option<&str>| match (Draft::default().apply(body.as_object().unwrap()), refused) {
            (Ok(()), None) => {}
            (Err(error), Some(name)) => assert!(format!("{error:?}").contains(name), "{body}: {error:?}"),
            (result, _) => panic!("{body}: {result:?}"),
        };
        check(json!({ "size": "432", "storageClass": "nearline", "acl": [], "temporaryHold": false, "cacheControl": "no-store" }), None);
        check(json!({ "temporaryHold": true, "eventBasedHold": true, "customTime": "2026-11-24T06:36:45Z" }), None);
        check(json!({ "retention": { "mode": "Unlocked", "retainUntilTime": "2026-11-24T06:36:45Z" } }), None);
        check(json!({ "storageClass": "FAST" }), Some("storageClass"));
        check(json!({ "temporaryHold": 1 }), Some("temporaryHold"));
        check(json!({ "customTime": "yesterday" }), Some("customTime"));
        check(json!({ "retention": { "mode": "Locked" } }), Some("retention"));
        check(json!({ "retention": { "mode": "Locked", "x": 1 } }), Some("retention.x"));
        check(json!({ "kmsKeyName": "k" }), Some("kmsKeyName"));
        check(json!({ "contentType": "a\nb" }), Some("contentType"));
        check(json!({ "contentType": 1 }), Some("contentType"));
        check(json!({ "metadata": { "k": 1 } }), Some("metadata.k"));
        check(json!({ "metadata": { "k": "v".repeat(9000) } }), Some("metadata"));
        check(json!({ "nonsense": "x" }), Some("nonsense"));
    }

    #[test]
    fn names() {
        for good in ["a", "a/b", "関数/１.txt", " ", "a..b", &"x".repeat(1024)] {
            assert!(name_check(good).is_ok(), "{good}");
        }
        for bad in ["", ".", "..", "a\nb", "a\rb", ".well-known/acme-challenge/x", &"x".repeat(1025)] {
            assert!(name_check(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn places_must_agree() {
        let place = |name: Option<&str>, body: Value| {
            let mut draft = Draft::default();
            draft.place("b", name, body.as_object().unwrap()).map(|()| draft.name)
        };
        assert_eq!(place(Some("q"), json!({ "name": "n" })).unwrap(), "q");
        assert_eq!(place(None, json!({ "name": "n", "bucket": "b" })).unwrap(), "n");
        assert!(place(None, json!({})).is_err());
        assert!(place(Some("q"), json!({ "bucket": "other" })).is_err());
    }

    #[test]
    fn claimed_hashes_are_checked() {
        let check = |md5: &str, crc32c: &str, good: bool| {
            let draft = Draft { md5: md5.into(), crc32c: crc32c.into(), ..Draft::default() };
            assert_eq!(draft.verify(&stored()).is_ok(), good, "{md5} {crc32c}");
        };
        check("", "", true);
        check("UzMvP0QhXzrRhlHCjwUtsA==", "cg1bLA==", true);
        check("UzMvP0QhXzrRhlHCjwUtsB==", "", false);
        check("", "AAAAAA==", false);
    }
}
