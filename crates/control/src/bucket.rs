//! Buckets: names, and the records of what their owners set.
//!
//! Source of the rules: "Bucket naming guidelines" of Cloud Storage's documentation.

use std::net::Ipv4Addr;

use model::{Code, ProjectId, Status, key, storage::Bucket};
use store::{Expect, Write};

use crate::{Control, Versioned, object, records, template};

/// Buckets on this host.
const BUCKETS_MAX: usize = 10_000;
/// Fields that are kept without an effect, in bytes together.
const KEPT_MAX_BYTES: usize = 64 << 10;

impl Control {
    /// # Errors
    /// `NOT_FOUND` in Google's words.
    pub fn bucket_get(&self, name: &str) -> Result<Versioned<Bucket>, Status> {
        self.context.bucket_get(name)
    }

    /// The buckets of a project whose names begin with `prefix`, by name.
    pub fn bucket_list(&self, project: &ProjectId, prefix: &str) -> Result<Vec<Versioned<Bucket>>, Status> {
        let mut buckets: Vec<Versioned<Bucket>> = records::all(&self.context.store, &key::bucket(prefix))?;
        buckets.retain(|bucket| bucket.value.project == *project);
        Ok(buckets)
    }

    /// Makes a bucket; its times and metageneration are set here. Names are unique over all projects.
    /// # Errors
    /// `INVALID_ARGUMENT` for a name against Google's rules; `ALREADY_EXISTS`.
    pub async fn bucket_create(&self, bucket: Bucket) -> Result<Versioned<Bucket>, Status> {
        let cx = &self.context;
        cx.project_get(bucket.project.as_str())?;
        name_check(&bucket.name)?;
        fields_check(&bucket)?;
        let mut bucket = bucket;
        // Objects lie under their bucket's time of creation, so that it must differ from that of an earlier bucket of the name.
        bucket.created = cx.instant_next();
        bucket.updated = bucket.created;
        bucket.metageneration = 1;
        bucket.soft_delete.effective = Some(bucket.created);
        if let Some(retention) = &mut bucket.retention {
            (retention.effective, retention.locked) = (bucket.created, false);
        }
        if bucket.storage_class.is_empty() {
            "STANDARD".clone_into(&mut bucket.storage_class);
        }
        if bucket.location.is_empty() {
            "US".clone_into(&mut bucket.location);
        }
        let taken = |found: Option<&Bucket>| match found {
            Some(found) if found.project == bucket.project => {
                Status::already_exists("Your previous request to create the named bucket succeeded and you already own it.")
            }
            _ => Status::already_exists(
                "The requested bucket name is not available. The bucket namespace is shared by all users of the system. Please select a different name and try again.",
            ),
        };
        if let Some(found) = records::read::<Bucket>(&cx.store, &key::bucket(&bucket.name))? {
            return Err(taken(Some(&found.value)));
        }
        if records::keys(&cx.store, key::BUCKETS)?.len() >= BUCKETS_MAX {
            return Err(Status::new(Code::ResourceExhausted, format!("There are already {BUCKETS_MAX} buckets.")));
        }
        let resource = format!("buckets/{}", bucket.name);
        cx.accounts.policy_remove(&resource).await?;
        let writes = vec![Write::put(key::bucket(&bucket.name), Expect::Absent, &bucket), Write::delete(key::policy(&resource), Expect::Any)];
        match records::commit(&cx.store, writes).await? {
            Some(revision) => Ok(Versioned { value: bucket, revision }),
            // Another call made it at the same time.
            None => Err(taken(records::read::<Bucket>(&cx.store, &key::bucket(&bucket.name))?.map(|found| found.value).as_ref())),
        }
    }

    /// Replaces what the owner set; name, project, location and creation stay. The metageneration rises.
    /// # Errors
    /// `ABORTED` when the bucket is not at the revision `expected`; `PERMISSION_DENIED` (see [`crate::lock_reason`]) when a locked
    /// retention would be made shorter or taken away.
    pub async fn bucket_update(&self, bucket: Bucket, expected: u64) -> Result<Versioned<Bucket>, Status> {
        let cx = &self.context;
        // No object is written by the old rules after the new ones were answered.
        let _alone = cx.objects.write().await;
        let found = cx.bucket_get(&bucket.name)?;
        fields_check(&bucket)?;
        let mut next = bucket;
        next.project.clone_from(&found.value.project);
        next.location.clone_from(&found.value.location);
        next.created = found.value.created;
        next.updated = cx.clock.now();
        next.object_retention |= found.value.object_retention;
        retention_check(&found.value, &mut next)?;
        if next.soft_delete.retention_s == found.value.soft_delete.retention_s {
            next.soft_delete.effective = found.value.soft_delete.effective;
        } else {
            next.soft_delete.effective = Some(next.updated);
        }
        next.metageneration = found.value.metageneration + 1;
        match records::commit(&cx.store, vec![Write::put(key::bucket(&next.name), Expect::Revision(expected), &next)]).await? {
            Some(revision) => Ok(Versioned { value: next, revision }),
            None => Err(Status::new(Code::Aborted, format!("The bucket '{}' was changed meanwhile. Read it again.", next.name))),
        }
    }

    /// Locks the retention for ever.
    /// # Errors
    /// `FAILED_PRECONDITION` for another metageneration (see [`crate::is_precondition`]); `INVALID_ARGUMENT` without a retention.
    pub async fn bucket_retention_lock(&self, name: &str, metageneration: i64) -> Result<Versioned<Bucket>, Status> {
        let Versioned { value: mut bucket, revision } = self.bucket_get(name)?;
        if bucket.metageneration != metageneration {
            return Err(object::precondition_failed());
        }
        let Some(retention) = &mut bucket.retention else {
            return Err(Status::invalid("The bucket has no retention policy that could be locked."));
        };
        retention.locked = true;
        self.bucket_update(bucket, revision).await
    }

    /// Deletes a bucket, with what was deleted in it and could have been restored.
    /// # Errors
    /// `NOT_FOUND`; `ABORTED` (409) while it holds objects, live or not.
    pub async fn bucket_delete(&self, name: &str) -> Result<(), Status> {
        let cx = &self.context;
        // No object is being written from here on: one that was acknowledged is seen below.
        let _alone = cx.objects.write().await;
        let found = cx.bucket_get(name)?;
        let objects = key::objects_of(name, found.value.created.as_microsecond());
        for versions in [objects, object::generations_of(key::OBJECT_VERSIONS, &found.value)] {
            if !cx.store.scan(&versions, None, 1).map_err(Status::internal)?.is_empty() {
                return Err(Status::new(Code::Aborted, "The bucket you tried to delete is not empty."));
            }
        }
        cx.accounts.policy_remove(&format!("buckets/{name}")).await?;
        // What was deleted softly goes by `reconcile::lifecycle`, and its notifications when their topics know of the last change.
        records::commit(&cx.store, vec![Write::delete(key::bucket(name), Expect::Any)]).await?;
        Ok(())
    }
}

impl crate::Context {
    pub(crate) fn bucket_get(&self, name: &str) -> Result<Versioned<Bucket>, Status> {
        records::read(&self.store, &key::bucket(name))?.ok_or_else(|| Status::not_found("The specified bucket does not exist."))
    }
}

/// What may become of a retention.
fn retention_check(found: &Bucket, next: &mut Bucket) -> Result<(), Status> {
    let Some(before) = found.retention else {
        if let Some(retention) = &mut next.retention {
            retention.effective = next.updated;
        }
        return Ok(());
    };
    let is_less = next.retention.is_none_or(|next| next.period_s < before.period_s);
    if before.locked && is_less {
        let text = format!("Cannot reduce retention duration of a locked Retention Policy for bucket '{}'.", found.name);
        return Err(object::refused(text, "forbidden"));
    }
    if let Some(retention) = &mut next.retention {
        retention.effective = if retention.period_s == before.period_s { before.effective } else { next.updated };
        retention.locked |= before.locked;
    }
    Ok(())
}

fn fields_check(bucket: &Bucket) -> Result<(), Status> {
    template::labels_check("labels", &bucket.labels)?;
    let bytes: usize = bucket.kept.iter().map(|(name, value)| name.len() + value.len()).sum();
    if bytes > KEPT_MAX_BYTES || bucket.location.len() > 64 || bucket.storage_class.len() > 64 {
        return Err(Status::invalid(format!("The bucket's configuration is too large: at most {KEPT_MAX_BYTES} bytes, 64 for location and storageClass.")));
    }
    Ok(())
}

fn name_check(name: &str) -> Result<(), Status> {
    let bad = |why: &str| Err(Status::invalid_field("name", format!("Invalid bucket name: '{}': {why}", name.chars().take(222).collect::<String>())));
    let max = if name.contains('.') { 222 } else { 63 };
    if !(3..=max).contains(&name.len()) {
        return bad("it must have 3 to 63 characters, 222 with dots");
    }
    if !name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_' | b'.')) {
        return bad("it must have only lower-case letters, digits, '-', '_' and '.'");
    }
    let is_edge = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    if !name.starts_with(is_edge) || !name.ends_with(is_edge) {
        return bad("it must begin and end with a letter or a digit");
    }
    if name.split('.').any(|part| part.is_empty() || part.len() > 63) {
        return bad("each part between dots must have 1 to 63 characters");
    }
    if name.parse::<Ipv4Addr>().is_ok() {
        return bad("it must not be an IP address");
    }
    if name.starts_with("goog") || name.contains("google") || name.contains("g00gle") {
        return bad("it must not begin with 'goog' nor contain 'google'");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_googles_rules() {
        for good in ["run-sources-local-project-asia-northeast1", "abc", "a_b", "1.2.3", "example.com", &"a".repeat(63)] {
            assert_eq!(name_check(good), Ok(()), "{good}");
        }
        for bad in [
            "",
            "ab",
            "Abc",
            "a b",
            "-ab",
            "ab-",
            "a..b",
            "192.168.5.4",
            "goog-x",
            "my-google-bucket",
            "a/b",
            "関数関数",
            &"a".repeat(64),
            &format!("a.{}", "b".repeat(64)),
        ] {
            assert!(name_check(bad).is_err(), "{bad}");
        }
    }
}
