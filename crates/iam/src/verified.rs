//! Tokens whose signature was good, so that a request with a known token costs a hash and not an RSA verification.
//!
//! What is kept says only "these are the claims that our key signed": times, the key still being published, and the subject
//! still being there are looked at anew each time, so nothing stays valid because it is kept. Only good tokens enter;
//! a stranger cannot push others out.

use std::{collections::HashMap, mem, sync::Arc};

use parking_lot::Mutex;

use crate::{id_token::IdClaims, token::AccessClaims};

/// Tokens kept, at most.
const CAPACITY: usize = 8192;

/// What a good token says.
pub(crate) struct Verified {
    pub(crate) kid: String,
    pub(crate) claims: Claims,
}

/// A token is of one kind; the other's claims do not fit it.
pub(crate) enum Claims {
    Access(AccessClaims),
    Id(IdClaims),
}

/// Two generations: when the young one is full it becomes the old one, and what was not asked for since is forgotten.
#[derive(Default)]
pub(crate) struct Cache(Mutex<Generations>);

#[derive(Default)]
struct Generations {
    young: HashMap<[u8; 32], Arc<Verified>>,
    old: HashMap<[u8; 32], Arc<Verified>>,
}

impl Cache {
    /// By the SHA-256 of the token.
    pub(crate) fn get(&self, digest: &[u8; 32]) -> Option<Arc<Verified>> {
        let mut generations = self.0.lock();
        if let Some(verified) = generations.young.get(digest) {
            return Some(verified.clone());
        }
        let verified = generations.old.remove(digest)?;
        generations.put(*digest, verified.clone());
        Some(verified)
    }

    pub(crate) fn put(&self, digest: [u8; 32], verified: Arc<Verified>) {
        self.0.lock().put(digest, verified);
    }
}

impl Generations {
    fn put(&mut self, digest: [u8; 32], verified: Arc<Verified>) {
        if self.young.len() >= CAPACITY / 2 {
            self.old = mem::take(&mut self.young);
        }
        self.young.insert(digest, verified);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verified() -> Arc<Verified> {
        let claims = AccessClaims {
            iss: String::new(),
            sub: String::new(),
            email: String::new(),
            kind: crate::token::KindClaim::User,
            scope: String::new(),
            iat: 0,
            exp: 0,
        };
        Arc::new(Verified { kid: String::new(), claims: Claims::Access(claims) })
    }

    #[test]
    fn memory_is_bounded_and_what_is_used_stays() {
        let cache = Cache::default();
        let used = [0xff; 32];
        cache.put(used, verified());
        for at in 0..3 * CAPACITY as u64 {
            let mut digest = [0; 32];
            digest[..8].copy_from_slice(&at.to_le_bytes());
            cache.put(digest, verified());
            assert!(cache.get(&used).is_some(), "{at}");
            let generations = cache.0.lock();
            assert!(generations.young.len() + generations.old.len() <= CAPACITY);
        }
        assert!(cache.get(&[0; 32]).is_none());
    }
}
