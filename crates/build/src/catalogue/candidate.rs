//! Running a candidate safely, and remembering what it said.

use std::{
    collections::BTreeMap,
    io::Read,
    os::unix::{fs::MetadataExt, process::CommandExt},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::record;

/// How long an interpreter may take to say what it is.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes that a candidate may say.
const SAID_MAX_BYTES: u64 = 64 << 10;

/// Asks, unless the answer is remembered.
pub(super) struct Asker {
    file: Option<PathBuf>,
    before: BTreeMap<String, Answer>,
    now: Mutex<BTreeMap<String, Answer>>,
}

/// What a file said, and which file that was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Answer {
    inode: u64,
    bytes: u64,
    changed: (i64, i64),
    said: String,
}

impl Asker {
    pub(super) fn remembering(file: Option<&Path>) -> Self {
        let before = file.and_then(|file| record::read(file).ok().flatten()).unwrap_or_default();
        Self { file: file.map(Path::to_owned), before, now: Mutex::default() }
    }

    /// Its standard output.
    pub(super) fn ask(&self, path: &Path, arguments: &[&str]) -> Result<String, String> {
        let meta = path.metadata().map_err(|e| e.to_string())?;
        let name = format!("{} {}", path.display(), hex::encode(Sha256::digest(arguments.join("\n"))));
        let is_same = |known: &&Answer| (known.inode, known.bytes, known.changed) == (meta.ino(), meta.size(), (meta.ctime(), meta.ctime_nsec()));
        let said = match self.before.get(&name).filter(is_same) {
            Some(known) => known.said.clone(),
            None => run(path, arguments)?,
        };
        let answer = Answer { inode: meta.ino(), bytes: meta.size(), changed: (meta.ctime(), meta.ctime_nsec()), said: said.clone() };
        self.now.lock().insert(name, answer);
        Ok(said)
    }

    /// Remembers what was said now and nothing else.
    pub(super) fn keep(&self) {
        let now = self.now.lock();
        if let Some(file) = self.file.as_ref().filter(|_| *now != self.before)
            && let Err(e) = record::write(file, &*now)
        {
            tracing::debug!("remembering interpreters: {e}");
        }
    }
}

/// Runs a candidate with an empty environment as whoever could have written it.
fn run(path: &Path, arguments: &[&str]) -> Result<String, String> {
    let mut command = Command::new(path);
    command.args(arguments).env_clear().env("LANG", "C.UTF-8").current_dir("/").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    if let Some((uid, gid)) = path_owner(path)? {
        command.uid(uid).gid(gid);
    }
    let mut child = command.spawn().map_err(|e| format!("cannot be run: {e}"))?;
    let stdout = child.stdout.take().ok_or("has no output")?;
    let reader = std::thread::spawn(move || {
        let mut said = String::new();
        stdout.take(SAID_MAX_BYTES).read_to_string(&mut said).map(|_| said)
    });
    let deadline = Instant::now() + TIMEOUT;
    let status = loop {
        match child.try_wait().map_err(|e| e.to_string())? {
            Some(status) => break status,
            None if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(2)),
            None => {
                let _ = child.kill();
                let _ = child.wait();
                return Err(format!("said nothing for {} s", TIMEOUT.as_secs()));
            }
        }
    };
    if !status.success() {
        return Err(format!("ended with {status}"));
    }
    match reader.join() {
        Ok(Ok(said)) => Ok(said),
        _ => Err("said something unreadable".to_owned()),
    }
}

/// When this process is root: the uid and gid, other than root's, that own a part of the path, if any.
/// # Errors
/// When everybody or a group can write there.
pub(super) fn path_owner(path: &Path) -> Result<Option<(u32, u32)>, String> {
    if !rustix::process::geteuid().is_root() {
        return Ok(None);
    }
    let mut owner = None;
    for part in path.ancestors() {
        let meta = part.symlink_metadata().map_err(|e| format!("{}: {e}", part.display()))?;
        let sticky = meta.is_dir() && meta.mode() & 0o1000 != 0;
        if meta.mode() & 0o022 != 0 && !sticky {
            return Err(format!("passed over, as others than its owner can write {}", part.display()));
        }
        if meta.uid() != 0 {
            match owner {
                None => owner = Some((meta.uid(), meta.gid())),
                Some((uid, _)) if uid == meta.uid() => {}
                Some(_) => return Err("passed over, as its path has several owners".to_owned()),
            }
        }
    }
    Ok(owner)
}
