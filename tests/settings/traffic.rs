//! Traffic: the flags of `update-traffic`, and a load that goes on through changes without a failed request.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use e2e::{PROJECT, REGION, eventually, holds, http1, is_full};
use serde_json::{Value, json};

use super::{World, app};

pub fn tags(w: &World) -> Result<()> {
    let traffic = format!("run services update-traffic s --region {REGION}");
    let old = w.revision()?;
    w.update("", "--no-traffic --tag next --revision-suffix two --update-env-vars R=two", |_| {
        ensure!(w.revision()? == old && w.get_tagged("next", "/revision")? == "s-two");
        Ok(())
    })?;
    let step = |flags: &str, check: &dyn Fn() -> Result<()>| w.gcloud.step(&format!("{traffic} {flags}"), |_| check());
    step(&format!("--to-revisions s-two=50,{old}=50"), &|| {
        let answers: Vec<String> = (0..40).map(|_| w.revision()).collect::<Result<_>>()?;
        // Forty of one kind come once in 5e11 times.
        ensure!(answers.contains(&old) && answers.iter().any(|name| name == "s-two"), "{answers:?}");
        Ok(())
    })?;
    step("--to-tags next=100", &|| {
        ensure!((0..10).all(|_| w.revision().is_ok_and(|name| name == "s-two")));
        Ok(())
    })?;
    step(&format!("--to-revisions {old}=100"), &|| {
        ensure!((0..10).all(|_| w.revision().is_ok_and(|name| name == old)), "a rollback");
        Ok(())
    })?;
    step(&format!("--set-tags one={old},both=s-two"), &|| {
        ensure!(w.get_tagged("one", "/revision")? == old && w.get_tagged("both", "/revision")? == "s-two");
        ensure!(w.call(Some("next"), "/id", &[])?.status == 404, "only those that were set");
        Ok(())
    })?;
    step(&format!("--update-tags both={old},third=s-two"), &|| {
        ensure!(w.get_tagged("both", "/revision")? == old && w.get_tagged("third", "/revision")? == "s-two" && w.get_tagged("one", "/revision")? == old);
        Ok(())
    })?;
    step("--remove-tags one", &|| {
        ensure!(w.call(Some("one"), "/id", &[])?.status == 404 && w.get_tagged("both", "/revision")? == old);
        Ok(())
    })?;
    let shown = w.gcloud.ok(&format!("run services describe s --region {REGION}"))?;
    holds(&shown, &format!("https://both---s-{}.{REGION}.run.app", w.tanebi.number))?;
    let refused = w.gcloud.refused(&format!("run revisions delete s-two --region {REGION}"))?;
    holds(&refused, "Revision 's-two' cannot be deleted")?;
    step("--clear-tags", &|| {
        ensure!(["both", "third"].iter().all(|tag| w.call(Some(tag), "/id", &[]).is_ok_and(|answer| answer.status == 404)));
        Ok(())
    })?;
    holds(&w.gcloud.refused(&format!("{traffic} --to-revisions s-none=100"))?, "s-none")?;
    step("--to-latest", &|| {
        ensure!(w.revision()? == "s-two");
        Ok(())
    })?;
    w.update("", "--update-env-vars R=three", |_| {
        ensure!(w.revision()? != "s-two", "the latest is followed");
        Ok(())
    })
}

/// What one request met.
struct Met {
    begun: Instant,
    revision: Result<String, String>,
}

/// A steady load of requests, each on a connection of its own.
struct Load {
    met: Arc<Mutex<Vec<Met>>>,
    over: Arc<AtomicBool>,
    threads: Vec<std::thread::JoinHandle<()>>,
}

impl Load {
    fn start(w: &World, per_second: u32) -> Self {
        const THREADS: u32 = 16;
        let (met, over): (Arc<Mutex<Vec<Met>>>, _) = (Arc::default(), Arc::new(AtomicBool::new(false)));
        let threads = (0..THREADS).map(|n| {
            let (met, over, listen, host) = (met.clone(), over.clone(), w.tanebi.listen, w.host(None));
            let pause = Duration::from_secs(1) * THREADS / per_second;
            let mut due = Instant::now() + pause * n / THREADS;
            std::thread::spawn(move || {
                while !over.load(Ordering::Relaxed) {
                    std::thread::sleep(due.saturating_duration_since(Instant::now()));
                    // What is late is not made up for: the load is steady, not a burst.
                    due = (due + pause).max(Instant::now());
                    let begun = Instant::now();
                    let revision = match http1::call(listen, "GET", "/revision", &host, &[], b"") {
                        Ok(answer) if answer.status == 200 => Ok(answer.text()),
                        Ok(answer) => Err(format!("{} {}", answer.status, answer.text())),
                        Err(error) => Err(error.to_string()),
                    };
                    met.lock().expect("no panic while held").push(Met { begun, revision });
                }
            })
        });
        let threads = threads.collect();
        Self { met, over, threads }
    }

    fn end(self) -> Vec<Met> {
        self.over.store(true, Ordering::Relaxed);
        self.threads.into_iter().for_each(|thread| thread.join().expect("no panic"));
        Arc::into_inner(self.met).and_then(|met| met.into_inner().ok()).expect("all threads have ended")
    }
}

/// Run v2 by REST, as a client library does.
struct Api<'a> {
    w: &'a World,
    authorization: String,
}

impl Api<'_> {
    fn call(&self, method: &str, query: &str, body: &Value) -> Result<Value> {
        let target = format!("/v2/projects/{PROJECT}/locations/{REGION}/services/s{query}");
        let body = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
        let fields = [self.authorization.as_str(), "Content-Type: application/json"];
        let answer = http1::call(self.w.tanebi.listen, method, &target, &format!("{REGION}-run.googleapis.com"), &fields, &body)?;
        ensure!(answer.status == 200, "{method} {target}: {} {}", answer.status, answer.text());
        Ok(serde_json::from_slice(&answer.body)?)
    }

    /// Sends shares of a hundred to revisions, with a tag for the first.
    fn traffic(&self, shares: &[(String, u32)], tag: &str) -> Result<()> {
        let mut targets: Vec<Value> = shares
            .iter()
            .map(|(revision, percent)| json!({ "type": "TRAFFIC_TARGET_ALLOCATION_TYPE_REVISION", "revision": revision, "percent": percent }))
            .collect();
        targets[0]["tag"] = json!(tag);
        self.call("PATCH", "?updateMask=traffic", &json!({ "traffic": targets }))?;
        Ok(())
    }

    /// A new revision, which all traffic goes to; its name.
    fn revise(&self, n: usize) -> Result<String> {
        let mut service = self.call("GET", "", &Value::Null)?;
        let before = service["latestReadyRevision"].clone();
        service["template"]["containers"][0]["env"] = json!([{ "name": "N", "value": n.to_string() }]);
        service["template"]["revision"] = json!("");
        service["traffic"] = json!([{ "type": "TRAFFIC_TARGET_ALLOCATION_TYPE_LATEST", "percent": 100 }]);
        self.call("PATCH", "", &service)?;
        eventually("the new revision is ready", || {
            let service = self.call("GET", "", &Value::Null)?;
            let ready = &service["latestReadyRevision"];
            let name = ready.as_str().and_then(|name| name.rsplit('/').next()).map(str::to_owned);
            Ok(name.filter(|_| *ready != before && service["trafficStatuses"][0]["percent"] == 100))
        })
    }
}

/// From when to when which shares were asked for.
struct Phase {
    begun: Instant,
    ended: Instant,
    shares: Vec<(String, u32)>,
}

/// A steady load through changes of percents, tags and revisions: no request fails, the shares are what was asked for, and a rollback
/// takes effect at once.
pub fn traffic_moves_without_a_failed_request() -> Result<()> {
    let (changes, phase, tolerance, rollback_max) =
        if is_full() { (50, Duration::from_secs(2), 0.02, Duration::from_millis(200)) } else { (15, Duration::from_millis(800), 0.06, Duration::from_secs(2)) };
    let w = World::start()?;
    w.gcloud.ok(&format!("run deploy s --region {REGION} --source '{}' --base-image nodejs20 --no-invoker-iam-check", app().display()))?;
    let token = w.gcloud.ok("auth print-access-token")?;
    let api = Api { w: &w, authorization: format!("Authorization: Bearer {}", token.trim()) };
    let mut names = vec![w.revision()?, api.revise(0)?];
    let load = Load::start(&w, 200);
    let mut phases: Vec<Phase> = Vec::new();
    for change in 0..changes {
        let shares = if change % 5 == 4 {
            names.push(api.revise(change)?);
            vec![(names[names.len() - 1].clone(), 100)]
        } else {
            let percent = [10, 25, 50, 75, 90][change % 5 * 2 % 5];
            let [old, new] = [names[names.len() - 2].clone(), names[names.len() - 1].clone()];
            let shares = vec![(old, percent), (new, 100 - percent)];
            api.traffic(&shares, &format!("t{}", change % 3))?;
            shares
        };
        let begun = Instant::now();
        std::thread::sleep(phase);
        phases.push(Phase { begun, ended: Instant::now(), shares });
    }
    // All to the new, then all back: from the order on, how long does the new one still answer?
    let [old, new] = [names[names.len() - 2].clone(), names[names.len() - 1].clone()];
    api.traffic(&[(new.clone(), 100)], "now")?;
    std::thread::sleep(phase);
    let ordered = Instant::now();
    api.traffic(&[(old.clone(), 100)], "now")?;
    let answered = ordered.elapsed();
    std::thread::sleep(phase + rollback_max);
    let met = load.end();

    let failed: Vec<&String> = met.iter().filter_map(|met| met.revision.as_ref().err()).collect();
    ensure!(failed.is_empty(), "{} of {} requests failed: {:?}", failed.len(), met.len(), &failed[..failed.len().min(5)]);
    let (mut expected, mut got): (BTreeMap<&str, f64>, BTreeMap<&str, f64>) = (BTreeMap::new(), BTreeMap::new());
    let mut total = 0.0;
    for Phase { begun, ended, shares } in &phases {
        // What began before the change's answer, or near the next one, may have gone either way.
        for met in met.iter().filter(|met| met.begun >= *begun && met.begun + Duration::from_millis(50) < *ended) {
            total += 1.0;
            *got.entry(met.revision.as_deref().unwrap_or_default()).or_default() += 1.0;
            for (name, percent) in shares {
                *expected.entry(name).or_default() += f64::from(*percent) / 100.0;
            }
        }
    }
    let off = expected.iter().map(|(name, expected)| (got.get(name).unwrap_or(&0.0) - expected).abs() / total).fold(0.0, f64::max);
    ensure!(off <= tolerance && got.keys().all(|name| expected.contains_key(name)), "off by {off}: {got:?} instead of {expected:?}");
    let last = met.iter().filter(|met| met.begun > ordered && met.revision.as_ref().is_ok_and(|name| *name == new)).map(|met| met.begun - ordered).max();
    let last = last.unwrap_or_default();
    ensure!(last <= rollback_max, "the rollback took effect after {last:?}");
    let after = met.iter().filter(|met| met.begun > ordered + rollback_max).count();
    ensure!(after > 0, "nothing was asked after the rollback");
    println!(
        "  {} requests through {changes} changes, none failed, shares off by at most {:.2} %, rollback answered after {answered:?}, effective after {last:?}",
        met.len(),
        off * 100.0
    );
    met.first().context("some requests").map(|_| ())
}
