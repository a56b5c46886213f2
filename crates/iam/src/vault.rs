//! The vault: seals secrets' payloads so that whoever has the store's files, or a copy of them, has none of the payloads.
//!
//! AES-256-GCM by aws-lc-rs, with a random nonce each time and the payload's own name as associated data: sealed bytes that
//! were moved under another name do not open. The keys lie in a file of their own, `0600`, apart from the store's files: a
//! copy of the store without it holds nothing that can be read. Each line of the file is a number and a key in hexadecimal;
//! the last one seals, all of them open, so that a new key can be put behind the others.
//!
//! Memory: keys and payloads are wiped when they are dropped. What passed through the network's buffers is not.

use std::{
    collections::BTreeMap,
    fmt,
    fs::{File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use aws_lc_rs::aead::{AES_256_GCM, Aad, Nonce, RandomizedNonceKey};
use model::key;
use store::Store;
use zeroize::Zeroizing;

/// Sealed bytes begin with it.
const FORMAT: u8 = 1;
const KEY_BYTES: usize = 32;
const NONCE_BYTES: usize = 12;
const HEAD_BYTES: usize = 1 + 4 + NONCE_BYTES;
/// A file of keys, in bytes, at most.
const FILE_MAX_BYTES: u64 = 64 << 10;

/// A secret's payload, wiped when it is dropped and never printed.
#[derive(Clone)]
pub struct Payload(Zeroizing<Vec<u8>>);

impl Payload {
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(Zeroizing::new(bytes))
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Payload({} bytes)", self.0.len())
    }
}

/// Why there is no vault.
#[derive(Debug, thiserror::Error)]
pub enum VaultError {
    #[error("{step} {}", path.display())]
    File { step: &'static str, path: PathBuf, source: io::Error },
    #[error("{} can be read by others (mode {mode:04o})\nhint: it holds the keys of all secrets; chmod 600 it", path.display())]
    Open { path: PathBuf, mode: u32 },
    #[error("{} is no file of keys: line {line} is not a number and 64 hexadecimal digits, in rising order of numbers", path.display())]
    Shape { path: PathBuf, line: usize },
    #[error("{} is not there, and the store holds secrets that only its keys open\nhint: put the file back from your backup; without it, delete the secrets' store", path.display())]
    Lost { path: PathBuf },
    #[error(transparent)]
    Store(#[from] store::Error),
}

/// The sealed bytes do not open: they are damaged, belong elsewhere, or their key is not in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a sealed payload does not open: it is damaged, of another name, or of a key that is not there")]
pub struct Unopened;

/// Seals and opens. Clones share it.
#[derive(Clone)]
pub struct Vault(Arc<Keys>);

struct Keys {
    by_number: BTreeMap<u32, RandomizedNonceKey>,
    /// The one that seals.
    newest: u32,
}

impl fmt::Debug for Vault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Vault(key {} of {})", self.0.newest, self.0.by_number.len())
    }
}

impl Vault {
    /// Reads the keys of the file at `path`, or makes it, synced, with a first key.
    ///
    /// # Errors
    /// [`VaultError::Lost`] when the file is not there and `store` has payloads that it would open.
    pub fn open(path: &Path, store: &Store) -> Result<Self, VaultError> {
        let file = |step| move |source| VaultError::File { step, path: path.to_owned(), source };
        match File::open(path) {
            Ok(opened) => read(path, opened),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                if !store.scan(key::SECRET_PAYLOADS, None, 1)?.is_empty() {
                    return Err(VaultError::Lost { path: path.to_owned() });
                }
                make(path).map_err(file("make the file of keys"))?;
                read(path, File::open(path).map_err(file("open"))?)
            }
            Err(source) => Err(file("open")(source)),
        }
    }

    /// Seals `payload` under `name`; opens under the same name only.
    pub fn seal(&self, name: &str, payload: &Payload) -> Vec<u8> {
        let key = &self.0.by_number[&self.0.newest];
        let mut sealed = payload.as_bytes().to_vec();
        let nonce = key.seal_in_place_append_tag(Aad::from(name), &mut sealed).expect("a payload is far below what AES-GCM seals");
        let head = [&[FORMAT][..], &self.0.newest.to_be_bytes(), nonce.as_ref()].concat();
        sealed.splice(0..0, head);
        sealed
    }

    /// # Errors
    /// [`Unopened`].
    pub fn unseal(&self, name: &str, sealed: &[u8]) -> Result<Payload, Unopened> {
        let (head, body) = sealed.split_at_checked(HEAD_BYTES).ok_or(Unopened)?;
        let (format, number, nonce) = (head[0], &head[1..5], &head[5..]);
        let number = u32::from_be_bytes(number.try_into().map_err(|_| Unopened)?);
        let key = self.0.by_number.get(&number).filter(|_| format == FORMAT).ok_or(Unopened)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| Unopened)?;
        let mut bytes = Zeroizing::new(body.to_vec());
        let length = key.open_in_place(nonce, Aad::from(name), &mut bytes).map_err(|_| Unopened)?.len();
        bytes.truncate(length);
        Ok(Payload(bytes))
    }
}

/// Written beside its place and moved there, so that a file that is there is whole.
fn make(path: &Path) -> io::Result<()> {
    let key = Zeroizing::new(rand::random::<[u8; KEY_BYTES]>());
    let text = Zeroizing::new(format!("1 {}\n", *Zeroizing::new(hex::encode(*key))));
    let beside = path.with_extension("new");
    match std::fs::remove_file(&beside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    std::fs::rename(&beside, path)?;
    match path.parent() {
        Some(folder) => File::open(folder)?.sync_all(),
        None => Ok(()),
    }
}

fn read(path: &Path, file: File) -> Result<Vault, VaultError> {
    let failed = |source| VaultError::File { step: "read", path: path.to_owned(), source };
    let mode = file.metadata().map_err(failed)?.mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(VaultError::Open { path: path.to_owned(), mode });
    }
    // Room from the start: a text that grows leaves copies behind.
    let mut text = Zeroizing::new(String::with_capacity(FILE_MAX_BYTES as usize));
    file.take(FILE_MAX_BYTES).read_to_string(&mut text).map_err(failed)?;
    let mut by_number = BTreeMap::new();
    for (at, line) in text.lines().enumerate() {
        let shape = || VaultError::Shape { path: path.to_owned(), line: at + 1 };
        let (number, digits) = line.split_once(' ').ok_or_else(shape)?;
        let number: u32 = number.parse().map_err(|_| shape())?;
        let mut key = Zeroizing::new([0; KEY_BYTES]);
        hex::decode_to_slice(digits, &mut *key).map_err(|_| shape())?;
        if by_number.last_key_value().is_some_and(|(last, _)| *last >= number) {
            return Err(shape());
        }
        by_number.insert(number, RandomizedNonceKey::new(&AES_256_GCM, &*key).map_err(|_| shape())?);
    }
    let newest = *by_number.last_key_value().ok_or_else(|| VaultError::Shape { path: path.to_owned(), line: 1 })?.0;
    Ok(Vault(Arc::new(Keys { by_number, newest })))
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _};

    use store::{Expect, Write};

    use super::*;

    fn open(dir: &Path) -> Result<Vault, VaultError> {
        Vault::open(&dir.join("vault.keys"), &Store::open(&dir.join("state")).unwrap())
    }

    #[test]
    fn what_is_sealed_opens_under_its_name_only() {
        let dir = tempfile::tempdir().unwrap();
        let vault = open(dir.path()).unwrap();
        for bytes in [Vec::new(), b"canary".to_vec(), vec![7; 64 << 10]] {
            let sealed = vault.seal("a", &Payload::new(bytes.clone()));
            assert_eq!(vault.unseal("a", &sealed).unwrap().as_bytes(), bytes);
            assert_ne!(sealed, vault.seal("a", &Payload::new(bytes.clone())), "two seals differ");
            assert!(bytes.is_empty() || !sealed.windows(bytes.len()).any(|part| part == bytes));
            assert_eq!(vault.unseal("b", &sealed).unwrap_err(), Unopened);
        }
        let sealed = vault.seal("a", &Payload::new(b"canary".to_vec()));
        for at in 0..sealed.len() {
            let mut damaged = sealed.clone();
            damaged[at] ^= 1;
            assert!(vault.unseal("a", &damaged).is_err(), "byte {at}");
            assert!(vault.unseal("a", &sealed[..at]).is_err(), "cut at {at}");
        }
    }

    #[test]
    fn keys_outlive_the_process_and_older_ones_still_open() {
        let dir = tempfile::tempdir().unwrap();
        let sealed = open(dir.path()).unwrap().seal("a", &Payload::new(b"x".to_vec()));
        let path = dir.path().join("vault.keys");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
        let text = fs::read_to_string(&path).unwrap();
        fs::write(&path, format!("{text}2 {}\n", "ab".repeat(32))).unwrap();
        let vault = open(dir.path()).unwrap();
        assert_eq!(vault.unseal("a", &sealed).unwrap().as_bytes(), b"x");
        assert_eq!(vault.seal("a", &Payload::new(Vec::new()))[1..5], [0, 0, 0, 2]);
        fs::write(&path, format!("2 {}\n", "ab".repeat(32))).unwrap();
        assert_eq!(open(dir.path()).unwrap().unseal("a", &sealed).unwrap_err(), Unopened);
    }

    #[test]
    fn files_that_cannot_be_trusted_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        open(dir.path()).unwrap();
        let path = dir.path().join("vault.keys");
        let good = fs::read_to_string(&path).unwrap();
        for bad in ["".to_owned(), "1".to_owned(), "x y\n".to_owned(), good[..60].to_owned(), format!("{good}{good}"), format!("2{}", &good[1..]) + &good] {
            fs::write(&path, &bad).unwrap();
            assert!(matches!(open(dir.path()), Err(VaultError::Shape { .. })), "{bad:?}");
        }
        fs::write(&path, &good).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(open(dir.path()), Err(VaultError::Open { mode: 0o640, .. })));
    }

    #[tokio::test]
    async fn a_lost_file_is_not_replaced_while_something_needs_it() {
        let dir = tempfile::tempdir().unwrap();
        {
            let store = Store::open(&dir.path().join("state")).unwrap();
            store.commit(vec![Write::put(format!("{}p/s/1", key::SECRET_PAYLOADS), Expect::Absent, &1)]).await.unwrap();
        }
        assert!(matches!(open(dir.path()), Err(VaultError::Lost { .. })));
        assert!(!dir.path().join("vault.keys").exists());
    }

    #[test]
    fn payloads_and_vaults_are_not_printed() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(format!("{:?}", Payload::new(b"canary".to_vec())), "Payload(6 bytes)");
        assert_eq!(format!("{:?}", open(dir.path()).unwrap()), "Vault(key 1 of 1)");
    }
}
