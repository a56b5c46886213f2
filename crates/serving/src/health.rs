//! What is asked of an instance while it lives: its liveness and readiness probes.
//!
//! Each probe wakes an instance that is frozen, and lets it be frozen again. What fails a liveness probe is ended by `instances.rs`;
//! what fails a readiness probe gets no requests from `pool.rs`. An instance is ready when it has started, until it fails.
//! Source: Cloud Run's documentation of health checks.

use std::{convert::Infallible, future::pending, sync::Arc};

use model::{log::Severity, revision::Probe};
use tokio::time::{Instant, sleep_until};

use crate::{
    instances::{self, Instance},
    probe::{self, Times},
};

/// Asks until the liveness probe has failed: the words of the log.
pub(crate) async fn failed(instance: &Arc<Instance>) -> String {
    let container = &instance.pool.template.container;
    tokio::select! {
        why = liveness(instance, container.liveness_probe.as_ref()) => why,
        never = readiness(instance, container.readiness_probe.as_ref()) => match never {},
    }
}

async fn liveness(instance: &Arc<Instance>, probe: Option<&Probe>) -> String {
    let Some(probe) = probe else { return pending().await };
    let times = Times::of(probe);
    let mut next = Instant::now() + times.delay;
    let mut failures = 0;
    while failures < times.failures {
        sleep_until(next).await;
        next = Instant::now() + times.period;
        match asked(instance, probe).await {
            Some(true) => failures = 0,
            Some(false) => failures += 1,
            None => {}
        }
    }
    text("LIVENESS", instance, probe, times.failures, "The instance has been shut down.")
}

async fn readiness(instance: &Arc<Instance>, probe: Option<&Probe>) -> Infallible {
    let Some(probe) = probe else { return pending().await };
    let times = Times::of(probe);
    let mut next = Instant::now();
    // Answers in a row that speak against what the instance is held for.
    let (mut is_ready, mut against) = (true, 0);
    loop {
        sleep_until(next).await;
        next = Instant::now() + times.period;
        match asked(instance, probe).await {
            None => continue,
            Some(passed) if passed == is_ready => against = 0,
            Some(_) => against += 1,
        }
        if against < if is_ready { times.failures } else { times.successes } {
            continue;
        }
        (is_ready, against) = (!is_ready, 0);
        instance.pool.readiness(instance, is_ready);
        if is_ready {
            instance.system_log(Severity::Info, text("READINESS", instance, probe, 0, "The instance gets requests again."));
        } else {
            instance.system_log(Severity::Error, text("READINESS", instance, probe, times.failures, "The instance gets no requests until it passes."));
        }
    }
}

/// Google's words of a probe that failed so many times, or that succeeded.
fn text(which: &str, instance: &Instance, probe: &Probe, failures: u32, then: &str) -> String {
    let (kind, port, path) = probe::told(instance, &probe.check);
    let container = instance.container();
    let outcome = match failures {
        0 => "succeeded".to_owned(),
        1 => "failed 1 time consecutively".to_owned(),
        n => format!("failed {n} times consecutively"),
    };
    format!("{which} {kind} probe {outcome} for container \"{container}\" on port {port}{path}. {then}")
}

/// Whether the instance passes; `None` when it is not asked, since it is being ended or cannot be woken.
async fn asked(instance: &Arc<Instance>, probe: &Probe) -> Option<bool> {
    let is_frozen = instance.pool.probing(instance)?;
    // Dropped too when this is: the instance may end while it is asked.
    let _asking = Asking(instance);
    if is_frozen && instances::thaw(instance).await.is_err() {
        return None;
    }
    Some(probe::is_passed(instance, probe).await)
}

struct Asking<'a>(&'a Arc<Instance>);

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        if self.0.pool.probed(self.0) {
            instances::linger(self.0.clone());
        }
    }
}
