//! A function that computes, with room for many requests: the CPU starts instances, the words say so, and the samples can be read.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use e2e::{PROJECT, REGION, eventually, holds};
use serde_json::Value;

use super::Function;

pub fn scaling_by_cpu() -> Result<()> {
    let f = Function::deploy("--concurrency 80 --max-instances 2 --cpu 1 --memory 512Mi --no-cpu-boost")?;
    let f = &f;
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| -> Result<()> {
        for _ in 0..4 {
            scope.spawn(|| {
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    let _ = f.get("/burn?s=0.2");
                }
            });
        }
        let checked = (|| {
            eventually("the CPU starts a second instance", || {
                let why = f.tanebi.script("tanebi why-scaled f")?;
                Ok((why.contains("CPU ") && why.contains("% (target 60 %)")).then_some(()))
            })?;
            // Both get requests, although one alone has slots for all.
            eventually("both compute", || {
                let busy = f.tanebi.script("tanebi instances list")?.lines().filter(|line| !line.contains("\t0 in flight")).count();
                Ok((busy == 2).then_some(()))
            })
        })();
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        checked
    })?;
    let why: Value = serde_json::from_str(&f.tanebi.script("tanebi why-scaled f --format json")?)?;
    let reasons: Vec<&str> = why.as_array().context("a list")?.iter().filter_map(|one| one["reason"].as_str()).collect();
    ensure!(reasons.last() == Some(&"DEPLOYMENT") && reasons.contains(&"CPU"), "{why:#}");
    ensure!(why[0]["from"].is_u64() && why[0]["to"].is_u64() && why[0]["text"].is_string() && why[0]["time"].is_string(), "{why:#}");
    let one: Value = serde_json::from_str(&f.tanebi.script("tanebi why-scaled f --format json --limit 1")?)?;
    ensure!(one.as_array().is_some_and(|list| list.len() == 1), "{one:#}");
    // Another's words are not told.
    let denied = f.tanebi.script_failing("tanebi why-scaled f --as nobody@example.com")?;
    holds(&denied, "run.services.get")?;
    holds(&f.tanebi.script_failing("tanebi why-scaled no-such")?, "no-such")?;
    series(f)
}

/// The samples, by the Monitoring API.
fn series(f: &Function) -> Result<()> {
    let list = |metric: &str, more: &str| -> Result<Value> {
        let filter = format!("metric.type = \"run.googleapis.com/container/{metric}\" AND resource.labels.service_name = \"f\"{more}");
        let script = format!(
            "curl -sS -G https://monitoring.googleapis.com/v3/projects/{PROJECT}/timeSeries -H \"Authorization: Bearer $(gcloud auth print-access-token)\" \
             --data-urlencode 'filter={filter}' --data-urlencode 'interval.startTime=2020-01-01T00:00:00Z' --data-urlencode 'interval.endTime=2100-01-01T00:00:00Z'"
        );
        Ok(serde_json::from_str(&f.tanebi.script(&script)?)?)
    };
    let cpu = eventually("samples of the CPU", || {
        let cpu = list("cpu/utilizations", "")?;
        Ok(cpu["timeSeries"][0]["points"][0]["value"]["distributionValue"]["count"].is_string().then_some(cpu))
    })?;
    let first = &cpu["timeSeries"][0];
    ensure!(first["metricKind"] == "GAUGE" && first["valueType"] == "DISTRIBUTION" && first["resource"]["type"] == "cloud_run_revision", "{first:#}");
    ensure!(first["resource"]["labels"]["location"] == REGION && first["resource"]["labels"]["service_name"] == "f", "{first:#}");
    let shares = |series: &Value| -> Vec<f64> {
        series["timeSeries"][0]["points"].as_array().into_iter().flatten().filter_map(|point| point["value"]["distributionValue"]["mean"].as_f64()).collect()
    };
    ensure!(shares(&cpu).iter().any(|share| *share > 0.3) && shares(&cpu).iter().all(|share| (0.0..=1.0).contains(share)), "{:?}", shares(&cpu));
    let memory = list("memory/utilizations", "")?;
    ensure!(shares(&memory).iter().all(|share| (0.001..1.0).contains(share)) && !shares(&memory).is_empty(), "{memory:#}");
    let count = list("instance_count", "")?;
    let states: BTreeSet<&str> = count["timeSeries"].as_array().context("series")?.iter().filter_map(|one| one["metric"]["labels"]["state"].as_str()).collect();
    ensure!(states.iter().eq(["active", "idle"].iter()), "{count:#}");
    let other = list("cpu/utilizations", " AND resource.labels.revision_name = \"no-such\"")?;
    ensure!(other["timeSeries"].is_null(), "{other:#}");
    let refused = list("cpu/utilizations", " AND resource.labels.zone = \"a\"")?;
    ensure!(refused["error"]["status"] == "INVALID_ARGUMENT", "{refused:#}");
    Ok(())
}
