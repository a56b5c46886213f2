//! Manifests: an image's JSON, kept as a blob named by its hash.
//!
//! A manifest names folders of the host, and anybody who may upload an object can make a blob of any bytes. So a blob is a
//! manifest only when a record says that a build made it: the record is the trust, the hash is the name. Whoever collects what
//! nobody needs deletes the record; its blob and its layers are then as any others.

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
    let (kept, layers) = (store.clone(), image.layers.clone());
    let put = move || {
        // They may have been there for long before this image names them.
        for layer in &layers {
            if !kept.layers().touch(&layer.digest)? {
                return Ok(Err(layer.digest.clone()));
            }
        }
        kept.blobs().put(&bytes).map(Ok)
    };
    let id = blocking(put).await?.map_err(|e: store::Error| internal(&e))?.map_err(|layer| internal(&format!("its layer {layer} is gone")))?;
    let digest = ImageDigest::parse(&format!("sha256:{id}")).ok_or_else(|| internal(&format!("its id {id:?} is no digest")))?;
    let key = format!("{MANIFESTS}{}", digest.hex());
    // Though it may be there: whoever is about to forget it must see that it was made again.
    store.commit(vec![Write::put(key, Expect::Any, &image.runtime)]).await.map_err(|e| internal(&e))?;
    Ok(digest)
}

/// The images that builds of this store made, each with the revision of its record.
pub fn images(store: &store::Store) -> Result<Vec<(ImageDigest, u64)>, store::Error> {
    const PAGE: usize = 500;
    let mut images = Vec::new();
    let mut after: Option<String> = None;
    loop {
        let records = store.scan(MANIFESTS, after.as_deref(), PAGE)?;
        for record in &records {
            let digest = ImageDigest::parse(&format!("sha256:{}", record.key.strip_prefix(MANIFESTS).unwrap_or_default()));
            let damaged = || store::Error::Damaged { key: record.key.clone(), reason: "its key names no image" };
            images.push((digest.ok_or_else(damaged)?, record.revision));
        }
        match records.last() {
            Some(last) if records.len() == PAGE => after = Some(last.key.clone()),
            _ => return Ok(images),
        }
    }
}

/// The write after which the image is none any more, unless a build made it again since `revision`.
pub fn image_forget(digest: &ImageDigest, revision: u64) -> Write {
    Write::delete(format!("{MANIFESTS}{}", digest.hex()), Expect::Revision(revision))
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
            memory_env: vec![],
            start_notes: Vec::new(),
        };
        // As an uploaded object would be.
        let id = store.blobs().put(&serde_json::to_vec(&image).unwrap()).unwrap();
        let digest = ImageDigest::parse(&format!("sha256:{id}")).unwrap();
        assert_eq!(image_get(&store, &digest).unwrap(), None);
        assert_eq!(image_put(&store, &image).await.unwrap(), digest);
        assert_eq!(image_put(&store, &image).await.unwrap(), digest);
        assert_eq!(image_get(&store, &digest).unwrap(), Some(image.clone()));
        let (_, old) = images(&store).unwrap()[0];
        image_put(&store, &image).await.unwrap();
        assert!(store.commit(vec![image_forget(&digest, old)]).await.unwrap_err().is_conflict());
        let [(listed, revision)] = &images(&store).unwrap()[..] else { panic!("one image") };
        assert_eq!(*listed, digest);
        store.commit(vec![image_forget(&digest, *revision)]).await.unwrap();
        assert_eq!(image_get(&store, &digest).unwrap(), None);
        let other = ImageDigest::parse(&format!("sha256:{}", "0".repeat(64))).unwrap();
        assert_eq!(image_get(&store, &other).unwrap(), None);
    }
}
