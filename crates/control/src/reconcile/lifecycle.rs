//! What happens to objects with time: buckets' lifecycle rules, and the end of what was deleted softly.
//!
//! Once an hour, and when something that was deleted ends, everything is looked at. Its instants are the clock's, so that a clock
//! that is moved by hand moves this too. Google does the same within a day.

use std::{collections::HashSet, sync::Arc};

use model::{
    Code, Hops, Status, Timestamp, key,
    limits::MULTIPART_IDLE_MAX_S,
    storage::{
        Bucket, Object,
        lifecycle::{self, Due},
    },
};
use serde::Deserialize;
use store::{Expect, Write};

use crate::{Context, Preconditions, UnlockedRetention, Versioned, object, records};

const PERIOD_S: u64 = 3600;
/// Records that are read, or deleted, at once.
const BATCH: usize = 500;

/// Runs until `stop` says so or its sender is gone.
pub(crate) async fn run(cx: Arc<Context>, mut stop: tokio::sync::watch::Receiver<bool>) {
    loop {
        let now = cx.clock.now();
        let next = match pass(&cx, now).await {
            Ok(end) => end.map_or(model::storage::later(now, PERIOD_S), |end| end.min(model::storage::later(now, PERIOD_S))),
            Err(error) => {
                tracing::error!(%error, "what is due by lifecycle rules was not all done; it is tried again in an hour");
                model::storage::later(now, PERIOD_S)
            }
        };
        tokio::select! {
            () = cx.clock.until(next) => {}
            // An error means that the sender is gone.
            _ = stop.wait_for(|stop| *stop) => return,
        }
    }
}

/// Does what is due; when the next of what was deleted softly ends.
pub(crate) async fn pass(cx: &Context, now: Timestamp) -> Result<Option<Timestamp>, Status> {
    let buckets: Vec<Versioned<Bucket>> = records::all(&cx.store, key::BUCKETS)?;
    for bucket in buckets.iter().map(|bucket| &bucket.value).filter(|bucket| !bucket.lifecycle.is_empty()) {
        rules_apply(cx, bucket, now).await?;
    }
    uploads_abort(cx, &buckets, now).await?;
    notifications_end(cx).await?;
    deleted_end(cx, &buckets, now).await
}

async fn rules_apply(cx: &Context, bucket: &Bucket, now: Timestamp) -> Result<(), Status> {
    let mut after: Option<String> = None;
    // All versions of one name, oldest first.
    let mut group: Vec<Object> = Vec::new();
    loop {
        let page = cx.versions(bucket, "", after.as_deref(), BATCH)?;
        let Some(last) = page.last() else { break };
        after = Some(object::object_place(&last.value));
        for found in page {
            if group.first().is_some_and(|first| first.name != found.value.name) {
                group_apply(cx, bucket, std::mem::take(&mut group), now).await?;
            }
            group.push(found.value);
        }
    }
    group_apply(cx, bucket, group, now).await
}

async fn group_apply(cx: &Context, bucket: &Bucket, group: Vec<Object>, now: Timestamp) -> Result<(), Status> {
    // Time is behind it, and nobody else.
    let (count, none) = (group.len(), Hops::default());
    for (at, object) in group.into_iter().enumerate() {
        let class = if object.storage_class.is_empty() { bucket.storage_class.clone() } else { object.storage_class.clone() };
        let newer = u32::try_from(count - 1 - at).unwrap_or(u32::MAX);
        let Some(due) = lifecycle::due(&bucket.lifecycle, &object, &class, newer, now) else { continue };
        // As it was seen, or not at all.
        let seen = Preconditions { generation_match: Some(object.generation), metageneration_match: Some(object.metageneration), ..Preconditions::default() };
        let done = match due {
            Due::Delete => {
                let generation = object.noncurrent.map(|_| object.generation);
                cx.object_delete(&bucket.name, &object.name, generation, &seen, &none).await
            }
            Due::SetStorageClass(class) => cx.object_update(Object { storage_class: class, ..object }, &seen, UnlockedRetention::Kept, &none).await.map(drop),
        };
        match done {
            // Held, retained, or changed meanwhile: looked at again in an hour.
            Err(status) if matches!(status.code, Code::PermissionDenied | Code::FailedPrecondition | Code::NotFound) => {}
            other => other?,
        }
    }
    Ok(())
}

/// Gives up multipart uploads that a rule ends, those that got no part for long, and those into buckets that are gone.
async fn uploads_abort(cx: &Context, buckets: &[Versioned<Bucket>], now: Timestamp) -> Result<(), Status> {
    /// The part of an upload's record that counts here.
    #[derive(Deserialize)]
    struct Upload {
        bucket: String,
        #[serde(default)]
        bucket_created: Option<Timestamp>,
        name: String,
        begun: Timestamp,
        #[serde(default)]
        touched: Option<Timestamp>,
    }
    let mut after: Option<String> = None;
    loop {
        let records = cx.store.scan(key::MULTIPART_UPLOADS, after.as_deref(), BATCH).map_err(Status::internal)?;
        let Some(last) = records.last() else { return Ok(()) };
        after = Some(last.key.clone());
        for record in &records {
            let upload: Upload = record.json().map_err(Status::internal)?;
            let is_same = |bucket: &Bucket| upload.bucket_created.is_none_or(|created| created == bucket.created);
            let bucket = buckets.iter().find(|bucket| bucket.value.name == upload.bucket).filter(|bucket| is_same(&bucket.value));
            let is_idle = model::storage::later(upload.touched.unwrap_or(upload.begun), MULTIPART_IDLE_MAX_S) <= now;
            if !is_idle && bucket.is_some_and(|bucket| !lifecycle::upload_due(&bucket.value.lifecycle, &upload.name, upload.begun, now)) {
                continue;
            }
            let parts = records::keys(&cx.store, &key::multipart_parts(&record.key[key::MULTIPART_UPLOADS.len()..]))?;
            let mut writes: Vec<Write> = parts.into_iter().map(|key| Write::delete(key, Expect::Any)).collect();
            writes.push(Write::delete(record.key.as_str(), Expect::Revision(record.revision)));
            // One that got another part meanwhile is looked at again in an hour.
            records::commit(&cx.store, writes).await?;
        }
    }
}

/// Forgets the notifications of buckets that are gone.
async fn notifications_end(cx: &Context) -> Result<(), Status> {
    let mut ended = Vec::new();
    for key in records::keys(&cx.store, key::NOTIFICATIONS)? {
        let Some((bucket, _)) = key[key::NOTIFICATIONS.len()..].split_once('/') else { continue };
        let found: Option<Versioned<Bucket>> = records::read(&cx.store, &key::bucket(bucket))?;
        let is_its = |bucket: &Versioned<Bucket>| key.starts_with(&key::notifications_of(&bucket.value.name, bucket.value.created.as_microsecond()));
        if !found.as_ref().is_some_and(is_its) {
            ended.push(Write::delete(key, Expect::Any));
        }
    }
    // Nothing more happens in a bucket that is gone: when no change waits now, its last one was told.
    if !ended.is_empty() && cx.store.scan(key::OBJECT_CHANGES, None, 1).map_err(Status::internal)?.is_empty() {
        records::commit(&cx.store, ended).await?;
    }
    Ok(())
}

/// Forgets what can no longer be restored, and what is left of buckets that are gone.
async fn deleted_end(cx: &Context, buckets: &[Versioned<Bucket>], now: Timestamp) -> Result<Option<Timestamp>, Status> {
    let known: HashSet<String> = buckets.iter().map(|bucket| object::generations_of(key::OBJECTS_DELETED, &bucket.value)).collect();
    let (mut after, mut next): (Option<String>, Option<Timestamp>) = (None, None);
    loop {
        let records = cx.store.scan(key::OBJECTS_DELETED, after.as_deref(), BATCH).map_err(Status::internal)?;
        let Some(last) = records.last() else { return Ok(next) };
        after = Some(last.key.clone());
        let mut ended = Vec::new();
        for record in &records {
            let until = record.json::<Object>().map_err(Status::internal)?.soft_deleted.map(|deleted| deleted.until);
            let folder: String = record.key.splitn(4, '/').take(3).flat_map(|part| [part, "/"]).collect();
            match until {
                Some(until) if until > now && known.contains(&folder) => next = Some(next.map_or(until, |next| next.min(until))),
                _ => ended.push(Write::delete(record.key.as_str(), Expect::Revision(record.revision))),
            }
        }
        if !ended.is_empty() {
            records::commit(&cx.store, ended).await?;
        }
    }
}
