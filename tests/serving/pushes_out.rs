//! Pushes and jobs to the world, against a network namespace that plays it: what may be reached is, and nothing else.

use std::{path::Path, process::Command};

use anyhow::{Result, ensure};
use e2e::{PROJECT, Tanebi, eventually, holds, repository, text};

use super::way_out::Network;

/// What the server's host resolves.
const HOSTS: &str = "127.0.0.1 localhost inner.example\n93.184.215.14 hook.example\n10.9.9.9 rebound.example listed.example\n";

pub(super) fn pushes_and_jobs_to_the_world() -> Result<()> {
    let network = Network::make()?;
    let folder = tempfile::tempdir()?;
    let at = |name: &str| folder.path().join(name);
    certificates(folder.path())?;
    std::fs::write(at("hosts"), HOSTS)?;
    let log = at("webhook.log");
    let script = repository().join("tests/serving/webhook.py");
    let _world = network.play(&network.internet, &[&script, &log, &at("leaf.pem"), &at("leaf.key")])?;
    let way = format!(
        "mount --make-rprivate / && mount --bind {hosts} /etc/hosts && export SSL_CERT_FILE={roots} TANEBI_OUTSIDE_HOSTS=listed.example,inner.example && exec nsenter --net=/run/netns/{server} \"$@\"",
        hosts = at("hosts").display(),
        roots = at("root.pem").display(),
        server = network.server,
    );
    let tanebi = Tanebi::start_under(&["unshare", "--mount", "sh", "-c", &way, "sh"], tempfile::tempdir()?, &[])?;
    let shell = |script: &str| network.shell(&tanebi, script);
    let refused = |script: &str, why: &str| -> Result<()> {
        let output = shell(&format!("{{ {script}\n}} 2>&1"))?;
        ensure!(!output.status.success(), "should have failed: {script}");
        holds(&String::from_utf8_lossy(&output.stdout), why)
    };
    let reached = || Ok::<_, anyhow::Error>(std::fs::read_to_string(&log)?);

    let account = format!("pusher@{PROJECT}.iam.gserviceaccount.com");
    let (push, job) = ("gcloud pubsub subscriptions create", "gcloud scheduler jobs create http");
    let every = "--location asia-northeast1 --schedule '0 0 1 1 *'";
    text(shell("gcloud iam service-accounts create pusher && gcloud pubsub topics create top")?, "an account and a topic")?;
    // What can be said before anything is resolved.
    refused(&format!("{push} plain --topic top --push-endpoint http://hook.example/x"), "must be https")?;
    refused(&format!("{push} private --topic top --push-endpoint https://10.9.9.9/x"), "--outside-host 10.9.9.9")?;
    refused(&format!("{push} own --topic top --push-endpoint https://127.0.0.1:{}/x", tanebi.tls_listen.port()), "this machine")?;
    refused(&format!("{job} oauth {every} --uri https://hook.example/ --oauth-service-account-email {account}"), "OAuth token is for *.googleapis.com")?;
    refused(&format!("{job} bare {every} --uri http://hook.example/ --oidc-service-account-email {account}"), "without TLS")?;
    // A job may call an API that is played here, with the token that it takes.
    let topics = "https://pubsub.googleapis.com/v1/projects/tanebi-local/topics/by-a-job";
    text(
        shell(&format!(
            "gcloud projects add-iam-policy-binding {PROJECT} --member serviceAccount:{account} --role roles/pubsub.editor --format none\n\
             {job} api {every} --uri {topics} --http-method put --message-body '{{}}' --headers Content-Type=application/json --oauth-service-account-email {account}\n\
             gcloud scheduler jobs run api --location asia-northeast1"
        ))?,
        "a job that calls an API",
    )?;
    eventually("the topic that a job makes", || Ok(shell("gcloud pubsub topics describe by-a-job")?.status.success().then_some(())))?;

    for (name, url, flags) in [
        ("good", "https://hook.example/good", format!("--push-auth-service-account {account} --push-auth-token-audience mine")),
        ("listed", "https://listed.example/listed", String::new()),
        ("rebound", "https://rebound.example/rebound", String::new()),
        ("inner", "https://inner.example/inner", String::new()),
        ("redirected", "https://hook.example/redirect?to=https://hook.example/never", String::new()),
    ] {
        text(shell(&format!("{push} {name} --topic top --push-endpoint '{url}' {flags}"))?, name)?;
    }
    text(shell("gcloud pubsub topics publish top --message hello")?, "publish")?;
    for line in ["93.184.215.14 POST hook.example /good aud=mine", "10.9.9.9 POST listed.example /listed -", "93.184.215.14 POST hook.example /redirect?to="] {
        eventually(line, || Ok(reached()?.contains(line).then_some(())))?;
    }
    let entries = |filter: &str, words: &str| -> Result<()> {
        let read = format!("gcloud logging read '{filter}' --format 'value(textPayload,jsonPayload.debugInfo)'");
        eventually(words, || Ok(text(shell(&read)?, &read)?.contains(words).then_some(())))
    };
    let of = |name: &str| format!("resource.type=\"pubsub_subscription\" AND resource.labels.subscription_id=\"{name}\"");
    entries(&of("rebound"), "rebound.example has the address 10.9.9.9, which is no public address of another machine; --outside-host rebound.example")?;
    entries(&of("inner"), "inner.example has the address 127.0.0.1, which is of this machine")?;

    // Jobs follow redirects, to where they may go.
    for (name, url) in [
        ("plain", "http://hook.example/plain"),
        ("followed", "http://hook.example/redirect?to=/followed"),
        ("stolen", "http://hook.example/redirect?to=http://10.9.9.9/stolen"),
        ("turned", "http://hook.example/redirect?to=http://run.googleapis.com/turned"),
        ("endless", "http://hook.example/endless"),
    ] {
        let make = format!("{job} {name} {every} --uri '{url}' --headers Authorization=mine --http-method post");
        text(shell(&format!("{make} && gcloud scheduler jobs run {name} --location asia-northeast1"))?, name)?;
    }
    for line in ["POST hook.example /plain mine", "POST hook.example /followed mine", "/endless mine"] {
        eventually(line, || Ok(reached()?.contains(line).then_some(())))?;
    }
    let of = |name: &str| format!("resource.type=\"cloud_scheduler_job\" AND resource.labels.job_id=\"{name}\" AND jsonPayload.debugInfo:*");
    entries(&of("endless"), "URL_CRAWLED")?;
    entries(&of("stolen"), "--outside-host 10.9.9.9")?;
    entries(&of("turned"), "a host of this server, is not followed")?;
    let all = reached()?;
    for never in ["/never", "/stolen", "/turned", "/rebound", "/inner", "/x"] {
        ensure!(!all.contains(&format!(" {never}")), "{never}: {all}");
    }
    // Without a network there is none.
    let data = tanebi.stop()?;
    let tanebi = Tanebi::start_under(&["unshare", "--mount", "sh", "-c", &way, "sh"], data, &["--offline"])?;
    let output = network.shell(&tanebi, &format!("{push} off --topic top --push-endpoint https://hook.example/off 2>&1"))?;
    holds(&String::from_utf8_lossy(&output.stdout), "--offline")?;
    Ok(())
}

/// A root and a server's certificate of it.
fn certificates(folder: &Path) -> Result<()> {
    let script = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=root -keyout root.key -out root.pem\n\
         openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=leaf -keyout leaf.key -out leaf.csr\n\
         echo 'subjectAltName=DNS:hook.example,DNS:listed.example,DNS:rebound.example,DNS:inner.example' > names\n\
         openssl x509 -req -in leaf.csr -CA root.pem -CAkey root.key -CAcreateserial -days 2 -extfile names -out leaf.pem\n\
         chmod a+rx . && chmod a+r *";
    text(Command::new("sh").args(["-ec", script]).current_dir(folder).output()?, "certificates").map(drop)
}
