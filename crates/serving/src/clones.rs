//! A revision's template, and the clones of it that wait armed: how an instance is there within milliseconds.
//!
//! The rungs, tried in this order for each start: an *armed* clone is let go; the revision's *template* is cloned; a template of the
//! *runtime* is, which has loaded the framework, and loads the code itself; the command is started *ordinarily*, as the first instance
//! always is. A revision has one template, the best that it can have. What keeps it from a better one is said in its log, once. Templates are made behind the requests, few at a time; as many clones wait as the load of the last seconds
//! needs. The templates not used for longest are ended when all of them together hold more memory than they may.

use std::{
    collections::VecDeque,
    fs::File,
    io::{Read, Write},
    net::TcpStream,
    os::fd::OwnedFd,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use model::{
    log::{Entry, LogName, Payload, Severity},
    revision::{SecretRef, Start},
};
use parking_lot::Mutex;
use sandbox::{Sandbox, Spec};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
};
use tokio_util::sync::CancellationToken;

use crate::{
    Shared, environment,
    instances::{Instance, blocking},
    launch::{self, Level},
    output::Lines,
    pool::Pool,
    secret,
};

/// How an instance came to be; in the order of `telemetry::RUNGS`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rung {
    Armed,
    Template,
    Runtime,
    Ordinary,
}

impl Rung {
    pub(crate) fn name(self) -> &'static str {
        telemetry::RUNGS[self as usize]
    }
}

/// What a revision has of them.
#[derive(Default)]
pub(crate) struct Clones {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    template: Stage,
    armed: VecDeque<Armed>,
    /// One is being made.
    is_arming: bool,
    /// The starts of the last seconds.
    starts: Starts,
    /// Somebody looks whether so many are still needed.
    is_watched: bool,
    /// Templates, or clones of them, that failed in a row.
    failures: u32,
}

#[derive(Default)]
enum Stage {
    #[default]
    None,
    Making,
    Ready(Arc<Template>),
    /// It cannot be cloned, in words, or the revision is gone.
    Never(String),
}

/// A stopped process that has loaded everything, or everything but the revision's code.
pub(crate) struct Template {
    /// Its sandbox.
    id: String,
    level: Level,
    /// Why it is none of a better level than it is, in words.
    why: String,
    spec: Spec,
    /// What it wrote while it loaded: each of its instances' log begins with it, as if the instance itself had loaded.
    output: Vec<(LogName, Vec<u8>)>,
    /// Whose code drew random numbers while it loaded, as far as its launcher can tell.
    drew: Vec<String>,
    bytes: u64,
    used: Mutex<Instant>,
    /// From how many clones it has learnt what memory a request touches.
    lessons: AtomicU32,
}

/// A clone that has only to be let go.
pub(crate) struct Armed {
    /// The instance's.
    pub(crate) id: String,
    pub(crate) sandbox: Sandbox,
    template: Arc<Template>,
    /// Made while there was time; the clone finds it when it goes on.
    connection: Option<TcpStream>,
}

/// All templates of the host.
pub(crate) struct Templates {
    /// What they may hold together.
    budget_bytes: u64,
    /// Few are made at a time.
    maker: tokio::sync::Semaphore,
    pools: Mutex<Vec<std::sync::Weak<Pool>>>,
}

impl Templates {
    pub(crate) fn new(budget_bytes: u64) -> Self {
        Self { budget_bytes, maker: tokio::sync::Semaphore::new(MAKERS), pools: Mutex::default() }
    }

    /// Ends templates, the one not used for longest first, until the rest are within the budget. The one of `newest` stays.
    fn trim(&self, newest: &Arc<Pool>) {
        let mut pools = self.pools.lock();
        pools.retain(|pool| pool.upgrade().is_some_and(|pool| pool.clones.template().is_some()));
        if !pools.iter().any(|pool| std::ptr::eq(pool.as_ptr(), Arc::as_ptr(newest))) {
            pools.push(Arc::downgrade(newest));
        }
        let mut all: Vec<(Arc<Pool>, Arc<Template>)> =
            pools.iter().filter_map(|pool| pool.upgrade().and_then(|pool| Some((pool.clone(), pool.clones.template()?)))).collect();
        drop(pools);
        all.sort_by_key(|(_, template)| *template.used.lock());
        let mut total: u64 = all.iter().map(|(_, template)| template.bytes).sum();
        for (pool, template) in all {
            if total <= self.budget_bytes {
                break;
            }
            if !Arc::ptr_eq(&pool, newest) {
                total -= template.bytes;
                pool.clones.end(&pool.shared, false);
            }
        }
    }
}

impl Clones {
    /// An armed clone for a new instance.
    pub(crate) fn take(&self) -> Option<Armed> {
        let mut state = self.state.lock();
        state.starts.add(Instant::now());
        state.armed.pop_front()
    }

    fn template(&self) -> Option<Arc<Template>> {
        match &self.state.lock().template {
            Stage::Ready(template) => Some(template.clone()),
            _ => None,
        }
    }

    /// Takes the template that was being made. False: it is not wanted any more.
    fn put(&self, template: &Arc<Template>) -> bool {
        let mut state = self.state.lock();
        let wanted = matches!(state.template, Stage::Making);
        if wanted {
            state.template = Stage::Ready(template.clone());
        }
        wanted
    }

    /// Takes a clone that was being armed; gives it back when its template is not the current one any more.
    fn put_armed(&self, armed: Armed) -> Option<Armed> {
        let mut state = self.state.lock();
        state.is_arming = false;
        if matches!(&state.template, Stage::Ready(current) if Arc::ptr_eq(current, &armed.template)) {
            state.armed.push_back(armed);
            state.failures = 0;
            return None;
        }
        Some(armed)
    }

    /// Ends the template and what is armed; `for_good` when there will be no other.
    pub(crate) fn end(&self, shared: &Arc<Shared>, for_good: bool) {
        let (stage, armed) = {
            let mut state = self.state.lock();
            let next = if for_good { Stage::Never("the revision is gone".to_owned()) } else { Stage::None };
            (std::mem::replace(&mut state.template, next), std::mem::take(&mut state.armed))
        };
        let template = if let Stage::Ready(template) = stage { Some(template) } else { None };
        let (supervisor, shared) = (shared.supervisor.clone(), shared.clone());
        supervisor.spawn("template", async move {
            blocking(move || {
                for armed in armed {
                    end(&shared, &armed.sandbox.id);
                }
                if let Some(template) = template {
                    end(&shared, &template.id);
                }
            })
            .await;
        });
    }

    /// The template is of no use any more: another is made after the next start, unless that has failed too often.
    fn lost(&self, shared: &Arc<Shared>, template: &Arc<Template>) {
        {
            let mut state = self.state.lock();
            if !matches!(&state.template, Stage::Ready(current) if Arc::ptr_eq(current, template)) {
                return;
            }
            state.failures += 1;
        }
        self.end(shared, false);
        self.give_up();
    }

    /// After too many failures no other template is made.
    fn give_up(&self) {
        let mut state = self.state.lock();
        if state.failures >= FAILURES_MAX && matches!(state.template, Stage::None) {
            state.template = Stage::Never("its clones failed again and again".to_owned());
        }
    }
}

/// In a row, until a revision is left alone.
const FAILURES_MAX: u32 = 3;

fn end(shared: &Shared, id: &str) {
    if let Err(error) = shared.keeper.end(id) {
        tracing::warn!(%error, id, "a template or an armed clone could not be ended cleanly");
    }
}

// --- a start ----------------------------------------------------------------------------------------------------

/// The sandbox of `instance` by the first rung that has one; `None`: it must be started ordinarily. It runs when this returns.
pub(crate) async fn start(instance: &Arc<Instance>) -> Option<(Sandbox, Rung)> {
    let pool = &instance.pool;
    let armed = instance.armed.lock().take();
    let moments = &instance.moments;
    let (sandbox, template, connection, rung) = match armed {
        Some(armed) => {
            moments.chosen.pass();
            let rung = armed.template.rung(Rung::Armed);
            (armed.sandbox, armed.template, armed.connection, rung)
        }
        None => {
            let template = pool.clones.template()?;
            moments.chosen.pass();
            let (shared, of, id) = (pool.shared.clone(), template.clone(), instance.sandbox.clone());
            match blocking(move || shared.keeper.clone_of(&of.id, &id, &of.spec.limits, &of.spec.network, false)).await {
                Ok(sandbox) => {
                    let rung = template.rung(Rung::Template);
                    (sandbox, template, None, rung)
                }
                Err(error) => {
                    tracing::warn!(%error, revision = %pool.revision, "a template could not be cloned");
                    // Anything else may be of the moment: too many at once, no process or memory to be had.
                    if matches!(error, sandbox::Error::NoSandbox(_)) {
                        pool.clones.lost(&pool.shared, &template);
                    }
                    return None;
                }
            }
        }
    };
    moments.made.pass();
    *template.used.lock() = Instant::now();
    let mut sandbox = sandbox;
    let release = sandbox.release.take();
    if !released(release).await {
        tracing::warn!(revision = %pool.revision, "a clone did not go on");
        pool.clones.lost(&pool.shared, &template);
        let (shared, id) = (pool.shared.clone(), sandbox.id.clone());
        blocking(move || end(&shared, &id)).await;
        return None;
    }
    moments.repaired.pass();
    if let Some(connection) = connection.filter(|_| pool.is_waited_for()) {
        instance.connections.offer(instance, connection);
    }
    let _ = instance.origin.set(template);
    Some((sandbox, rung))
}

/// What is to be done once a clone runs and whoever waited for it has it: its log begins, and another clone is armed.
pub(crate) fn tell(instance: &Arc<Instance>) {
    let Some(template) = instance.origin.get() else { return };
    for (log, text) in &template.output {
        let mut lines = Lines::default();
        lines.push(text, |line| crate::output::entry(instance, *log, line));
        lines.finish(|line| crate::output::entry(instance, *log, line));
    }
    refill(&instance.pool);
}

/// How long a clone may take until its launcher has made its generators differ.
const RELEASE_MAX: Duration = Duration::from_secs(5);

/// Lets a clone go on and waits until it may be spoken to.
async fn released(release: Option<OwnedFd>) -> bool {
    let go = async {
        let stream = std::os::unix::net::UnixStream::from(release.ok_or(std::io::ErrorKind::NotFound)?);
        let mut stream = UnixStream::from_std(stream)?;
        stream.write_all(b"g").await?;
        stream.read_u8().await
    };
    matches!(tokio::time::timeout(RELEASE_MAX, go).await, Ok(Ok(_)))
}

/// From this many clones it is learnt: the first ones run code that later ones find compiled.
const LESSONS: u32 = 3;

/// `instance` has answered its first requests and is idle: what memory that took is given to the clones that wait.
pub(crate) fn learn(instance: &Instance) {
    let is_clone = instance.rung.get().is_some_and(|rung| matches!(rung, Rung::Armed | Rung::Template));
    let Some(template) = instance.pool.clones.template().filter(|_| is_clone) else { return };
    if instance.has_taught.swap(true, Ordering::AcqRel) || template.lessons.fetch_add(1, Ordering::AcqRel) >= LESSONS {
        return;
    }
    if let Err(error) = instance.shared().keeper.learn(&instance.sandbox) {
        tracing::debug!(%error, instance = %instance.sandbox, "nothing is learnt from a clone");
    }
}

// --- behind the requests ----------------------------------------------------------------------------------------

/// Templates that are made at a time: one that takes long must not hold up all others.
const MAKERS: usize = 2;
/// How long after a start its revision's template is made: the requests that the start was for come first.
const BEHIND: Duration = Duration::from_millis(500);
/// How long after a clone was used the next is armed.
const REFILL_AFTER: Duration = Duration::from_millis(10);
/// The load that decides how many are armed.
const LOAD_SPAN: Duration = Duration::from_secs(10);
/// In which a few clones are armed.
const BURST_SPAN: Duration = Duration::from_millis(100);
const REMEMBERED_MAX: usize = 256;

/// Makes the template of a revision whose instance has started ordinarily, unless there is one or can be none.
pub(crate) fn prepare(pool: &Arc<Pool>) {
    if pool.template.start() == Start::Off {
        return;
    }
    {
        let mut state = pool.clones.state.lock();
        if !matches!(state.template, Stage::None) {
            return;
        }
        state.template = Stage::Making;
    }
    let pool = pool.clone();
    let supervisor = pool.shared.supervisor.clone();
    supervisor.spawn("template", async move {
        tokio::time::sleep(BEHIND).await;
        let shared = pool.shared.clone();
        let Ok(_one_at_a_time) = shared.templates.maker.acquire().await else { return };
        if pool.is_retired() {
            return;
        }
        let made = {
            let pool = pool.clone();
            let runtime = tokio::runtime::Handle::current();
            blocking(move || make(&pool, &runtime)).await
        };
        match made {
            Ok(template) => {
                let template = Arc::new(template);
                for who in &template.drew {
                    let text = format!("While it loaded, this revision drew random numbers ({who}): all of its instances share what it made of them.");
                    told(&pool, text);
                }
                if !template.why.is_empty() {
                    told(&pool, format!("Instances of this revision are clones of its runtime, and each loads the code itself: {}.", template.why));
                }
                if !pool.clones.put(&template) {
                    // The revision went meanwhile.
                    let shared = shared.clone();
                    blocking(move || end(&shared, &template.id)).await;
                    return;
                }
                shared.templates.trim(&pool);
                refill(&pool);
            }
            Err(Unmade::Internal(error)) => {
                tracing::warn!(%error, revision = %pool.revision, "a template could not be made");
                {
                    let mut state = pool.clones.state.lock();
                    state.template = Stage::None;
                    state.failures += 1;
                }
                pool.clones.give_up();
            }
            Err(Unmade::Refused(why)) => {
                tracing::info!(revision = %pool.revision, why, "no template");
                told(&pool, format!("Instances of this revision start ordinarily and not as clones: {why}."));
                pool.clones.state.lock().template = Stage::Never(why);
            }
        }
    });
}

/// What there is of a revision's template.
pub(crate) fn info(pool: &Pool) -> crate::TemplateInfo {
    let state = pool.clones.state.lock();
    let (stage, bytes, why) = match &state.template {
        Stage::None => ("none", 0, String::new()),
        Stage::Making => ("making", 0, String::new()),
        Stage::Ready(template) => ("ready", template.bytes, template.why.clone()),
        Stage::Never(why) => ("refused", 0, why.clone()),
    };
    crate::TemplateInfo { service: pool.service.clone(), revision: pool.revision.clone(), state: stage, armed: state.armed.len(), bytes, why }
}

/// Says something in the revision's log.
fn told(pool: &Pool, text: String) {
    pool.shared.telemetry.log(Entry {
        source: pool.source.clone(),
        log: LogName::System,
        time: pool.shared.clock.now(),
        severity: Severity::Info,
        payload: Payload::Text(text),
        http: None,
        trace: String::new(),
        span: String::new(),
        trace_sampled: false,
        labels: std::collections::BTreeMap::new(),
    });
}

/// When a revision's last instances were started, whether a clone was there for them or not.
#[derive(Default)]
struct Starts(VecDeque<Instant>);

impl Starts {
    fn add(&mut self, now: Instant) {
        self.0.push_back(now);
        if self.0.len() > REMEMBERED_MAX {
            self.0.pop_front();
        }
    }

    /// The most that came within the time that it takes to arm others, so that they would all have found one.
    fn burst(&mut self, now: Instant) -> usize {
        while self.0.front().is_some_and(|first| now.saturating_duration_since(*first) > LOAD_SPAN) {
            self.0.pop_front();
        }
        let (mut from, mut most) = (0, 0);
        for (at, start) in self.0.iter().enumerate() {
            while start.saturating_duration_since(self.0[from]) > BURST_SPAN {
                from += 1;
            }
            most = most.max(at + 1 - from);
        }
        most
    }
}

impl State {
    /// How many clones are to wait.
    fn wanted(&mut self, max: usize) -> usize {
        self.starts.burst(Instant::now()).max(1).min(max)
    }
}

/// Arms clones, one after the other, until there are as many as the load of the last seconds needs.
fn refill(pool: &Arc<Pool>) {
    let max = pool.shared.config.armed_max;
    let Some(template) = ({
        let mut state = pool.clones.state.lock();
        let is_wanted = !state.is_arming && state.armed.len() < state.wanted(max);
        match &state.template {
            Stage::Ready(template) if is_wanted => {
                let template = template.clone();
                state.is_arming = true;
                Some(template)
            }
            _ => None,
        }
    }) else {
        return;
    };
    let pool = pool.clone();
    let supervisor = pool.shared.supervisor.clone();
    supervisor.spawn("arm", async move {
        tokio::time::sleep(REFILL_AFTER).await;
        let id = Instance::id_make();
        let (shared, of, name) = (pool.shared.clone(), template.clone(), Instance::sandbox_name(&id));
        let port = pool.template.port();
        let made = blocking(move || {
            let sandbox = shared.keeper.clone_of(&of.id, &name, &of.spec.limits, &of.spec.network, true)?;
            // It listens already, as far as the kernel is concerned.
            let is_listening = of.level == Level::Revision;
            let connection = is_listening.then(|| shared.keeper.connect(&name, port).ok().map(TcpStream::from)).flatten();
            Ok::<_, sandbox::Error>((sandbox, connection))
        })
        .await;
        let unused = match made {
            Ok((sandbox, connection)) => pool.clones.put_armed(Armed { id, sandbox, template, connection }),
            Err(error) => {
                tracing::warn!(%error, revision = %pool.revision, "no clone could be armed");
                pool.clones.state.lock().is_arming = false;
                pool.clones.lost(&pool.shared, &template);
                None
            }
        };
        if let Some(armed) = unused {
            let shared = pool.shared.clone();
            blocking(move || end(&shared, &armed.sandbox.id)).await;
        }
        watch(&pool);
        refill(&pool);
    });
}

/// Sees to it that clones which the load needs no more do not stay.
fn watch(pool: &Arc<Pool>) {
    {
        let mut state = pool.clones.state.lock();
        if state.armed.len() <= 1 || std::mem::replace(&mut state.is_watched, true) {
            return;
        }
    }
    let pool = pool.clone();
    let supervisor = pool.shared.supervisor.clone();
    supervisor.spawn("disarm", async move {
        loop {
            tokio::time::sleep(LOAD_SPAN).await;
            let surplus: Vec<Armed> = {
                let mut state = pool.clones.state.lock();
                let wanted = state.wanted(pool.shared.config.armed_max);
                let mut surplus = Vec::new();
                while state.armed.len() > wanted {
                    surplus.extend(state.armed.pop_back());
                }
                state.is_watched = state.armed.len() > 1;
                surplus
            };
            let (shared, pool) = (pool.shared.clone(), &pool);
            blocking(move || surplus.iter().for_each(|armed| end(&shared, &armed.sandbox.id))).await;
            if !pool.clones.state.lock().is_watched {
                return;
            }
        }
    });
}

// --- making a template ------------------------------------------------------------------------------------------

/// After the last warming request: its connection is closed on both sides by then.
const SETTLE: [Duration; 2] = [Duration::from_millis(100), Duration::from_millis(1000)];
/// Requests to each path, and how many paths are listened to.
const WARM_ROUNDS: usize = 8;
const WARM_PATHS: usize = 4;
/// How many are told in the log.
const DREW_MAX: usize = 4;
/// For all of them together.
const WARM_MAX: Duration = Duration::from_secs(10);
/// What is kept of the output of a template.
const OUTPUT_MAX_BYTES: usize = 64 << 10;

/// Why what has no launcher is not cloned.
const REPEATS: &str = "nothing in it makes random numbers differ in each instance";

/// Why there is no template.
enum Unmade {
    /// What the process has cannot be cloned, in words for its owner.
    Refused(String),
    /// No fault of the process.
    Internal(String),
}

impl From<sandbox::Error> for Unmade {
    fn from(error: sandbox::Error) -> Self {
        match error {
            sandbox::Error::Refused(why) => Self::Refused(why),
            sandbox::Error::NoSandbox(_) => Self::Refused("its template ended while it loaded".to_owned()),
            other => Self::Internal(other.to_string()),
        }
    }
}

/// Makes the best template that the revision can have.
fn make(pool: &Arc<Pool>, runtime: &tokio::runtime::Handle) -> Result<Template, Unmade> {
    // A clone has its template's environment and files, and `latest` is what it is when an instance starts.
    if !pool.template.container.secrets().is_empty() {
        return Err(Unmade::Refused("its secrets are read whenever an instance starts".to_owned()));
    }
    if !pool.template.container.memory_mounts.is_empty() {
        return Err(Unmade::Refused("each of its instances has volumes of its own".to_owned()));
    }
    let mut why = String::new();
    if pool.template.start() == Start::Revision {
        match make_at(Level::Revision, pool, runtime) {
            Err(Unmade::Refused(refused)) => why = refused,
            outcome => return outcome,
        }
    }
    match make_at(Level::Runtime, pool, runtime) {
        Ok(template) => Ok(Template { why, ..template }),
        // What its owner did not ask for need not be explained.
        Err(Unmade::Refused(_)) if !why.is_empty() => Err(Unmade::Refused(why)),
        outcome => outcome,
    }
}

/// Starts a template, warms it and stops it.
fn make_at(level: Level, pool: &Arc<Pool>, runtime: &tokio::runtime::Handle) -> Result<Template, Unmade> {
    let [first, second] = SETTLE;
    match made(level, pool, runtime, first) {
        // Only what may be a matter of time is tried again.
        Err(Unmade::Refused(why)) if ["connection", "signal", "restartable"].iter().any(|word| why.contains(word)) => made(level, pool, runtime, second),
        outcome => outcome,
    }
}

fn made(level: Level, pool: &Arc<Pool>, runtime: &tokio::runtime::Handle, settle: Duration) -> Result<Template, Unmade> {
    let shared = &pool.shared;
    let image = pool.image().map_err(Unmade::Internal)?;
    let instance = Instance::id_make();
    let id = format!("t-{}", &instance[..24]);
    let layer = |digest: &str| shared.store.layers().path(digest);
    let read = |source: &SecretRef| secret::read(pool, source);
    let mut spec = environment::spec(pool, &image, &shared.config, id.clone(), layer, read).map_err(|error| Unmade::Internal(error.to_string()))?;
    spec.template = true;
    if !launch::prepare(&image, level, &mut spec) {
        return Err(Unmade::Refused(match level {
            Level::Revision => REPEATS.to_owned(),
            Level::Runtime => "its program has nothing that is loaded before the code".to_owned(),
        }));
    }
    let sandbox = shared.keeper.start(&spec)?;
    // While it loads it may ask the metadata server, or fetch something, as any instance may.
    let stopped = CancellationToken::new();
    let _stopped = stopped.clone().drop_guard();
    if let (Some(outbound), Some(dns_udp), Some(dns_tcp), Some(metadata)) = (sandbox.outbound, sandbox.dns_udp, sandbox.dns_tcp, sandbox.metadata) {
        let _entered = runtime.enter();
        shared.network.serve(pool.identity(instance, Arc::default()), outbound, dns_udp, dns_tcp, metadata, stopped);
    }
    let mut loading = Loading {
        shared,
        id: &id,
        port: pool.template.port(),
        outputs: [File::from(sandbox.stdout), File::from(sandbox.stderr)].map(|pipe| (pipe, Vec::new())),
        drew: Vec::new(),
        is_chosen: pool.template.sharing_is_chosen(),
    };
    let loaded = match level {
        Level::Revision => loading.warmed(settle),
        Level::Runtime => loading.stopped(),
    };
    let made = loaded.and_then(|()| Ok(shared.keeper.template(&id)?));
    loading.drain();
    let drew = std::mem::take(&mut loading.drew);
    let [(_, stdout), (_, stderr)] = loading.outputs;
    if let Err(why) = made {
        end(shared, &id);
        return Err(why);
    }
    let bytes = shared.keeper.usage(&id).map_or(0, |usage| usage.memory_bytes);
    let output = vec![(LogName::Stdout, stdout), (LogName::Stderr, stderr)];
    let (used, lessons) = (Mutex::new(Instant::now()), AtomicU32::new(0));
    Ok(Template { id, level, why: String::new(), spec, output, drew, bytes, used, lessons })
}

impl Template {
    /// That of its clones: `best`, when nothing but answering is left to them.
    fn rung(&self, best: Rung) -> Rung {
        match self.level {
            Level::Revision => best,
            Level::Runtime => Rung::Runtime,
        }
    }
}

/// A template until it is stopped.
struct Loading<'a> {
    shared: &'a Shared,
    id: &'a str,
    port: u16,
    outputs: [(File, Vec<u8>); 2],
    drew: Vec<String>,
    /// Its owner has chosen that instances share what it makes while it loads.
    is_chosen: bool,
}

impl Loading<'_> {
    /// Waits until it listens and sends it what never reaches user code.
    fn warmed(&mut self, settle: Duration) -> Result<(), Unmade> {
        let deadline = Instant::now() + Duration::from_secs(u64::from(model::limits::STARTUP_MAX_S));
        loop {
            self.drain();
            match self.shared.keeper.connect(self.id, self.port) {
                Ok(connection) => {
                    drop(connection);
                    break;
                }
                Err(error @ (sandbox::Error::NoSandbox(_) | sandbox::Error::Gone)) => return Err(error.into()),
                Err(_) if Instant::now() > deadline => return Err(Unmade::Refused("its template did not come to listen".to_owned())),
                Err(_) => std::thread::sleep(Duration::from_millis(5)),
            }
        }
        let said = self.said()?;
        if let Some(why) = said.iter().find_map(|line| line.strip_prefix("refused ")) {
            return Err(Unmade::Refused(why.to_owned()));
        }
        if said.is_empty() {
            return Err(Unmade::Refused(REPEATS.to_owned()));
        }
        self.drew = said.iter().filter_map(|line| line.strip_prefix("drew ")).take(DREW_MAX).map(str::to_owned).collect();
        if let (Some(who), false) = (self.drew.first(), self.is_chosen) {
            let advice = "which all instances would share; where that is no harm, deploy with --start revision";
            return Err(Unmade::Refused(format!("while it loaded it drew random numbers ({who}), {advice}")));
        }
        let deadline = Instant::now() + WARM_MAX;
        for path in said.iter().filter_map(|line| line.strip_prefix("warm ")).take(WARM_PATHS) {
            for _ in 0..WARM_ROUNDS {
                if let Err(error) = self.visit(path, deadline) {
                    tracing::debug!(%error, id = self.id, path, "a template was not warmed");
                    break;
                }
                self.drain();
            }
        }
        std::thread::sleep(settle);
        Ok(())
    }

    /// Waits until it has loaded the framework and goes no further.
    fn stopped(&mut self) -> Result<(), Unmade> {
        let deadline = Instant::now() + WARM_MAX;
        loop {
            self.drain();
            let said = self.shared.keeper.said(self.id)?;
            if let Some(why) = said.iter().find_map(|line| line.strip_prefix("refused ")) {
                return Err(Unmade::Refused(why.to_owned()));
            }
            if said.iter().any(|line| line == "ready") {
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err(Unmade::Refused("its runtime cannot be stopped before it loads the code".to_owned()));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// What its launcher says: one that asks to be waited for is at work before it says the rest.
    fn said(&mut self) -> Result<Vec<String>, Unmade> {
        let deadline = Instant::now() + WARM_MAX;
        loop {
            let said = self.shared.keeper.said(self.id)?;
            let is_waited_for = said.iter().any(|line| line == "wait") && !said.iter().any(|line| line == "ready" || line.starts_with("refused "));
            if !is_waited_for || Instant::now() > deadline {
                return Ok(said);
            }
            self.drain();
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn visit(&self, path: &str, deadline: Instant) -> std::io::Result<()> {
        let mut stream = TcpStream::from(self.shared.keeper.connect(self.id, self.port).map_err(std::io::Error::other)?);
        stream.set_nonblocking(false)?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
        let mut left = OUTPUT_MAX_BYTES;
        let mut part = [0; 4096];
        while left > 0 {
            let until = deadline.checked_duration_since(Instant::now()).filter(|until| !until.is_zero()).ok_or(std::io::ErrorKind::TimedOut)?;
            stream.set_read_timeout(Some(until))?;
            match stream.read(&mut part)? {
                0 => return Ok(()),
                length => left = left.saturating_sub(length),
            }
        }
        Ok(())
    }

    /// Takes what it has written. The pipes do not block: what there is ends with an error, which is no loss.
    fn drain(&mut self) {
        let mut part = [0; 4096];
        for (pipe, text) in &mut self.outputs {
            while let Ok(length @ 1..) = pipe.read(&mut part) {
                let room = OUTPUT_MAX_BYTES - text.len();
                text.extend(&part[..length.min(room)]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_are_armed_as_the_largest_burst_of_the_last_seconds_would_have_needed() {
        let begun = Instant::now();
        let at = |ms: u64| begun + Duration::from_millis(ms);
        let mut starts = Starts::default();
        assert_eq!(starts.burst(at(0)), 0);
        for ms in [0, 10, 20, 500, 1000, 1050] {
            starts.add(at(ms));
        }
        assert_eq!(starts.burst(at(1100)), 3, "the first three");
        assert_eq!(starts.burst(at(10_600)), 2, "those are forgotten");
        assert_eq!(starts.burst(at(20_000)), 0);
        (0..1000).for_each(|_| starts.add(at(20_000)));
        assert_eq!(starts.burst(at(20_000)), REMEMBERED_MAX);
        let mut state = State { starts, ..State::default() };
        assert_eq!((state.wanted(8), state.wanted(0)), (8, 0));
        state.starts = Starts::default();
        assert_eq!(state.wanted(8), 1);
    }
}
