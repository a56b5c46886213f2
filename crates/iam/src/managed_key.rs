//! Signatures by a service account for who may ask for them: Google's signBlob and signJwt.
//!
//! The key is one that this server keeps for the account, made when the first signature is asked for. It signs for two weeks and is
//! published for two more, longer than anything lives that it signed: a signed URL lasts for a week at most, a signed JWT for
//! half a day. Private halves lie in the store in PKCS#8, as those of `signing`. Who may ask is the caller's part.

use std::{sync::Arc, time::Duration};

use base64::{Engine, engine::general_purpose::STANDARD};
use model::{Status, key};
use serde_json::{Map, Value};
use store::{Expect, Write};

use crate::{
    Iam, Identity, Kind, ServiceAccountKey, Signed, TokenError, jws, keys,
    service_account_key::{AccountKey, KeyRecord, key_new},
};

/// How long a key signs.
const SIGNS: Duration = Duration::from_secs(14 * 24 * 3600);
/// How long it is published, counted from the same instant.
const PUBLISHED: Duration = Duration::from_secs(28 * 24 * 3600);
/// How far ahead `exp` may lie. Source: google/iam/admin/v1/iam.proto, SignJwtRequest.
const JWT_LIFE_MAX_S: i64 = 12 * 3600;

impl Iam {
    /// Signs `blob` by RSASSA-PKCS1-v1_5 with SHA-256.
    ///
    /// # Errors
    /// `NOT_FOUND` for an unknown account; `INTERNAL` when a new key cannot be stored.
    pub async fn blob_sign(&self, email: &str, blob: &[u8]) -> Result<Signed<Vec<u8>>, Status> {
        let key = self.managed_key(email).await?;
        Ok(Signed { key_id: key.key.id.clone(), value: private(&key)?.sign(blob).to_vec() })
    }

    /// The account `email`, when `signature` is of `blob` by one of its keys, in a key file or managed: RSASSA-PKCS1-v1_5 with SHA-256.
    ///
    /// # Errors
    /// `Signature` for another; `Subject` for an account that is gone or disabled.
    pub fn blob_verify(&self, email: &str, blob: &[u8], signature: &[u8]) -> Result<Identity, TokenError> {
        let now = self.inner.clock.now();
        let keys = self.inner.tables.account_keys.select(|_, key| key.key.email == email && !key.key.disabled && key.key.expires > now);
        if !keys.iter().any(|key| key.public.verify(blob, signature)) {
            return Err(TokenError::Signature);
        }
        let account = self.inner.tables.accounts.get(email).filter(|account| !account.disabled).ok_or(TokenError::Subject)?;
        Ok(Identity { kind: Kind::ServiceAccount, email: account.email.clone(), subject: account.unique_id.clone() })
    }

    /// Signs `claims`, a JSON object, as they are written.
    ///
    /// # Errors
    /// As [`Iam::blob_sign`]; `INVALID_ARGUMENT` for what is no object or names a claim twice, and for an `exp` that is no whole
    /// number, past, or more than 12 hours ahead.
    pub async fn jwt_sign(&self, email: &str, claims: &str) -> Result<Signed<String>, Status> {
        let bad = |why: &str| Status::invalid_field("payload", why);
        let read: Map<String, Value> =
            jws::object(claims.as_bytes()).map_err(|_| bad("it must be a JSON object that contains a JWT Claims Set, each claim once"))?;
        if let Some(exp) = read.get("exp") {
            let exp = exp.as_i64().ok_or_else(|| bad("exp must be a whole number of seconds"))?;
            let now = self.now_s();
            if exp < now || exp > now.saturating_add(JWT_LIFE_MAX_S) {
                return Err(bad("exp must not be in the past and no more than 12 hours in the future"));
            }
        }
        let key = self.managed_key(email).await?;
        Ok(Signed { key_id: key.key.id.clone(), value: jws::sign_text(private(&key)?, &key.key.id, "JWT", claims.as_bytes()) })
    }

    /// The key that signs for the account now; made when there is none, or the newest has signed for long enough.
    async fn managed_key(&self, email: &str) -> Result<Arc<AccountKey>, Status> {
        let account = self.service_account_get(None, email)?;
        if let Some(key) = self.managed_key_find(&account.email) {
            return Ok(key);
        }
        let private = tokio::task::spawn_blocking(keys::PrivateKey::generate).await.map_err(Status::internal)?;
        let _one_at_a_time = self.inner.changes.lock().await;
        // Looked at again under the lock: the account may have gone, or another caller may have made a key.
        let account = self.service_account_get(None, email)?;
        if let Some(key) = self.managed_key_find(&account.email) {
            return Ok(key);
        }
        let now = self.inner.clock.now();
        let end = now.checked_add(PUBLISHED).map_err(Status::internal)?;
        let key = ServiceAccountKey { managed: true, ..key_new(account.email.clone(), &private, now, end) };
        let past = self.inner.tables.account_keys.select(|_, old| old.key.managed && old.key.email == account.email && old.key.expires <= now);
        let mut writes: Vec<_> = past.iter().map(|old| Write::delete(key::service_account_key(&old.key.email, &old.key.id), Expect::Any)).collect();
        let record = KeyRecord { key, pkcs8: Some(STANDARD.encode(private.to_pkcs8())) };
        writes.push(Write::put(key::service_account_key(&account.email, &record.key.id), Expect::Absent, &record));
        self.commit(writes).await.map_err(Status::internal)?;
        self.managed_key_find(&account.email).ok_or_else(|| Status::internal("a managed key went while it was made"))
    }

    fn managed_key_find(&self, email: &str) -> Option<Arc<AccountKey>> {
        let now = self.inner.clock.now();
        let keys = self.inner.tables.account_keys.select(|_, key| key.private.is_some() && key.key.email == email);
        // A key from the future, as after the clock was set back, signs on.
        let signs = |key: &AccountKey| Duration::try_from(now.duration_since(key.key.created)).unwrap_or(Duration::ZERO) < SIGNS;
        keys.into_iter().filter(|key| signs(key)).max_by_key(|key| key.key.created)
    }
}

fn private(key: &AccountKey) -> Result<&keys::PrivateKey, Status> {
    key.private.as_ref().ok_or_else(|| Status::internal("a managed key without its private half"))
}
