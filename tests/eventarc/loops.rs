//! Functions that start themselves again, each way there is, with Google's libraries: each loop is stopped at the limit and told of, and
//! a chain that ends is not touched.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::{PROJECT, REGION, Tanebi, children, eventually, folder, holds, kill};

/// Does one thing for each request, by its path, and counts how far it has come.
const RELAY: &str = r#"
import time

import functions_framework
import google.auth
import google.auth.transport.requests
from google.cloud import pubsub_v1, storage

CREDENTIALS, PROJECT = google.auth.default(scopes=["https://www.googleapis.com/auth/cloud-platform"])
PUBLISHER = pubsub_v1.PublisherClient()
STORAGE = storage.Client()


@functions_framework.http
def relay(request):
    _, act, what = request.path.split("/")
    body = request.get_json(silent=True) or {}
    if act == "publish":
        n = int(body["message"]["attributes"]["n"])
    elif act == "write":
        n = int(body["name"].rsplit("-", 1)[1])
    elif act == "create":
        n = int(body["protoPayload"]["resourceName"].rsplit("-", 1)[1])
    else:
        n = int(request.args.get("n", 0))
    print(f"SAW {act} {what} {n}", flush=True)
    time.sleep(float(request.args.get("sleep", 0)))
    if act == "publish" and what != "nothing":
        PUBLISHER.publish(PUBLISHER.topic_path(PROJECT, what), b"x", n=str(n + 1)).result(30)
    elif act == "write":
        STORAGE.bucket(body["bucket"]).blob(f"o-{n + 1}").upload_from_string(b"x")
    elif act == "create":
        PUBLISHER.create_topic(name=PUBLISHER.topic_path(PROJECT, f"made-{n + 1}"))
    elif act == "run":
        job = f"projects/{PROJECT}/locations/asia-northeast1/jobs/{what}"
        session = google.auth.transport.requests.AuthorizedSession(CREDENTIALS)
        session.post(f"https://cloudscheduler.googleapis.com/v1/{job}:run", json={}, timeout=30).raise_for_status()
    return "done"
"#;

const REQUIREMENTS: &str = "functions-framework==3.*\ngoogle-cloud-pubsub==2.44.0\ngoogle-cloud-storage==3.17.1\n";

/// `tanebi serve --hops-max`, as it is when nothing is said.
const HOPS_MAX: usize = 32;
/// How many calls a loop has. What comes while its cause is still under way is counted to whichever of the two has fewer hops.
const ENDS: std::ops::RangeInclusive<usize> = HOPS_MAX + 1..=2 * HOPS_MAX;

struct World {
    tanebi: Tanebi,
}

impl World {
    fn start() -> Result<Self> {
        let tanebi = Tanebi::start()?;
        let source = folder(&[("main.py", RELAY), ("requirements.txt", REQUIREMENTS)])?;
        for service in ["relay", "other"] {
            tanebi.deploy(service, source.path(), "--function relay --allow-unauthenticated --memory 512Mi")?;
        }
        Ok(Self { tanebi })
    }

    /// How far the services came with `what`: the numbers that they counted.
    fn seen(&self, what: &str) -> Result<Vec<usize>> {
        let mut seen = Vec::new();
        for service in ["relay", "other"] {
            let log = self.tanebi.script(&format!("tanebi logs {service} --limit 10000"))?;
            let lines = log.lines().filter_map(|line| line.split_once(&format!("SAW {what} ")));
            seen.extend(lines.map(|(_, n)| n.trim().parse::<usize>().with_context(|| n.to_owned())).collect::<Result<Vec<_>>>()?);
        }
        seen.sort_unstable();
        Ok(seen)
    }

    /// The events of `from` that were stopped.
    fn stopped(&self, from: &str) -> Result<Vec<String>> {
        let events = self.tanebi.script("tanebi events list --limit 1000")?;
        Ok(events.lines().filter(|line| line.contains(from) && line.contains("\tstopped as a loop: ")).map(str::to_owned).collect())
    }

    /// A loop has come to its end: once at the limit, with `trail` as the last of its chain.
    fn ends(&self, what: &str, from: &str, trail: &str) -> Result<()> {
        let stopped = eventually(&format!("the loop by {what} is stopped"), || Ok(self.stopped(from)?.pop()))?;
        holds(&stopped, &format!("stopped as a loop: {} hops: ... > ", HOPS_MAX + 1))?;
        holds(&stopped, &format!("{trail}; at most {HOPS_MAX} are allowed\t"))?;
        holds(&stopped, "\t1 attempt\t")?;
        eventually(&format!("{what}: the last one is in the log"), || Ok((self.seen(what)?.len() > HOPS_MAX).then_some(())))?;
        std::thread::sleep(Duration::from_secs(1));
        let seen = self.seen(what)?;
        ensure!(ENDS.contains(&seen.len()), "{what}: {seen:?}");
        Ok(())
    }

    fn publish(&self, topic: &str) -> Result<()> {
        self.tanebi.script_all(&format!("gcloud pubsub topics publish {topic} --message x --attribute n=0")).map(drop)
    }

    fn errors(&self, service: &str) -> Result<usize> {
        let filter = format!(
            "resource.type=cloud_run_revision AND resource.labels.service_name={service} AND severity=ERROR AND httpRequest.status=508 AND \
             textPayload:\"This was stopped before it reached the function, as a loop: {} hops: \"",
            HOPS_MAX + 1
        );
        let found = self.tanebi.script(&format!("gcloud logging read '{filter}' --project {PROJECT} --format 'value(textPayload)'"))?;
        Ok(found.lines().filter(|line| line.contains("needs a greater tanebi serve --hops-max")).count())
    }
}

pub fn loops_are_stopped() -> Result<()> {
    let world = World::start()?;
    let tanebi = &world.tanebi;
    let (relay, other) = (tanebi.url("relay"), tanebi.url("other"));
    let push = |topic: &str, url: &str| {
        format!("gcloud pubsub topics create {topic}\ngcloud pubsub subscriptions create {topic} --topic {topic} --push-endpoint '{url}'")
    };
    let to =
        format!("--destination-run-service relay --destination-run-region {REGION} --service-account {}-compute@developer.gserviceaccount.com", tanebi.number);
    tanebi.script_all(
        &[
            "set -e".to_owned(),
            push("again", &format!("{relay}/publish/again")),
            push("ping", &format!("{relay}/publish/pong")),
            push("pong", &format!("{other}/publish/ping")),
            push("first", &format!("{relay}/publish/second")),
            push("second", &format!("{other}/publish/third")),
            push("third", &format!("{relay}/publish/nothing")),
            format!("gcloud storage buckets create gs://loop-of-tanebi --location {REGION}"),
            format!(
                "gcloud eventarc triggers create written {to} --location {REGION} --destination-run-path /write/bucket \
                 --event-filters type=google.cloud.storage.object.v1.finalized --event-filters bucket=loop-of-tanebi"
            ),
            format!(
                "gcloud eventarc triggers create created {to} --location global --destination-run-path /create/topic --event-filters type=google.cloud.audit.log.v1.written \
                 --event-filters serviceName=pubsub.googleapis.com --event-filters methodName=google.pubsub.v1.Publisher.CreateTopic \
                 --event-filters-path-pattern 'resourceName=/projects/*/topics/made-*'"
            ),
            format!("gcloud scheduler jobs create http again --location {REGION} --schedule '0 9 1 1 *' --uri '{relay}/run/again' --http-method GET"),
        ]
        .join("\n"),
    )?;

    // What ends by itself goes through.
    world.publish("first")?;
    eventually("the chain of three ends", || Ok((world.seen("publish nothing")? == [2]).then_some(())))?;
    ensure!(world.stopped("projects/")?.is_empty() && world.errors("relay")? == 0);

    // A topic, and two that call each other.
    world.publish("again")?;
    world.ends("publish again", "/subscriptions/again\t", "relay > relay")?;
    ensure!(world.errors("relay")? == 1);
    world.publish("ping")?;
    // The hop that is too many is the 33rd, and those of even numbers go to `ping`.
    let stopped = eventually("two services stop", || Ok(world.stopped("/subscriptions/pong\t")?.pop()))?;
    holds(&stopped, "relay > other > relay; at most 32")?;
    ensure!(ENDS.contains(&(world.seen("publish ping")?.len() + world.seen("publish pong")?.len())));
    ensure!(world.errors("other")? == 1);

    // Objects, audited calls, jobs.
    tanebi.script_all("printf x | gcloud storage cp - gs://loop-of-tanebi/o-0")?;
    world.ends("write bucket", "/triggers/written\t", "relay > relay")?;
    tanebi.script_all("gcloud pubsub topics create made-0")?;
    world.ends("create topic", "/triggers/created\t", "relay > relay")?;
    tanebi.script_all(&format!("gcloud scheduler jobs run again --location {REGION}"))?;
    world.ends("run again", "/jobs/again\t", "relay > relay")?;

    // What was stopped can be sent again by whoever has looked at it.
    let again = world.stopped("/subscriptions/again\t")?.pop().context("the event")?;
    let id = again.split('\t').next().unwrap_or_default();
    let before = world.seen("publish again")?.len();
    holds(&tanebi.script(&format!("tanebi events replay {id}"))?, "\t200\t")?;
    eventually("it begins anew", || Ok((world.seen("publish again")?.len() >= before + HOPS_MAX).then_some(())))?;
    Ok(())
}

/// What lies behind a message is on disk with it.
pub fn loops_are_stopped_after_kills_too() -> Result<()> {
    let mut world = World::start()?;
    let url = world.tanebi.url("relay");
    world.tanebi.script_all(&format!(
        "gcloud pubsub topics create slow\n\
         gcloud pubsub subscriptions create slow --topic slow --push-endpoint '{url}/publish/slow?sleep=0.3' --ack-deadline 20"
    ))?;
    world.publish("slow")?;
    for least in [5, 15, 25] {
        eventually("it goes round", || Ok((world.seen("publish slow")?.last().copied().unwrap_or(0) >= least).then_some(())))?;
        let seen = world.tanebi.ready_count();
        kill(*children(world.tanebi.pid()).first().context("no daemon")?, "KILL")?;
        world.tanebi.ready_wait(seen)?;
    }
    eventually("the loop is stopped", || Ok(world.stopped("/subscriptions/slow\t")?.pop()))?;
    std::thread::sleep(Duration::from_secs(2));
    // A message that came twice may have gone on twice, and no copy beyond the limit.
    let seen = world.seen("publish slow")?;
    ensure!(seen.last() == Some(&HOPS_MAX), "{seen:?}");
    Ok(())
}

/// Calls itself once more, as often as it is let, and tells how often that was.
const CALL: &str = r#"
import urllib.error
import urllib.request


def call(request):
    n = int(request.args.get("n", 0))
    try:
        return urllib.request.urlopen(f"https://{request.host}/?n={n + 1}", timeout=120).read()
    except urllib.error.HTTPError as error:
        return f"{n + 1}: {error.code}"
"#;

/// Services that call one another, one request at a time; and the limit that an operator sets.
pub fn calls_are_stopped() -> Result<()> {
    let tanebi = Tanebi::start_with(tempfile::Builder::new().prefix("tanebi-e2e-").tempdir()?, &["--hops-max", "3"])?;
    let source = folder(&[("main.py", CALL), ("requirements.txt", "functions-framework==3.*\n")])?;
    tanebi.deploy("call", source.path(), "--function call --allow-unauthenticated --concurrency 1")?;
    let url = tanebi.url("call");
    for _ in 0..2 {
        let answer = tanebi.script(&format!("curl -sS '{url}/'"))?;
        ensure!(answer == "4: 508", "{answer}");
    }
    let log = tanebi.script("tanebi logs call --limit 100")?;
    holds(&log, "as a loop: 4 hops: call > call > call > call, and at most 3 are allowed.")?;
    // What a caller says of itself counts for nothing.
    let answer = tanebi.script(&format!("curl -sS -H 'hops: 9' -H 'x-tanebi-hops: 9' '{url}/?n=1'"))?;
    ensure!(answer == "5: 508", "{answer}");
    Ok(())
}
