//! Builds the console (`web/`) with Vite and lists its files for the binary, each compressed already.
//!
//! `TANEBI_CONSOLE_DIST` names a folder with a console that is built already: then npm is not asked.

use std::{
    env,
    error::Error,
    fmt::Write,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

#[path = "../../web/packages.rs"]
mod packages;

use packages::packages;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=../../web/packages.rs");
    println!("cargo::rerun-if-env-changed=TANEBI_CONSOLE_DIST");
    let out = PathBuf::from(env::var("OUT_DIR")?);
    let dist = match env::var("TANEBI_CONSOLE_DIST") {
        Ok(dist) => dist.into(),
        Err(_) => built(&out.join("console"))?,
    };
    let mut files = Vec::new();
    compressed(&dist, &mut files)?;
    files.sort();
    let mut table = String::from("pub static FILES: &[File] = &[\n");
    for path in files {
        let name = path.strip_prefix(&dist)?.with_extension("");
        let name = name.to_str().ok_or("a file of the console has no plain name")?;
        let gzip = path.canonicalize()?;
        let brotli = gzip.with_extension("br");
        writeln!(table, "    File {{ path: \"/{name}\", brotli: include_bytes!({brotli:?}), gzip: include_bytes!({gzip:?}) }},")?;
    }
    table.push_str("];\n");
    fs::write(out.join("console.rs"), table)?;
    Ok(())
}

/// Where Vite has left the console.
fn built(dist: &Path) -> Result<PathBuf, Box<dyn Error>> {
    let web = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?).join("../../web");
    for part in ["src", "public", "index.html", "vite.config.ts"] {
        println!("cargo::rerun-if-changed={}", web.join(part).display());
    }
    let vite = packages(&web)?.join("vite/bin/vite.js");
    let status = Command::new("node")
        .arg(vite)
        .args(["build", "--logLevel", "warn", "--emptyOutDir", "--outDir"])
        .arg(dist)
        .current_dir(&web)
        .status()
        .map_err(|error| format!("Node.js is needed to build the console (apt-get install nodejs): {error}"))?;
    if !status.success() {
        return Err("vite build in web/ failed".into());
    }
    Ok(dist.to_owned())
}

fn compressed(folder: &Path, files: &mut Vec<PathBuf>) -> Result<(), Box<dyn Error>> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            compressed(&path, files)?;
        } else if path.extension().is_some_and(|extension| extension == "gz") {
            files.push(path);
        }
    }
    Ok(())
}
