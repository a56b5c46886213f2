//! Evil source archives, uploaded and built as gcloud does: each build fails and says why, nothing is written outside, the next good one works.

use std::{
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use e2e::{PROJECT, REGION, Tanebi, holds, http1, text};
use serde_json::{Value, json};

use super::{Client, Faults, OWNER, daemon, here, resident_bytes};

const BUCKET: &str = "evil-archives-of-tanebi";
const STORAGE: &str = "storage.googleapis.com";
/// Most are refused in milliseconds; what has to be unpacked to be known takes longer where eight others compile.
const REFUSED_MAX: Duration = Duration::from_secs(60);
/// Zeros must not be held in memory.
const GROWTH_MAX_BYTES: u64 = 150 << 20;

pub(super) fn evil_archives() -> Result<()> {
    let tanebi = Tanebi::start()?;
    let client = Client::new(&tanebi, OWNER)?;
    let folder = tempfile::tempdir()?;
    let outside = tempfile::tempdir()?;
    std::fs::set_permissions(outside.path(), std::os::unix::fs::PermissionsExt::from_mode(0o777))?;
    let canary = outside.path().join("canary");
    let made = Command::new("python3").arg(here().join("archives.py")).args([folder.path(), &canary]).output()?;
    let made: Vec<(String, String)> = serde_json::from_str(&text(made, "archives.py")?)?;
    client.json("POST", STORAGE, &format!("/storage/v1/b?project={PROJECT}"), &json!({ "name": BUCKET }))?;
    let before = (daemon(&tanebi)?, resident_bytes(daemon(&tanebi)?)?);

    let faults = Faults::default();
    let mut slowest = (Duration::ZERO, "");
    for (name, why) in &made {
        let began = Instant::now();
        let build = built(&tanebi, &client, &folder.path().join(name)).with_context(|| name.clone())?;
        faults.check(name, is_refused(&build, why, tanebi.data.path()));
        slowest = slowest.max((began.elapsed(), name));
        ensure!(std::fs::read_dir(outside.path())?.next().is_none(), "{name} wrote outside");
    }
    faults.none()?;
    println!("  {} archives refused; {} took longest, {} ms", made.len(), slowest.1, slowest.0.as_millis());
    ensure!(made.len() >= 50, "only {} archives", made.len());
    ensure!(slowest.0 < REFUSED_MAX, "{} was refused after {:?}", slowest.1, slowest.0);
    ensure!(daemon(&tanebi)? == before.0, "the daemon was started again:\n{}", tanebi.output());
    let grown = resident_bytes(before.0)?.saturating_sub(before.1);
    ensure!(grown < GROWTH_MAX_BYTES, "the daemon grew by {} MiB", grown >> 20);
    let left = named(tanebi.data.path(), "zeros");
    ensure!(left.is_empty(), "what was unpacked is left behind: {left:?}");

    let good = built(&tanebi, &client, &folder.path().join("good.zip"))?;
    ensure!(good["status"] == "SUCCESS", "a good archive after all: {good}");
    Ok(())
}

/// Failed, for the reason that the text names, without telling where this server keeps things.
fn is_refused(build: &Value, why: &str, data: &Path) -> Result<()> {
    ensure!(build["status"] == "FAILURE", "it was built: {build}");
    let detail = build["failureInfo"]["detail"].as_str().or(build["statusDetail"].as_str()).unwrap_or_default();
    ensure!(!detail.is_empty(), "no reason: {build}");
    holds(detail, why)?;
    ensure!(!detail.contains(&data.display().to_string()), "the reason names the data folder: {detail}");
    Ok(())
}

/// Uploads and builds an archive; the build when it has ended.
fn built(tanebi: &Tanebi, client: &Client, archive: &Path) -> Result<Value> {
    let name = archive.file_name().and_then(|name| name.to_str()).context("a name")?;
    let content = std::fs::read(archive)?;
    let authorization = client.token.as_deref().map(super::bearer).context("a token")?;
    let target = format!("/upload/storage/v1/b/{BUCKET}/o?uploadType=media&name={name}");
    let stored = http1::call(tanebi.listen, "POST", &target, STORAGE, &[&authorization, "Content-Type: application/zip"], &content)?;
    ensure!(stored.status == 200, "{stored:?}");
    let submit = json!({
        "storageSource": { "bucket": BUCKET, "object": name },
        "imageUri": format!("{REGION}-docker.pkg.dev/{PROJECT}/cloud-run-source-deploy/evil"),
        "buildpackBuild": { "baseImage": "python312", "functionTarget": "hello" },
    });
    let submitted = client.json("POST", "run.googleapis.com", &format!("/v2/projects/{PROJECT}/locations/{REGION}/builds:submit"), &submit)?;
    let id = submitted["buildOperation"]["metadata"]["build"]["id"].as_str().with_context(|| submitted.to_string())?;
    let deadline = Instant::now() + e2e::PATIENCE;
    loop {
        let build = client.json("GET", "cloudbuild.googleapis.com", &format!("/v1/projects/{PROJECT}/locations/{REGION}/builds/{id}"), &Value::Null)?;
        if !matches!(build["status"].as_str(), Some("QUEUED" | "WORKING" | "PENDING")) {
            return Ok(build);
        }
        if Instant::now() > deadline {
            bail!("the build does not end: {build}");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Files below `folder` whose name begins so.
fn named(folder: &Path, start: &str) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with(start) {
            found.push(entry.path());
        } else if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            found.extend(named(&entry.path(), start));
        }
    }
    found
}
