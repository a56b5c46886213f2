//! Keys of service accounts, as key files hold them: the private half is given away once and not kept. Those whose private half
//! is kept are made in `managed_key` and lie in the same table, so that both verify alike.

use base64::{Engine, engine::general_purpose::STANDARD};
use model::{Code, Status, Timestamp, key};
use serde::{Deserialize, Serialize};
use store::{CommitError, Expect, Write};

use crate::{
    Iam, ServiceAccountKey, keys,
    table::{ParseError, Table},
};

/// Of one account, in key files, as at Google.
const KEYS_MAX: usize = 10;
const ID_DIGITS: usize = 40;

/// A key with its halves ready for use.
pub(crate) struct AccountKey {
    pub(crate) key: ServiceAccountKey,
    pub(crate) public: keys::PublicKey,
    /// Of a managed key.
    pub(crate) private: Option<keys::PrivateKey>,
}

/// As it lies in the store.
#[derive(Serialize, Deserialize)]
pub(crate) struct KeyRecord {
    #[serde(flatten)]
    pub(crate) key: ServiceAccountKey,
    /// The private half of a managed key, in base64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) pkcs8: Option<String>,
}

/// Keys are looked up by `EMAIL/ID`.
pub(crate) fn table() -> Table<AccountKey> {
    Table::new(
        key::SERVICE_ACCOUNT_KEYS,
        |rest| rest,
        |bytes| {
            let KeyRecord { key, pkcs8 } = serde_json::from_slice(bytes)?;
            let bad = || ParseError::Content(keys::NotAKey.to_string());
            let public = keys::PublicKey::from_pem(&key.public_key_pem).map_err(|_| bad())?;
            let private = |pkcs8: String| keys::PrivateKey::from_pkcs8(&STANDARD.decode(pkcs8).map_err(|_| bad())?).map_err(|_| bad());
            Ok(AccountKey { key, public, private: pkcs8.map(private).transpose()? })
        },
    )
}

impl Iam {
    /// The key and, only here and never again, its private half in PKCS#8 PEM.
    ///
    /// `expires` is the end of the calendar (Google writes 9999-12-31T23:59:59Z): such keys live until they are deleted.
    /// # Errors
    /// `NOT_FOUND`; `FAILED_PRECONDITION` when the account has ten keys.
    pub async fn key_create(&self, email: &str) -> Result<(ServiceAccountKey, String), Status> {
        self.service_account_get(None, email)?;
        let private = tokio::task::spawn_blocking(keys::PrivateKey::generate).await.map_err(Status::internal)?;
        let _one_at_a_time = self.inner.changes.lock().await;
        // Looked at again under the lock: the account may have gone while its key was made.
        let account = self.service_account_get(None, email)?;
        if self.keys_of(&account.email).iter().filter(|key| !key.managed).count() >= KEYS_MAX {
            return Err(Status::new(
                Code::FailedPrecondition,
                format!("Service account {} has {KEYS_MAX} keys already, as many as it can have; delete one.", account.email),
            ));
        }
        let end = Timestamp::from_second(Timestamp::MAX.as_second()).expect("a second of the calendar");
        let key = key_new(account.email, &private, self.inner.clock.now(), end);
        let write = Write::put(key::service_account_key(&key.email, &key.id), Expect::Absent, &key);
        self.commit(vec![write]).await.map_err(Status::internal)?;
        Ok((key, keys::pem("PRIVATE KEY", &private.to_pkcs8())))
    }

    /// Those that are valid now, managed ones too, oldest first.
    ///
    /// # Errors
    /// `NOT_FOUND` for an unknown account.
    pub fn key_list(&self, email: &str) -> Result<Vec<ServiceAccountKey>, Status> {
        let account = self.service_account_get(None, email)?;
        let now = self.inner.clock.now();
        let mut keys = self.keys_of(&account.email);
        keys.retain(|key| key.expires > now);
        keys.sort_by(|a, b| (a.created, &a.id).cmp(&(b.created, &b.id)));
        Ok(keys)
    }

    /// What the key signed is refused from here on.
    ///
    /// # Errors
    /// `NOT_FOUND` for an unknown account or key; `FAILED_PRECONDITION` for a managed key.
    pub async fn key_delete(&self, email: &str, id: &str) -> Result<(), Status> {
        let account = self.service_account_get(None, email)?;
        let gone = || Status::not_found(format!("Service account key {id} does not exist."));
        let (key, revision) = self.inner.tables.account_keys.get_revision(&format!("{}/{id}", account.email)).ok_or_else(gone)?;
        if key.key.managed {
            return Err(Status::failed_precondition(format!("Service account key {id} is managed by this server, which deletes it in its time.")));
        }
        let write = Write::delete(key::service_account_key(&key.key.email, &key.key.id), Expect::Revision(revision));
        self.commit(vec![write]).await.map_err(|error| match error {
            CommitError::Conflict { .. } => gone(),
            error => Status::internal(error),
        })
    }

    fn keys_of(&self, email: &str) -> Vec<ServiceAccountKey> {
        self.inner.tables.account_keys.select(|_, key| key.key.email == email).iter().map(|key| key.key.clone()).collect()
    }
}

/// The record of a key in a key file.
pub(crate) fn key_new(email: String, private: &keys::PrivateKey, created: Timestamp, expires: Timestamp) -> ServiceAccountKey {
    let public = private.public();
    let mut id = hex::encode(keys::digest(public.der()));
    id.truncate(ID_DIGITS);
    ServiceAccountKey { email, id, created, expires, public_key_pem: public.to_pem(), disabled: false, managed: false }
}
