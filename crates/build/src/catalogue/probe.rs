//! Asking a candidate what it is, and telling what else of the host it needs.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::{Interpreter, Kind, Version, candidate::Asker};
use crate::Language;

const PYTHON: &str = include_str!("../../../../runtimes/python/probe.py");
/// Says its version and platform as one line of JSON.
const NODE: &str = "console.log(JSON.stringify({ version: process.versions.node, platform: process.platform + '-' + process.arch }))";

pub(super) enum Found {
    Interpreter(Interpreter),
    Uv(PathBuf, String),
    Gradle(PathBuf),
}

/// Runs it. The text of a failure names the path.
pub(super) fn candidate(asker: &Asker, kind: Kind, path: &Path) -> Result<Found, String> {
    let found = match kind {
        Kind::Python => python(asker, path).map(Found::Interpreter),
        Kind::Node => node(asker, path).map(Found::Interpreter),
        Kind::Go => go(asker, path).map(Found::Interpreter),
        Kind::Java => java(asker, path).map(Found::Interpreter),
        Kind::Uv => uv(asker, path),
        // Starting it takes seconds and writes to a home: it is asked when it is used, inside.
        Kind::Gradle => super::candidate::path_owner(path).and_then(|_| prefix(path, &["lib/plugins"])).map(|_| Found::Gradle(path.to_owned())),
    };
    found.map_err(|why| format!("{}: {why}", path.display()))
}

#[derive(Deserialize)]
struct Python {
    implementation: String,
    version: String,
    release: bool,
    base_prefix: PathBuf,
    base_exec_prefix: PathBuf,
    #[serde(rename = "virtual")]
    is_virtual: bool,
    stdlib: PathBuf,
    platform: String,
}

fn python(asker: &Asker, path: &Path) -> Result<Interpreter, String> {
    let said = asker.ask(path, &["-I", "-c", PYTHON])?;
    let probed: Python = serde_json::from_str(&said).map_err(|e| format!("does not say what it is: {e}"))?;
    if probed.implementation != "cpython" {
        return Err(format!("is {}, not CPython", probed.implementation));
    }
    if probed.is_virtual {
        return Err("belongs to a virtual environment".to_owned());
    }
    let version = version(&probed.version)?;
    if !probed.release {
        return Err(format!("is a pre-release of {version}"));
    }
    let mut runtime_paths = host_paths();
    for needed in [probed.base_prefix.as_path(), probed.base_exec_prefix.as_path(), probed.stdlib.as_path(), path] {
        let Ok(real) = needed.canonicalize() else {
            return Err(format!("its folder {} is not there", needed.display()));
        };
        // Its scripts and its configuration name the folder as it calls it itself.
        if real != needed {
            return Err(format!("its folder {} is a link", needed.display()));
        }
        if real == path && !is_within(&real, &runtime_paths) {
            return Err(format!("lies outside of its prefix {}", probed.base_prefix.display()));
        }
        path_add(&real, &mut runtime_paths)?;
    }
    // Looked at now: what it said itself may be remembered from before pip came.
    let debian = probed.stdlib.parent().map(|lib| lib.join("python3/dist-packages/pip"));
    let has_pip = probed.stdlib.join("site-packages/pip").is_dir() || debian.is_some_and(|pip| pip.is_dir());
    let packager = has_pip.then(|| path.to_owned());
    Ok(Interpreter { language: Language::Python, version, path: path.to_owned(), runtime_paths, layer: None, platform: probed.platform, packager })
}

fn node(asker: &Asker, path: &Path) -> Result<Interpreter, String> {
    #[derive(Deserialize)]
    struct Node {
        version: String,
        platform: String,
    }
    let said = asker.ask(path, &["-e", NODE])?;
    let probed: Node = serde_json::from_str(&said).map_err(|e| format!("does not say what it is: {e}"))?;
    let prefix = prefix(path, &["include/node", "lib/node_modules"])?;
    let mut runtime_paths = host_paths();
    path_add(&prefix, &mut runtime_paths)?;
    let npm = ["lib/node_modules/npm", "share/nodejs/npm"].map(|folder| prefix.join(folder).join("bin/npm-cli.js"));
    let packager = npm.into_iter().find(|npm| npm.is_file());
    Ok(Interpreter {
        language: Language::Nodejs,
        version: version(&probed.version)?,
        path: path.to_owned(),
        runtime_paths,
        layer: None,
        platform: probed.platform,
        packager,
    })
}

fn go(asker: &Asker, path: &Path) -> Result<Interpreter, String> {
    let said = asker.ask(path, &["version"])?;
    // `go version go1.26.8 linux/amd64`
    let words: Vec<&str> = said.split_whitespace().collect();
    let (Some(name), Some(platform)) = (words.get(2).and_then(|word| word.strip_prefix("go")), words.get(3)) else {
        return Err("does not say which Go it is".to_owned());
    };
    let root = prefix(path, &["pkg/tool", "src/runtime"])?;
    let mut runtime_paths = host_paths();
    path_add(&root, &mut runtime_paths)?;
    Ok(Interpreter {
        language: Language::Go,
        version: version(name)?,
        path: path.to_owned(),
        runtime_paths,
        layer: None,
        platform: (*platform).to_owned(),
        packager: Some(path.to_owned()),
    })
}

fn java(asker: &Asker, path: &Path) -> Result<Interpreter, String> {
    let said = asker.ask(path, &["--version"])?;
    // `openjdk 17.0.15 2025-04-15`
    let name = said.split_whitespace().nth(1).ok_or("does not say which Java it is")?;
    let home = prefix(path, &["release"])?;
    let mut runtime_paths = host_paths();
    path_add(&home, &mut runtime_paths)?;
    // Debian keeps a JDK's settings below /etc and links to them. Its trusted roots are another matter: a root has its own.
    for folder in ["conf", "lib/security"] {
        for entry in std::fs::read_dir(home.join(folder)).into_iter().flatten().flatten() {
            let Ok(real) = entry.path().canonicalize() else { continue };
            if entry.file_name() == "cacerts" || is_within(&real, &runtime_paths) {
                continue;
            }
            // `/etc/java-17-openjdk/security/x`: all of `/etc/java-17-openjdk`.
            let mut parts = real.iter();
            let (Some(root), Some(etc), Some(name)) = (parts.next(), parts.next(), parts.next()) else { continue };
            path_add(&Path::new(root).join(etc).join(name), &mut runtime_paths)?;
        }
    }
    let javac = home.join("bin/javac");
    Ok(Interpreter {
        language: Language::Java,
        version: version(name)?,
        path: path.to_owned(),
        runtime_paths,
        layer: None,
        platform: format!("linux-{}", std::env::consts::ARCH),
        packager: javac.is_file().then_some(javac),
    })
}

fn uv(asker: &Asker, path: &Path) -> Result<Found, String> {
    let said = asker.ask(path, &["--version"])?;
    let mut words = said.split_whitespace();
    match (words.next(), words.next()) {
        (Some("uv"), Some(version)) => Ok(Found::Uv(path.to_owned(), version.to_owned())),
        _ => Err("does not say that it is uv".to_owned()),
    }
}

fn version(text: &str) -> Result<Version, String> {
    Version::parse(text).ok_or_else(|| format!("has version {text:?}"))
}

/// The folder above the `bin` that a program lies in, all of which sandboxes will see. So it must be the host's /usr, or hold one of `signs`:
/// a program that somebody laid into `~/bin` does not show the home.
fn prefix(path: &Path, signs: &[&str]) -> Result<PathBuf, String> {
    let prefix = path.parent().filter(|bin| bin.ends_with("bin")).and_then(Path::parent).ok_or("lies in no folder named bin")?;
    if !prefix.starts_with("/usr") && !signs.iter().any(|sign| prefix.join(sign).exists()) {
        return Err(format!("lies in {}, which is no folder of its own: it has none of {}", prefix.display(), signs.join(", ")));
    }
    Ok(prefix.to_owned())
}

/// What every dynamic program of the host needs.
pub(crate) fn host_paths() -> Vec<PathBuf> {
    let mut paths = vec![PathBuf::from("/usr")];
    // Hosts whose /lib is not a link into /usr.
    for path in ["/lib", "/lib64", "/lib32", "/bin", "/sbin"] {
        if Path::new(path).symlink_metadata().is_ok_and(|meta| meta.is_dir()) {
            paths.push(path.into());
        }
    }
    paths
}

fn is_within(path: &Path, paths: &[PathBuf]) -> bool {
    paths.iter().any(|known| path.starts_with(known))
}

fn path_add(path: &Path, paths: &mut Vec<PathBuf>) -> Result<(), String> {
    if path == Path::new("/") || path == Path::new("") {
        return Err("its prefix is the whole host".to_owned());
    }
    if !is_within(path, paths) {
        paths.push(path.to_owned());
    }
    Ok(())
}
