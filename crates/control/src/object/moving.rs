//! Another name for an object, in its bucket and in one commit.
//!
//! Source: cloud.google.com/storage/docs/json_api/v1/objects/move.

use model::{
    Status,
    storage::{ChangeKind, Object},
};
use store::{Expect, Write};

use super::{Preconditions, Writes, locked, missing, object_check, object_key};
use crate::{Control, Versioned, records};

impl Control {
    /// Moves the live object `from` to the name `to`: the same bytes and metadata as a new generation; what was live there makes room as
    /// for [`Control::object_put`]. What it leaves becomes a noncurrent version where the bucket keeps versions, and is not there to be
    /// restored where it does not.
    /// # Errors
    /// `NOT_FOUND` for bucket or object; `INVALID_ARGUMENT` for the name; `FAILED_PRECONDITION` (see [`crate::is_precondition`]) for
    /// `of_source` and `of_destination`; `PERMISSION_DENIED` (see [`crate::lock_reason`]) for a hold or retention of either.
    pub async fn object_move(
        &self,
        bucket: &str,
        from: &str,
        to: &str,
        of_source: &Preconditions,
        of_destination: &Preconditions,
    ) -> Result<Versioned<Object>, Status> {
        let cx = &self.context;
        if from == to {
            return Err(Status::invalid_field("destinationObject", format!("{to:?} is the object's name already")));
        }
        let _writing = cx.objects.read().await;
        let bucket = cx.bucket_get(bucket)?.value;
        let (source_key, key) = (object_key(&bucket, from), object_key(&bucket, to));
        loop {
            let source = records::read::<Object>(&cx.store, &source_key)?.ok_or_else(|| missing(&bucket.name, from))?;
            of_source.check(Some(&source.value))?;
            let replaced = records::read::<Object>(&cx.store, &key)?;
            of_destination.check(replaced.as_ref().map(|found| &found.value))?;
            let mut next = Object { name: to.to_owned(), ..source.value.clone() };
            object_check(&next)?;
            self.blob_touch(&next.blob).await?;
            cx.generation_begin(&bucket, &mut next, replaced.as_ref().map(|found| &found.value))?;
            let mut writes = Writes::new(cx, &bucket, next.created, &self.hops);
            writes.list.push(Write::delete(&source_key, Expect::Revision(source.revision)));
            if bucket.versioning {
                writes.replace(source.value, None)?;
            } else {
                if let Some(lock) = source.value.lock(&bucket, next.created) {
                    return Err(locked(&source.value, lock));
                }
                writes.change(ChangeKind::Delete, &source.value, None);
            }
            if let Some(revision) = writes.finalize(&key, &next, replaced).await? {
                return Ok(Versioned { value: next, revision });
            }
        }
    }
}
