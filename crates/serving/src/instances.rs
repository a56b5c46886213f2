//! The life of an instance: started, proven to listen, frozen between requests, ended.
//!
//! Starting, Ready (running or frozen), Draining, gone. One task for each instance lives through all of it; requests never wait
//! for that task, they take slots (`pool.rs`) and speak to the instance themselves (`forward.rs`). Everything that needs
//! privileges is asked of the keeper, on blocking threads.

use std::{
    os::fd::OwnedFd,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use model::{
    Timestamp, limits,
    log::{Entry, LogName, Payload, Severity, Source},
};
use parking_lot::Mutex;
use sandbox::{Ended, Sandbox};
use tokio::{
    io::AsyncReadExt,
    net::{TcpStream, unix::pipe::Receiver},
    sync::{Notify, watch},
    task::JoinHandle,
    time::{Instant, sleep, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{
    Handling, Shared, StartFailure,
    clones::{self, Armed, Rung, Template},
    cold_start::Moments,
    connection::Connections,
    environment, health,
    output::{self, Tail},
    pool::{Freeze, Pool},
    probe,
    refusal::Refusal,
    secret,
};

/// One instance of a revision.
pub(crate) struct Instance {
    /// Long and hexadecimal, as Google's.
    pub(crate) id: String,
    /// What the keeper calls it.
    pub(crate) sandbox: String,
    pub(crate) pool: Arc<Pool>,
    /// Of its log entries.
    pub(crate) source: Arc<Source>,
    pub(crate) started: Timestamp,
    pub(crate) connections: Connections,
    pub(crate) handling: Arc<Handling>,
    /// Told when it drains and its last request ended.
    pub(crate) drained: Notify,
    /// Cancelled when its processes are gone.
    pub(crate) gone: CancellationToken,
    pub(crate) tail: Mutex<Tail>,
    /// A clone that waits to become this instance.
    pub(crate) armed: Mutex<Option<Armed>>,
    /// What it is a clone of.
    pub(crate) origin: OnceLock<Arc<Template>>,
    /// Freezing and thawing, one at a time.
    freezer: Mutex<()>,
    /// It is being looked at whether it still accepts.
    suspected: AtomicBool,
    pub(crate) has_taught: AtomicBool,
    pub(crate) moments: Moments,
    /// How it came to be, once it has.
    pub(crate) rung: OnceLock<Rung>,
    stop: watch::Sender<Option<StopOrder>>,
    outcome: watch::Sender<Option<Result<(), StartFailure>>>,
}

/// Why an instance is started: the words of the system log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    Autoscaling,
    Minimum,
    Deployment,
}

impl Reason {
    fn text(self) -> &'static str {
        match self {
            Self::Autoscaling => {
                "Starting new instance. Reason: AUTOSCALING - Instance started due to configured scaling factors \
                 (e.g. CPU utilization, request throughput, etc.) or no existing capacity for current traffic."
            }
            Self::Minimum => {
                "Starting new instance. Reason: MANUAL_OR_CUSTOMER_MIN_INSTANCE - Instance started because of \
                 customer-configured min-instances or manual scaling."
            }
            Self::Deployment => {
                "Starting new instance. Reason: DEPLOYMENT_ROLLOUT - Instance started due to traffic shifting between revisions \
                 due to deployment, traffic split adjustment, or deployment health check."
            }
        }
    }
}

/// When an instance that drains is ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StopOrder {
    /// Its requests may go on until then; then it gets SIGTERM.
    pub(crate) drain_until: Instant,
    /// SIGKILL, at most 10 s after SIGTERM.
    pub(crate) kill_at: Instant,
}

/// Between SIGTERM and SIGKILL.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(limits::SHUTDOWN_GRACE_S as u64);

impl StopOrder {
    /// For what has no request, or whose requests may take as long as they are allowed to.
    pub(crate) fn gentle() -> Self {
        Self::after(Duration::from_secs(u64::from(limits::TIMEOUT_MAX_S)))
    }

    /// SIGTERM after its requests, at the latest after `finish`.
    pub(crate) fn after(finish: Duration) -> Self {
        let drain_until = Instant::now() + finish;
        Self { drain_until, kill_at: drain_until + SHUTDOWN_GRACE }
    }

    /// All of it within `grace`: the last fifth, at most 2 s, is for what SIGTERM makes it do.
    pub(crate) fn within(grace: Duration) -> Self {
        let kill_at = Instant::now() + grace;
        Self { drain_until: kill_at - (grace / 5).min(Duration::from_secs(2)), kill_at }
    }
}

impl Instance {
    pub(crate) fn new(pool: Arc<Pool>) -> Arc<Self> {
        let armed = pool.clones.take();
        let id = armed.as_ref().map_or_else(Self::id_make, |armed| armed.id.clone());
        let source = Arc::new(Source { instance: id.clone(), ..(*pool.source).clone() });
        Arc::new(Self {
            sandbox: Self::sandbox_name(&id),
            id,
            source,
            started: pool.shared.clock.now(),
            connections: Connections::default(),
            handling: Arc::default(),
            drained: Notify::new(),
            gone: CancellationToken::new(),
            tail: Mutex::default(),
            armed: Mutex::new(armed),
            origin: OnceLock::new(),
            freezer: Mutex::new(()),
            suspected: AtomicBool::new(false),
            has_taught: AtomicBool::new(false),
            moments: Moments::default(),
            rung: OnceLock::new(),
            stop: watch::Sender::new(None),
            outcome: watch::Sender::new(None),
            pool,
        })
    }

    pub(crate) fn id_make() -> String {
        hex::encode(rand::random::<[u8; 32]>()) + &hex::encode(rand::random::<[u8; 32]>())
    }

    pub(crate) fn sandbox_name(id: &str) -> String {
        format!("i-{}", &id[..24])
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.pool.shared
    }

    /// What the log calls its container.
    pub(crate) fn container(&self) -> String {
        let name = &self.pool.template.container.name;
        if name.is_empty() { format!("{}-1", self.pool.service.service) } else { name.clone() }
    }

    /// An entry of `run.googleapis.com/varlog/system`.
    pub(crate) fn system_log(&self, severity: Severity, text: String) {
        self.shared().telemetry.log(Entry {
            source: self.source.clone(),
            log: LogName::System,
            time: self.shared().clock.now(),
            severity,
            payload: Payload::Text(text),
            http: None,
            trace: String::new(),
            span: String::new(),
            trace_sampled: false,
            labels: std::collections::BTreeMap::new(),
        });
    }

    /// Orders its end; of two orders the earlier times hold. `Pool::drain` is how to get here.
    pub(crate) fn stop(&self, order: StopOrder) {
        self.stop.send_modify(|current| {
            *current =
                Some(current.map_or(order, |old| StopOrder { drain_until: old.drain_until.min(order.drain_until), kill_at: old.kill_at.min(order.kill_at) }));
        });
    }

    /// Waits until it is known whether it listens.
    pub(crate) async fn outcome(&self) -> Result<(), StartFailure> {
        let mut outcome = self.outcome.subscribe();
        let known = outcome.wait_for(Option::is_some).await.map(|known| known.clone());
        known.ok().flatten().unwrap_or_else(|| Err(StartFailure::Platform("the instance's task is gone".to_owned())))
    }

    /// A connection to its port, made inside its network. `port` is the container's unless a probe names another.
    pub(crate) async fn dial(self: &Arc<Self>, port: u16) -> Result<TcpStream, String> {
        let instance = self.clone();
        let connect = blocking(move || instance.shared().keeper.connect(&instance.sandbox, port));
        let fd = timeout(DIAL_MAX, connect).await.map_err(|_| "no connection within 10 s".to_owned())?.map_err(|error| error.to_string())?;
        let stream = std::net::TcpStream::from(fd);
        let made = stream.set_nonblocking(true).and_then(|()| TcpStream::from_std(stream));
        let stream = made.map_err(|error| error.to_string())?;
        // Answers that come in pieces must not wait for acknowledgements.
        let _ = stream.set_nodelay(true);
        Ok(stream)
    }
}

const DIAL_MAX: Duration = Duration::from_secs(10);
/// An instance that let a request run into its timeout and does not accept a connection within this is unresponsive.
const DIAL_SUSPECT_MAX: Duration = Duration::from_secs(1);

/// Runs `work` where it may block. A panic in it goes on here.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        // Only a runtime that is being shut down cancels; then nothing that waits here goes on.
        Err(_) => std::future::pending().await,
    }
}

// --- the task ---------------------------------------------------------------------------------------------------

/// Starts `instance`, which its pool counts already.
pub(crate) fn launch(instance: Arc<Instance>, reason: Reason) {
    let supervisor = instance.shared().supervisor.clone();
    supervisor.spawn("instance", async move {
        let born = Instant::now();
        instance.moments.begun.pass();
        instance.system_log(Severity::Info, reason.text().to_owned());
        match start(&instance).await {
            Err(failure) => {
                refused(&instance, &failure);
                instance.pool.removed(&instance, true);
                instance.gone.cancel();
                instance.outcome.send_replace(Some(Err(failure)));
            }
            Ok(sandbox) => {
                // Whoever waits has it before anything else is done for it.
                let is_proven = probe::is_proven(&instance);
                if is_proven {
                    instance.pool.ready(&instance, born.elapsed());
                }
                clones::tell(&instance);
                let mut running = follow(&instance, sandbox);
                let failure = if is_proven {
                    probe::passed(&instance);
                    None
                } else {
                    tokio::select! {
                        proven = probe::listens(&instance, born) => proven.err(),
                        ended = &mut running.ended => Some(probe::Failure::Ended(ended)),
                        () = stop_ordered(&instance) => Some(probe::Failure::Stopped),
                    }
                };
                match failure {
                    None => {
                        Tail::close(&instance.tail);
                        // When it was told to end in this moment it is not ready, but the start was good.
                        if !is_proven {
                            instance.pool.ready(&instance, born.elapsed());
                        }
                        tracing::debug!(instance = %instance.sandbox, rung = ?instance.rung.get(), took = ?born.elapsed(), "an instance is ready");
                        clones::prepare(&instance.pool);
                        instance.outcome.send_replace(Some(Ok(())));
                        serve(&instance, running).await;
                    }
                    Some(failure) => start_failed(&instance, running, failure).await,
                }
            }
        }
    });
}

/// What a started sandbox is followed by.
struct Running {
    ended: std::pin::Pin<Box<dyn Future<Output = Ended> + Send>>,
    pumps: [JoinHandle<()>; 2],
}

/// Its processes run when this returns.
async fn start(instance: &Arc<Instance>) -> Result<Sandbox, StartFailure> {
    if let Some((sandbox, rung)) = clones::start(instance).await {
        let _ = instance.rung.set(rung);
        return Ok(sandbox);
    }
    let _ = instance.rung.set(Rung::Ordinary);
    instance.moments.chosen.pass();
    let sandbox = start_ordinarily(instance).await?;
    instance.moments.made.pass();
    instance.moments.repaired.pass();
    Ok(sandbox)
}

fn follow(instance: &Arc<Instance>, sandbox: Sandbox) -> Running {
    let shared = instance.shared();
    let pump = |fd, log| shared.supervisor.spawn("output", output::pump(instance.clone(), fd, log));
    secret::follow(instance, sandbox.changing);
    let pumps = [pump(sandbox.stdout, LogName::Stdout), pump(sandbox.stderr, LogName::Stderr)];
    if let (Some(outbound), Some(dns_udp), Some(dns_tcp), Some(metadata)) = (sandbox.outbound, sandbox.dns_udp, sandbox.dns_tcp, sandbox.metadata) {
        shared.network.serve(
            instance.pool.identity(instance.id.clone(), instance.handling.clone()),
            outbound,
            dns_udp,
            dns_tcp,
            metadata,
            instance.gone.clone(),
        );
    }
    Running { ended: Box::pin(ended(sandbox.ended)), pumps }
}

async fn start_ordinarily(instance: &Arc<Instance>) -> Result<Sandbox, StartFailure> {
    let shared = instance.shared().clone();
    let permit = shared.starts.clone().acquire_owned().await.map_err(|_| StartFailure::Platform("shutting down".to_owned()))?;
    let made = {
        let instance = instance.clone();
        blocking(move || -> Result<Sandbox, StartFailure> {
            let shared = instance.shared();
            let image = instance.pool.image().map_err(StartFailure::Platform)?;
            let layer = |digest: &str| shared.store.layers().path(digest);
            let spec =
                environment::spec(&instance.pool, &image, &shared.config, instance.sandbox.clone(), layer, |source| secret::read(&instance.pool, source))?;
            shared.keeper.start(&spec).map_err(not_started)
        })
        .await
    };
    drop(permit);
    made
}

fn not_started(error: sandbox::Error) -> StartFailure {
    match error {
        sandbox::Error::Program { program, source, .. } => StartFailure::Exec(format!("failed to load {program}: {}", exec_text(&source))),
        other => StartFailure::Platform(other.to_string()),
    }
}

/// The kernel's answer as Google writes it: in lower case, without its number.
fn exec_text(error: &std::io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    let first = text.chars().next().map(|first| first.to_lowercase().to_string()).unwrap_or_default();
    first + text.get(1..).unwrap_or_default()
}

/// Waits for the report of the sandbox's init.
async fn ended(fd: OwnedFd) -> Ended {
    let read = async {
        let mut report = Vec::new();
        Receiver::from_owned_fd(fd)?.read_to_end(&mut report).await?;
        std::io::Result::Ok(report)
    };
    let report = read.await.map_err(|error| error.to_string()).and_then(|report| serde_json::from_slice(&report).map_err(|error| error.to_string()));
    report.unwrap_or_else(|error| Ended {
        code: None,
        signal: None,
        out_of_memory: false,
        memory_peak_bytes: 0,
        setup_error: Some(format!("nothing is known about its end: {error}")),
    })
}

async fn stop_ordered(instance: &Instance) {
    let mut stop = instance.stop.subscribe();
    if stop.wait_for(Option::is_some).await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// The instance did not come to listen: ends it, tells why, and lets those who wait for it go.
async fn start_failed(instance: &Arc<Instance>, running: Running, failure: probe::Failure) {
    end(instance, running.pumps).await;
    let last_output = Tail::text(&instance.tail);
    let port = instance.pool.template.port();
    let told = match failure {
        probe::Failure::Stopped => StartFailure::Platform("it was ended before it listened".to_owned()),
        probe::Failure::NotListening(why) => {
            instance.system_log(Severity::Error, why);
            StartFailure::NotListening { port, last_output }
        }
        probe::Failure::Ended(ended) => {
            if let Some((severity, text)) = ended_text(&ended, instance.pool.template.memory_bytes()) {
                instance.system_log(severity, text);
            }
            match ended {
                Ended { setup_error: Some(error), .. } => StartFailure::Platform(error),
                Ended { out_of_memory: true, .. } => StartFailure::OutOfMemory { limit_mib: instance.pool.template.memory_bytes() >> 20, last_output },
                Ended { code, signal, .. } => StartFailure::Exited { code: code.unwrap_or_else(|| 128 + signal.unwrap_or(0)), last_output },
            }
        }
    };
    let stopped = matches!(&told, StartFailure::Platform(_)) && instance.stop.borrow().is_some();
    if !stopped {
        refused(instance, &told);
    }
    instance.pool.removed(instance, !stopped);
    instance.outcome.send_replace(Some(Err(told)));
}

fn refused(instance: &Instance, failure: &StartFailure) {
    let text = match failure {
        StartFailure::Platform(why) => {
            tracing::error!(revision = %instance.pool.revision, instance = %instance.sandbox, error = %why, "an instance could not be started");
            "The instance could not be started: internal error.".to_owned()
        }
        StartFailure::Exec(_) => failure.to_string(),
        other => format!("Container failed to start. {other}"),
    };
    instance.system_log(Severity::Error, text);
}

/// From ready to gone.
async fn serve(instance: &Arc<Instance>, mut running: Running) {
    let pool = &instance.pool;
    let since = Instant::now();
    let mut boosted = pool.template.container.startup_cpu_boost;
    let mut settled = false;
    let mut unhealthy = std::pin::pin!(health::failed(instance));
    let crashed = loop {
        tokio::select! {
            ended = &mut running.ended => break Ending::Crashed(ended),
            () = stop_ordered(instance) => break Ending::Ordered,
            why = &mut unhealthy => break Ending::Unhealthy(why),
            () = sleep_until(since + BOOST), if boosted => {
                boosted = false;
                let instance = instance.clone();
                let done = blocking(move || instance.shared().keeper.cpu_limit(&instance.sandbox, instance.pool.template.cpu_millis())).await;
                if let Err(error) = done {
                    tracing::warn!(%error, "an instance keeps the CPU of its start");
                }
            }
            () = sleep_until(since + SETTLED), if !settled => {
                settled = true;
                pool.settled();
            }
        }
    };
    let young = since.elapsed() < SETTLED;
    match crashed {
        Ending::Crashed(ended) => {
            if let Some((severity, text)) = ended_text(&ended, pool.template.memory_bytes()) {
                instance.system_log(severity, text);
            }
            pool.removed(instance, young);
        }
        Ending::Ordered => {
            let _ = stop(instance, &mut running.ended).await;
            pool.removed(instance, false);
        }
        // SIGKILL, as at Google: what it was doing is answered with 503.
        Ending::Unhealthy(why) => {
            instance.system_log(Severity::Error, why);
            pool.drain(instance, StopOrder::within(Duration::ZERO));
            end(instance, running.pumps).await;
            pool.removed(instance, young);
            return;
        }
    }
    end(instance, running.pumps).await;
}

/// How a ready instance came to its end.
enum Ending {
    Crashed(Ended),
    Ordered,
    /// Its liveness probe has failed; the words of the log.
    Unhealthy(String),
}

/// The CPU boost of a start lasts this much longer.
const BOOST: Duration = Duration::from_secs(10);
/// An instance that lived this long did not fail to start.
const SETTLED: Duration = Duration::from_secs(10);

/// Waits for its requests, then SIGTERM, then waits for its end as long as the order allows.
async fn stop(instance: &Arc<Instance>, ended: &mut (impl Future<Output = Ended> + Unpin)) -> Option<Ended> {
    let mut orders = instance.stop.subscribe();
    let order = |orders: &mut watch::Receiver<Option<StopOrder>>| orders.borrow_and_update().unwrap_or_else(StopOrder::gentle);
    loop {
        let current = order(&mut orders);
        if instance.pool.in_flight(instance) == 0 || Instant::now() >= current.drain_until {
            break;
        }
        tokio::select! {
            () = instance.drained.notified() => {}
            () = sleep_until(current.drain_until) => {}
            _ = orders.changed() => {}
            ended = &mut *ended => return Some(ended),
        }
    }
    {
        let instance = instance.clone();
        // What is frozen cannot hear a signal.
        let told =
            blocking(move || thaw_now(&instance).and_then(|()| instance.shared().keeper.signal(&instance.sandbox, SIGTERM)).map_err(|error| error.to_string()))
                .await;
        if let Err(error) = told {
            tracing::debug!(%error, "an instance could not be told to end");
        }
    }
    let term_until = Instant::now() + SHUTDOWN_GRACE;
    loop {
        let until = order(&mut orders).kill_at.min(term_until);
        tokio::select! {
            ended = &mut *ended => return Some(ended),
            () = sleep_until(until) => return None,
            _ = orders.changed() => {}
        }
    }
}

const SIGTERM: i32 = 15;

/// Ends its processes and waits for the rest of its output.
async fn end(instance: &Arc<Instance>, pumps: [JoinHandle<()>; 2]) {
    let done = {
        let instance = instance.clone();
        blocking(move || instance.shared().keeper.end(&instance.sandbox)).await
    };
    if let Err(error) = done {
        tracing::warn!(%error, instance = %instance.sandbox, "an instance could not be ended cleanly");
    }
    instance.connections.clear();
    instance.gone.cancel();
    let deadline = Instant::now() + OUTPUT_REST;
    for mut pump in pumps {
        if tokio::time::timeout_at(deadline, &mut pump).await.is_err() {
            pump.abort();
        }
    }
}

/// What an instance wrote before its end is in its pipes; nobody writes any more.
const OUTPUT_REST: Duration = Duration::from_secs(1);

/// Google's words for an end that nobody ordered.
fn ended_text(ended: &Ended, memory_limit_bytes: u64) -> Option<(Severity, String)> {
    if let Some(error) = &ended.setup_error {
        tracing::error!(%error, "an instance could not be made");
        return Some((Severity::Error, "The instance could not be started: internal error.".to_owned()));
    }
    if ended.out_of_memory {
        let limit = memory_limit_bytes >> 20;
        let used = ended.memory_peak_bytes.max(memory_limit_bytes) >> 20;
        return Some((
            Severity::Error,
            format!(
                "Memory limit of {limit} MiB exceeded with {used} MiB used. Consider increasing the memory limit, \
                 see https://cloud.google.com/run/docs/configuring/memory-limits"
            ),
        ));
    }
    Some(match (ended.code, ended.signal) {
        (_, Some(signal)) => (Severity::Error, format!("Uncaught signal: {signal}, pid=1, tid=1, fault_addr=0.")),
        (Some(code), None) => (Severity::Warning, format!("Container called exit({code}).")),
        (None, None) => return None,
    })
}

// --- frozen between requests ------------------------------------------------------------------------------------

/// Freezes `instance` once it has had no request for a moment.
///
/// Not at once: a client that sends one request after the other would wait for a thaw each time, and what a function writes after its
/// answer would come out late.
pub(crate) fn linger(instance: Arc<Instance>) {
    let supervisor = instance.shared().supervisor.clone();
    supervisor.spawn("freezer", async move {
        sleep(LINGER).await;
        loop {
            let serial = instance.clone();
            let next = blocking(move || freeze_now(&serial)).await;
            match next {
                Freeze::Now | Freeze::Never => return,
                Freeze::NotBefore(due) => sleep_until(due).await,
            }
        }
    });
}

const LINGER: Duration = Duration::from_millis(20);

fn freeze_now(instance: &Arc<Instance>) -> Freeze {
    let _one_at_a_time = instance.freezer.lock();
    let freeze = instance.pool.freeze_begin(instance, LINGER);
    if freeze == Freeze::Now {
        clones::learn(instance);
        // Its keep-alive timers run out while it is frozen: a connection kept would break under the next request.
        instance.connections.clear();
        if let Err(error) = instance.shared().keeper.freeze(&instance.sandbox, true) {
            tracing::warn!(%error, instance = %instance.sandbox, "an instance could not be frozen");
            instance.pool.thawed(instance);
        }
    }
    freeze
}

/// Lets a frozen `instance` run again.
///
/// # Errors
/// `MalformedResponse` (503) when it cannot; the instance is being replaced then.
pub(crate) async fn thaw(instance: &Arc<Instance>) -> Result<(), Refusal> {
    let thawed = {
        let instance = instance.clone();
        blocking(move || thaw_now(&instance)).await
    };
    thawed.map_err(|error| {
        tracing::error!(%error, instance = %instance.sandbox, "an instance could not be thawed");
        instance.pool.drain(instance, StopOrder::within(Duration::ZERO));
        Refusal::MalformedResponse
    })
}

fn thaw_now(instance: &Arc<Instance>) -> Result<(), sandbox::Error> {
    let _one_at_a_time = instance.freezer.lock();
    if instance.pool.is_frozen(instance) {
        instance.shared().keeper.freeze(&instance.sandbox, false)?;
        if instance.pool.thawed(instance) {
            // Whoever woke it has gone meanwhile.
            linger(instance.clone());
        }
    }
    Ok(())
}

/// Does `work` while nothing in `instance` runs.
pub(crate) fn while_frozen<T>(instance: &Arc<Instance>, work: impl FnOnce() -> T) -> T {
    let _one_at_a_time = instance.freezer.lock();
    let keeper = &instance.shared().keeper;
    // One that is frozen between requests stays so. Where there is no freezer it is done all the same.
    let is_ours = !instance.pool.is_frozen(instance) && keeper.freeze(&instance.sandbox, true).is_ok();
    let done = work();
    if is_ours && let Err(error) = keeper.freeze(&instance.sandbox, false) {
        tracing::error!(%error, instance = %instance.sandbox, "an instance could not be thawed");
        instance.pool.drain(instance, StopOrder::within(Duration::ZERO));
    }
    done
}

/// A request to `instance` ran into its timeout: replaces it when it accepts nothing (it hangs, or has no descriptors left), or when as
/// many requests in a row did as it has slots.
pub(crate) fn suspect(instance: &Arc<Instance>) {
    let exhausted = instance.pool.timed_out(instance);
    if instance.suspected.swap(true, Ordering::AcqRel) && !exhausted {
        return;
    }
    let instance = instance.clone();
    let supervisor = instance.shared().supervisor.clone();
    supervisor.spawn("suspect", async move {
        let lives = !exhausted && accepts(&instance).await;
        instance.suspected.store(false, Ordering::Release);
        if !lives {
            if instance.gone.is_cancelled() {
                return;
            }
            instance.system_log(Severity::Warning, "The instance does not answer any more and is being replaced.".to_owned());
            instance.pool.drain(&instance, StopOrder::within(SHUTDOWN_GRACE));
            instance.pool.wake.notify_one();
        }
    });
}

/// Whether `instance` takes new connections. The kernel makes connections that the server never accepts, so its queue is watched:
/// a server that is only busy empties it now and then.
async fn accepts(instance: &Arc<Instance>) -> bool {
    let port = instance.pool.template.port();
    let Ok(Ok(_connection)) = timeout(DIAL_SUSPECT_MAX, instance.dial(port)).await else { return false };
    let until = Instant::now() + DIAL_SUSPECT_MAX;
    loop {
        sleep(QUEUE_LOOK).await;
        let asked = instance.clone();
        let waiting = blocking(move || asked.shared().keeper.unaccepted(&asked.sandbox, port)).await;
        // What cannot be asked is about to be seen to have ended.
        if waiting.unwrap_or(0) == 0 {
            return true;
        }
        if Instant::now() >= until {
            return false;
        }
    }
}

const QUEUE_LOOK: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_in_googles_words() {
        fn check(ended: &Ended, expect: Option<&str>) {
            assert_eq!(ended_text(ended, 1024 << 20).map(|(_, text)| text).as_deref(), expect);
        }
        let ended = Ended { code: None, signal: None, out_of_memory: false, memory_peak_bytes: 0, setup_error: None };
        check(&ended, None);
        check(&Ended { code: Some(1), ..ended.clone() }, Some("Container called exit(1)."));
        check(&Ended { signal: Some(11), ..ended.clone() }, Some("Uncaught signal: 11, pid=1, tid=1, fault_addr=0."));
        check(
            &Ended { signal: Some(9), out_of_memory: true, memory_peak_bytes: 1062 << 20, ..ended },
            Some(
                "Memory limit of 1024 MiB exceeded with 1062 MiB used. Consider increasing the memory limit, see https://cloud.google.com/run/docs/configuring/memory-limits",
            ),
        );
    }

    #[test]
    fn what_cannot_be_run_is_told_in_googles_words() {
        let check = |errno, expect: &str| {
            let error = sandbox::Error::Program { program: "/main".to_owned(), source: std::io::Error::from_raw_os_error(errno), hint: None };
            assert_eq!(not_started(error).to_string(), format!("terminated: Application failed to start: failed to load /main: {expect}"));
        };
        // ENOENT, EACCES, ENOEXEC.
        check(2, "no such file or directory");
        check(13, "permission denied");
        check(8, "exec format error");
    }

    #[tokio::test]
    async fn an_order_within_a_grace_never_goes_beyond_it() {
        let before = Instant::now();
        for grace in [Duration::ZERO, Duration::from_secs(1), Duration::from_secs(60)] {
            let order = StopOrder::within(grace);
            assert!(order.drain_until <= order.kill_at && order.kill_at <= Instant::now() + grace && order.drain_until >= before);
        }
    }
}
