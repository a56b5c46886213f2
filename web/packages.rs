//! npm's packages, for the build scripts that need them: `crates/proto` (the protos) and `crates/tanebi` (the console).

/// The folder of npm's packages, fetched by `npm ci` when they are not those of the lock file.
///
/// Two build scripts may ask at the same time: the second one waits.
pub fn packages(web: &std::path::Path) -> Result<std::path::PathBuf, Box<dyn std::error::Error>> {
    let (lock, folder) = (web.join("package-lock.json"), web.join("node_modules"));
    println!("cargo::rerun-if-changed={}", lock.display());
    let wanted = std::fs::read(&lock)?;
    // Beside the lock file, not in the folder: npm removes that.
    let one_at_a_time = std::fs::File::create(web.join(".npm-lock"))?;
    one_at_a_time.lock()?;
    let stamp = folder.join(".tanebi-lock.json");
    if std::fs::read(&stamp).is_ok_and(|fetched| fetched == wanted) {
        return Ok(folder);
    }
    let status = std::process::Command::new("npm")
        .args(["ci", "--ignore-scripts", "--no-fund", "--no-audit", "--quiet"])
        .current_dir(web)
        .status()
        .map_err(|error| format!("npm is needed to build the console and to fetch the protos of Google's APIs (apt-get install npm): {error}"))?;
    if !status.success() {
        return Err("npm ci in web/ failed: neither the console nor the protos of Google's APIs can be built".into());
    }
    std::fs::write(stamp, wanted)?;
    Ok(folder)
}
