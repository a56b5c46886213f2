//! Cloud Scheduler with the real gcloud, on a clock that the test moves.

use std::{collections::BTreeSet, thread};

use anyhow::{Context as _, Result, ensure};
use e2e::{PROJECT, Tanebi, descendants, eventually, folder, holds, is_full, kill, name_of, tests};

pub fn tests() -> Vec<e2e::runner::Test> {
    tests!["scheduler"; every_day_at_nine_in_tokyo, a_kill_at_a_fire_repeats_nothing]
}

/// Says what it was called with, fails when it is told to, and takes its time when it is told to.
const MAIN: &str = r#"
import time
import functions_framework

@functions_framework.http
def tick(request):
    head = request.headers
    print("called", head.get("X-CloudScheduler-JobName"), head.get("X-CloudScheduler-ScheduleTime"), head.get("User-Agent"), request.method, request.get_data(as_text=True), flush=True)
    time.sleep(float(request.args.get("takes", "0")))
    return ("no", 500) if request.args.get("fails") else "yes"
"#;

fn started(instant: &str, flags: &str) -> Result<Tanebi> {
    let tanebi = Tanebi::start_with(tempfile::Builder::new().prefix("tanebi-e2e-").tempdir()?, &["--clock", &format!("manual={instant}")])?;
    let source = folder(&[("main.py", MAIN), ("requirements.txt", "functions-framework==3.*\n")])?;
    tanebi.deploy("tick", source.path(), &format!("--function tick {flags}"))?;
    Ok(tanebi)
}

/// The lines that the function wrote when a job called it, as soon as there are `count`.
fn called(tanebi: &Tanebi, job: &str, count: usize) -> Result<Vec<String>> {
    let start = format!("called {job} ");
    let all = || -> Result<Vec<String>> {
        let log = tanebi.script("tanebi logs tick --limit 1000")?;
        Ok(log.lines().filter_map(|line| line.find(&start).map(|at| line[at + start.len()..].to_owned())).collect())
    };
    let found = eventually(&format!("{count} calls by {job}"), || Ok(Some(all()?).filter(|lines| lines.len() >= count)))?;
    ensure!(found.len() == count, "{job} called {} times, not {count}:\n{}", found.len(), found.join("\n"));
    Ok(found)
}

fn every_day_at_nine_in_tokyo() -> Result<()> {
    // Nine in Tokyo.
    let tanebi = started("2027-03-01T00:00:00Z", "")?;
    ensure!(tanebi.script("tanebi clock show")?.trim() == "2027-03-01T00:00:00Z");
    let url = tanebi.url("tick");
    let caller = format!("caller@{PROJECT}.iam.gserviceaccount.com");
    let every_day = format!(
        "gcloud scheduler jobs create http every-day --location asia-northeast1 --schedule '0 9 * * *' --time-zone Asia/Tokyo --uri {url}/path \
         --oidc-service-account-email {caller} --message-body '{{\"a\":1}}' --headers Content-Type=application/json"
    );
    // Without an account there is no job, and nothing may lead to the host's own network.
    holds(&tanebi.script_failing(&every_day)?, "iam.serviceAccounts.actAs")?;
    tanebi.script_all(&format!(
        "gcloud iam service-accounts create caller\ngcloud run services add-iam-policy-binding tick --region asia-northeast1 --member serviceAccount:{caller} --role roles/run.invoker"
    ))?;
    let made = tanebi.script_all(&every_day)?;
    for part in [
        "attemptDeadline: 180s",
        "Content-Type: application/json",
        "User-Agent: Google-Cloud-Scheduler",
        "httpMethod: POST",
        "minBackoffDuration: 5s",
        "maxBackoffDuration: 3600s",
        "maxDoublings: 5",
        "scheduleTime: '2027-03-02T00:00:00Z'",
        "state: ENABLED",
        "timeZone: Asia/Tokyo",
    ] {
        holds(&made, part)?;
    }
    let elsewhere = "gcloud scheduler jobs create http outside --location asia-northeast1 --schedule '* * * * *' --uri https://192.168.0.1/";
    holds(&tanebi.script_failing(elsewhere)?, "--outside-host 192.168.0.1")?;
    let engine = "gcloud scheduler jobs create app-engine old --location asia-northeast1 --schedule '* * * * *'";
    holds(&tanebi.script_failing(engine)?, "App Engine")?;

    // A day, and three more.
    ensure!(tanebi.script("tanebi clock advance 24h")?.trim() == "2027-03-02T00:00:00Z");
    let lines = called(&tanebi, "every-day", 1)?;
    ensure!(lines[0] == "2027-03-02T09:00:00+09:00 Google-Cloud-Scheduler POST {\"a\":1}", "{lines:?}");
    tanebi.script("tanebi clock advance 3d && tanebi wait-idle")?;
    let days: Vec<_> = called(&tanebi, "every-day", 4)?.iter().map(|line| line[..25].to_owned()).collect();
    ensure!(days == ["02", "03", "04", "05"].map(|day| format!("2027-03-{day}T09:00:00+09:00")), "{days:?}");
    let shown =
        tanebi.script("gcloud scheduler jobs describe every-day --location asia-northeast1 --format 'value(lastAttemptTime,scheduleTime,status.code)'")?;
    ensure!(shown.split_whitespace().collect::<Vec<_>>() == ["2027-03-05T00:00:00Z", "2027-03-06T00:00:00Z"], "{shown}");

    // Paused, changed, let go on, forced.
    let jobs = "gcloud scheduler jobs";
    let place = "--location asia-northeast1";
    holds(&tanebi.script_all(&format!("{jobs} pause every-day {place}"))?, "Job has been paused.")?;
    tanebi.script("tanebi clock advance 48h")?;
    holds(&tanebi.script_all(&format!("{jobs} update http every-day {place} --schedule '30 9 * * *' --max-retry-attempts 2"))?, "retryCount: 2")?;
    let updated = tanebi.script_all(&format!("{jobs} update http every-day {place} --update-headers A=1"))?;
    for part in ["A: '1'", "Content-Type: application/json"] {
        holds(&updated, part)?;
    }
    let updated = tanebi.script_all(&format!("{jobs} update http every-day {place} --update-headers B=2 --remove-headers A"))?;
    ensure!(updated.contains("B: '2'") && updated.contains("Content-Type: application/json") && !updated.contains("A: '1'"), "{updated}");
    let updated = tanebi.script_all(&format!("{jobs} update http every-day {place} --clear-headers"))?;
    // A body has a type, whatever was said.
    ensure!(!updated.contains("B: '2'") && updated.contains("Content-Type: application/octet-stream"), "{updated}");
    tanebi.script_all(&format!("{jobs} update http every-day {place} --update-headers Content-Type=application/json"))?;
    holds(&tanebi.script_all(&format!("{jobs} resume every-day {place}"))?, "Job has been resumed.")?;
    tanebi.script(&format!("{jobs} run every-day {place} && tanebi wait-idle"))?;
    ensure!(called(&tanebi, "every-day", 5)?[4].starts_with("2027-03-07T09:00:00+09:00"));
    tanebi.script("tanebi clock set 2027-03-07T09:30:00+09:00")?;
    ensure!(called(&tanebi, "every-day", 6)?[5].starts_with("2027-03-07T09:30:00+09:00"));

    // What fails is tried again at its seconds, and the log says so as Google's does.
    tanebi.script_all(&format!(
        "{jobs} create http failing {place} --schedule '0 * * * *' --uri '{url}/?fails=1' --http-method get --max-retry-attempts 2 --oidc-service-account-email {caller} --oidc-token-audience {url}"
    ))?;
    tanebi.script("tanebi clock advance 45m")?;
    called(&tanebi, "failing", 3)?;
    let filter = "resource.type=\"cloud_scheduler_job\" AND resource.labels.job_id=\"failing\" AND logName:\"cloudscheduler.googleapis.com%2Fexecutions\"";
    let log = eventually("the log of the attempts", || {
        let log = tanebi.script(&format!(
            "gcloud logging read '{filter}' --order asc --format 'csv[no-heading](timestamp,severity,jsonPayload[\"@type\"],jsonPayload.status,httpRequest.status)'"
        ))?;
        Ok((log.lines().count() >= 6).then_some(log))
    })?;
    let ends: Vec<_> = log
        .lines()
        .filter(|line| line.contains("AttemptFinished"))
        .map(|line| line.replace("type.googleapis.com/google.cloud.scheduler.logging.", ""))
        .collect();
    let expect = ["01:00:00", "01:00:05", "01:00:15"].map(|time| format!("2027-03-07T{time}Z,ERROR,AttemptFinished,INTERNAL,500"));
    ensure!(ends == expect, "{log}");
    holds(&log, "2027-03-07T01:00:00Z,INFO,type.googleapis.com/google.cloud.scheduler.logging.AttemptStarted")?;

    // To a topic.
    tanebi.script_all(&format!(
        "gcloud pubsub topics create ticks\ngcloud pubsub subscriptions create readers --topic ticks\n\
         {jobs} create pubsub publishing {place} --schedule '0 * * * *' --topic ticks --message-body hello --attributes a=1\n{jobs} pause failing {place}"
    ))?;
    tanebi.script("tanebi clock advance 1h")?;
    let pulled = tanebi.script("gcloud pubsub subscriptions pull readers --auto-ack --format 'value(message.data.decode(base64),message.attributes.a)'")?;
    ensure!(pulled.split_whitespace().collect::<Vec<_>>() == ["hello", "1"], "{pulled}");

    let list = tanebi.script(&format!("{jobs} list {place} --format 'csv[no-heading](name.basename(),schedule,timeZone,state)'"))?;
    ensure!(list.trim() == "every-day,30 9 * * *,Asia/Tokyo,ENABLED\nfailing,0 * * * *,Etc/UTC,PAUSED\npublishing,0 * * * *,Etc/UTC,ENABLED", "{list}");
    holds(&tanebi.script("gcloud scheduler locations list --format 'value(locationId)'")?, "asia-northeast1")?;
    holds(&tanebi.script_all(&format!("{jobs} delete failing {place} --quiet"))?, "Deleted job [failing].")?;
    holds(&tanebi.script_failing(&format!("{jobs} describe failing {place}"))?, "NOT_FOUND")?;

    // What was delivered can be looked at and sent again: the first one, to its revision by name.
    let events = tanebi.script("tanebi events list")?;
    let last = events.lines().last().context("an event")?;
    ensure!(last.contains("3 attempts") && last.contains("/jobs/failing") && last.contains("\t500\t"), "{events}");
    let revision = tanebi.script("gcloud run revisions list --service tick --region asia-northeast1 --limit 1 --format 'value(metadata.name)'")?;
    holds(&tanebi.script(&format!("tanebi events replay 1 --revision {}", revision.trim()))?, "\nyes")?;
    let lines = called(&tanebi, "every-day", 7)?;
    ensure!(lines[6] == lines[0], "a replay is the same call: {lines:?}");
    let shown = tanebi.script("tanebi events show 1")?;
    for part in ["event 1 of scheduler", "replay to tick-", "x-cloudscheduler-jobname: every-day", "{\"a\":1}"] {
        holds(&shown, part)?;
    }
    holds(&tanebi.script_failing("tanebi events replay 1 --revision tick-00099-nix")?, "no revision")?;

    // Tokens follow the clock; the shell gets new ones.
    holds(&tanebi.script("gcloud run services list --format 'value(metadata.name)'")?, "tick")?;
    // It goes on where it stood, and never back.
    holds(&tanebi.script_failing("tanebi clock set 2027-03-01T00:00:00Z")?, "never goes back")?;
    let data = tanebi.stop()?;
    let again = Tanebi::start_with(data, &["--clock", "manual=2027-01-01T00:00:00Z"])?;
    ensure!(again.script("tanebi clock show")?.trim() == "2027-03-07T02:15:00Z");
    Ok(())
}

/// The daemon dies while the function is at work: the tick is not begun again, and the next one is.
fn a_kill_at_a_fire_repeats_nothing() -> Result<()> {
    let rounds = if is_full() { 50 } else { 1 };
    let mut tanebi = started("2027-03-01T00:00:00Z", "--allow-unauthenticated")?;
    let url = tanebi.url("tick");
    tanebi.script_all(&format!("gcloud scheduler jobs create http slow --location asia-northeast1 --schedule '0 * * * *' --uri '{url}/?takes=4'"))?;
    for round in 1..=rounds {
        let tick = format!("2027-03-{:02}T{:02}:00:00Z", 1 + round / 24, round % 24);
        let seen = tanebi.ready_count();
        thread::scope(|scope| -> Result<()> {
            let moving = scope.spawn(|| tanebi.shell("tanebi clock advance 1h"));
            eventually("an attempt under way", || {
                let log = tanebi.script("tanebi logs tick --limit 1000")?;
                Ok(log.contains(&format!("called slow {tick}")).then_some(()))
            })?;
            let daemon = descendants(tanebi.pid()).into_iter().find(|pid| name_of(*pid).starts_with("tanebi")).context("a daemon")?;
            kill(daemon, "KILL")?;
            ensure!(!moving.join().expect("no panic")?.status.success(), "the move of the clock ended with the daemon");
            Ok(())
        })?;
        tanebi.ready_wait(seen)?;
        ensure!(tanebi.script("tanebi clock show")?.trim() == tick, "the clock stands where it came to");
    }
    tanebi.script("tanebi clock advance 59m && tanebi wait-idle")?;
    called(&tanebi, "slow", rounds)?;
    let code = tanebi.script("gcloud scheduler jobs describe slow --location asia-northeast1 --format 'value(status.code)'")?;
    ensure!(code.trim() == "10", "the attempt counts as aborted: {code}");
    tanebi.script("tanebi clock advance 1m")?;
    let lines = called(&tanebi, "slow", rounds + 1)?;
    let ticks: BTreeSet<_> = lines.iter().map(|line| &line[..20]).collect();
    ensure!(ticks.len() == lines.len(), "a tick ran twice: {lines:?}");
    // Nothing is to be moved under the system's clock.
    let refused = Tanebi::start()?.script_failing("tanebi clock advance 1h")?;
    holds(&refused, "--clock manual")?;
    Ok(())
}
