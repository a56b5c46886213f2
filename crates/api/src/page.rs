//! Page tokens: where a list goes on, sealed so that a client can neither make one up nor carry one to another list.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use hmac::{Hmac, KeyInit, Mac};
use model::{Code, Status};
use sha2::Sha256;
use store::{CommitError, Expect, Store, Write};
use tokio::sync::OnceCell;

/// Where the sealing key lies: one for a store's life, so that tokens outlive a restart.
const KEY: &str = "pagetokenkey/1";
const MAC_BYTES: usize = 16;
/// Items of a page when the client does not say, and at most. Source: run v2's and iam's documentation.
pub(crate) const SIZE_DEFAULT: usize = 100;
pub(crate) const SIZE_MAX: usize = 1000;

/// Makes and reads page tokens.
pub(crate) struct Pages {
    store: Store,
    key: OnceCell<[u8; 32]>,
}

/// What a client asks for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Asked {
    /// The key of the last item of the page before.
    pub after: Option<String>,
    /// 1..=[`SIZE_MAX`].
    pub size: usize,
}

impl Pages {
    pub(crate) fn new(store: Store) -> Self {
        Self { store, key: OnceCell::new() }
    }

    /// Reads `token` of the list `scope` (method, project and everything else that makes it another list).
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` for a token that was not made for this list, or a negative size.
    pub(crate) async fn read(&self, scope: &str, token: &str, size: i64) -> Result<Asked, Status> {
        let size = match size {
            0 => SIZE_DEFAULT,
            1.. => usize::try_from(size).unwrap_or(SIZE_MAX).min(SIZE_MAX),
            _ => return Err(Status::invalid_field("page_size", format!("{size} is negative"))),
        };
        if token.is_empty() {
            return Ok(Asked { after: None, size });
        }
        let bad = || Status::invalid_field("page_token", "it was not made for this list; begin again without one");
        let sealed = URL_SAFE_NO_PAD.decode(token).map_err(|_| bad())?;
        if sealed.len() < MAC_BYTES {
            return Err(bad());
        }
        let (mac, after) = sealed.split_at(MAC_BYTES);
        self.mac(scope, after).await?.verify_truncated_left(mac).map_err(|_| bad())?;
        Ok(Asked { after: Some(String::from_utf8(after.to_vec()).map_err(|_| bad())?), size })
    }

    /// The token behind the item with the key `after`.
    pub(crate) async fn token(&self, scope: &str, after: &str) -> Result<String, Status> {
        let mac = self.mac(scope, after.as_bytes()).await?.finalize().into_bytes();
        Ok(URL_SAFE_NO_PAD.encode([&mac[..MAC_BYTES], after.as_bytes()].concat()))
    }

    async fn mac(&self, scope: &str, after: &[u8]) -> Result<Hmac<Sha256>, Status> {
        let key = self.key.get_or_try_init(|| self.key_load()).await?;
        let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
        // The length keeps `scope` and `after` apart.
        mac.update(&(scope.len() as u64).to_be_bytes());
        mac.update(scope.as_bytes());
        mac.update(after);
        Ok(mac)
    }

    async fn key_load(&self) -> Result<[u8; 32], Status> {
        for _ in 0..2 {
            if let Some(record) = self.store.get(KEY).map_err(Status::internal)? {
                let hex: String = record.json().map_err(Status::internal)?;
                let mut key = [0; 32];
                hex::decode_to_slice(hex, &mut key).map_err(Status::internal)?;
                return Ok(key);
            }
            let key: [u8; 32] = rand::random();
            match self.store.commit(vec![Write::put(KEY, Expect::Absent, &hex::encode(key))]).await {
                Ok(_) => return Ok(key),
                // Another process wrote it first: read that one.
                Err(CommitError::Conflict { .. }) => {}
                Err(error) => return Err(Status::internal(error)),
            }
        }
        Err(Status::new(Code::Internal, "Internal error encountered."))
    }
}
