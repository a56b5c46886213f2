//! What the steps of one build share: its source, its folder, its sandboxes, and what earlier builds left for it.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use model::{Clock, image::Layer};
use sandbox::Spec;
use sha2::{Digest, Sha256};
use tokio::sync::{Mutex, OwnedMutexGuard};

use crate::{
    Error, Interpreter,
    cache::{Cache, Caches},
    catalogue::Catalogue,
    environment::{Access, Base, Reach, shown},
    known::{Entry, KNOWN_FOLDER},
    later::Later,
    record,
    step::{Runner, blocking},
    tree::{self, Copied, CopyError, CopyRules, TreePath, TreeWriter},
    work::Work,
};

/// What was not pinned is looked up again after this. Google's buildpack: one day.
const FRESH: Duration = Duration::from_secs(24 * 60 * 60);
/// Bytes of one layer of dependencies, and its files.
const LAYER_MAX_BYTES: u64 = 4 << 30;
const LAYER_ENTRIES_MAX: usize = 200_000;

pub(crate) struct Job<'a> {
    /// The builder's folder.
    pub(crate) dir: &'a Path,
    pub(crate) store: &'a store::Store,
    pub(crate) caches: &'a Caches,
    pub(crate) catalogue: &'a Catalogue,
    pub(crate) base: &'a Base,
    pub(crate) runner: &'a Runner,
    pub(crate) work: &'a Work,
    /// What is done when the build has answered.
    pub(crate) later: &'a Later,
    pub(crate) clock: &'a dyn Clock,
    /// One build fetches a tool, the others wait for it.
    pub(crate) tools: &'a Arc<Mutex<()>>,
    /// The unpacked source.
    pub(crate) source: &'a Path,
    /// Names the source's content.
    pub(crate) archive: &'a str,
    /// Whose build it is: what foreign code may have written is shared in one project only, see [`Wishes`].
    pub(crate) project: &'a str,
    /// The user's build variables.
    pub(crate) variables: &'a [(String, String)],
}

/// What a language's build makes of a source.
pub(crate) struct Output {
    pub(crate) layers: Vec<Layer>,
    /// Where the plan could not know it.
    pub(crate) command: Option<Vec<String>>,
}

/// A tree that was kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Kept {
    pub(crate) layer: String,
    pub(crate) bytes: u64,
}

/// A layer that earlier wishes gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Known {
    pub(crate) layer: String,
    /// Whether asking again would give the same.
    pub(crate) is_fresh: bool,
}

/// Names wishes: all that decides their outcome, but time.
pub(crate) struct Wishes {
    /// For every project: only for what no code of a package, of the source or of a variable could have written.
    shared: Option<String>,
    /// For one project.
    own: String,
}

/// Whose a layer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Whose {
    Everybodys,
    Projects,
}

fn key(wishes: &serde_json::Value) -> String {
    hex::encode(Sha256::digest(wishes.to_string()))
}

/// Files by name and hash, for a [`key`].
pub(crate) fn hashes(files: &[(String, Vec<u8>)]) -> serde_json::Value {
    files.iter().map(|(name, bytes)| serde_json::json!([name, hex::encode(Sha256::digest(bytes))])).collect()
}

impl Job<'_> {
    /// A sandbox with an interpreter and nothing else.
    pub(crate) fn spec(&self, interpreter: &Interpreter, reach: Reach, command: &[&str]) -> Result<Spec, Error> {
        let mut spec = self.base.spec(self.work.sandbox_id(), interpreter, reach, command.iter().map(|word| (*word).to_owned()).collect());
        if let Some(layer) = &interpreter.layer {
            spec.mounts.push(shown(&self.layer_path(&layer.digest)?, &layer.target, Access::Read));
        }
        Ok(spec)
    }

    /// The folder of a layer that is in use.
    pub(crate) fn layer_path(&self, layer: &str) -> Result<PathBuf, Error> {
        self.store.layers().path(layer).ok_or_else(|| Error::Internal(format!("layer {layer} is gone")))
    }

    /// The names of these wishes. `Whose::Projects`: nobody else may be given what comes of them, whatever that is.
    pub(crate) fn wishes(&self, wishes: &serde_json::Value, whose: Whose) -> Wishes {
        Wishes { shared: (whose == Whose::Everybodys).then(|| key(wishes)), own: key(&serde_json::json!([self.project, wishes])) }
    }

    /// The layer of these wishes, if it is known. It is in use from now on.
    pub(crate) fn known(&self, wishes: &Wishes) -> Result<Option<Known>, Error> {
        for key in wishes.shared.iter().chain([&wishes.own]) {
            if let Some(known) = self.known_by(key)? {
                return Ok(Some(known));
            }
        }
        Ok(None)
    }

    fn known_by(&self, key: &str) -> Result<Option<Known>, Error> {
        let entry: Option<Entry> = record::read(&self.entry_path(key))?;
        let Some(entry) = entry else { return Ok(None) };
        // From here to the image that names it nothing else keeps it.
        if !self.store.layers().touch(&entry.layer).map_err(|e| Error::Internal(format!("looking for known dependencies: {e}")))? {
            return Ok(None);
        }
        // A clock that was set back makes an entry old, not eternal.
        let age = self.clock.now().duration_since(entry.made);
        let is_fresh = entry.is_locked || (!age.is_negative() && age.unsigned_abs() < FRESH);
        Ok(Some(Known { layer: entry.layer, is_fresh }))
    }

    /// Remembers what wishes gave, for everybody only where that is allowed.
    pub(crate) fn remember(&self, wishes: &Wishes, kept: &Kept, is_locked: bool, whose: Whose) -> Result<(), Error> {
        self.memory(wishes, is_locked, whose).keep(kept)
    }

    /// What remembers the layer of some wishes, as of now.
    fn memory(&self, wishes: &Wishes, is_locked: bool, whose: Whose) -> Memory {
        let key = match (&wishes.shared, whose) {
            (Some(shared), Whose::Everybodys) => shared,
            _ => &wishes.own,
        };
        Memory { path: self.entry_path(key), made: self.clock.now(), is_locked }
    }

    /// The layer of a tool of ours, which `make` fetches into a folder when it is not known. Its wishes are everybody's, so nothing of the
    /// source and no variable of the user's may take part in `make`.
    pub(crate) async fn tool(&self, wishes: &serde_json::Value, make: impl AsyncFnOnce() -> Result<PathBuf, Error>) -> Result<String, Error> {
        let wishes = self.wishes(wishes, Whose::Everybodys);
        if let Some(known) = self.known(&wishes)? {
            return Ok(known.layer);
        }
        let _one = self.tools.lock().await;
        // Another build may have fetched it meanwhile.
        if let Some(known) = self.known(&wishes)? {
            return Ok(known.layer);
        }
        let kept = self.keep(&make().await?, vec![], vec![], "a tool").await?;
        self.remember(&wishes, &kept, true, Whose::Everybodys)?;
        Ok(kept.layer)
    }

    /// As [`Job::tool`], for several that only this build's sandboxes see: where they lie. `make` gets the places of those that are not
    /// known, and gives a folder for each, which is used at once and becomes a layer beside that.
    pub(crate) async fn tools(
        &self,
        wishes: &[serde_json::Value],
        make: impl AsyncFnOnce(&[usize]) -> Result<Vec<PathBuf>, Error>,
    ) -> Result<Vec<PathBuf>, Error> {
        let wishes: Vec<Wishes> = wishes.iter().map(|wishes| self.wishes(wishes, Whose::Everybodys)).collect();
        let known =
            || wishes.iter().map(|wishes| self.known(wishes)?.map(|known| self.layer_path(&known.layer)).transpose()).collect::<Result<Vec<_>, Error>>();
        let places = known()?;
        if places.iter().all(Option::is_some) {
            return Ok(places.into_iter().flatten().collect());
        }
        let one = self.tools.clone().lock_owned().await;
        let mut places = known()?;
        let missing: Vec<usize> = (0..places.len()).filter(|at| places[*at].is_none()).collect();
        if !missing.is_empty() {
            let mut made = Vec::new();
            for (at, folder) in missing.iter().zip(make(&missing).await?) {
                places[*at] = Some(folder.clone());
                made.push((folder, self.memory(&wishes[*at], true, Whose::Everybodys)));
            }
            let store = self.store.clone();
            self.beside(one, move || {
                made.iter().try_for_each(|(folder, memory)| {
                    memory.keep(&layer_make(&store, &[], "a tool", |writer| tree::copy(folder, writer, &rules(vec![], vec![])))?)
                })
            });
        }
        Ok(places.into_iter().flatten().collect())
    }

    /// Keeps a tool while the build uses it; other builds wait for that. The folder stays until it is kept, whatever becomes of the build.
    pub(crate) fn beside(&self, one: OwnedMutexGuard<()>, keep: impl FnOnce() -> Result<(), Error> + Send + 'static) {
        let work = self.work.clone();
        tokio::task::spawn_blocking(move || {
            if let Err(e) = keep() {
                tracing::warn!("a tool will be fetched again: {e}");
            }
            drop((one, work));
        });
    }

    /// Takes a folder that a sandbox wrote as data, and makes it a layer; what is kept is in the folder no more. `links_below`: where absolute
    /// links may lead.
    /// # Errors
    /// `User` for what cannot be kept; `what` names it.
    pub(crate) async fn keep(&self, folder: &Path, links_below: Vec<String>, without: Vec<&'static str>, what: &'static str) -> Result<Kept, Error> {
        self.keep_with(folder, links_below, without, &[], what).await
    }

    /// As [`Job::keep`], with empty folders for what is laid over it.
    pub(crate) async fn keep_with(
        &self,
        folder: &Path,
        links_below: Vec<String>,
        without: Vec<&'static str>,
        places: &[&'static str],
        what: &'static str,
    ) -> Result<Kept, Error> {
        let rules = rules(links_below, without);
        let (store, folder, places) = (self.store.clone(), folder.to_owned(), places.to_vec());
        blocking(move || layer_make(&store, &places, what, |writer| tree::take(&folder, writer, &rules))).await?
    }

    /// As [`Job::keep`], when the build has answered: for what is of no image. Each wish remembers it up to so many bytes.
    pub(crate) fn keep_later(&self, folder: &Path, wishes: &[(&Wishes, bool, u64)], what: &'static str) -> Result<(), Error> {
        let folder = self.work.put_aside(folder)?;
        let memories: Vec<_> = wishes.iter().map(|(wishes, is_locked, max)| (self.memory(wishes, *is_locked, Whose::Projects), *max)).collect();
        let (store, rules) = (self.store.clone(), rules(vec![], vec![]));
        self.later.add(move || {
            let kept = layer_make(&store, &[], what, |writer| tree::take(&folder, writer, &rules))
                .and_then(|kept| memories.iter().filter(|(_, max)| kept.bytes <= *max).try_for_each(|(memory, _)| memory.keep(&kept)));
            if let Err(e) = kept {
                tracing::warn!("it will be downloaded again: {e}");
            }
        });
        Ok(())
    }

    /// Keeps what only package managers wrote to a copy of a shared folder. Lost downloads are no reason to fail a build.
    pub(crate) async fn promote(&self, cache: &Arc<Cache>, copy: &Path) -> Result<(), Error> {
        let (cache, copy) = (cache.clone(), copy.to_owned());
        blocking(move || cache.promote(&copy).unwrap_or_else(|e| tracing::warn!("{e}"))).await
    }

    /// As [`Job::promote`], when the build has answered.
    pub(crate) fn promote_later(&self, cache: &Arc<Cache>, copy: &Path) -> Result<(), Error> {
        let (cache, copy) = (cache.clone(), self.work.put_aside(copy)?);
        self.later.add(move || cache.promote(&copy).unwrap_or_else(|e| tracing::warn!("{e}")));
        Ok(())
    }

    /// Keeps the source as it was unpacked, without some names at its top, with empty folders for what is laid over it.
    pub(crate) async fn keep_source(&self, staging: store::Staging, without: &[&'static str], places: &[&'static str]) -> Result<String, Error> {
        let (without, places) = (without.to_vec(), places.to_vec());
        blocking(move || {
            let internal = |e: &dyn std::fmt::Display| Error::Internal(format!("keeping the code: {e}"));
            for name in without {
                let path = staging.path().join(name);
                let removed = match path.symlink_metadata() {
                    Ok(meta) if meta.is_dir() => std::fs::remove_dir_all(&path),
                    Ok(_) => std::fs::remove_file(&path),
                    Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
                    Err(e) => Err(e),
                };
                removed.map_err(|e| internal(&e))?;
            }
            let mut writer = TreeWriter::open(staging.path()).map_err(|e| internal(&e))?;
            places_make(&mut writer, &places, "the code")?;
            staging.commit().map_err(|e| internal(&e))
        })
        .await?
    }

    fn entry_path(&self, key: &str) -> PathBuf {
        self.dir.join(KNOWN_FOLDER).join(format!("{key}.json"))
    }
}

/// Where the layer of some wishes is remembered.
struct Memory {
    path: PathBuf,
    /// When it was asked for.
    made: model::Timestamp,
    is_locked: bool,
}

impl Memory {
    fn keep(&self, kept: &Kept) -> Result<(), Error> {
        record::write(&self.path, &Entry { layer: kept.layer.clone(), made: self.made, is_locked: self.is_locked, bytes: kept.bytes })
    }
}

fn rules(links_below: Vec<String>, without: Vec<&'static str>) -> CopyRules {
    CopyRules { bytes_max: LAYER_MAX_BYTES, entries_max: LAYER_ENTRIES_MAX, links_below, without }
}

/// A layer of what `fill` writes.
fn layer_make(store: &store::Store, places: &[&str], what: &str, fill: impl FnOnce(&mut TreeWriter) -> Result<Copied, CopyError>) -> Result<Kept, Error> {
    let internal = |e: &dyn std::fmt::Display| Error::Internal(format!("keeping {what}: {e}"));
    let staging = store.layers().staging().map_err(|e| internal(&e))?;
    let mut writer = TreeWriter::open(staging.path()).map_err(|e| internal(&e))?;
    let copied = match fill(&mut writer) {
        Ok(copied) => copied,
        Err(e @ CopyError::Io { .. }) => return Err(internal(&e)),
        Err(e) => return Err(Error::User(format!("What was built cannot be kept ({what}): {e}. Mend what makes it, then deploy again."))),
    };
    places_make(&mut writer, places, what)?;
    Ok(Kept { layer: staging.commit().map_err(|e| internal(&e))?, bytes: copied.bytes })
}

fn places_make(writer: &mut TreeWriter, places: &[&str], what: &str) -> Result<(), Error> {
    for place in places {
        let path = TreePath::parse(place.as_bytes()).map_err(|e| Error::Internal(format!("keeping {what}: {e}")))?;
        writer.folder(&path).map_err(|e| Error::User(format!("The source has a {place:?} that is no folder ({e}). Remove it, then deploy again.")))?;
    }
    Ok(())
}

/// A layer at its place in an instance.
pub(crate) fn layer(digest: String, target: &str) -> Layer {
    Layer { digest, target: target.into() }
}
