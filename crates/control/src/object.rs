//! Objects: the records of what lies in buckets. The bytes are blobs of the store.
//!
//! Generations rise with every write on this host, as long as the clock does not go back while the server is stopped; those
//! of one object rise in any case. Blobs that nothing refers to any longer are left to `reconcile::garbage`: a blob may be
//! shared by objects, builds and images, and be written again at the very moment in which its last owner goes.
//!
//! What happens to an object is recorded in the same commit ([`Change`]), for whoever is to be told: `reconcile::change`.

mod moving;

use std::sync::atomic::Ordering;

use model::{
    Code, Hops, Status, Timestamp, key,
    limits::{OBJECT_METADATA_MAX_BYTES, OBJECT_NAME_MAX_BYTES},
    status::FieldViolation,
    storage::{Bucket, Change, ChangeKind, Lock, Object, SoftDeleted, later},
};
use store::{Expect, Write};

use crate::{Context, Control, Versioned, records};

/// Marks the status of a precondition that did not hold: 412 on the wire, or 304 for a read that asks "only if changed".
const PRECONDITION_FIELD: &str = "precondition";

/// Marks the status of a hold or retention; its description is the reason.
const LOCK_FIELD: &str = "lock";
const RETAINED: &str = "retentionPolicyNotMet";
const UNDER_HOLD: &str = "objectUnderActiveHold";

/// Preconditions of an object write or read (ifGenerationMatch and friends); 0 in `generation_match` means "must not exist".
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Preconditions {
    pub generation_match: Option<i64>,
    pub generation_not_match: Option<i64>,
    pub metageneration_match: Option<i64>,
    pub metageneration_not_match: Option<i64>,
}

impl Preconditions {
    /// Checks them against the live object, `None` when there is none (generation 0).
    /// # Errors
    /// `FAILED_PRECONDITION` that [`is_precondition`] knows, with Google's text.
    pub fn check(&self, object: Option<&Object>) -> Result<(), Status> {
        let (generation, metageneration) = object.map_or((0, 0), |object| (object.generation, object.metageneration));
        let fails = |want: Option<i64>, is: i64| want.is_some_and(|want| want != is);
        let clashes = |not: Option<i64>, is: i64| not == Some(is);
        if fails(self.generation_match, generation)
            || clashes(self.generation_not_match, generation)
            || fails(self.metageneration_match, metageneration)
            || clashes(self.metageneration_not_match, metageneration)
        {
            return Err(precondition_failed());
        }
        Ok(())
    }
}

pub(crate) fn precondition_failed() -> Status {
    let mut status = Status::failed_precondition("At least one of the pre-conditions you specified did not hold.");
    status.fields.push(FieldViolation { field: PRECONDITION_FIELD.to_owned(), description: "conditionNotMet".to_owned() });
    status
}

/// Whether `status` says that a precondition of an object did not hold.
pub fn is_precondition(status: &Status) -> bool {
    status.code == Code::FailedPrecondition && status.fields.iter().any(|field| field.field == PRECONDITION_FIELD)
}

/// Whether an unlocked retention of an object may be made shorter or taken away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnlockedRetention {
    Kept,
    Overridden,
}

impl Control {
    /// The live version.
    /// # Errors
    /// `NOT_FOUND` for bucket or object.
    pub fn object_get(&self, bucket: &str, name: &str) -> Result<Versioned<Object>, Status> {
        let bucket = self.context.bucket_get(bucket)?.value;
        records::read(&self.context.store, &object_key(&bucket, name))?.ok_or_else(|| missing(&bucket.name, name))
    }

    /// A version, live or not; not one that was deleted.
    /// # Errors
    /// `NOT_FOUND` for bucket, object or generation.
    pub fn object_generation_get(&self, bucket: &str, name: &str, generation: i64) -> Result<Versioned<Object>, Status> {
        let bucket = self.context.bucket_get(bucket)?.value;
        Ok(self.context.version(&bucket, name, Some(generation))?.found)
    }

    /// A version that was deleted and can be restored.
    /// # Errors
    /// `NOT_FOUND` for bucket, object or generation.
    pub fn object_deleted_get(&self, bucket: &str, name: &str, generation: i64) -> Result<Versioned<Object>, Status> {
        let cx = &self.context;
        let bucket = cx.bucket_get(bucket)?.value;
        let found: Option<Versioned<Object>> = records::read(&cx.store, &generation_key(key::OBJECTS_DELETED, &bucket, name, generation))?;
        let now = cx.clock.now();
        found.filter(|found| found.value.soft_deleted.is_some_and(|deleted| deleted.until > now)).ok_or_else(|| missing(&bucket.name, name))
    }

    /// Live objects by name: those that begin with `prefix`, past the name `after`, at most `limit`.
    /// # Errors
    /// `NOT_FOUND` for the bucket.
    pub fn object_list(&self, bucket: &str, prefix: &str, after: Option<&str>, limit: usize) -> Result<Vec<Versioned<Object>>, Status> {
        let bucket = self.context.bucket_get(bucket)?.value;
        let after = after.map(|after| object_key(&bucket, after));
        records::page(&self.context.store, &object_key(&bucket, prefix), after.as_deref(), limit)
    }

    /// Objects in all their versions, by name and generation, past the place `after` ([`object_place`]).
    /// # Errors
    /// `NOT_FOUND` for the bucket.
    pub fn object_version_list(&self, bucket: &str, prefix: &str, after: Option<&str>, limit: usize) -> Result<Vec<Versioned<Object>>, Status> {
        let bucket = self.context.bucket_get(bucket)?.value;
        self.context.versions(&bucket, prefix, after, limit)
    }

    /// What was deleted and can be restored, by name and generation, past the place `after`.
    /// # Errors
    /// `NOT_FOUND` for the bucket.
    pub fn object_deleted_list(&self, bucket: &str, prefix: &str, after: Option<&str>, limit: usize) -> Result<Vec<Versioned<Object>>, Status> {
        let bucket = self.context.bucket_get(bucket)?.value;
        let folder = generations_of(key::OBJECTS_DELETED, &bucket);
        records::page(&self.context.store, &format!("{folder}{prefix}"), after.map(|after| format!("{folder}{after}")).as_deref(), limit)
    }

    /// Writes an object whose bytes are a blob already; size and hashes were computed while it was written. Generation,
    /// metageneration and times are set here. What was live becomes a noncurrent version, or is deleted.
    /// # Errors
    /// `NOT_FOUND` for the bucket; `INVALID_ARGUMENT` for name or metadata; `FAILED_PRECONDITION` (see [`is_precondition`]);
    /// `PERMISSION_DENIED` (see [`lock_reason`]) for a hold or retention of what is there.
    pub async fn object_put(&self, object: Object, preconditions: &Preconditions) -> Result<Versioned<Object>, Status> {
        let cx = &self.context;
        object_check(&object)?;
        self.blob_touch(&object.blob).await?;
        let _writing = cx.objects.read().await;
        let bucket = cx.bucket_get(&object.bucket)?.value;
        retention_allowed(&bucket, &object)?;
        let key = object_key(&bucket, &object.name);
        loop {
            let found = records::read::<Object>(&cx.store, &key)?;
            preconditions.check(found.as_ref().map(|found| &found.value))?;
            let mut next = object.clone();
            cx.generation_begin(&bucket, &mut next, found.as_ref().map(|found| &found.value))?;
            let writes = Writes::new(cx, &bucket, next.created, &self.hops);
            if let Some(revision) = writes.finalize(&key, &next, found).await? {
                return Ok(Versioned { value: next, revision });
            }
        }
    }

    /// Changes the metadata of an object; its bytes, generation and creation stay, its metageneration rises.
    ///
    /// Which generation is meant is `object.generation`; 0 is the live one.
    /// # Errors
    /// As [`Control::object_put`]; `NOT_FOUND` for the object, or its generation.
    pub async fn object_update(&self, object: Object, preconditions: &Preconditions, unlocked: UnlockedRetention) -> Result<Versioned<Object>, Status> {
        self.context.object_update(object, preconditions, unlocked, &self.hops).await
    }

    /// Deletes the live version, which becomes a noncurrent one where the bucket keeps versions; with `generation`, deletes that
    /// version. What is deleted can be restored for as long as the bucket's soft deletion says.
    /// # Errors
    /// `NOT_FOUND`; `FAILED_PRECONDITION` (see [`is_precondition`]); `PERMISSION_DENIED` (see [`lock_reason`]).
    pub async fn object_delete(&self, bucket: &str, name: &str, generation: Option<i64>, preconditions: &Preconditions) -> Result<(), Status> {
        self.context.object_delete(bucket, name, generation, preconditions, &self.hops).await
    }

    /// Makes what was deleted live again, as a new generation.
    /// # Errors
    /// `NOT_FOUND` for bucket, object or generation; as [`Control::object_put`].
    pub async fn object_restore(&self, bucket: &str, name: &str, generation: i64, preconditions: &Preconditions) -> Result<Versioned<Object>, Status> {
        let deleted = self.object_deleted_get(bucket, name, generation)?.value;
        self.object_put(deleted, preconditions).await
    }

    /// An object without its bytes would be a lie. Touched, they stay until the object names them.
    pub(crate) async fn blob_touch(&self, blob: &str) -> Result<(), Status> {
        let (store, id) = (self.context.store.clone(), blob.to_owned());
        let found = tokio::task::spawn_blocking(move || store.blobs().touch(&id)).await.map_err(Status::internal)?;
        if found.map_err(Status::internal)? {
            return Ok(());
        }
        Err(Status::internal(format!("blob {blob} of an object to be written is not there")))
    }
}

/// Where an object stands in a list of versions: by name, then generation.
pub fn object_place(object: &Object) -> String {
    format!("{}\0{:020}", object.name, object.generation)
}

/// A version that was found, and where it lies.
struct Version {
    key: String,
    found: Versioned<Object>,
}

/// What one commit writes about objects of one bucket, at one instant.
pub(crate) struct Writes<'a> {
    cx: &'a Context,
    bucket: &'a Bucket,
    at: Timestamp,
    hops: &'a Hops,
    list: Vec<Write>,
    untold: Untold<'a>,
}

/// Changes that are to be told: under way from here until `reconcile::change` has told them, or until this is dropped, when they did not happen.
struct Untold<'a> {
    cx: &'a Context,
    keys: Vec<String>,
}

impl Drop for Untold<'_> {
    fn drop(&mut self) {
        let mut untold = self.cx.untold.lock();
        self.keys.iter().for_each(|key| drop(untold.remove(key)));
    }
}

impl<'a> Writes<'a> {
    pub(crate) fn new(cx: &'a Context, bucket: &'a Bucket, at: Timestamp, hops: &'a Hops) -> Self {
        Self { cx, bucket, at, hops, list: Vec::new(), untold: Untold { cx, keys: Vec::new() } }
    }

    /// Commits, with `next` as what is live under `key` in the place of `replaced`.
    async fn finalize(mut self, key: &str, next: &Object, replaced: Option<Versioned<Object>>) -> Result<Option<u64>, Status> {
        let (mut expect, generation) = (Expect::Absent, replaced.as_ref().map(|replaced| replaced.value.generation));
        if let Some(replaced) = replaced {
            expect = Expect::Revision(replaced.revision);
            self.replace(replaced.value, Some(next.generation))?;
        }
        self.put(key, expect, next);
        self.change(ChangeKind::Finalize, next, generation);
        self.commit().await
    }

    /// As [`records::commit`].
    async fn commit(mut self) -> Result<Option<u64>, Status> {
        let committed = records::commit(&self.cx.store, self.list).await;
        if matches!(committed, Ok(Some(_))) {
            self.untold.keys.clear();
        }
        committed
    }

    pub(crate) fn put(&mut self, key: &str, expect: Expect, object: &Object) {
        self.list.push(Write::put(key, expect, object));
    }

    /// Records what happened. A number that is taken fails the commit, and its caller comes with the next.
    pub(crate) fn change(&mut self, kind: ChangeKind, object: &Object, other: Option<i64>) {
        let (project, hops) = (self.bucket.project.clone(), self.hops.clone());
        let change = Change { kind, at: self.at, project, bucket_created: self.bucket.created, object: object.clone(), other, hops };
        let key = key::object_change(self.cx.instant_next().as_microsecond());
        self.cx.untold.lock().insert(key.clone(), self.cx.topics.busy().begin());
        self.untold.keys.push(key.clone());
        self.list.push(Write::put(key, Expect::Absent, &change));
    }

    /// The live version `object` makes room, for the generation `by` or for none.
    fn replace(&mut self, mut object: Object, by: Option<i64>) -> Result<(), Status> {
        if !self.bucket.versioning {
            return self.remove(object, by);
        }
        // Retention lets a version be archived, since it stays; a hold does not.
        match object.lock(self.bucket, self.at) {
            Some(lock @ (Lock::EventBasedHold | Lock::TemporaryHold)) => return Err(locked(&object, lock)),
            Some(Lock::RetainedUntil(_)) | None => {}
        }
        object.noncurrent = Some(self.at);
        self.put(&generation_key(key::OBJECT_VERSIONS, self.bucket, &object.name, object.generation), Expect::Absent, &object);
        self.change(ChangeKind::Archive, &object, by);
        Ok(())
    }

    /// A version goes; its own record is the caller's.
    pub(crate) fn remove(&mut self, mut object: Object, by: Option<i64>) -> Result<(), Status> {
        if let Some(lock) = object.lock(self.bucket, self.at) {
            return Err(locked(&object, lock));
        }
        let retention_s = self.bucket.soft_delete.retention_s;
        if retention_s > 0 {
            object.soft_deleted = Some(SoftDeleted { at: self.at, until: later(self.at, retention_s) });
            self.put(&generation_key(key::OBJECTS_DELETED, self.bucket, &object.name, object.generation), Expect::Any, &object);
        }
        self.change(ChangeKind::Delete, &object, by);
        Ok(())
    }
}

impl Context {
    pub(crate) async fn object_update(
        &self,
        object: Object,
        preconditions: &Preconditions,
        unlocked: UnlockedRetention,
        hops: &Hops,
    ) -> Result<Versioned<Object>, Status> {
        let cx = self;
        object_check(&object)?;
        let _writing = cx.objects.read().await;
        let bucket = cx.bucket_get(&object.bucket)?.value;
        retention_allowed(&bucket, &object)?;
        loop {
            let Version { key, found } = cx.version(&bucket, &object.name, Some(object.generation).filter(|generation| *generation != 0))?;
            preconditions.check(Some(&found.value))?;
            let now = cx.clock.now();
            retention_change_check(&found.value, &object, unlocked, now)?;
            let is_released = found.value.event_based_hold && !object.event_based_hold;
            let next = Object {
                generation: found.value.generation,
                metageneration: found.value.metageneration + 1,
                created: found.value.created,
                updated: now,
                size: found.value.size,
                blob: found.value.blob,
                crc32c: found.value.crc32c,
                md5: found.value.md5,
                components: found.value.components,
                class_changed: if object.storage_class == found.value.storage_class { found.value.class_changed } else { Some(now) },
                hold_released: if is_released { Some(now) } else { found.value.hold_released },
                noncurrent: found.value.noncurrent,
                soft_deleted: None,
                ..object.clone()
            };
            let mut writes = Writes::new(cx, &bucket, now, hops);
            writes.put(&key, Expect::Revision(found.revision), &next);
            writes.change(ChangeKind::MetadataUpdate, &next, None);
            if let Some(revision) = writes.commit().await? {
                return Ok(Versioned { value: next, revision });
            }
        }
    }

    pub(crate) async fn object_delete(
        &self,
        bucket: &str,
        name: &str,
        generation: Option<i64>,
        preconditions: &Preconditions,
        hops: &Hops,
    ) -> Result<(), Status> {
        let cx = self;
        let _writing = cx.objects.read().await;
        let bucket = cx.bucket_get(bucket)?.value;
        loop {
            let Version { key, found } = cx.version(&bucket, name, generation)?;
            preconditions.check(Some(&found.value))?;
            let mut writes = Writes::new(cx, &bucket, cx.clock.now(), hops);
            writes.list.push(Write::delete(key, Expect::Revision(found.revision)));
            match generation {
                None => writes.replace(found.value, None)?,
                Some(_) => writes.remove(found.value, None)?,
            }
            if writes.commit().await?.is_some() {
                return Ok(());
            }
        }
    }

    /// The live version, or the one of a generation.
    fn version(&self, bucket: &Bucket, name: &str, generation: Option<i64>) -> Result<Version, Status> {
        let key = object_key(bucket, name);
        let live = records::read::<Object>(&self.store, &key)?;
        let Some(generation) = generation else {
            return live.map(|found| Version { key, found }).ok_or_else(|| missing(&bucket.name, name));
        };
        if let Some(found) = live.filter(|live| live.value.generation == generation) {
            return Ok(Version { key, found });
        }
        let key = generation_key(key::OBJECT_VERSIONS, bucket, name, generation);
        match records::read(&self.store, &key)? {
            Some(found) => Ok(Version { key, found }),
            None => Err(missing(&bucket.name, name)),
        }
    }

    pub(crate) fn versions(&self, bucket: &Bucket, prefix: &str, after: Option<&str>, limit: usize) -> Result<Vec<Versioned<Object>>, Status> {
        let store = &self.store;
        let folder = generations_of(key::OBJECT_VERSIONS, bucket);
        let mut old: Vec<Versioned<Object>> =
            records::page(store, &format!("{folder}{prefix}"), after.map(|after| format!("{folder}{after}")).as_deref(), limit)?;
        let mut live = Vec::new();
        // The live version of the name where the last page ended comes after its other ones.
        let name = after.map(|after| after.split('\0').next().unwrap_or_default());
        if let Some(name) = name.filter(|name| name.starts_with(prefix)) {
            live.extend(records::read::<Object>(store, &object_key(bucket, name))?.filter(|found| after < Some(object_place(&found.value).as_str())));
        }
        live.extend(records::page(store, &object_key(bucket, prefix), name.map(|name| object_key(bucket, name)).as_deref(), limit)?);
        old.append(&mut live);
        old.sort_by_cached_key(|found| object_place(&found.value));
        old.truncate(limit);
        Ok(old)
    }

    /// Makes `next` a new generation of its name, after `replaced`, which is live.
    fn generation_begin(&self, bucket: &Bucket, next: &mut Object, replaced: Option<&Object>) -> Result<(), Status> {
        next.created = self.instant_next();
        next.updated = next.created;
        next.metageneration = 1;
        let least = replaced.map_or(0, |replaced| replaced.generation) + 1;
        next.generation = self.generation_after(bucket, &next.name, next.created.as_microsecond().max(least))?;
        next.event_based_hold |= bucket.default_event_based_hold;
        if next.storage_class.is_empty() {
            next.storage_class.clone_from(&bucket.storage_class);
        }
        (next.class_changed, next.hold_released, next.noncurrent, next.soft_deleted) = (None, None, None, None);
        Ok(())
    }

    /// `generation`, or what comes after the versions that are there: the clock may have been set back.
    fn generation_after(&self, bucket: &Bucket, name: &str, mut generation: i64) -> Result<i64, Status> {
        let versions = format!("{}{name}\0", generations_of(key::OBJECT_VERSIONS, bucket));
        loop {
            let before = format!("{versions}{:020}", generation - 1);
            let Some(later) = records::page::<Object>(&self.store, &versions, Some(&before), 500)?.pop() else { return Ok(generation) };
            generation = later.value.generation + 1;
        }
    }

    /// Now, or the microsecond after the last one that was given out here.
    pub(crate) fn instant_next(&self) -> Timestamp {
        let now = self.clock.now().as_microsecond();
        let last = self.instant_last.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |last| Some(now.max(last + 1))).expect("always Some");
        Timestamp::from_microsecond(now.max(last + 1)).expect("the clock is within a timestamp's range, a microsecond more is too")
    }
}

fn object_key(bucket: &Bucket, name: &str) -> String {
    key::object(&bucket.name, bucket.created.as_microsecond(), name)
}

pub(crate) fn generations_of(prefix: &str, bucket: &Bucket) -> String {
    format!("{prefix}{}/{}/", bucket.name, bucket.created.as_microsecond())
}

pub(crate) fn generation_key(prefix: &str, bucket: &Bucket, name: &str, generation: i64) -> String {
    key::object_generation(prefix, &bucket.name, bucket.created.as_microsecond(), name, generation)
}

/// Google's words, with the reason for [`lock_reason`].
fn locked(object: &Object, lock: Lock) -> Status {
    let place = format!("{}/{}", object.bucket, object.name);
    let (text, reason) = match lock {
        Lock::EventBasedHold => {
            (format!("Object '{place}' is under active Event-Based hold and cannot be deleted, overwritten or archived until hold is removed."), UNDER_HOLD)
        }
        Lock::TemporaryHold => {
            (format!("Object '{place}' is under active Temporary hold and cannot be deleted, overwritten or archived until hold is removed."), UNDER_HOLD)
        }
        Lock::RetainedUntil(until) => (
            format!("Object '{place}' is subject to bucket's retention policy or object retention and cannot be deleted or overwritten until {until:.3}"),
            RETAINED,
        ),
    };
    refused(text, reason)
}

pub(crate) fn refused(text: impl Into<String>, reason: &str) -> Status {
    let mut status = Status::new(Code::PermissionDenied, text);
    status.fields.push(FieldViolation { field: LOCK_FIELD.to_owned(), description: reason.to_owned() });
    status
}

/// Why `status` refuses a change of what is held or retained, in this API's word; `None` when it says something else.
pub fn lock_reason(status: &Status) -> Option<&str> {
    status.fields.iter().find(|field| field.field == LOCK_FIELD).map(|field| field.description.as_str())
}

/// Whether the bucket lets its objects have a retention of their own.
fn retention_allowed(bucket: &Bucket, object: &Object) -> Result<(), Status> {
    if object.retention.is_none() || bucket.object_retention {
        return Ok(());
    }
    Err(Status::invalid_field("retention", format!("object retention is not enabled on the bucket {}: it is when a bucket is made", bucket.name)))
}

/// A locked retention can only be made longer; an unlocked one too, unless its owner says so.
fn retention_change_check(found: &Object, next: &Object, unlocked: UnlockedRetention, now: Timestamp) -> Result<(), Status> {
    let Some(before) = found.retention.filter(|before| before.until > now) else { return Ok(()) };
    let is_less = next.retention.is_none_or(|next| next.until < before.until || (before.locked && !next.locked));
    if !is_less || (!before.locked && unlocked == UnlockedRetention::Overridden) {
        return Ok(());
    }
    let place = format!("{}/{}", found.bucket, found.name);
    Err(refused(
        if before.locked {
            format!("Object '{place}' has a locked retention: it can be neither shortened nor removed.")
        } else {
            format!("Object '{place}' has a retention that can be shortened or removed only with overrideUnlockedRetention=true.")
        },
        RETAINED,
    ))
}

fn missing(bucket: &str, name: &str) -> Status {
    Status::not_found(format!("No such object: {bucket}/{name}"))
}

fn object_check(object: &Object) -> Result<(), Status> {
    let name = &object.name;
    if !(1..=OBJECT_NAME_MAX_BYTES).contains(&name.len()) {
        return Err(Status::invalid_field("name", format!("an object's name must have 1 to {OBJECT_NAME_MAX_BYTES} bytes; it has {}", name.len())));
    }
    if name.contains(['\r', '\n', '\0']) || name == "." || name == ".." || name.starts_with(".well-known/acme-challenge/") {
        return Err(Status::invalid_field(
            "name",
            format!("{name:?} is not allowed: no line breaks or NUL, not '.' or '..', not below .well-known/acme-challenge/"),
        ));
    }
    let fixed = [&object.content_type, &object.content_encoding, &object.content_disposition, &object.content_language, &object.cache_control];
    let bytes = fixed.iter().map(|text| text.len()).sum::<usize>() + object.metadata.iter().map(|(key, value)| key.len() + value.len()).sum::<usize>();
    if bytes > OBJECT_METADATA_MAX_BYTES {
        return Err(Status::invalid_field("metadata", format!("must have at most {OBJECT_METADATA_MAX_BYTES} bytes together; it has {bytes}")));
    }
    // They become headers of an answer.
    if fixed.iter().any(|text| text.contains(char::is_control)) {
        return Err(Status::invalid_field(
            "metadata",
            "contentType, contentEncoding, contentDisposition, contentLanguage and cacheControl must not contain control characters",
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn preconditions_speak_of_the_live_object() {
        let object: Object = serde_json::from_value(serde_json::json!({
            "bucket": "b", "name": "o", "generation": 7, "metageneration": 2, "created": "2026-01-01T00:00:00Z",
            "updated": "2026-01-01T00:00:00Z", "size": 0, "blob": "", "crc32c": "", "md5": ""
        }))
        .unwrap();
        let any = Preconditions::default;
        for (preconditions, with, without) in [
            (any(), true, true),
            (Preconditions { generation_match: Some(0), ..any() }, false, true),
            (Preconditions { generation_match: Some(7), ..any() }, true, false),
            (Preconditions { generation_not_match: Some(7), ..any() }, false, true),
            (Preconditions { generation_not_match: Some(0), ..any() }, true, false),
            (Preconditions { metageneration_match: Some(2), ..any() }, true, false),
            (Preconditions { metageneration_match: Some(1), ..any() }, false, false),
            (Preconditions { metageneration_not_match: Some(2), ..any() }, false, true),
        ] {
            assert_eq!(preconditions.check(Some(&object)).is_ok(), with, "{preconditions:?}");
            assert_eq!(preconditions.check(None).is_ok(), without, "{preconditions:?}");
        }
        let failed = Preconditions { generation_match: Some(1), ..any() }.check(None).unwrap_err();
        assert!(is_precondition(&failed) && !is_precondition(&Status::failed_precondition("other")));
    }
}
