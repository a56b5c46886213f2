//! One revision at a time: proves that its first instance comes up, and says so.
//!
//! A proof that a crash interrupted is made again; one that came to an end is not.

use std::{sync::Arc, time::Duration};

use model::{
    Revision, Service, Status,
    condition::{self, Condition, State},
    key,
};
use serving::StartFailure;
use store::Change;

use super::{Reconciler, traffic};
use crate::{Context, image, records};

pub(crate) struct Revisions(pub Arc<Context>);

/// Faults of the platform are tried again this often before the revision is said to have failed.
const PLATFORM_ATTEMPTS: u32 = 3;
const PLATFORM_REST: Duration = Duration::from_secs(1);
/// How much of a container's last output is shown.
const OUTPUT_MAX_LINES: usize = 20;
const OUTPUT_MAX_CHARS: usize = 4000;

impl Reconciler for Revisions {
    const NAME: &'static str = "revisions";
    const PREFIXES: &'static [&'static str] = &[key::REVISIONS];

    fn parallel(&self) -> usize {
        8
    }

    fn concerned(&self, change: &Change) -> Vec<String> {
        change.value.is_some().then(|| change.key.clone()).into_iter().collect()
    }

    fn all(&self) -> Result<Vec<String>, Status> {
        let revisions = records::all::<Revision>(&self.0.store, key::REVISIONS)?;
        Ok(revisions.iter().filter(|r| !traffic::is_proven(&r.value)).map(|r| key::revision(&r.value.service, &r.value.name)).collect())
    }

    async fn step(&self, key: &str) -> Result<(), Status> {
        let cx = &*self.0;
        let Some(revision) = records::read::<Revision>(&cx.store, key)?.map(|revision| revision.value) else {
            return Ok(());
        };
        if traffic::is_proven(&revision) || !is_wanted(cx, &revision)? {
            return Ok(());
        }
        let failure = prove(cx, &revision).await?;
        let stored = records::update::<Revision>(&cx.store, key, |stored| {
            if stored.uid != revision.uid {
                return false;
            }
            for condition in conditions(failure.as_ref(), cx.clock.now()) {
                condition::set(&mut stored.conditions, condition);
            }
            true
        })
        .await?;
        match &failure {
            None => tracing::info!(revision = %revision.name, "revision is ready"),
            Some(failure) => {
                tracing::warn!(revision = %revision.name, reason = failure.reason, "revision failed")
            }
        }
        if stored.is_none() && !is_wanted(cx, &revision)? {
            // Its service was deleted while it started.
            cx.starter.stop(&revision.service).await;
        }
        Ok(())
    }
}

/// Whether the revision's service is there and stays.
fn is_wanted(cx: &Context, revision: &Revision) -> Result<bool, Status> {
    let service = records::read::<Service>(&cx.store, &key::service(&revision.service))?;
    Ok(service.is_some_and(|service| service.value.deleted.is_none() && service.value.uid == revision.service_uid))
}

/// Why a revision cannot serve.
struct Failure {
    reason: &'static str,
    message: String,
}

async fn prove(cx: &Context, revision: &Revision) -> Result<Option<Failure>, Status> {
    if revision.template.container.is_placeholder() {
        return Ok(None);
    }
    let image = match &revision.image {
        Some(digest) => cx.images.image_get(digest).map_err(Status::internal)?,
        None => None,
    };
    let Some(image) = image else {
        return Ok(Some(Failure { reason: "ContainerMissing", message: image::missing_text(&revision.template.container.image) }));
    };
    // Its owner does not want to wait for an instance that has passed its startup probe.
    if revision.template.health_check_disabled {
        return Ok(None);
    }
    for attempt in 1.. {
        match cx.starter.prove(revision, &image).await {
            Ok(()) => return Ok(None),
            Err(StartFailure::Platform(why)) if attempt < PLATFORM_ATTEMPTS => {
                tracing::warn!(revision = %revision.name, why, "the platform could not start the first instance; trying again");
                tokio::time::sleep(PLATFORM_REST).await;
            }
            Err(failure) => return Ok(Some(failure_read(revision, failure))),
        }
    }
    unreachable!("the loop ends with a return")
}

/// Google's words, then what the container itself said last: gcloud prints the message as the deploy's error.
fn failure_read(revision: &Revision, failure: StartFailure) -> Failure {
    let name = &revision.name;
    let port = revision.template.port();
    let not_ready = format!("Revision '{name}' is not ready and cannot serve traffic.");
    let not_listening = format!(
        "{not_ready} The user-provided container failed to start and listen on the port defined provided by the PORT={port} environment variable within the allocated timeout. This can happen when the container port is misconfigured or if the timeout is too short. The health check timeout can be extended. Logs for this revision might contain more information."
    );
    let (reason, text, output) = match failure {
        StartFailure::NotListening { last_output, .. } => ("HealthCheckContainerError", not_listening, last_output),
        StartFailure::Exited { code, last_output } => {
            ("HealthCheckContainerError", format!("{not_listening}\n\nThe container exited with code {code}."), last_output)
        }
        StartFailure::OutOfMemory { limit_mib, last_output } => (
            "HealthCheckContainerError",
            format!(
                "{not_ready} Memory limit of {limit_mib} MiB exceeded. Consider increasing the memory limit, see https://cloud.google.com/run/docs/configuring/memory-limits"
            ),
            last_output,
        ),
        failure @ StartFailure::Exec(_) => ("HealthCheckContainerError", format!("{not_listening}\n\n{failure}"), String::new()),
        StartFailure::Platform(why) => ("ContainerStartError", format!("{not_ready} The instance could not be started: {why}"), String::new()),
    };
    let mut message = format!("{text}\n\nLogs URL: {}", logs_url(revision));
    let output = output_tail(&output);
    if !output.is_empty() {
        message.push_str("\n\nLast output of the container:\n");
        message.push_str(&output);
    }
    Failure { reason, message }
}

/// The last lines, without control characters: they are printed to a terminal.
fn output_tail(output: &str) -> String {
    let lines: Vec<&str> = output.trim_end().lines().collect();
    let text = lines[lines.len().saturating_sub(OUTPUT_MAX_LINES)..].join("\n");
    let clean: Vec<char> = text.chars().filter(|c| *c == '\n' || *c == '\t' || !c.is_control()).collect();
    clean[clean.len().saturating_sub(OUTPUT_MAX_CHARS)..].iter().collect()
}

fn logs_url(revision: &Revision) -> String {
    let model::ServiceKey { project, service, .. } = &revision.service;
    let name = &revision.name;
    format!(
        "https://console.cloud.google.com/logs/viewer?project={project}&resource=cloud_run_revision/service_name/{service}/revision_name/{name}&advancedFilter=resource.type%3D%22cloud_run_revision%22%0Aresource.labels.service_name%3D%22{service}%22%0Aresource.labels.revision_name%3D%22{name}%22"
    )
}

fn conditions(failure: Option<&Failure>, now: model::Timestamp) -> Vec<Condition> {
    let good = |kind: &str| Condition { kind: kind.to_owned(), state: State::True, reason: String::new(), message: String::new(), since: now };
    let Some(failure) = failure else {
        return ["Ready", "ContainerHealthy", "ContainerReady", "ResourcesAvailable"].map(good).to_vec();
    };
    let bad =
        |kind: &str| Condition { kind: kind.to_owned(), state: State::False, reason: failure.reason.to_owned(), message: failure.message.clone(), since: now };
    // Knative's split: no image is the container's trouble, no listener its health's.
    match failure.reason {
        "ContainerMissing" => vec![bad("Ready"), good("ResourcesAvailable"), bad("ContainerReady"), bad("ContainerHealthy")],
        "ContainerStartError" => vec![bad("Ready"), bad("ResourcesAvailable"), good("ContainerReady"), bad("ContainerHealthy")],
        _ => vec![bad("Ready"), good("ResourcesAvailable"), good("ContainerReady"), bad("ContainerHealthy")],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_is_cut_at_its_beginning_and_cleaned() {
        assert_eq!(output_tail("a\nb\u{1b}[31m\n\n"), "a\nb[31m");
        let long: String = (0..100).map(|n| format!("line {n}\n")).collect();
        let tail = output_tail(&long);
        assert!(tail.starts_with("line 80\n") && tail.ends_with("line 99"), "{tail}");
        assert_eq!(output_tail(&"関".repeat(9000)).chars().count(), OUTPUT_MAX_CHARS);
    }
}
