//! The same libraries within a function, with no configuration at all: names lead to the server, its certificates are believed,
//! tokens are the service account's, and nothing reaches the real Google.

use std::{collections::BTreeSet, time::Duration};

use anyhow::{Context, Result, ensure};
use e2e::{PROJECT, REGION, eventually, holds, repository};
use serde_json::json;

use super::World;

pub fn inside_python() -> Result<()> {
    inside("python", "inside", "python312")
}

pub fn inside_nodejs() -> Result<()> {
    inside("nodejs", "inside", "nodejs20")
}

pub fn inside_go() -> Result<()> {
    inside("go", "Inside", "go126")
}

pub fn inside_java() -> Result<()> {
    inside("java", "functions.Inside", "java17")
}

/// Deploys the function of a language and has it use all it can: with clients that were made while it loaded, and with new ones, in the
/// first instance and in those that come later, however they start.
fn inside(language: &str, function: &str, base_image: &str) -> Result<()> {
    let world = World::start()?;
    let (tanebi, account) = (&world.tanebi, &world.account);
    let bucket = format!("inside-{}", tanebi.number);
    tanebi.script_all(&format!(
        "set -e\n\
         gcloud storage buckets create gs://{bucket} --location {REGION}\n\
         gcloud pubsub topics create inside\n\
         gcloud pubsub subscriptions create inside --topic inside\n\
         printf 秘密 | gcloud secrets create inside --data-file -\n\
         gcloud secrets add-iam-policy-binding inside --member serviceAccount:{account} --role roles/secretmanager.secretAccessor\n\
         gcloud scheduler jobs create pubsub inside --location {REGION} --schedule '0 9 * * *' --topic inside --message-body x"
    ))?;
    let source = repository().join("tests/clients/inside").join(language);
    tanebi.script_all(&format!(
        "gcloud run deploy inside --source '{}' --function {function} --base-image {base_image} --region {REGION} --memory 1Gi --allow-unauthenticated --quiet",
        source.display()
    ))?;
    let (url, other) = (tanebi.url("inside"), tanebi.url("hello"));
    let call = |query: &str| tanebi.script(&format!("curl -sS '{url}/?{query}'"));
    let uses = |name: &str, more: &str| -> Result<()> {
        let answer = call(&format!("name={name}&bucket={bucket}&other={other}{more}"))?;
        let seen: serde_json::Value = serde_json::from_str(&answer).with_context(|| format!("{name}{more}: {answer}"))?;
        let expect = json!({ "object": format!("by {name}"), "secret": "秘密", "jobs": ["inside"], "greeting": "Hello World!" });
        ensure!(seen == expect, "{name}{more}: {seen}, not {expect}");
        Ok(())
    };
    uses("one", "")?;
    uses("two", "&new")?;
    for (name, more) in [("three", ""), ("four", "&new")] {
        // How the next one starts is known by then.
        eventually("a template or none", || {
            let templates = tanebi.script("tanebi instances templates")?;
            let line = templates.lines().find(|line| line.starts_with("inside\t")).context("no line of its template")?;
            Ok((line.contains("\trefused\t") || line.contains("\t1 armed\t")).then_some(()))
        })?;
        std::thread::sleep(Duration::from_secs(1));
        tanebi.script("tanebi instances stop inside")?;
        uses(name, more)?;
    }
    let starts: Vec<serde_json::Value> = serde_json::from_str(&tanebi.script("tanebi trace cold-starts inside --format json")?)?;
    println!("  {language}: instances started as {:?}", starts.iter().filter_map(|start| start["rung"].as_str()).collect::<Vec<_>>());

    let format = "csv[no-heading](message.data.decode(base64),message.attributes.by)";
    let mut pulled = BTreeSet::new();
    eventually("each message", || {
        pulled.extend(tanebi.script(&format!("gcloud pubsub subscriptions pull inside --limit 10 --auto-ack --format '{format}'"))?.lines().map(str::to_owned));
        Ok((pulled.len() >= 4).then_some(()))
    })?;
    let expect = ["one", "two", "three", "four"].map(|name| format!("{name},{language}"));
    ensure!(pulled == expect.into_iter().collect(), "{pulled:?}");

    // What is not here is not asked of Google either.
    for _ in 0..2 {
        holds(
            &call("google=translation.googleapis.com")?,
            "No API of translation.googleapis.com is played by this server, and nothing is sent to the real one.",
        )?;
    }
    let refused = "A request to translation.googleapis.com was refused.";
    eventually("it is in the log", || Ok((tanebi.script("tanebi logs inside --limit 1000")?.matches(refused).count() == 1).then_some(())))?;
    let severity =
        format!("gcloud logging read 'resource.labels.service_name=inside AND textPayload:\"{refused}\"' --project {PROJECT} --format 'value(severity)'");
    ensure!(tanebi.script(&severity)?.trim() == "WARNING");
    Ok(())
}
