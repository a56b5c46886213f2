//! Keys of service accounts, as key files hold them: the private half is given away once and not kept.

use model::{Code, Status, Timestamp, key};
use store::{CommitError, Expect, Write};

use crate::{
    Iam, ServiceAccountKey, keys,
    table::{ParseError, Table},
};

/// Of one account, as at Google.
const KEYS_MAX: usize = 10;
const ID_DIGITS: usize = 40;

/// A key with its public half ready for use.
pub(crate) struct AccountKey {
    pub(crate) key: ServiceAccountKey,
    pub(crate) public: keys::PublicKey,
}

/// Keys are looked up by `EMAIL/ID`.
pub(crate) fn table() -> Table<AccountKey> {
    Table::new(
        key::SERVICE_ACCOUNT_KEYS,
        |rest| rest,
        |bytes| {
            let key: ServiceAccountKey = serde_json::from_slice(bytes)?;
            let public = keys::PublicKey::from_pem(&key.public_key_pem).map_err(|error| ParseError::Content(error.to_string()))?;
            Ok(AccountKey { key, public })
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
        if self.keys_of(&account.email).len() >= KEYS_MAX {
            return Err(Status::new(
                Code::FailedPrecondition,
                format!("Service account {} has {KEYS_MAX} keys already, as many as it can have; delete one.", account.email),
            ));
        }
        let public = private.public();
        let mut id = hex::encode(keys::digest(public.der()));
        id.truncate(ID_DIGITS);
        let end = Timestamp::from_second(Timestamp::MAX.as_second()).expect("a second of the calendar");
        let key =
            ServiceAccountKey { email: account.email, id, created: self.inner.clock.now(), expires: end, public_key_pem: public.to_pem(), disabled: false };
        let write = Write::put(key::service_account_key(&key.email, &key.id), Expect::Absent, &key);
        self.commit(vec![write]).await.map_err(Status::internal)?;
        Ok((key, keys::pem("PRIVATE KEY", &private.to_pkcs8())))
    }

    /// Oldest first.
    ///
    /// # Errors
    /// `NOT_FOUND` for an unknown account.
    pub fn key_list(&self, email: &str) -> Result<Vec<ServiceAccountKey>, Status> {
        let account = self.service_account_get(None, email)?;
        let mut keys = self.keys_of(&account.email);
        keys.sort_by(|a, b| (a.created, &a.id).cmp(&(b.created, &b.id)));
        Ok(keys)
    }

    /// What the key signed is refused from here on.
    ///
    /// # Errors
    /// `NOT_FOUND` for an unknown account or key.
    pub async fn key_delete(&self, email: &str, id: &str) -> Result<(), Status> {
        let account = self.service_account_get(None, email)?;
        let gone = || Status::not_found(format!("Service account key {id} does not exist."));
        let (key, revision) = self.inner.tables.account_keys.get_revision(&format!("{}/{id}", account.email)).ok_or_else(gone)?;
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
