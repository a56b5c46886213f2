//! Limits as they are seen: from inside a function, in the words of its language, and from outside, by its callers and in its log.
//!
//! One small function a language (`python`, `nodejs`, `go`, `java`) and one list of rows. CI's tier tries in all four what a language
//! makes its own of, and the rest in one; the full tier tries everything in all four.

mod grpc;

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use e2e::{REGION, Tanebi, eventually, holds, http1, is_full, repository};
use serde_json::Value;

use super::gcloud::Gcloud;

pub use grpc::grpc_of_all_kinds;

const MIB: u64 = 1 << 20;
const MEMORY_MIB: u64 = 512;
const CONCURRENCY: usize = 3;

struct Language {
    name: &'static str,
    base_image: &'static str,
    function: &'static str,
    /// What the runtime itself takes for its heap at most, in MiB, of 512; none where it has no such limit.
    heap_mib: Option<(u64, u64)>,
    /// Whether it tells a function that its caller has gone.
    tells_of_the_end: bool,
}

const LANGUAGES: [Language; 4] = [
    Language { name: "python", base_image: "python312", function: "limits", heap_mib: None, tells_of_the_end: false },
    // 80 %, and what its young generation takes beside them.
    Language { name: "nodejs", base_image: "nodejs20", function: "limits", heap_mib: Some((409, 480)), tells_of_the_end: true },
    Language { name: "go", base_image: "go126", function: "Limits", heap_mib: None, tells_of_the_end: true },
    // 70 %, less one of its survivor spaces.
    Language { name: "java", base_image: "java17", function: "functions.Limits", heap_mib: Some((330, 360)), tells_of_the_end: false },
];

/// A service of one language.
struct Limited<'a> {
    tanebi: &'a Tanebi,
    language: &'a Language,
}

impl Limited<'_> {
    fn deploy(&self) -> Result<()> {
        let Language { name, base_image, function, .. } = self.language;
        let source = repository().join("tests/settings/limits").join(name);
        self.tanebi.script_all(&format!(
            "tanebi run deploy {name} --source '{}' --base-image {base_image} --function {function} --no-invoker-iam-check --cpu 1 --no-cpu-boost \
             --memory {MEMORY_MIB}Mi --concurrency {CONCURRENCY} --timeout 3 --min-instances 1 --max-instances 1",
            source.display()
        ))?;
        Ok(())
    }

    fn call(&self, target: &str) -> Result<http1::Answer> {
        let host = format!("{}-{}.{REGION}.run.localhost", self.language.name, self.tanebi.number);
        http1::call(self.tanebi.listen, "GET", target, &host, &[], b"").with_context(|| format!("{target} of {}", self.language.name))
    }

    fn get(&self, target: &str) -> Result<String> {
        let answer = self.call(target)?;
        ensure!(answer.status == 200, "{target}: {answer:?}");
        Ok(answer.text())
    }

    /// What the function says of itself.
    fn about(&self) -> Result<Value> {
        Ok(serde_json::from_str(&self.get("/about")?)?)
    }

    fn at_once(&self, count: usize, target: &str) -> Result<Vec<http1::Answer>> {
        std::thread::scope(|scope| {
            let calls: Vec<_> = (0..count).map(|_| scope.spawn(|| self.call(target))).collect();
            calls.into_iter().map(|call| call.join().expect("no panic")).collect()
        })
    }

    /// How many of its instances wait for requests.
    fn instances_waiting(&self) -> Result<usize> {
        let listed = self.tanebi.script("tanebi instances list")?;
        let own = listed.lines().filter(|line| line.starts_with(&format!("{}\t", self.language.name)));
        Ok(own.filter(|line| ["ready", "frozen"].iter().any(|state| line.contains(&format!("\t{state}\t")))).count())
    }

    fn logs(&self, text: &str) -> Result<()> {
        eventually("the log says so", || Ok(self.tanebi.script(&format!("tanebi logs {} --limit 1000", self.language.name))?.contains(text).then_some(())))
            .with_context(|| text.to_owned())
    }

    fn update(&self, gcloud: &Gcloud, flags: &str) -> Result<()> {
        gcloud.ok(&format!("run services update {} --region {REGION} {flags}", self.language.name)).map(drop)
    }
}

/// What is seen of a service as it was deployed.
type Row = fn(&Limited) -> Result<()>;
/// What is seen of a setting that gcloud changes.
type Setting = fn(&Limited, &Gcloud) -> Result<()>;

pub fn limits_in_four_languages() -> Result<()> {
    let tanebi = Tanebi::start()?;
    let services: Vec<_> = LANGUAGES.iter().map(|language| Limited { tanebi: &tanebi, language }).collect();
    std::thread::scope(|scope| {
        let deploys: Vec<_> = services.iter().map(|service| scope.spawn(|| service.deploy().with_context(|| service.language.name))).collect();
        deploys.into_iter().try_for_each(|deploy| deploy.join().expect("no panic"))
    })?;
    let rows: [(&str, Row); 5] = [("minimum", minimum), ("seen", seen), ("concurrency", concurrency), ("timeout", timeout), ("memory", memory)];
    let tried = |service: &Limited| rows.iter().try_for_each(|(name, row)| row(service).with_context(|| format!("row {name:?} in {}", service.language.name)));
    // Two at a time, as rows mostly wait.
    for pair in services.chunks(2) {
        std::thread::scope(|scope| {
            let tries: Vec<_> = pair.iter().map(|service| scope.spawn(|| tried(service))).collect();
            tries.into_iter().try_for_each(|tried| tried.join().expect("no panic"))
        })?;
    }
    let gcloud = Gcloud::start(&tanebi)?;
    payloads_make(&gcloud, &tanebi)?;
    let settings: [(&str, Setting); 3] = [("secrets", secrets), ("shares", shares), ("probes", probes)];
    let (services, settings) = if is_full() { (&services[..], &settings[..]) } else { (&services[..1], &settings[..1]) };
    for service in services {
        for (name, row) in settings {
            row(service, &gcloud).with_context(|| format!("row {name:?} in {}", service.language.name))?;
        }
    }
    println!("  {} rows in {} languages, {} in {}", rows.len(), LANGUAGES.len(), settings.len(), services.len());
    Ok(())
}

/// An instance is there before anybody has asked for one.
fn minimum(service: &Limited) -> Result<()> {
    eventually("one instance waits", || Ok((service.instances_waiting()? == 1).then_some(())))
}

/// The limits stand where programs look for them, and the runtime has sized itself by them.
fn seen(service: &Limited) -> Result<()> {
    let about = service.about()?;
    let memory = (MEMORY_MIB * MIB).to_string();
    ensure!(about["memory"] == *memory && about["cpu"] == "100000 100000", "{about}");
    // A quota holds, and the count does not say so.
    ensure!(about["processors"] == std::thread::available_parallelism()?.get(), "{about}");
    if let Some((least, most)) = service.language.heap_mib {
        let heap_mib = about["heap"].as_u64().context("a number")? / MIB;
        ensure!((least..=most).contains(&heap_mib), "{heap_mib} MiB of heap");
    }
    if let Some(constrained) = about.get("constrained") {
        ensure!(constrained.as_u64() == Some(MEMORY_MIB * MIB), "libuv sees {constrained}");
    }
    Ok(())
}

/// So many at a time and not one more; who comes later waits, as there may be no other instance.
fn concurrency(service: &Limited) -> Result<()> {
    let answers = service.at_once(3 * CONCURRENCY, "/sleep?ms=300")?;
    let first = answers[0].text();
    ensure!(answers.iter().all(|answer| answer.status == 200 && answer.text() == first), "{answers:?}");
    let about = service.about()?;
    ensure!(about["peak"] == CONCURRENCY && about["id"] == *first, "{about}");
    Ok(())
}

/// 504 for the caller, and the instance lives. Its function is told where its language can tell it.
fn timeout(service: &Limited) -> Result<()> {
    let before = service.about()?;
    let late = service.call("/sleep?ms=6000")?;
    ensure!(late.status == 504 && late.text() == "upstream request timeout", "{late:?}");
    let after = service.about()?;
    ensure!(after["id"] == before["id"], "another instance: {before} {after}");
    if service.language.tells_of_the_end {
        eventually("the function sees that its caller has gone", || Ok((service.about()?["aborted"] == 1).then_some(())))?;
    }
    service.logs("The request has been terminated because it has reached the maximum request timeout.")
}

/// Who takes more than there is ends, and all of its requests; the next one has another instance.
fn memory(service: &Limited) -> Result<()> {
    let before = service.about()?["id"].clone();
    eventually("it takes more than there is", || {
        let eaten = service.call("/eat?mib=700")?;
        // A busy machine may not get that far within its time; what was taken is kept.
        ensure!(matches!(eaten.status, 500 | 503 | 504), "{eaten:?}");
        Ok((eaten.status != 504).then_some(()))
    })?;
    service.logs(&format!("Memory limit of {MEMORY_MIB} MiB exceeded with {MEMORY_MIB} MiB used. Consider increasing the memory limit, see"))?;
    let after = service.about()?["id"].clone();
    ensure!(after != before, "it is the same instance: {after}");
    Ok(())
}

/// Makes the secret of the services, and lets them read it.
fn payloads_make(gcloud: &Gcloud, tanebi: &Tanebi) -> Result<()> {
    let account = format!("{}-compute@developer.gserviceaccount.com", tanebi.number);
    gcloud.ok("secrets create key --replication-policy automatic")?;
    gcloud.ok(&format!("secrets add-iam-policy-binding key --member serviceAccount:{account} --role roles/secretmanager.secretAccessor"))?;
    Ok(())
}

/// A variable is what `latest` was at the start; a file is what it is now; both are new in a new instance.
fn secrets(service: &Limited, gcloud: &Gcloud) -> Result<()> {
    let name = service.language.name;
    let file = service.tanebi.data.path().join("payload");
    let add = |payload: &str| -> Result<String> {
        std::fs::write(&file, payload)?;
        gcloud.ok(&format!("secrets versions add key --data-file '{}'", file.display()))
    };
    add(&format!("{name} one"))?;
    service.update(gcloud, "--set-secrets KEY=key:latest,/secrets/key=key:latest")?;
    let is = |key: &str, file: &str| -> Result<bool> {
        let about = service.about()?;
        Ok(about["key"] == format!("{name} {key}") && about["file"] == format!("{name} {file}"))
    };
    ensure!(is("one", "one")?, "{}", service.about()?);
    let id = service.about()?["id"].clone();
    for payload in ["two, which is longer", "3"] {
        add(&format!("{name} {payload}"))?;
        eventually("the file has the new version", || Ok(is("one", payload)?.then_some(())))?;
    }
    ensure!(service.about()?["id"] == id, "it is no new instance that has it");
    service.tanebi.script_all(&format!("tanebi instances stop {name}"))?;
    eventually("a new instance has it in its variable", || Ok((service.about()?["id"] != id).then_some(())))?;
    ensure!(is("3", "3")?, "{}", service.about()?);
    service.update(gcloud, "--clear-secrets")
}

/// Half a CPU is half of one; with one request at a time the second has another instance; beyond the queue it is 429 at once.
fn shares(service: &Limited, gcloud: &Gcloud) -> Result<()> {
    service.update(gcloud, "--cpu 0.5 --concurrency 1 --max-instances 2 --min-instances 0 --timeout 30")?;
    // A quota of a half is at most a half of each period; work of before may add to the first ones.
    let share: f64 = service.get("/burn?ms=1000")?.parse()?;
    ensure!(share < 0.6, "{share} of a CPU");
    let ids: Vec<_> = service.at_once(2, "/sleep?ms=1500")?.iter().map(http1::Answer::text).collect();
    ensure!(ids[0] != ids[1], "both in {}", ids[0]);
    service.update(gcloud, "--max-instances 1")?;
    let started = Instant::now();
    let answers = service.at_once(150, "/sleep?ms=30")?;
    let refused: Vec<_> = answers.iter().filter(|answer| answer.status == 429).collect();
    let served = answers.iter().filter(|answer| answer.status == 200).count();
    ensure!(!refused.is_empty() && served >= 100 && served + refused.len() == 150, "{served} served, {} refused", refused.len());
    ensure!(refused.iter().all(|answer| answer.text() == "Rate exceeded." && answer.field("retry-after").is_some()), "{:?}", refused[0]);
    ensure!(started.elapsed() < Duration::from_secs(60), "{:?}", started.elapsed());
    Ok(())
}

/// Each of the three, by HTTP, while it passes and when it fails.
fn probes(service: &Limited, gcloud: &Gcloud) -> Result<()> {
    let failing = gcloud.refused(&format!(
        "run services update {} --region {REGION} --cpu 1 --concurrency default --max-instances 3 --startup-probe httpGet.path=/absent,periodSeconds=1,failureThreshold=2",
        service.language.name
    ))?;
    holds(&failing, "failed to start and listen on the port")?;
    service.update(
        gcloud,
        "--cpu 1 --concurrency default --max-instances 3 --startup-probe httpGet.path=/live,periodSeconds=1 --liveness-probe httpGet.path=/live,periodSeconds=1,failureThreshold=2",
    )?;
    let sick = service.get("/set?live=false")?;
    eventually("another instance serves", || {
        Ok(service.call("/about").is_ok_and(|answer| answer.status == 200 && !answer.text().contains(&sick)).then_some(()))
    })?;
    service.logs("LIVENESS HTTP probe failed 2 times consecutively for container")?;
    let update = format!("alpha run services update {} --region {REGION}", service.language.name);
    gcloud.ok(&format!(
        "{update} --liveness-probe= --startup-probe tcpSocket.port=8080 --readiness-probe httpGet.path=/ready,periodSeconds=1,failureThreshold=2"
    ))?;
    let tired = service.get("/set?ready=false")?;
    eventually("another instance serves", || Ok((service.about()?["id"] != *tired).then_some(())))?;
    // The list has the first digits of its id, of which its host name is made.
    let listed = service.tanebi.script("tanebi instances list")?;
    ensure!(listed.lines().any(|line| line.ends_with(&tired[2..18]) && !line.contains("\tdraining\t")), "{tired} is gone:\n{listed}");
    let log = service.tanebi.script(&format!("tanebi logs {} --limit 1000", service.language.name))?;
    let own = log.lines().filter(|line| line.contains("STARTUP TCP probe succeeded after 1 attempt for container"));
    ensure!(own.filter(|line| !line.contains("Default STARTUP")).count() > 0, "{log}");
    Ok(())
}
