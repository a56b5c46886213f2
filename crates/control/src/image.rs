//! Images by the names that clients give them.
//!
//! An image is there only when a build of this store left it under that name. A digest alone is never enough: blobs also
//! hold what clients upload, and a manifest decides which folders of the host an instance sees.

use model::{
    Status,
    image::{Image, ImageDigest},
    key,
};
use serde::{Deserialize, Serialize};
use store::{Expect, Write};

use crate::{Context, records};

/// What a name stands for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ImageRecord {
    pub digest: ImageDigest,
}

/// The longest reference to an image, in bytes.
pub(crate) const REFERENCE_MAX_BYTES: usize = 1024;

/// The writes that make `uri` (a repository, with or without a tag) name `digest`, and keep it findable by its digest.
pub(crate) fn image_writes(uri: &str, digest: &ImageDigest) -> Vec<Write> {
    let record = ImageRecord { digest: digest.clone() };
    let by_digest = canonical(&format!("{uri}@{digest}"));
    vec![Write::put(key::image(&by_digest), Expect::Any, &record), Write::put(key::image(&canonical(uri)), Expect::Any, &record)]
}

/// One name for all ways to write a reference: `:latest` says nothing, and beside a digest a tag says nothing.
fn canonical(reference: &str) -> String {
    let (name, digest) = match reference.split_once('@') {
        Some((name, digest)) => (name, Some(digest)),
        None => (reference, None),
    };
    // A colon before the last slash belongs to the host's port.
    let tag = name.rfind(':').filter(|colon| name.rfind('/').is_none_or(|slash| slash < *colon));
    match (tag, digest) {
        (Some(colon), Some(digest)) => format!("{}@{digest}", &name[..colon]),
        (Some(colon), None) if &name[colon..] == ":latest" => name[..colon].to_owned(),
        _ => reference.to_owned(),
    }
}

impl Context {
    /// The digest that `reference` (`URI`, `URI:TAG` or `URI@sha256:HEX`) stands for now; `None` when it is the name of nothing.
    pub(crate) fn image_named(&self, reference: &str) -> Result<Option<ImageDigest>, Status> {
        if reference.is_empty() || reference.len() > REFERENCE_MAX_BYTES {
            return Ok(None);
        }
        Ok(records::read::<ImageRecord>(&self.store, &key::image(&canonical(reference)))?.map(|record| record.value.digest))
    }

    /// The image that `reference` names now; `None` when there is none. Call with `deploys` held until what needs it is stored.
    pub(crate) fn image_resolve(&self, reference: &str) -> Result<Option<(ImageDigest, Image)>, Status> {
        let Some(digest) = self.image_named(reference)? else {
            return Ok(None);
        };
        Ok(self.images.image_get(&digest).map_err(Status::internal)?.map(|image| (digest, image)))
    }
}

/// What a user reads about an image that is not here.
pub(crate) fn missing_text(reference: &str) -> String {
    format!("Image '{reference}' not found. tanebi runs functions deployed from source; deploy with --source . --function ENTRY_POINT --base-image RUNTIME")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_have_one_name() {
        for (written, name) in [
            ("r-docker.pkg.dev/p/repo/f", "r-docker.pkg.dev/p/repo/f"),
            ("r-docker.pkg.dev/p/repo/f:latest", "r-docker.pkg.dev/p/repo/f"),
            ("r-docker.pkg.dev/p/repo/f:v1", "r-docker.pkg.dev/p/repo/f:v1"),
            ("r-docker.pkg.dev/p/repo/f:v1@sha256:00", "r-docker.pkg.dev/p/repo/f@sha256:00"),
            ("localhost:5000/f", "localhost:5000/f"),
            ("localhost:5000/f@sha256:00", "localhost:5000/f@sha256:00"),
        ] {
            assert_eq!(canonical(written), name);
        }
    }
}
