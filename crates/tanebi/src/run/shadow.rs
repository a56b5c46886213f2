//! `tanebi run shadow`, and `tanebi run deploy --shadow`: copies of recent requests show what a revision answers before it takes traffic.

use std::process::ExitCode;

use anyhow::{Context, Result};
use http::Method;
use model::service::SHADOW_HELD;
use serde_json::{Value, json};

use super::{Caller, NameArgs};

#[derive(clap::Args, Clone, Debug)]
pub(super) struct ShadowArgs {
    #[command(flatten)]
    service: NameArgs,
    /// The revision to look at; without it the latest ready one
    #[arg(long)]
    revision: Option<String>,
    /// The revision to compare it with; without it the one that has most of the traffic
    #[arg(long)]
    against: Option<String>,
    /// text or json
    #[arg(long, default_value = "text", value_parser = ["text", "json"])]
    format: String,
}

/// Keeps the share of the latest revision with the one that has it now, until [`Caller::shadow_promote`]. `false` when traffic does not
/// follow the latest.
pub(super) fn hold(service: &mut Value) -> bool {
    if is_held(service) {
        return true;
    }
    let latest = short(&service["latestReadyRevision"]).to_owned();
    let Some(traffic) = service["traffic"].as_array_mut() else { return false };
    let target = traffic.iter_mut().find(|target| target["type"] == "TRAFFIC_TARGET_ALLOCATION_TYPE_LATEST");
    match target.filter(|_| !latest.is_empty()) {
        Some(target) => {
            target["type"] = json!("TRAFFIC_TARGET_ALLOCATION_TYPE_REVISION");
            target["revision"] = json!(latest);
            service["annotations"][SHADOW_HELD] = json!(latest);
            true
        }
        None => {
            if let Some(annotations) = service["annotations"].as_object_mut() {
                annotations.remove(SHADOW_HELD);
            }
            false
        }
    }
}

/// Whether a save that was not good enough left it so.
pub(super) fn is_held(service: &Value) -> bool {
    let held = service["annotations"][SHADOW_HELD].as_str().unwrap_or_default();
    let has_share = |target: &Value| short(&target["revision"]) == held && target["percent"].as_i64() > Some(0);
    !held.is_empty() && service["traffic"].as_array().is_some_and(|traffic| traffic.iter().any(has_share))
}

impl Caller {
    pub(super) async fn shadow(&self, args: &ShadowArgs) -> Result<ExitCode> {
        let revision = match &args.revision {
            Some(revision) => revision.clone(),
            None => {
                let service = self.get(&args.service).await?.with_context(|| format!("there is no service {}", args.service.name))?;
                short(&service["latestReadyRevision"]).to_owned()
            }
        };
        let mut asked = json!({ "revision": revision });
        if let Some(against) = &args.against {
            asked["against"] = json!(against);
        }
        let found = self.shadow_ask(&args.service, "requests:shadow", asked).await?;
        if args.format == "json" {
            println!("{}", serde_json::to_string_pretty(&found)?);
        } else {
            print(&found);
        }
        Ok(if found["failures"] == 0 && found["compared"] != 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }

    /// How many recorded requests there are to send copies of.
    pub(super) async fn shadow_count(&self, name: &NameArgs) -> Result<u64> {
        Ok(self.shadow_ask(name, "requests:count", json!({})).await?["allowed"].as_u64().unwrap_or_default())
    }

    /// Compares, and lets the revision have its traffic when it does well. Whether it has it.
    pub(super) async fn shadow_promote(&self, name: &NameArgs, revision: &str) -> Result<bool> {
        let found = self.shadow_ask(name, "requests:shadow", json!({ "revision": revision, "promote": true })).await?;
        print(&found);
        Ok(found["promoted"] == true)
    }

    async fn shadow_ask(&self, name: &NameArgs, method: &str, mut body: Value) -> Result<Value> {
        body["service"] = json!(name.name);
        body["region"] = json!(self.region(name));
        body["email"] = json!(self.environment.email);
        self.environment.client.own(Method::POST, &format!("/_tanebi/v1/{method}"), Some(body)).await
    }
}

/// A line for each request, then both sides' figures.
fn print(found: &Value) {
    for one in found["comparisons"].as_array().into_iter().flatten() {
        let side = |name: &str| format!("{}\t{:.1} ms", one[name]["status"], one[name]["latencyMs"].as_f64().unwrap_or_default());
        let verdict = match (one["failed"] == true, told(one).next().is_some()) {
            (true, _) => "FAILED",
            (false, true) => "differs",
            (false, false) => "same",
        };
        println!("{verdict}\t{} {}\t{}\t{}", one["method"].as_str().unwrap_or_default(), text(&one["target"]), side("serving"), side("candidate"));
        for difference in told(one) {
            let place = format!("{} {}", text(&difference["what"]), text(&difference["where"]));
            match found["isShown"] == true {
                true => println!("\t{place}\t{} -> {}", text(&difference["serving"]), text(&difference["candidate"])),
                false => println!("\t{place}"),
            }
        }
    }
    if found["compared"] == 0 {
        eprintln!("No recorded request may be sent as a copy: nothing to compare");
        return;
    }
    let side = |name: &str| {
        let ms = |figure: &str| found[name][figure].as_f64().map_or_else(|| "-".to_owned(), |ms| format!("{ms:.1} ms"));
        format!("p50 {}, p99 {}, {} errors", ms("latencyMsP50"), ms("latencyMsP99"), found[name]["errors"])
    };
    eprintln!("{}: {}", text(&found["against"]), side("serving"));
    eprintln!("{}: {}", text(&found["revision"]), side("candidate"));
    eprintln!("{} of {} recorded requests compared: {} differ, {} failed", found["compared"], found["recorded"], found["differing"], found["failures"]);
}

/// Differences that are no noise.
fn told(comparison: &Value) -> impl Iterator<Item = &Value> {
    comparison["differences"].as_array().into_iter().flatten().filter(|one| one["isNoise"] == false)
}

/// What a function said goes to a terminal: nothing in it is obeyed.
fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().escape_debug().to_string()
}

pub(super) fn short(name: &Value) -> &str {
    name.as_str().and_then(|name| name.rsplit('/').next()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_revisions_share_stays_where_it_is() {
        let check = |traffic: Value, annotations: Value, expect: Option<(Value, Value)>| {
            let mut service =
                json!({ "latestReadyRevision": "projects/p/locations/r/services/s/revisions/s-1", "traffic": traffic, "annotations": annotations });
            let before = service.clone();
            let is_held = hold(&mut service);
            match expect {
                Some((traffic, annotations)) => assert_eq!((is_held, &service["traffic"], &service["annotations"]), (true, &traffic, &annotations)),
                None => assert_eq!((is_held, &service["traffic"]), (false, &before["traffic"])),
            }
        };
        let latest = json!([{ "type": "TRAFFIC_TARGET_ALLOCATION_TYPE_LATEST", "percent": 100 }]);
        let pinned = |name: &str| json!([{ "type": "TRAFFIC_TARGET_ALLOCATION_TYPE_REVISION", "revision": name, "percent": 100 }]);
        check(latest, json!({}), Some((pinned("s-1"), json!({ SHADOW_HELD: "s-1" }))));
        check(pinned("s-0"), json!({ SHADOW_HELD: "s-0" }), Some((pinned("s-0"), json!({ SHADOW_HELD: "s-0" }))));
        // Moved by hand since: it stays the owner's.
        check(pinned("s-0"), json!({ SHADOW_HELD: "s-9" }), None);
        check(pinned("s-0"), json!({}), None);
    }
}
