//! Flags about size, time and the number of instances, each with its effect.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use e2e::{eventually, holds};

use super::World;

/// Requests at the same time; their answers.
fn at_once(w: &World, count: usize, target: &str, fields: &[&str]) -> Result<Vec<e2e::http1::Answer>> {
    std::thread::scope(|scope| {
        let (listen, host) = (w.tanebi.listen, w.host(None));
        let call = move |host: String| e2e::http1::call(listen, "GET", target, &host, fields, b"");
        let calls: Vec<_> = (0..count)
            .map(|_| {
                scope.spawn({
                    let host = host.clone();
                    move || call(host)
                })
            })
            .collect();
        calls.into_iter().map(|call| call.join().expect("no panic")).collect()
    })
}

pub fn sizes(w: &World) -> Result<()> {
    // The share of a CPU that a busy loop gets, in so many seconds. A quota of a half is at most 0.55 of one.
    let burn = |tries: usize| -> Result<Vec<f64>> { (0..tries).map(|_| Ok(w.get("/burn?ms=1000")?.parse()?)).collect() };
    w.update("", "--cpu 0.5 --memory 256Mi --concurrency 1 --timeout 2 --no-cpu-boost --cpu-throttling", |_| {
        let shares = burn(3)?;
        ensure!(shares.iter().all(|share| *share < 0.6), "half a CPU: {shares:?}");
        // Between requests its timers stand still.
        let before: u64 = w.get("/ticks")?.parse()?;
        std::thread::sleep(Duration::from_millis(1500));
        let after: u64 = w.get("/ticks")?.parse()?;
        ensure!(after.saturating_sub(before) < 70, "{before} to {after}: it was not frozen");
        let late = w.call(None, "/sleep?ms=5000", &[])?;
        ensure!(late.status == 504 && late.text() == "upstream request timeout", "{late:?}");
        Ok(())
    })?;
    w.update("", "--cpu-boost", |_| {
        let shares = burn(8)?;
        ensure!(shares.iter().any(|share| *share > 0.6), "more than half a CPU while it starts: {shares:?}");
        Ok(())
    })?;
    w.update(
        "",
        "--cpu 1 --memory 512Mi --concurrency 2 --max-instances 1 --timeout 300 --no-cpu-boost --no-cpu-throttling --execution-environment gen2",
        |_| {
            let ids: Vec<String> = at_once(w, 6, "/sleep?ms=500", &[])?.iter().map(e2e::http1::Answer::text).collect();
            ensure!(ids.iter().all(|id| id.len() == 16 && *id == ids[0]), "one instance: {ids:?}");
            ensure!(w.get("/peak")? == "2", "two at once, not {}", w.get("/peak")?);
            let before: u64 = w.get("/ticks")?.parse()?;
            std::thread::sleep(Duration::from_millis(1500));
            let after: u64 = w.get("/ticks")?.parse()?;
            ensure!(after.saturating_sub(before) > 70, "{before} to {after}: it was frozen");
            let eaten = w.call(None, "/write?path=/tmp/x&bytes=800000000", &[])?;
            ensure!(eaten.status == 503, "{eaten:?}");
            let log = eventually("the log says why", || {
                let log = w.tanebi.script("tanebi logs s")?;
                Ok(log.contains("Memory limit of 512 MiB exceeded with ").then_some(log))
            })?;
            holds(&log, "MiB used. Consider increasing the memory limit, see https://cloud.google.com/run/docs/configuring/memory-limits")?;
            let described = w.describe()?;
            ensure!(described["spec"]["template"]["metadata"]["annotations"]["run.googleapis.com/execution-environment"] == "gen2", "{described:#}");
            Ok(())
        },
    )
}

pub fn instances(w: &World) -> Result<()> {
    let started = Instant::now();
    let there = |count: usize| -> Result<()> {
        let revision = w.describe()?["status"]["latestReadyRevisionName"].as_str().unwrap_or_default().to_owned();
        let mut seen = 0;
        let what = format!("{count} instances");
        eventually(&what, || {
            seen = w.instances(&revision)?.iter().filter(|line| !line.contains("draining") && !line.contains("starting")).count();
            Ok((seen == count).then_some(()))
        })
    };
    w.update("", "--min-instances 2 --max-instances 3 --cpu-throttling --concurrency 1 --session-affinity", |_| {
        there(2)?;
        // Two that are busy at once are two instances; each gives its cookie.
        let answers = at_once(w, 2, "/sleep?ms=700", &[])?;
        for answer in &answers {
            let cookie = answer.field("set-cookie").unwrap_or_default();
            ensure!(cookie.starts_with("GAESA=") && cookie.contains("; expires=") && cookie.ends_with("; path=/"), "{}", answer.head);
            let cookie = format!("Cookie: other=1; {}", cookie.split(';').next().unwrap_or_default());
            for _ in 0..5 {
                let again = w.call(None, "/id", &[&cookie])?;
                ensure!(again.text() == answer.text() && again.field("set-cookie").is_none(), "{again:?}");
            }
        }
        ensure!(answers[0].text() != answers[1].text());
        let strange = w.call(None, "/id", &["Cookie: GAESA=0123456789abcdef0123456789abcdef"])?;
        ensure!(strange.status == 200 && strange.field("set-cookie").is_some(), "{strange:?}");
        Ok(())
    })?;
    w.update("", "--no-session-affinity --min-instances default --max-instances default --concurrency default --min 2", |_| {
        ensure!(w.call(None, "/id", &[])?.field("set-cookie").is_none());
        there(2)
    })?;
    let revision = w.revision()?;
    w.update("beta ", "--scaling 3", |_| there(3))?;
    w.update("beta ", "--scaling 1", |_| there(1))?;
    w.update("beta ", "--scaling auto --min 2", |_| there(2))?;
    w.update("beta ", "--min 0 --max 1", |_| there(1))?;
    w.update("beta ", "--max 50", |_| {
        ensure!(w.revision()? == revision, "limits of the service make no revision");
        Ok(())
    })?;
    ensure!(started.elapsed() < Duration::from_secs(600), "nothing waits for an instance to be idle for a quarter of an hour");
    Ok(())
}
