//! The keys that sign what is issued here: kept, rotated, published.
//!
//! A key signs for 24 h and is published for 48 h more, so that whoever holds a list of keys is never surprised. A new key
//! is published half an hour before it signs, for those who cached the list. Rotation happens at start and whenever
//! `Iam::rotate` is called; between two calls nothing here changes.
//!
//! Private halves lie in the store in PKCS#8: the data directory is closed to others (0700).

use std::{sync::Arc, time::Duration};

use base64::{Engine, engine::general_purpose::STANDARD};
use model::{Status, Timestamp, key::SIGNING_KEYS};
use parking_lot::RwLock;
use serde::{Deserialize, Serialize};
use serde_json::json;
use store::{Expect, Write};

use crate::{
    Iam, keys,
    table::{ParseError, Table},
};

/// How long the newest key is the newest.
const ROTATION: Duration = Duration::from_secs(24 * 3600);
/// How long a key is published after it was the newest.
const OVERLAP: Duration = Duration::from_secs(48 * 3600);
/// How long a new key is published before it signs.
const AHEAD: Duration = Duration::from_secs(30 * 60);

/// A key of this issuer.
pub(crate) struct SigningKey {
    /// Its thumbprint (RFC 7638).
    pub(crate) kid: String,
    created: Timestamp,
    pub(crate) private: keys::PrivateKey,
    pub(crate) public: keys::PublicKey,
}

/// As it lies in the store.
#[derive(Serialize, Deserialize)]
struct KeyRecord {
    created: Timestamp,
    /// Base64.
    pkcs8: String,
}

/// The key that signs now; empty only while the first one is being made.
pub(crate) type Signer = RwLock<Option<Arc<SigningKey>>>;

pub(crate) fn table() -> Table<SigningKey> {
    Table::new(
        SIGNING_KEYS,
        |rest| rest,
        |bytes| {
            let record: KeyRecord = serde_json::from_slice(bytes)?;
            let bad = || ParseError::Content(keys::NotAKey.to_string());
            let pkcs8 = STANDARD.decode(&record.pkcs8).map_err(|_| bad())?;
            Ok(SigningKey::new(keys::PrivateKey::from_pkcs8(&pkcs8).map_err(|_| bad())?, record.created))
        },
    )
}

impl SigningKey {
    pub(crate) fn new(private: keys::PrivateKey, created: Timestamp) -> Self {
        let (n, e) = private.jwk_parts();
        // The members that RFC 7638 names for RSA, in its order.
        let thumbprint = keys::digest(format!(r#"{{"e":"{e}","kty":"RSA","n":"{n}"}}"#).as_bytes());
        let kid = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(thumbprint);
        Self { kid, created, public: private.public(), private }
    }

    /// What puts it into the store, under its `kid`.
    pub(crate) fn write(&self) -> Write {
        let record = KeyRecord { created: self.created, pkcs8: STANDARD.encode(self.private.to_pkcs8()) };
        Write::put(format!("{SIGNING_KEYS}{}", self.kid), Expect::Absent, &record)
    }

    /// How old it is; zero for one from the future, as after the clock was set back.
    fn age(&self, now: Timestamp) -> Duration {
        now.duration_since(self.created).try_into().unwrap_or(Duration::ZERO)
    }
}

impl Iam {
    /// Makes a new key when the newest is a day old, drops keys whose time has passed, and chooses the one that signs.
    ///
    /// Idempotent; for the start and an hourly tick.
    /// # Errors
    /// `INTERNAL` when the store does not take the change; then the old keys stay in use.
    pub async fn rotate(&self) -> Result<(), Status> {
        let _one_at_a_time = self.inner.rotation.lock().await;
        let now = self.inner.clock.now();
        let keys = self.signing_keys();
        let mut writes = Vec::new();
        if keys.first().is_none_or(|newest| newest.age(now) >= ROTATION) {
            let key = tokio::task::spawn_blocking(move || SigningKey::new(keys::PrivateKey::generate(), now)).await.map_err(Status::internal)?;
            tracing::info!(kid = key.kid, "new signing key");
            writes.push(key.write());
        }
        // Counted from when the next key took over: one that signed for long, as on a machine that slept, is not cut short.
        for (newer, old) in keys.iter().zip(keys.iter().skip(1)).filter(|(newer, _)| newer.age(now) >= OVERLAP + AHEAD) {
            debug_assert!(newer.created >= old.created);
            tracing::info!(kid = old.kid, "signing key dropped");
            writes.push(Write::delete(format!("{SIGNING_KEYS}{}", old.kid), Expect::Any));
        }
        if !writes.is_empty() {
            self.commit(writes).await.map_err(Status::internal)?;
        }
        let keys = self.signing_keys();
        let signer = keys.iter().find(|key| key.age(now) >= AHEAD).or(keys.last()).cloned();
        *self.inner.signer.write() = signer;
        Ok(())
    }

    pub(crate) fn signer(&self) -> Arc<SigningKey> {
        self.inner.signer.read().clone().expect("`open` makes a key before it returns, and rotation always leaves one")
    }

    /// The published keys as a JWKS document (RFC 7517), newest first.
    pub fn jwks(&self) -> String {
        let keys: Vec<_> = self
            .signing_keys()
            .iter()
            .map(|key| {
                let (n, e) = key.private.jwk_parts();
                json!({"kty": "RSA", "alg": "RS256", "use": "sig", "kid": key.kid, "n": n, "e": e})
            })
            .collect();
        json!({ "keys": keys }).to_string()
    }

    /// The published keys as Google's `oauth2/v1/certs` has them: an object of PEM texts by key id.
    ///
    /// The PEM is of public keys, not of certificates; google-auth takes both.
    pub fn public_keys_pem(&self) -> String {
        let keys: serde_json::Map<_, _> = self.signing_keys().iter().map(|key| (key.kid.clone(), json!(key.public.to_pem()))).collect();
        serde_json::Value::Object(keys).to_string()
    }

    /// Newest first.
    fn signing_keys(&self) -> Vec<Arc<SigningKey>> {
        let mut keys = self.inner.tables.signing_keys.select(|_, _| true);
        keys.sort_by(|a, b| (b.created, &b.kid).cmp(&(a.created, &a.kid)));
        keys
    }
}
