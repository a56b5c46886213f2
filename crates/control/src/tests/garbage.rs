//! What nobody needs goes, and nothing else.

use ::store::{Expect, Write};
use model::{Code, build::StorageSource, image::Layer};

use super::*;
use crate::{
    Preconditions,
    reconcile::garbage::{Swept, sweep},
};

const HOUR: i64 = 3600;

/// A sweep as it will be in so many seconds.
async fn swept(plane: &Plane, seconds: i64) -> Swept {
    let now = Timestamp::from_second(Timestamp::now().as_second() + seconds).unwrap();
    sweep(&plane.control.context, now, true).await.unwrap()
}

fn layer(plane: &Plane, text: &str) -> String {
    let staging = plane.store.layers().staging().unwrap();
    std::fs::write(staging.path().join("f"), text).unwrap();
    staging.commit().unwrap()
}

/// An image as a build leaves it, with one layer.
async fn image(plane: &Plane, name: &str) -> (ImageDigest, String) {
    let layer = layer(plane, name);
    let manifest = Image { layers: vec![Layer { digest: layer.clone(), target: "/workspace".into() }], ..plane.world.manifest.clone() };
    let hex = plane.store.blobs().put(&serde_json::to_vec(&manifest).unwrap()).unwrap();
    let digest = ImageDigest::parse(&format!("sha256:{hex}")).unwrap();
    let mut writes = crate::image::image_writes(name, &digest);
    writes.push(Write::put(format!("manifest/{hex}"), Expect::Any, &"python312"));
    plane.store.commit(writes).await.unwrap();
    (digest, layer)
}

fn has_blob(plane: &Plane, id: &str) -> bool {
    plane.store.blobs().open(id).unwrap().is_some()
}

fn has_layer(plane: &Plane, digest: &str) -> bool {
    plane.store.layers().path(digest).is_some()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_named_stays_and_the_rest_goes_when_it_is_old() {
    let (plane, _) = super::build::plane().await;
    let any = Preconditions::default();
    let put = async |name: &str, bytes: &[u8]| plane.control.object_put(storage::object(&plane, "sources", name, bytes), &any).await.unwrap().value;
    let kept = put("kept", b"kept").await.blob;
    let deleted = put("deleted", b"deleted").await.blob;
    // Two objects of the same bytes, of which one goes.
    put("deleted too", b"kept").await;
    // The source of a build that is not done, whose object is written over.
    let source = put("source", b"before").await;
    let wanted = StorageSource { bucket: source.bucket, object: source.name, generation: source.generation };
    plane.control.build_submit(&owner(), super::build::request(&wanted, &[("GATE", "built")])).await.unwrap();
    put("source", b"after").await;
    for name in ["deleted", "deleted too"] {
        plane.control.object_delete("sources", name, None, &any).await.unwrap();
    }
    // A part of an upload, in the shape that `api` gives it.
    let part = plane.store.blobs().put(b"part").unwrap();
    plane.store.commit(vec![Write::put("upload/part/x/0", Expect::Any, &serde_json::json!({ "blob": part, "size": 4 }))]).await.unwrap();
    let stray = (plane.store.blobs().put(b"stray").unwrap(), layer(&plane, "stray"));
    let cached = layer(&plane, "cached");
    plane.world.cached.lock().insert(cached.clone());

    assert_eq!(swept(&plane, 0).await, Swept::default(), "all is young");
    assert_eq!(swept(&plane, 2 * HOUR).await, Swept { images: 0, blobs: 2, layers: 1 });
    assert!([&kept, &source.blob, &part].iter().all(|id| has_blob(&plane, id)) && has_layer(&plane, &cached));
    assert!(!has_blob(&plane, &deleted) && !has_blob(&plane, &stray.0) && !has_layer(&plane, &stray.1));

    // Once the build is done, nobody needs its source.
    plane.world.open("built");
    plane.until("the build is done", || plane.control.build_list(&project(), &region(), 9).unwrap()[0].state.is_done()).await;
    assert_eq!(swept(&plane, 2 * HOUR).await, Swept { blobs: 1, ..Swept::default() });
    assert!(!has_blob(&plane, &source.blob) && has_blob(&plane, &kept));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_goes_a_day_after_its_last_revision() {
    let plane = Plane::new().await;
    let (digest, code) = image(&plane, IMAGE).await;
    *plane.world.digest.lock() = digest.clone();
    plane.create(service("f")).await;
    assert_eq!(state(&plane.settled("f").await, "Ready"), State::True);
    let unused = image(&plane, "asia-northeast1-docker.pkg.dev/local-project/cloud-run-source-deploy/unused").await;

    assert_eq!(swept(&plane, 23 * HOUR).await, Swept::default());
    assert_eq!(swept(&plane, 25 * HOUR).await, Swept { images: 1, blobs: 1, layers: 1 });
    assert!(!has_blob(&plane, unused.0.hex()) && !has_layer(&plane, &unused.1));
    assert!(plane.store.scan("image/", None, 100).unwrap().iter().all(|record| !record.key.contains("unused")));
    assert!(has_blob(&plane, digest.hex()) && has_layer(&plane, &code));

    // Its instances may still drain; whoever deploys it again finds it.
    plane.control.service_delete(&owner(), &key("f"), None).await.unwrap();
    plane.gone("f").await;
    assert_eq!(swept(&plane, 23 * HOUR).await, Swept::default());
    plane.create(service("g")).await;
    plane.settled("g").await;
    assert_eq!(swept(&plane, 25 * HOUR).await, Swept::default());
    plane.control.service_delete(&owner(), &key("g"), None).await.unwrap();
    plane.gone("g").await;
    assert_eq!(swept(&plane, 25 * HOUR).await, Swept { images: 1, blobs: 1, layers: 1 });
    assert!(!has_blob(&plane, digest.hex()) && !has_layer(&plane, &code));
    assert_eq!(plane.control.service_create(&owner(), service("h"), false).await.unwrap_err().code, Code::InvalidArgument);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_cannot_be_read_stops_the_sweep() {
    let plane = Plane::new().await;
    let id = plane.store.blobs().put(b"perhaps needed").unwrap();
    plane.store.commit(vec![Write::put("object/b/1/o", Expect::Any, &"no object")]).await.unwrap();
    let later = Timestamp::from_second(Timestamp::now().as_second() + 9 * HOUR).unwrap();
    assert_eq!(sweep(&plane.control.context, later, true).await.unwrap_err().code, Code::Internal);
    assert!(has_blob(&plane, &id));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_that_cannot_be_read_stops_the_sweep() {
    let plane = Plane::new().await;
    let (digest, code) = image(&plane, IMAGE).await;
    *plane.world.digest.lock() = digest.clone();
    plane.create(service("f")).await;
    plane.settled("f").await;
    let stray = layer(&plane, "stray");
    plane.store.blobs().delete(digest.hex()).unwrap();
    let later = Timestamp::from_second(Timestamp::now().as_second() + 9 * HOUR).unwrap();
    assert_eq!(sweep(&plane.control.context, later, true).await.unwrap_err().code, Code::Internal);
    assert!(has_layer(&plane, &code) && has_layer(&plane, &stray));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_control_plane_sweeps_by_itself() {
    let mut plane = Plane::new().await;
    let id = plane.store.blobs().put(b"left by an earlier process").unwrap();
    plane.world.clock.advance(2 * HOUR);
    plane.restart().await;
    plane.until("the blob is gone", || !has_blob(&plane, &id)).await;
}
