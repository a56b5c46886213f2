//! The package manager: found on this host, or fetched once.
//!
//! uv is one binary in a wheel of PyPI. When the catalogue found the version that we know, that one is used; else it is
//! fetched by an interpreter's own pip, inside a sandbox, checked against the hashes that are compiled in, and kept as a
//! layer. It runs inside sandboxes only.

use std::path::{Path, PathBuf};

use sandbox::Mount;
use serde::{Deserialize, Serialize};
use tokio::sync::OwnedMutexGuard;

use super::failure::{self, Failure};
use crate::{
    Error, Interpreter, Language,
    catalogue::KNOWN,
    environment::{Access, Reach, shown},
    job::Job,
    record,
    tree::{CopyRules, TreeReader, TreeWriter},
};

/// Where it is inside.
pub(crate) const PROGRAM: &str = "/uv/uv";
/// The file that remembers the layer.
const RECORD: &str = "uv.json";
/// Bytes of the binary and what pip lays beside it; 0.13 has 70 MB.
const MAX_BYTES: u64 = 512 << 20;

/// uv, ready to be mounted.
#[derive(Clone, Debug)]
pub(crate) struct Uv {
    pub(crate) mount: Mount,
    pub(crate) version: String,
}

impl Uv {
    /// Whether we know how this version uses its cache.
    pub(crate) fn is_known(&self) -> bool {
        self.version == KNOWN.python.uv.version
    }
}

#[derive(Serialize, Deserialize)]
struct Remembered {
    version: String,
    platform: String,
    layer: String,
}

/// The layer that `dir` remembers.
pub(crate) fn layer_remembered(dir: &Path) -> Result<Option<String>, Error> {
    Ok(record::read::<Remembered>(&dir.join(RECORD))?.map(|known| known.layer))
}

/// What fetching needs. One build fetches, the others wait.
pub(crate) struct Finder<'a> {
    pub(crate) job: &'a Job<'a>,
}

impl Finder<'_> {
    /// # Errors
    /// `User` when it is not on this host and cannot be fetched.
    pub(crate) async fn find(&self, interpreter: &Interpreter) -> Result<Uv, Error> {
        let of_host = self.job.catalogue.uv().map(|(path, version)| Uv { mount: of_host(path), version: version.clone() });
        if let Some(uv) = of_host.clone().filter(Uv::is_known) {
            return Ok(uv);
        }
        if let Some(path) = self.remembered(interpreter)? {
            return Ok(of_layer(&path));
        }
        let one = self.job.tools.clone().lock_owned().await;
        if let Some(path) = self.remembered(interpreter)? {
            return Ok(of_layer(&path));
        }
        match (self.fetch(interpreter, one).await, of_host) {
            (Ok(path), _) => Ok(of_layer(&path)),
            (Err(Error::User(text)), Some(uv)) => {
                self.job.runner.log.say(format!("{text} Using uv {} of this host instead.", uv.version));
                Ok(uv)
            }
            (Err(error), _) => Err(error),
        }
    }

    fn remembered(&self, interpreter: &Interpreter) -> Result<Option<PathBuf>, Error> {
        let known: Option<Remembered> = record::read(&self.job.dir.join(RECORD))?;
        let Some(known) = known.filter(|known| known.version == KNOWN.python.uv.version && known.platform == interpreter.platform) else { return Ok(None) };
        // In use from now on, whatever another build writes into the record.
        let touched = self.job.store.layers().touch(&known.layer).map_err(|error| Error::Internal(format!("the layer of uv: {error}")))?;
        Ok(if touched { self.job.store.layers().path(&known.layer) } else { None })
    }

    /// The folder with the program, which becomes a layer beside its use.
    async fn fetch(&self, wanted: &Interpreter, one: OwnedMutexGuard<()>) -> Result<PathBuf, Error> {
        let with_pip =
            std::iter::once(wanted).chain(self.job.catalogue.of(Language::Python)).find(|found| found.packager.is_some() && found.platform == wanted.platform);
        let interpreter = with_pip.ok_or_else(|| {
            Error::User(
                "uv is needed to install dependencies. It is not on this host, and no Python here has pip to fetch it. \
                 Install uv (or pip), restart tanebi, then deploy again."
                    .to_owned(),
            )
        })?;
        let version = &KNOWN.python.uv.version;
        self.job.runner.log.say(format!("Fetching uv {version}, once for this host."));
        let out = self.job.work.folder("uv")?;
        let hashes: Vec<String> = KNOWN.python.uv.hashes.iter().map(|hash| format!("--hash=sha256:{hash}")).collect();
        let python = interpreter.path.display().to_string();
        let command = [
            python.as_str(),
            "-I",
            "-m",
            "pip",
            "install",
            "--target",
            "/out",
            "--requirement",
            "/build/uv.txt",
            "--require-hashes",
            "--only-binary",
            ":all:",
            "--no-deps",
            "--no-cache-dir",
            "--no-compile",
            "--no-input",
            "--disable-pip-version-check",
            "--quiet",
            "--progress-bar",
            "off",
        ];
        let mut spec = self.job.spec(interpreter, Reach::Registries, &command)?;
        spec.mounts.push(shown(&out, "/out", Access::Write));
        spec.files.push(("/build/uv.txt".into(), format!("uv=={version} {}\n", hashes.join(" ")).into_bytes()));
        let outcome = self.job.runner.run(spec, &out).await?;
        if !outcome.is_success() {
            let what = failure::explain(&outcome.tail);
            let advice = match what.failure {
                Failure::Network => "Connect this host to a package registry once, or install uv, then deploy again.",
                _ => "Install uv on this host, restart tanebi, then deploy again.",
            };
            return Err(Error::User(format!("uv {version} could not be fetched: {} {advice}", what.text)));
        }
        let (store, dir) = (self.job.store.clone(), self.job.dir.to_owned());
        let platform = interpreter.platform.clone();
        let bin = out.join("bin");
        TreeReader::open(&bin).map_err(|e| Error::Internal(format!("pip made no bin folder: {e}")))?;
        let kept = bin.clone();
        self.job.beside(one, move || keep(&store, &dir, &kept, platform));
        self.job.runner.log.say(format!("uv {version} is here ({:.1} s).", outcome.took.as_secs_f64()));
        Ok(bin)
    }
}

/// Takes the binary out of what pip made, and nothing else.
fn keep(store: &store::Store, dir: &Path, bin: &Path, platform: String) -> Result<(), Error> {
    let internal = |step: &str, e: &dyn std::fmt::Display| Error::Internal(format!("keeping uv: {step}: {e}"));
    let staging = store.layers().staging().map_err(|e| internal("staging", &e))?;
    let mut writer = TreeWriter::open(staging.path()).map_err(|e| internal("opening", &e))?;
    let rules = CopyRules { bytes_max: MAX_BYTES, entries_max: 10, links_below: vec![], without: vec!["uvx", "uvw"] };
    crate::tree::copy(bin, &mut writer, &rules).map_err(|e| internal("copying", &e))?;
    let layer = staging.commit().map_err(|e| internal("committing", &e))?;
    record::write(&dir.join(RECORD), &Remembered { version: KNOWN.python.uv.version.clone(), platform, layer })
}

fn of_host(path: &Path) -> Mount {
    shown(path, PROGRAM, Access::Read)
}

fn of_layer(path: &Path) -> Uv {
    Uv { mount: shown(path, "/uv", Access::Read), version: KNOWN.python.uv.version.clone() }
}
