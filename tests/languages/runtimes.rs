//! Base images: listed, fetched, kept, and told of when they are missing.

use std::sync::atomic::AtomicUsize;

use anyhow::{Context, Result, ensure};
use e2e::{REGION, Tanebi, holds, repository};
use serde_json::Value;

use super::{NODEJS, Service, deploy_command, installed};

pub fn runtimes_are_listed_and_installed() -> Result<()> {
    let tanebi = Tanebi::start()?;
    listed(&tanebi)?;
    refused(&tanebi)?;

    let said = tanebi.script_all("tanebi runtimes install nodejs24")?;
    for part in ["Installing nodejs24", "nodejs24 is here: Node.js 24.", "installed by tanebi"] {
        holds(&said, part)?;
    }
    ensure!(installed(&tanebi)?.iter().any(|id| id == "nodejs24"), "it is listed as installed");
    let by_gcloud = tanebi.script(&format!("gcloud functions runtimes list --region {REGION} --format 'value(name)'"))?;
    ensure!(by_gcloud.split_whitespace().eq(installed(&tanebi)?.iter().map(String::as_str)), "gcloud lists what is here: {by_gcloud}");
    let service = Service::deploy(&tanebi, "fetched", "tests/functions/nodejs", NODEJS.table, "nodejs24", "")?;
    let answer = service.get("/hello")?;
    ensure!(answer.status == 200 && answer.text() == "Hello World!", "{answer:?}");

    // A server that is started again has it still, for what was deployed and for what comes.
    let Service { name, host, .. } = service;
    let tanebi = Tanebi::start_with(tanebi.stop()?, &[])?;
    ensure!(installed(&tanebi)?.iter().any(|id| id == "nodejs24"), "it is listed after a restart");
    let answer = Service { tanebi: &tanebi, name, host, stopped: AtomicUsize::new(0) }.get("/hello")?;
    ensure!(answer.status == 200 && answer.text() == "Hello World!", "after a restart: {answer:?}");
    let again = Service::deploy(&tanebi, "again", "tests/functions/nodejs", NODEJS.table, "nodejs24", "")?;
    ensure!(again.get("/hello")?.text() == "Hello World!", "what is deployed with it after a restart answers");
    Ok(())
}

/// As a table and as JSON, the same; what is not here says how to get it.
fn listed(tanebi: &Tanebi) -> Result<()> {
    let listed: Vec<Value> = serde_json::from_str(&tanebi.script("tanebi runtimes list --json")?)?;
    let table = tanebi.script("tanebi runtimes list")?;
    holds(table.lines().next().unwrap_or_default(), "ID ")?;
    ensure!(table.lines().count() == listed.len() + 1, "a line each and a head:\n{table}");
    let text = |runtime: &Value, name: &str| runtime[name].as_str().map(str::to_owned);
    for (runtime, line) in listed.iter().zip(table.lines().skip(1)) {
        let id = text(runtime, "id").with_context(|| format!("no id: {runtime}"))?;
        let name = text(runtime, "name").with_context(|| format!("no name: {runtime}"))?;
        ensure!(line.starts_with(&format!("{id} ")) && line.contains(&name), "{line} is not {runtime}");
        match (text(runtime, "version"), text(runtime, "path"), text(runtime, "missing")) {
            (Some(version), Some(path), None) => ensure!(line.contains(&format!(" {version} ")) && line.ends_with(&path), "{line} is not {runtime}"),
            (None, None, Some(how)) => ensure!(line.ends_with(&format!("not here: {how}")) && !how.is_empty(), "{line} is not {runtime}"),
            _ => anyhow::bail!("neither here nor missing: {runtime}"),
        }
    }
    let is_here: Vec<_> = listed.iter().filter(|runtime| runtime["version"].is_string()).filter_map(|runtime| text(runtime, "id")).collect();
    ensure!(is_here == installed(tanebi)?, "--installed lists those with a version");
    let ids: Vec<_> = listed.iter().filter_map(|runtime| text(runtime, "id")).collect();
    for id in ["python312", "nodejs24", "go123", "java21", "ruby34", "php84", "dotnet8"] {
        ensure!(ids.iter().any(|known| known == id), "{id} is not listed");
    }
    ensure!(!is_here.iter().any(|id| id == "nodejs24" || id == "go123"), "this test needs a host without Node.js 24 and Go 1.23: {is_here:?}");
    Ok(())
}

/// What cannot be had is said at once, by tanebi and by gcloud.
fn refused(tanebi: &Tanebi) -> Result<()> {
    holds(&tanebi.script_failing("tanebi runtimes install nodejs99")?, "Unknown runtime \"nodejs99\". See: tanebi runtimes list.")?;
    holds(&tanebi.script_failing("tanebi runtimes install ruby34")?, "ruby34 (Ruby 3.4) cannot be installed: no Ruby")?;
    let folder = repository().join("examples/go/hello_http");
    let check = |base_image: &str, parts: &[&str]| {
        let said = tanebi.script_failing(&deploy_command("refused", &folder, "HelloHTTP", base_image, ""))?;
        // gcloud breaks long lines.
        let said = said.split_whitespace().collect::<Vec<_>>().join(" ");
        parts.iter().try_for_each(|part| holds(&said, part))
    };
    check("go123", &["Base image \"go123\" needs Go 1.23, which is not installed on this host.", "Install it with: tanebi runtimes install go123 ("])?;
    check("go99", &["Unknown base image \"go99\". Known: go111,"])?;
    check("ruby34", &["Base image \"ruby34\" (Ruby 3.4) is not available on this host: no Ruby"])?;
    ensure!(tanebi.script("gcloud run services list --format 'value(metadata.name)' 2>/dev/null")?.trim().is_empty(), "a refused deploy makes no service");
    Ok(())
}
