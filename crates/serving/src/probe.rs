//! Whether an instance listens: the startup probe. What is asked of it while it lives is `health.rs`'s, by what stands here.
//!
//! Without one of the owner's: a TCP connection to $PORT within 4 minutes. The port is tried every few milliseconds at first, as
//! each of them is a caller's wait; an owner's HTTP and gRPC probes are sent at their own period, as each of them is the function's work.

use std::{sync::Arc, time::Duration};

use bytes::{Buf, Bytes};
use http_body_util::{BodyExt, Empty, Full, Limited};
use model::{
    limits,
    log::Severity,
    revision::{Check, Probe},
};
use sandbox::Ended;
use tokio::time::{Instant, sleep, sleep_until, timeout, timeout_at};

use crate::{connection, instances::Instance};

/// Why an instance is not ready.
pub(crate) enum Failure {
    /// The words of the system log.
    NotListening(String),
    Ended(Ended),
    /// It was ordered to end.
    Stopped,
}

/// Waits until `instance`, started at `born`, passes its startup probe.
pub(crate) async fn listens(instance: &Arc<Instance>, born: Instant) -> Result<(), Failure> {
    let template = &instance.pool.template;
    let (container, port) = (instance.container(), template.port());
    let Some(probe) = template.container.startup_probe.as_ref() else {
        let deadline = born + Duration::from_secs(u64::from(limits::STARTUP_MAX_S));
        return match connected(instance, port, deadline).await {
            true => {
                passed(instance);
                Ok(())
            }
            false => Err(Failure::NotListening(format!(
                "Default STARTUP TCP probe failed 1 time consecutively for container \"{container}\" on port {port}. The instance was not started."
            ))),
        };
    };
    let times = Times::of(probe);
    sleep_until(born + times.delay).await;
    let deadline = born + times.delay + times.period * times.failures;
    let (kind, port, path) = told(instance, &probe.check);
    let mut attempts = 1;
    let mut passed = connected(instance, port, deadline).await;
    if passed && !matches!(probe.check, Check::Tcp { .. }) {
        loop {
            let begun = Instant::now();
            passed = is_passed(instance, probe).await;
            if passed || attempts >= times.failures || begun + times.period >= deadline {
                break;
            }
            attempts += 1;
            sleep_until(begun + times.period).await;
        }
    }
    let plural = |n: u32| if n == 1 { "" } else { "s" };
    if passed {
        let plural = plural(attempts);
        succeeded(instance, format!("STARTUP {kind} probe succeeded after {attempts} attempt{plural} for container \"{container}\" on port {port}{path}."));
        return Ok(());
    }
    let (failures, plural) = (times.failures, plural(times.failures));
    Err(Failure::NotListening(format!(
        "STARTUP {kind} probe failed {failures} time{plural} consecutively for container \"{container}\" on port {port}{path}. The instance was not started."
    )))
}

/// How a check is told in the log: its kind, its port, and its path when it has one.
pub(crate) fn told(instance: &Instance, check: &Check) -> (&'static str, u16, String) {
    match check {
        Check::Tcp { port } => ("TCP", or(*port, port_of(instance)), String::new()),
        Check::Http { path, port } => ("HTTP", or(*port, port_of(instance)), format!(" path \"{path}\"")),
        Check::Grpc { port, .. } => ("GRPC", or(*port, port_of(instance)), String::new()),
    }
}

/// Asks once.
pub(crate) async fn is_passed(instance: &Arc<Instance>, probe: &Probe) -> bool {
    let (_, port, _) = told(instance, &probe.check);
    let answer = async {
        match &probe.check {
            Check::Tcp { .. } => instance.dial(port).await.ok().map(drop),
            Check::Http { path, .. } => http(instance, port, path).await,
            Check::Grpc { service, .. } => grpc(instance, port, service).await,
        }
    };
    matches!(timeout(Times::of(probe).timeout, answer).await, Ok(Some(())))
}

/// Whether it is known already that the probe would pass: an armed clone was connected to while it waited, and nothing else is asked.
pub(crate) fn is_proven(instance: &Instance) -> bool {
    let asks_that = |probe: &Probe| match probe.check {
        Check::Tcp { port } => probe.initial_delay_s == 0 && or(port, port_of(instance)) == port_of(instance),
        Check::Http { .. } | Check::Grpc { .. } => false,
    };
    instance.connections.is_offered() && instance.pool.template.container.startup_probe.as_ref().is_none_or(asks_that)
}

/// The probe of what is proven has passed.
pub(crate) fn passed(instance: &Instance) {
    let (container, port) = (instance.container(), port_of(instance));
    let default = if instance.pool.template.container.startup_probe.is_none() { "Default " } else { "" };
    succeeded(instance, format!("{default}STARTUP TCP probe succeeded after 1 attempt for container \"{container}\" on port {port}."));
}

fn succeeded(instance: &Instance, text: String) {
    instance.system_log(Severity::Info, text);
}

fn port_of(instance: &Instance) -> u16 {
    instance.pool.template.port()
}

fn or(port: u16, default: u16) -> u16 {
    if port == 0 { default } else { port }
}

/// A probe's times with Google's defaults for what is 0.
pub(crate) struct Times {
    pub(crate) delay: Duration,
    pub(crate) timeout: Duration,
    pub(crate) period: Duration,
    pub(crate) failures: u32,
    pub(crate) successes: u32,
}

impl Times {
    pub(crate) fn of(probe: &Probe) -> Self {
        let or = |value: u32, default: u32| if value == 0 { default } else { value };
        Self {
            delay: Duration::from_secs(u64::from(probe.initial_delay_s)),
            timeout: Duration::from_secs(u64::from(or(probe.timeout_s, 1))),
            period: Duration::from_secs(u64::from(or(probe.period_s, 10))),
            failures: or(probe.failure_threshold, 3),
            successes: or(probe.success_threshold, 2),
        }
    }
}

/// Tries to connect until `deadline`. The connection is kept for the request that waits, if one does: a server that takes one
/// connection at a time would wait on it while the request came by another.
async fn connected(instance: &Arc<Instance>, port: u16, deadline: Instant) -> bool {
    let begun = Instant::now();
    loop {
        if let Ok(Ok(stream)) = timeout_at(deadline, instance.dial(port)).await {
            if port == port_of(instance)
                && instance.pool.is_waited_for()
                && let Ok(stream) = stream.into_std()
            {
                instance.connections.offer(instance, stream);
            }
            return true;
        }
        if Instant::now() >= deadline {
            return false;
        }
        // A sixteenth of what has passed already: late by 6 % at most, and few tries for what is slow.
        sleep((begun.elapsed() / 16).clamp(Duration::from_millis(1), Duration::from_millis(50))).await;
    }
}

/// Answers of a probe are read up to here.
const ANSWER_MAX_BYTES: usize = 64 << 10;

/// The answer that comes by a connection. The connection may end with the answer, or before it, which the answer then says.
async fn driven<T>(answer: impl Future<Output = Option<T>>, connection: impl Future) -> Option<T> {
    let connection = async {
        connection.await;
        std::future::pending::<()>().await;
    };
    tokio::select! {
        answer = answer => answer,
        () = connection => None,
    }
}

async fn http(instance: &Arc<Instance>, port: u16, path: &str) -> Option<()> {
    let stream = instance.dial(port).await.ok()?;
    let (mut sender, connection) = connection::http1(stream).await.ok()?;
    let request = http::Request::get(if path.is_empty() { "/" } else { path })
        .header("host", format!("127.0.0.1:{port}"))
        .header("user-agent", "GoogleHC/1.0")
        .header("connection", "close")
        .body(Empty::new().map_err(|never| match never {}).boxed())
        .ok()?;
    let answer = async {
        let response = sender.send_request(request).await.ok()?;
        let status = response.status();
        let _ = Limited::new(response.into_body(), ANSWER_MAX_BYTES).collect().await;
        Some(status)
    };
    let status = driven(answer, connection).await?;
    (status.is_success() || status.is_redirection()).then_some(())
}

/// grpc.health.v1.Health/Check, with its two tiny messages written by hand: a string in field 1, and an enum in field 1.
async fn grpc(instance: &Arc<Instance>, port: u16, service: &str) -> Option<()> {
    let stream = instance.dial(port).await.ok()?;
    let (mut sender, connection) = connection::http2(stream).await.ok()?;
    let length = u8::try_from(service.len()).ok().filter(|length| *length < 126)?;
    let mut message = vec![0, 0, 0, 0];
    if service.is_empty() {
        message.push(0);
    } else {
        message.extend([length + 2, 0x0a, length]);
        message.extend(service.as_bytes());
    }
    let request = http::Request::post(format!("http://127.0.0.1:{port}/grpc.health.v1.Health/Check"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(Full::new(Bytes::from(message)).map_err(|never| match never {}).boxed())
        .ok()?;
    let answer = async {
        let response = sender.send_request(request).await.ok()?;
        let collected = Limited::new(response.into_body(), ANSWER_MAX_BYTES).collect().await.ok()?;
        Some(collected.to_bytes())
    };
    let mut answer = driven(answer, connection).await?;
    // SERVING is 1.
    (answer.remaining() == 7 && answer.split_off(5).as_ref() == [0x08, 0x01]).then_some(())
}
