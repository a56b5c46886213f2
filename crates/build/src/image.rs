//! Manifests: an image's JSON, kept as a blob named by its hash.
//!
//! A manifest names folders of the host, and anybody who may upload an object can make a blob of any bytes. So a blob is a
//! manifest only when a record says that a build made it: the record is the trust, the hash is the name.

use model::image::{Image, ImageDigest};
use store::{Expect, Write};

use crate::{Error, step::blocking};

/// Records of manifests that builds made: `manifest/HEX`. Persisted.
const MANIFESTS: &str = "manifest/";
/// Bytes of one.
const MANIFEST_MAX_BYTES: u64 = 4 << 20;

/// Keeps a manifest and returns its digest. The same image gives the same digest.
pub(crate) async fn image_put(store: &store::Store, image: &Image) -> Result<ImageDigest, Error> {
    let internal = |e: &dyn std::fmt::Display| Error::Internal(format!("keeping the manifest: {e}"));
    let bytes = serde_json::to_vec(image).map_err(|e| internal(&e))?;
    let blobs = store.clone();
    let id = blocking(move || blobs.blobs().put(&bytes)).await?.map_err(|e| internal(&e))?;
    let digest = ImageDigest::parse(&format!("sha256:{id}")).ok_or_else(|| internal(&format!("its id {id:?} is no digest")))?;
    let key = format!("{MANIFESTS}{}", digest.hex());
    if store.get(&key).map_err(|e| internal(&e))?.is_none() {
        store.commit(vec![Write::put(key, Expect::Any, &image.runtime)]).await.map_err(|e| internal(&e))?;
    }
    Ok(digest)
}

/// The manifest behind a digest, if a build of this store made it.
pub fn image_get(store: &store::Store, digest: &ImageDigest) -> Result<Option<Image>, store::Error> {
    if store.get(&format!("{MANIFESTS}{}", digest.hex()))?.is_none() {
        return Ok(None);
    }
    let Some(file) = store.blobs().open(digest.hex())? else {
        return Ok(None);
    };
    if file.metadata().is_ok_and(|meta| meta.len() > MANIFEST_MAX_BYTES) {
        return Ok(None);
    }
    let Some(bytes) = store.blobs().read(digest.hex())? else {
        return Ok(None);
    };
    Ok(serde_json::from_slice(&bytes).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_what_a_build_made_is_an_image() {
        let dir = tempfile::tempdir().unwrap();
        let store = store::Store::open(&dir.path().join("store")).unwrap();
        let image = Image {
            runtime: "python312".to_owned(),
            runtime_version: "3.12.1".to_owned(),
            runtime_paths: vec!["/etc".into()],
            layers: vec![],
            command: vec!["/bin/sh".to_owned()],
            working_dir: "/".into(),
            env: vec![],
        };
        // As an uploaded object would be.
        let id = store.blobs().put(&serde_json::to_vec(&image).unwrap()).unwrap();
        let digest = ImageDigest::parse(&format!("sha256:{id}")).unwrap();
        assert_eq!(image_get(&store, &digest).unwrap(), None);
        assert_eq!(image_put(&store, &image).await.unwrap(), digest);
        assert_eq!(image_put(&store, &image).await.unwrap(), digest);
        assert_eq!(image_get(&store, &digest).unwrap(), Some(image));
        let other = ImageDigest::parse(&format!("sha256:{}", "0".repeat(64))).unwrap();
        assert_eq!(image_get(&store, &other).unwrap(), None);
    }
}
