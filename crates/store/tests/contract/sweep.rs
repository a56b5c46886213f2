//! Sweeps: what is on the list stays, what is young stays, what is put meanwhile stays; the rest goes.

use std::{
    collections::HashSet,
    fs::{self, File},
    path::PathBuf,
    time::{Duration, SystemTime},
};

use store::Store;
use tempfile::TempDir;

use crate::{folder, open};

const HOUR: Duration = Duration::from_secs(3600);

/// A store, and a time before all that is put into it.
struct Place {
    folder: TempDir,
    store: Store,
    since: SystemTime,
}

impl Place {
    fn new() -> Self {
        let folder = folder();
        let since = fs::metadata(folder.path()).unwrap().modified().unwrap() - HOUR;
        Self { store: open(&folder), folder, since }
    }

    fn layer(&self, text: &str) -> String {
        let staging = self.store.layers().staging().unwrap();
        fs::write(staging.path().join("f"), text).unwrap();
        staging.commit().unwrap()
    }

    fn path(&self, kind: Kind, id: &str) -> PathBuf {
        match kind {
            Kind::Blob => self.folder.path().join("blobs").join(&id[..2]).join(id),
            Kind::Layer => self.folder.path().join("layers").join(id),
        }
    }

    fn put(&self, kind: Kind, text: &str) -> String {
        match kind {
            Kind::Blob => self.store.blobs().put(text.as_bytes()).unwrap(),
            Kind::Layer => self.layer(text),
        }
    }

    /// As if it had been put two hours ago.
    fn age(&self, kind: Kind, id: &str) {
        File::open(self.path(kind, id)).unwrap().set_modified(self.since - HOUR).unwrap();
    }

    fn touch(&self, kind: Kind, id: &str) -> bool {
        match kind {
            Kind::Blob => self.store.blobs().touch(id).unwrap(),
            Kind::Layer => self.store.layers().touch(id).unwrap(),
        }
    }

    fn touched(&self, kind: Kind, id: &str) -> Option<SystemTime> {
        match kind {
            Kind::Blob => self.store.blobs().touched(id).unwrap(),
            Kind::Layer => self.store.layers().touched(id).unwrap(),
        }
    }

    fn sweep(&self, kind: Kind, keep: &[&String]) -> usize {
        let keep: HashSet<String> = keep.iter().map(|id| (*id).clone()).collect();
        match kind {
            Kind::Blob => self.store.blobs().sweep(&keep, self.since).unwrap(),
            Kind::Layer => self.store.layers().sweep(&keep, self.since).unwrap(),
        }
    }

    fn is_whole(&self, kind: Kind, id: &str, text: &str) -> bool {
        match kind {
            Kind::Blob => self.store.blobs().read(id).unwrap().is_some_and(|found| found == text.as_bytes()),
            Kind::Layer => self.store.layers().path(id).is_some_and(|path| fs::read_to_string(path.join("f")).unwrap() == text),
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Blob,
    Layer,
}

#[test]
fn what_is_needed_or_young_stays_and_the_rest_goes() {
    for kind in [Kind::Blob, Kind::Layer] {
        let place = Place::new();
        let [needed, young, old, again, touched] = ["needed", "young", "old", "again", "touched"].map(|text| place.put(kind, text));
        for id in [&needed, &old, &again, &touched] {
            place.age(kind, id);
        }
        assert_eq!(place.put(kind, "again"), again);
        assert!(place.touch(kind, &touched));
        assert!(place.touched(kind, &old).unwrap() < place.since && place.touched(kind, &again).unwrap() >= place.since);
        assert_eq!(place.sweep(kind, &[&needed]), 1, "{kind:?}");
        for (id, text) in [(&needed, "needed"), (&young, "young"), (&again, "again"), (&touched, "touched")] {
            assert!(place.is_whole(kind, id, text), "{kind:?} {text}");
        }
        assert!(!place.path(kind, &old).exists(), "{kind:?}");
        assert!(!place.touch(kind, &old) && place.touched(kind, &old).is_none());
        // It can come back.
        assert_eq!(place.put(kind, "old"), old);
        assert!(place.is_whole(kind, &old, "old"));
        for odd in ["", "..", "../../state.db"] {
            assert!(!place.touch(kind, odd) && place.touched(kind, odd).is_none());
        }
    }
}

#[test]
fn what_is_put_again_during_a_sweep_survives() {
    for kind in [Kind::Blob, Kind::Layer] {
        let place = Place::new();
        let id = place.put(kind, "x");
        let mut swept = 0;
        for round in 0..100 {
            place.age(kind, &id);
            std::thread::scope(|scope| {
                let sweeping = scope.spawn(|| place.sweep(kind, &[]));
                assert_eq!(place.put(kind, "x"), id);
                swept += sweeping.join().unwrap();
            });
            assert!(place.is_whole(kind, &id, "x"), "{kind:?}, round {round}, swept {swept} times");
        }
    }
}

#[test]
fn who_has_a_blob_open_reads_it_to_its_end() {
    use std::io::Read as _;
    let place = Place::new();
    let id = place.put(Kind::Blob, "text");
    place.age(Kind::Blob, &id);
    let mut file = place.store.blobs().open(&id).unwrap().unwrap();
    assert_eq!(place.sweep(Kind::Blob, &[]), 1);
    let mut text = String::new();
    file.read_to_string(&mut text).unwrap();
    assert_eq!(text, "text");
}
