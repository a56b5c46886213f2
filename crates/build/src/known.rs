//! What is known of dependencies: which wishes gave which layer, one file each.
//!
//! A cache: what is forgotten is installed again. Used last is what stays longest; a use is a touch of the layer.

use std::{
    collections::HashSet,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use model::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{Error, record};

/// The folder, below the configured one.
pub(crate) const KNOWN_FOLDER: &str = "dependencies";
/// How many are kept, and for how long without a use.
const KNOWN_MAX: usize = 10_000;
const AGE_MAX: Duration = Duration::from_secs(30 * 24 * 60 * 60);
/// Bytes of their layers together.
const MAX_BYTES: u64 = 8 << 30;

/// The layer of some wishes.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Entry {
    pub(crate) layer: String,
    pub(crate) made: Timestamp,
    pub(crate) is_locked: bool,
    /// Of the layer.
    #[serde(default)]
    pub(crate) bytes: u64,
}

struct Found {
    used: SystemTime,
    path: PathBuf,
    entry: Entry,
}

/// Forgets those above the bounds, the longest unused first, and those whose layer is gone. The layers of the others.
pub(crate) fn prune(folder: &Path, layers: &store::Layers, now: Timestamp) -> Result<HashSet<String>, Error> {
    prune_to(folder, layers, now, MAX_BYTES)
}

fn prune_to(folder: &Path, layers: &store::Layers, now: Timestamp, max_bytes: u64) -> Result<HashSet<String>, Error> {
    let fail = |path: &Path, e: &dyn std::fmt::Display| Error::Internal(format!("forgetting {}: {e}", path.display()));
    let remove = |path: &Path| match std::fs::remove_file(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(fail(path, &e)),
        _ => Ok(()),
    };
    let since = SystemTime::try_from(now).map_err(|e| Error::Internal(format!("the clock: {e}")))? - AGE_MAX;
    let mut found = Vec::new();
    for file in std::fs::read_dir(folder).map_err(|e| fail(folder, &e))? {
        let path = file.map_err(|e| fail(folder, &e))?.path();
        // One that is being written has another name for a moment.
        if path.extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        let entry = record::read::<Entry>(&path)?;
        let used = entry.as_ref().map(|entry| layers.touched(&entry.layer)).transpose().map_err(|e| fail(&path, &e))?;
        match (entry, used.flatten()) {
            (Some(entry), Some(used)) if used >= since => found.push(Found { used, path, entry }),
            _ => remove(&path)?,
        }
    }
    found.sort_by_key(|found| std::cmp::Reverse(found.used));
    let (mut kept, mut bytes) = (HashSet::new(), 0_u64);
    for (at, Found { path, entry, .. }) in found.into_iter().enumerate() {
        if !kept.contains(&entry.layer) {
            bytes = bytes.saturating_add(entry.bytes);
        }
        if at < KNOWN_MAX && bytes <= max_bytes {
            kept.insert(entry.layer);
        } else {
            remove(&path)?;
        }
    }
    Ok(kept)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_used_last_stays_longest() {
        let dir = tempfile::tempdir().unwrap();
        let store = store::Store::open(&dir.path().join("store")).unwrap();
        let folder = dir.path().join(KNOWN_FOLDER);
        std::fs::create_dir(&folder).unwrap();
        let known = |name: &str, days: u64| {
            let staging = store.layers().staging().unwrap();
            std::fs::write(staging.path().join(name), "").unwrap();
            let layer = staging.commit().unwrap();
            let file = std::fs::File::open(store.layers().path(&layer).unwrap()).unwrap();
            file.set_modified(file.metadata().unwrap().modified().unwrap() - Duration::from_secs(days * 24 * 60 * 60)).unwrap();
            let entry = Entry { layer: layer.clone(), made: Timestamp::UNIX_EPOCH, is_locked: true, bytes: 100 };
            record::write(&folder.join(format!("{name}.json")), &entry).unwrap();
            layer
        };
        let [a, b, c, _old] = [("a", 3), ("b", 1), ("c", 2), ("old", 31)].map(|(name, days)| known(name, days));
        // Wishes can share a layer, which is there once.
        std::fs::copy(folder.join("b.json"), folder.join("b2.json")).unwrap();
        std::fs::write(folder.join("broken.json"), "{").unwrap();
        std::fs::write(folder.join("gone.json"), std::fs::read_to_string(folder.join("a.json")).unwrap().replace(&a, &"0".repeat(64))).unwrap();
        std::fs::write(folder.join(".tmp1"), "being written").unwrap();
        let newest = std::fs::metadata(folder.join(".tmp1")).unwrap().modified().unwrap();
        let now = Timestamp::try_from(newest).unwrap();
        let names = || {
            let mut names: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
            names.sort();
            names
        };
        let set = |layers: &[&String]| layers.iter().map(|layer| (*layer).clone()).collect::<HashSet<_>>();
        assert_eq!(prune(&folder, store.layers(), now).unwrap(), set(&[&a, &b, &c]));
        assert_eq!(names(), [".tmp1", "a.json", "b.json", "b2.json", "c.json"]);
        assert_eq!(prune_to(&folder, store.layers(), now, 299).unwrap(), set(&[&b, &c]));
        // A use.
        assert!(store.layers().touch(&c).unwrap());
        assert_eq!(prune_to(&folder, store.layers(), now, 100).unwrap(), set(&[&c]));
        assert_eq!(names(), [".tmp1", "c.json"]);
    }
}
