//! The crate as its callers see it, on a real store, with a clock that the test sets.

mod access;
mod assertion;
mod forged;
mod keys;
mod managed_key;
mod policy;
mod sign_in;
mod speed;
mod token;

use std::{
    path::Path,
    sync::{
        Arc, LazyLock,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use model::{Clock, ProjectId, ProjectNumber, Timestamp};
use store::Store;
use tempfile::TempDir;

use crate::{Iam, Identity, keys::PrivateKey, signing::SigningKey};

pub(crate) const OWNER: &str = "owner@example.com";
pub(crate) const PROJECT: &str = "local-project";
pub(crate) const COMPUTE: &str = "9000000000001-compute@developer.gserviceaccount.com";
/// 2026-11-01T00:00:00Z.
pub(crate) const START: i64 = 1_793_491_200;

/// A clock that stands until it is set.
pub(crate) struct ManualClock(AtomicI64);

impl ManualClock {
    pub(crate) fn advance(&self, by: Duration) {
        self.0.fetch_add(by.as_secs() as i64, Ordering::SeqCst);
    }

    pub(crate) fn set(&self, second: i64) {
        self.0.store(second, Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_second(self.0.load(Ordering::SeqCst)).unwrap()
    }

    fn until(&self, _: Timestamp) -> model::clock::Until {
        Box::pin(std::future::pending())
    }
}

/// An issuer on a store of its own.
pub(crate) struct World {
    pub(crate) iam: Iam,
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) store: Store,
    pub(crate) dir: TempDir,
}

/// Made once: making keys is the dear part of these tests.
pub(crate) static KEY: LazyLock<Vec<u8>> = LazyLock::new(|| PrivateKey::generate().to_pkcs8());
pub(crate) static FOREIGN_KEY: LazyLock<PrivateKey> = LazyLock::new(PrivateKey::generate);

pub(crate) fn project() -> ProjectId {
    ProjectId::parse(PROJECT).unwrap()
}

pub(crate) async fn iam_open(store: &Store, clock: &Arc<ManualClock>) -> Iam {
    Iam::open(store.clone(), clock.clone(), project(), ProjectNumber(9_000_000_000_001), OWNER).await.unwrap()
}

/// The store's directory is locked until all that held the last one is gone; tasks go when the runtime gets to them.
pub(crate) async fn store_open(dir: &Path) -> Store {
    for _ in 0..3000 {
        if let Ok(store) = Store::open(dir) {
            return store;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Store::open(dir).unwrap()
}

/// Waits for what a watch brings.
pub(crate) async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..6000 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("not within a minute: {what}");
}

impl World {
    /// With a signing key made before, since a day is not over.
    pub(crate) async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let clock = Arc::new(ManualClock(AtomicI64::new(START)));
        let store = Store::open(&dir.path().join("data")).unwrap();
        let key = SigningKey::new(PrivateKey::from_pkcs8(&KEY).unwrap(), clock.now());
        store.commit(vec![key.write()]).await.unwrap();
        let iam = iam_open(&store, &clock).await;
        Self { iam, clock, store, dir }
    }

    pub(crate) fn owner(&self) -> Identity {
        self.iam.identity(OWNER)
    }
}

/// A token of these texts, with what `sign` makes of them.
pub(crate) fn token_of(header: &str, claims: &str, sign: impl Fn(&[u8]) -> Vec<u8>) -> String {
    let signed = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
    let signature = sign(signed.as_bytes());
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
}
