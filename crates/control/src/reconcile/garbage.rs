//! What nobody needs any more: images that no revision has, blobs and layers that nothing names.
//!
//! Marks what is named, then removes the rest. Two ages make that safe without stopping the world. Whoever is about to name
//! a blob or a layer puts or touches it first, and what is younger than an hour stays whether it is named or not. And an image
//! stays for a day after a revision was last seen to have it: instances that are still draining run from its layers.
//!
//! Its one exception to reading the store alone: the build's caches say which layers they name. See
//! docs/decisions/0005-what-nobody-needs-is-swept.md.

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, SystemTime},
};

use model::{Revision, Service, Status, Timestamp, image::ImageDigest, key};
use parking_lot::Mutex;
use serde::Deserialize;
use store::{Change, Expect, Write};

use super::Reconciler;
use crate::{Context, build::BuildRecord, image::ImageRecord, records};

/// Between two sweeps, and between two when something was deleted since the last one.
const PERIOD: Duration = Duration::from_secs(60 * 60);
const PERIOD_MIN: Duration = Duration::from_secs(5 * 60);
/// How long a blob or a layer stays after it was put or touched. Between that and the commit that names it lies at most a build.
const AGE_MIN: Duration = Duration::from_secs(60 * 60);
/// How long an image stays after it was built or a revision was last seen to have it.
const IMAGE_AGE_MIN: Duration = Duration::from_secs(24 * 60 * 60);
/// Images that one commit forgets.
const BATCH: usize = 100;
/// The one key.
const SWEEP: &str = "sweep";

pub(crate) struct Garbage {
    cx: Arc<Context>,
    last: Mutex<Option<Timestamp>>,
    /// Something was deleted since, or the last sweep failed.
    is_asked: AtomicBool,
}

impl Garbage {
    pub(crate) fn new(cx: Arc<Context>) -> Self {
        Self { cx, last: Mutex::default(), is_asked: AtomicBool::default() }
    }
}

fn is_due(last: Option<Timestamp>, is_asked: bool, now: Timestamp) -> bool {
    let period = if is_asked { PERIOD_MIN } else { PERIOD };
    // A clock that was set back does not put it off.
    last.is_none_or(|last| now < last || now.duration_since(last).unsigned_abs() >= period)
}

impl Reconciler for Garbage {
    const NAME: &'static str = "garbage";
    const PREFIXES: &'static [&'static str] = &[key::SERVICES, key::REVISIONS, key::OBJECTS, key::OBJECT_VERSIONS, key::OBJECTS_DELETED];

    fn parallel(&self) -> usize {
        1
    }

    fn concerned(&self, change: &Change) -> Vec<String> {
        if change.value.is_none() {
            self.is_asked.store(true, Ordering::Release);
        }
        Vec::new()
    }

    fn all(&self) -> Result<Vec<String>, Status> {
        Ok(vec![SWEEP.to_owned()])
    }

    async fn step(&self, _key: &str) -> Result<(), Status> {
        let now = self.cx.files_clock.now();
        if is_due(*self.last.lock(), self.is_asked.load(Ordering::Acquire), now) {
            self.is_asked.store(false, Ordering::Release);
            let last = self.last.lock().replace(now);
            // Whoever was told of an image before a long stop gets until the second sweep to deploy it.
            let swept = sweep(&self.cx, now, last.is_some()).await.inspect_err(|_| self.is_asked.store(true, Ordering::Release))?;
            tracing::debug!(?swept, "what nobody needs is gone");
        }
        Ok(())
    }
}

/// What a sweep removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Swept {
    pub images: usize,
    pub blobs: usize,
    pub layers: usize,
}

/// `forgets`: whether images may go too.
///
/// # Errors
/// `INTERNAL`; then nothing was removed that is named, but perhaps not all that is not.
pub(crate) async fn sweep(cx: &Arc<Context>, now: Timestamp, forgets: bool) -> Result<Swept, Status> {
    let images = images_forget(cx, now, forgets).await?;
    let cx = cx.clone();
    let swept = tokio::task::spawn_blocking(move || {
        let named = Named::read(&cx)?;
        let since = before(now, AGE_MIN)?;
        let blobs = cx.store.blobs().sweep(&named.blobs, since).map_err(Status::internal)?;
        let layers = cx.store.layers().sweep(&named.layers, since).map_err(Status::internal)?;
        Ok(Swept { images, blobs, layers })
    });
    swept.await.map_err(Status::internal)?
}

fn before(now: Timestamp, age: Duration) -> Result<SystemTime, Status> {
    Ok(SystemTime::try_from(now).map_err(Status::internal)? - age)
}

/// Touches the images that are used, and forgets those that no revision has had for a day, and their names; how many.
async fn images_forget(cx: &Arc<Context>, now: Timestamp, forgets: bool) -> Result<usize, Status> {
    // Whoever looked one up has stored by now what needs it, or looks it up when it is gone.
    let _nobody_deploys = cx.deploys.write().await;
    let reading = cx.clone();
    let forgotten = tokio::task::spawn_blocking(move || images_unused(&reading, now)).await.map_err(Status::internal)??;
    if !forgets {
        return Ok(0);
    }
    let mut count = 0;
    for batch in forgotten.chunks(BATCH) {
        // One that was made again meanwhile holds its batch up until the next sweep.
        if records::commit(&cx.store, batch.iter().flatten().cloned().collect()).await?.is_some() {
            count += batch.len();
        }
    }
    Ok(count)
}

/// Touches the images that are used; for each that is not, and was not for long, the writes that forget it.
fn images_unused(cx: &Context, now: Timestamp) -> Result<Vec<Vec<Write>>, Status> {
    let mut used: HashSet<ImageDigest> = HashSet::new();
    for revision in records::all::<Revision>(&cx.store, key::REVISIONS)? {
        used.extend(revision.value.image);
    }
    for service in records::all::<Service>(&cx.store, key::SERVICES)? {
        // Its revision is perhaps not made yet.
        used.extend(cx.image_named(&service.value.template.container.image)?);
    }
    let mut names: HashMap<ImageDigest, Vec<Write>> = HashMap::new();
    records::each(&cx.store, key::IMAGES, |record| {
        let named: ImageRecord = record.json().map_err(Status::internal)?;
        names.entry(named.digest).or_default().push(Write::delete(record.key.as_str(), Expect::Revision(record.revision)));
        Ok(())
    })?;
    let (blobs, since) = (cx.store.blobs(), before(now, IMAGE_AGE_MIN)?);
    // First, so that a sweep which ends below ages none of them.
    for digest in &used {
        blobs.touch(digest.hex()).map_err(Status::internal)?;
    }
    let images = build::images(&cx.store).map_err(Status::internal)?;
    whole(cx)?;
    let mut unused = Vec::new();
    for (digest, revision) in images {
        if used.contains(&digest) {
            continue;
        }
        if blobs.touched(digest.hex()).map_err(Status::internal)?.is_none_or(|touched| touched < since) {
            let mut writes = names.remove(&digest).unwrap_or_default();
            writes.push(build::image_forget(&digest, revision));
            unused.push(writes);
        }
    }
    Ok(unused)
}

/// A list that lacks a damaged record is no list of what is needed.
fn whole(cx: &Context) -> Result<(), Status> {
    match cx.store.damaged().as_slice() {
        [key, ..] => Err(Status::internal(format!("nothing is swept while records are damaged: {key:?} may name what would be removed"))),
        [] if cx.store.is_whole() => Ok(()),
        [] => Err(Status::internal("nothing is swept while records are missing: they may name what would be removed")),
    }
}

/// The blobs and layers that must stay.
#[derive(Default)]
struct Named {
    blobs: HashSet<String>,
    layers: HashSet<String>,
}

impl Named {
    fn read(cx: &Context) -> Result<Self, Status> {
        /// The part of an object's record that counts here.
        #[derive(Deserialize)]
        struct Object {
            blob: String,
        }
        let mut named = Self { layers: cx.images.layers_cached().map_err(Status::internal)?, blobs: cx.store.logs().blobs_named().map_err(Status::internal)? };
        for prefix in [key::OBJECTS, key::OBJECT_VERSIONS, key::OBJECTS_DELETED] {
            records::each(&cx.store, prefix, |record| {
                named.blobs.insert(record.json::<Object>().map_err(Status::internal)?.blob);
                Ok(())
            })?;
        }
        records::each(&cx.store, key::UPLOADS, |record| {
            // Their shape is the business of who writes them.
            named.blobs.extend(digests_in(&record.value));
            Ok(())
        })?;
        for build in records::all::<BuildRecord>(&cx.store, key::BUILDS)? {
            if !build.value.build.state.is_done() {
                named.blobs.insert(build.value.archive);
            }
        }
        for (digest, _) in build::images(&cx.store).map_err(Status::internal)? {
            let image = build::image_get(&cx.store, &digest).map_err(Status::internal)?;
            let image = image.ok_or_else(|| Status::internal(format!("nothing is swept while an image cannot be read: {digest}, which may name layers")))?;
            named.layers.extend(image.layers.into_iter().map(|layer| layer.digest));
            named.blobs.insert(digest.hex().to_owned());
        }
        whole(cx)?;
        Ok(named)
    }
}

/// Whatever in a record looks like the name of a blob.
fn digests_in(bytes: &[u8]) -> impl Iterator<Item = String> {
    let runs = bytes.split(|byte| !byte.is_ascii_hexdigit()).filter(|run| run.len() == 64);
    runs.map(|run| String::from_utf8_lossy(run).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sweep_is_due_at_the_start_each_hour_and_a_while_after_a_deletion() {
        let at = |minute: i64| Timestamp::from_second(1_800_000_000 + 60 * minute).unwrap();
        for (last, is_asked, now, expect) in [
            (None, false, 0, true),
            (Some(0), false, 59, false),
            (Some(0), false, 60, true),
            (Some(0), true, 4, false),
            (Some(0), true, 5, true),
            (Some(9), false, 0, true),
        ] {
            assert_eq!(is_due(last.map(at), is_asked, at(now)), expect, "{last:?} {is_asked} {now}");
        }
    }

    #[test]
    fn names_of_blobs_are_found_in_any_record() {
        let (a, b) = ("a".repeat(64), "0".repeat(64));
        let text = format!(r#"{{"state":{{"Whole":{{"blob":"{a}","md5":"abc="}}}},"id":"{}","blob":"{b}"}}"#, "c".repeat(65));
        assert_eq!(digests_in(text.as_bytes()).collect::<Vec<_>>(), [a, b]);
        assert_eq!(digests_in(b"").count(), 0);
    }
}
