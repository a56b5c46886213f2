//! Objects: the records of what lies in buckets. The bytes are blobs of the store.
//!
//! Generations rise with every write on this host, as long as the clock does not go back while the server is stopped; those
//! of one object rise in any case. Blobs that nothing refers to any longer are left to `reconcile::garbage`: a blob may be
//! shared by objects, builds and images, and be written again at the very moment in which its last owner goes.

use std::sync::atomic::Ordering;

use model::{
    Code, Status, Timestamp, key,
    status::FieldViolation,
    storage::{Bucket, Object},
};
use store::{Expect, Write};

use crate::{Context, Control, Versioned, records};

const NAME_MAX_BYTES: usize = 1024;
/// Custom metadata, and all fixed fields, in bytes together.
const METADATA_MAX_BYTES: usize = 8 << 10;

/// Marks the status of a precondition that did not hold: 412 on the wire, or 304 for a read that asks "only if changed".
const PRECONDITION_FIELD: &str = "precondition";

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
            let mut status = Status::failed_precondition("At least one of the pre-conditions you specified did not hold.");
            status.fields.push(FieldViolation { field: PRECONDITION_FIELD.to_owned(), description: "conditionNotMet".to_owned() });
            return Err(status);
        }
        Ok(())
    }
}

/// Whether `status` says that a precondition of an object did not hold.
pub fn is_precondition(status: &Status) -> bool {
    status.code == Code::FailedPrecondition && status.fields.iter().any(|field| field.field == PRECONDITION_FIELD)
}

impl Control {
    /// # Errors
    /// `NOT_FOUND` for bucket or object.
    pub fn object_get(&self, bucket: &str, name: &str) -> Result<Versioned<Object>, Status> {
        let bucket = self.context.bucket_get(bucket)?.value;
        records::read(&self.context.store, &object_key(&bucket, name))?.ok_or_else(|| missing(&bucket.name, name))
    }

    /// Objects by name: those that begin with `prefix`, past the name `after`, at most `limit`.
    /// # Errors
    /// `NOT_FOUND` for the bucket.
    pub fn object_list(&self, bucket: &str, prefix: &str, after: Option<&str>, limit: usize) -> Result<Vec<Versioned<Object>>, Status> {
        let bucket = self.context.bucket_get(bucket)?.value;
        let after = after.map(|after| object_key(&bucket, after));
        records::page(&self.context.store, &object_key(&bucket, prefix), after.as_deref(), limit)
    }

    /// Writes an object whose bytes are a blob already; size and hashes were computed while it was written. Generation,
    /// metageneration and times are set here.
    /// # Errors
    /// `NOT_FOUND` for the bucket; `INVALID_ARGUMENT` for name or metadata; `FAILED_PRECONDITION` (see [`is_precondition`]).
    pub async fn object_put(&self, object: Object, preconditions: &Preconditions) -> Result<Versioned<Object>, Status> {
        let cx = &self.context;
        object_check(&object)?;
        self.blob_touch(&object.blob).await?;
        let _writing = cx.objects.read().await;
        let bucket = cx.bucket_get(&object.bucket)?.value;
        let key = object_key(&bucket, &object.name);
        loop {
            let found = records::read::<Object>(&cx.store, &key)?;
            preconditions.check(found.as_ref().map(|found| &found.value))?;
            let mut next = object.clone();
            next.created = cx.instant_next();
            next.updated = next.created;
            next.metageneration = 1;
            let replaced = found.as_ref().map_or(0, |found| found.value.generation);
            next.generation = next.created.as_microsecond().max(replaced + 1);
            let expect = found.map_or(Expect::Absent, |found| Expect::Revision(found.revision));
            if let Some(revision) = records::commit(&cx.store, vec![Write::put(key.as_str(), expect, &next)]).await? {
                return Ok(Versioned { value: next, revision });
            }
        }
    }

    /// Changes the metadata of an object; its bytes, generation and creation stay, its metageneration rises.
    ///
    /// Which generation is meant is `object.generation`; 0 is the live one.
    /// # Errors
    /// As [`Control::object_put`]; `NOT_FOUND` for the object, or its generation.
    pub async fn object_update(&self, object: Object, preconditions: &Preconditions) -> Result<Versioned<Object>, Status> {
        let cx = &self.context;
        object_check(&object)?;
        let _writing = cx.objects.read().await;
        let bucket = cx.bucket_get(&object.bucket)?.value;
        let key = object_key(&bucket, &object.name);
        loop {
            let found = records::read::<Object>(&cx.store, &key)?.ok_or_else(|| missing(&bucket.name, &object.name))?;
            if object.generation != 0 && object.generation != found.value.generation {
                return Err(missing(&bucket.name, &object.name));
            }
            preconditions.check(Some(&found.value))?;
            let next = Object {
                generation: found.value.generation,
                metageneration: found.value.metageneration + 1,
                created: found.value.created,
                updated: cx.clock.now(),
                size: found.value.size,
                blob: found.value.blob,
                crc32c: found.value.crc32c,
                md5: found.value.md5,
                ..object.clone()
            };
            if let Some(revision) = records::commit(&cx.store, vec![Write::put(key.as_str(), Expect::Revision(found.revision), &next)]).await? {
                return Ok(Versioned { value: next, revision });
            }
        }
    }

    /// # Errors
    /// `NOT_FOUND`; `FAILED_PRECONDITION` (see [`is_precondition`]).
    pub async fn object_delete(&self, bucket: &str, name: &str, preconditions: &Preconditions) -> Result<(), Status> {
        let cx = &self.context;
        let _writing = cx.objects.read().await;
        let bucket = cx.bucket_get(bucket)?.value;
        let key = object_key(&bucket, name);
        loop {
            let found = records::read::<Object>(&cx.store, &key)?.ok_or_else(|| missing(&bucket.name, name))?;
            preconditions.check(Some(&found.value))?;
            if records::commit(&cx.store, vec![Write::delete(key.as_str(), Expect::Revision(found.revision))]).await?.is_some() {
                return Ok(());
            }
        }
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

impl Context {
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

fn missing(bucket: &str, name: &str) -> Status {
    Status::not_found(format!("No such object: {bucket}/{name}"))
}

fn object_check(object: &Object) -> Result<(), Status> {
    let name = &object.name;
    if !(1..=NAME_MAX_BYTES).contains(&name.len()) {
        return Err(Status::invalid_field("name", format!("an object's name must have 1 to {NAME_MAX_BYTES} bytes; it has {}", name.len())));
    }
    if name.contains(['\r', '\n', '\0']) || name == "." || name == ".." || name.starts_with(".well-known/acme-challenge/") {
        return Err(Status::invalid_field(
            "name",
            format!("{name:?} is not allowed: no line breaks or NUL, not '.' or '..', not below .well-known/acme-challenge/"),
        ));
    }
    let fixed = [&object.content_type, &object.content_encoding, &object.content_disposition, &object.content_language, &object.cache_control];
    let bytes = fixed.iter().map(|text| text.len()).sum::<usize>() + object.metadata.iter().map(|(key, value)| key.len() + value.len()).sum::<usize>();
    if bytes > METADATA_MAX_BYTES {
        return Err(Status::invalid_field("metadata", format!("must have at most {METADATA_MAX_BYTES} bytes together; it has {bytes}")));
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
