//! Every flag of `gcloud run`'s services and revisions, with the real gcloud: what works is seen to work, from inside the function or
//! from outside; what does not is refused by name. `table.rs` says which is which, and `COMPATIBILITY.md` says the same.

mod flags;
mod gcloud;
mod limits;
mod scaling;
mod table;
mod traffic;

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use e2e::{REGION, Tanebi, http1, repository, tests};
use gcloud::Gcloud;
use serde_json::Value;

pub fn tests() -> Vec<e2e::runner::Test> {
    tests!["settings"; compatibility_says_the_same, every_flag, traffic_moves_without_a_failed_request, limits_in_four_languages, grpc_of_all_kinds]
}

use limits::{grpc_of_all_kinds, limits_in_four_languages};
use traffic::traffic_moves_without_a_failed_request;

/// A server with one service, `s`, of `app/`.
pub struct World {
    pub tanebi: Tanebi,
    pub gcloud: Gcloud,
    pub files: tempfile::TempDir,
}

pub fn app() -> PathBuf {
    repository().join("tests/settings/app")
}

impl World {
    fn start() -> Result<Self> {
        let tanebi = Tanebi::start()?;
        let gcloud = Gcloud::start(&tanebi)?;
        Ok(Self { tanebi, gcloud, files: tempfile::tempdir()? })
    }

    /// `gcloud run services update s` with `flags`; `track` is `beta `, `alpha ` or nothing.
    fn update(&self, track: &str, flags: &str, check: impl FnOnce(&str) -> Result<()>) -> Result<()> {
        self.gcloud.step(&format!("{track}run services update s --region {REGION} {flags}"), check)
    }

    fn host(&self, tag: Option<&str>) -> String {
        let tag = tag.map(|tag| format!("{tag}---")).unwrap_or_default();
        format!("{tag}s-{}.{REGION}.run.localhost", self.tanebi.number)
    }

    fn call(&self, tag: Option<&str>, target: &str, fields: &[&str]) -> Result<http1::Answer> {
        http1::call(self.tanebi.listen, "GET", target, &self.host(tag), fields, b"")
    }

    /// What the service answers; an error unless it is 200.
    fn get(&self, target: &str) -> Result<String> {
        let answer = self.call(None, target, &[])?;
        ensure!(answer.status == 200, "{target}: {} {}", answer.status, answer.text());
        Ok(answer.text())
    }

    fn get_tagged(&self, tag: &str, target: &str) -> Result<String> {
        let answer = self.call(Some(tag), target, &[])?;
        ensure!(answer.status == 200, "{tag} {target}: {} {}", answer.status, answer.text());
        Ok(answer.text())
    }

    fn status(&self, target: &str) -> Result<u16> {
        Ok(self.call(None, target, &[])?.status)
    }

    /// A variable of the process; none when it has none.
    fn env(&self, name: &str) -> Result<Option<String>> {
        let about: Value = serde_json::from_str(&self.get("/about")?)?;
        Ok(about["env"][name].as_str().map(str::to_owned))
    }

    fn describe(&self) -> Result<Value> {
        Ok(serde_json::from_str(&self.gcloud.ok(&format!("run services describe s --region {REGION} --format json"))?)?)
    }

    /// The revision that the service answers with.
    fn revision(&self) -> Result<String> {
        self.get("/revision")
    }

    /// Lines of `tanebi instances list` about the revision that answers.
    fn instances(&self, revision: &str) -> Result<Vec<String>> {
        Ok(self.tanebi.script("tanebi instances list")?.lines().filter(|line| line.contains(revision)).map(str::to_owned).collect())
    }
}

/// The table of `COMPATIBILITY.md` is `table.rs`'s. With TANEBI_BLESS it is written.
fn compatibility_says_the_same() -> Result<()> {
    const BEGIN: &str = "<!-- flags: written by tests/settings -->\n";
    const END: &str = "<!-- end of flags -->";
    let path = repository().join("COMPATIBILITY.md");
    let text = std::fs::read_to_string(&path)?;
    let (before, rest) = text.split_once(BEGIN).context("COMPATIBILITY.md has no place for the flags")?;
    let (flags, after) = rest.split_once(END).context("COMPATIBILITY.md has no end of the flags")?;
    if std::env::var_os("TANEBI_BLESS").is_some() {
        std::fs::write(&path, format!("{before}{BEGIN}{}{END}{after}", table::markdown()))?;
        return Ok(());
    }
    ensure!(flags == table::markdown(), "COMPATIBILITY.md differs from tests/settings/table.rs; TANEBI_BLESS=1 with this test writes it");
    Ok(())
}

/// Each row of the table is seen to be true, and gcloud has no flag without a row.
fn every_flag() -> Result<()> {
    let world = World::start()?;
    rows_are_complete(&world.gcloud)?;
    flags::build(&world)?;
    refusals(&world)?;
    flags::container(&world)?;
    flags::secrets(&world)?;
    flags::probes(&world)?;
    flags::volumes(&world)?;
    scaling::sizes(&world)?;
    scaling::instances(&world)?;
    flags::access(&world)?;
    traffic::tags(&world)?;
    flags::revisions(&world)?;
    let unseen: Vec<String> = table::ROWS
        .iter()
        .filter(|(_, row)| matches!(row, table::Row::Works(_)))
        .flat_map(|(flag, _)| table::forms(flag))
        .filter(|form| !world.gcloud.has_seen(form))
        .collect();
    ensure!(unseen.is_empty(), "no step sees what these do: {unseen:?}");
    Ok(())
}

/// What the table refuses is refused, in its words, and changes nothing.
fn refusals(world: &World) -> Result<()> {
    let generation = world.describe()?["metadata"]["generation"].clone();
    let app = app().display().to_string();
    for (flag, row) in table::ROWS {
        let table::Row::Refused(flags, text) = row else { continue };
        let update = format!("run services update s --region {REGION}");
        let command = match flags.split_once(' ') {
            Some(("BUILD", flags)) => format!("run deploy s --region {REGION} --source '{app}' --base-image nodejs20 {flags}"),
            Some(("DEPLOY-BETA", flags)) => format!("beta run deploy s --source '{app}' --base-image nodejs20 {flags}"),
            Some(("beta", flags)) => format!("beta {update} {flags}"),
            _ => format!("{update} {flags}"),
        };
        let output = world.gcloud.refused(&command)?;
        ensure!(output.contains(text), "{flag}: {text:?} is not in what gcloud {command} wrote:\n{output}");
    }
    for (flags, text) in [
        ("--add-volume name=v,type=cloud-storage,bucket=b --add-volume-mount volume=v,mount-path=/b", "volumes[0].csi"),
        ("--add-volume name=v,type=nfs,location=1.2.3.4:/x --add-volume-mount volume=v,mount-path=/b", "volumes[0].nfs"),
        ("--set-secrets A=projects/123/secrets/x:latest", "run.googleapis.com/secrets"),
        ("--cpu 3", "Invalid value specified for cpu: 3"),
        ("--cpu 0.5 --concurrency 2", "Total cpu < 1 is not supported with concurrency > 1"),
        ("--memory 64Mi", "For 1 CPU, memory must be between 128Mi and 4Gi inclusive"),
        ("--execution-environment gen2 --memory 256Mi", "between 512Mi and 4Gi"),
        ("--execution-environment gen2 --cpu 0.5 --concurrency 1", "Total cpu < 1 is not supported with gen2"),
        ("--no-cpu-throttling --cpu 0.5 --concurrency 1", "Total cpu < 1 is not supported with cpu always allocated (unthrottled)"),
        ("--concurrency 1001", "must be between 1 and 1000"),
        ("--timeout 3601", "must be between 1 and 3600"),
        ("--max-instances 1001", "must be between 1 and 1000"),
        ("--set-env-vars PORT=1", "The following reserved env names were provided: PORT"),
        ("--liveness-probe httpGet.path=/live,timeoutSeconds=20", "must not exceed periodSeconds, 10"),
        ("--service-account nobody@example.com", "Permission 'iam.serviceaccounts.actAs' denied on service account nobody@example.com"),
        ("--revision-suffix one", "Revision named 's-one' with different configuration already exists."),
    ] {
        let output = world.gcloud.refused(&format!("run services update s --region {REGION} {flags}"))?;
        ensure!(output.contains(text), "{flags}: {text:?} is not in\n{output}");
    }
    ensure!(world.describe()?["metadata"]["generation"] == generation, "a refusal has changed the service");
    Ok(())
}

/// By gcloud's own list of its flags. Another release may have others: then only the rows are tested.
fn rows_are_complete(gcloud: &Gcloud) -> Result<()> {
    const COMMANDS: &str = "run deploy;run services update;run services update-traffic;run services replace;run services list;run services describe;\
                            run services delete;run revisions list;run revisions describe;run revisions delete";
    if gcloud.version != "528.0.0" {
        return Ok(());
    }
    let script = format!(
        "import sys\nsys.path.insert(0, {:?})\nfrom gcloud_completions import STATIC_COMPLETION_CLI_TREE as tree\nfor track in '', 'beta ', 'alpha ':\n  for command in {COMMANDS:?}.split(';'):\n    node = tree\n    for word in (track + command).split(): node = node['commands'][word]\n    print('\\n'.join(node['flags']))",
        gcloud.root.join("data/cli").display().to_string()
    );
    let listed = std::process::Command::new("python3").args(["-c", &script]).output()?;
    let listed = e2e::text(listed, "gcloud's flags")?;
    ensure!(listed.lines().count() > 500, "{listed}");
    let rows: Vec<String> = table::ROWS.iter().flat_map(|(flag, _)| table::forms(flag)).collect();
    let missing: std::collections::BTreeSet<&str> = listed.lines().filter(|flag| !rows.iter().any(|row| row == flag)).collect();
    ensure!(missing.is_empty(), "flags of gcloud without a row: {missing:?}");
    Ok(())
}
