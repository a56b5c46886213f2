//! From a request to an instance and back.
//!
//! **Invariant:** no store write and no wait on the control plane in a request's path.
//!
//! The files in the order of a request: [`listener`] (accept, TLS, HTTP) -> [`host`] (which service) -> `ingress` (from where) ->
//! `invoker` (by whom) -> `affinity`, `traffic` (which revision) -> `activator` (a slot, or the wait for one) -> `forward` (bytes both ways) ->
//! `finish` (log and meter). Beside it: `table` (what requests are routed by), `recent` (what may be sent again as a copy), `pool` and
//! `slots` (a revision's instances and queue), `instances` (their life), `health` (their probes), `autoscaler`, `usage` and `decisions` (how
//! many there are, what they use, and why).

use std::{os::fd::OwnedFd, path::PathBuf, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use bytes::Bytes;
use http_body::Body as _;
use http_body_util::combinators::BoxBody;
use model::{Clock, Hops, Revision, RevisionName, ServiceKey, image::Image, limits};
use tokio::{
    sync::Semaphore,
    time::{Instant, sleep_until, timeout_at},
};
use tokio_util::sync::CancellationToken;

mod activator;
mod affinity;
mod autoscaler;
mod clones;
mod cold_start;
mod connection;
mod decisions;
mod denials;
pub mod egress;
mod environment;
mod finish;
mod forward;
mod handling;
mod headers;
mod health;
pub mod host;
mod ingress;
mod instances;
mod invoker;
mod launch;
pub mod listener;
mod output;
pub mod pages;
mod pool;
mod pools;
mod probe;
mod recent;
pub mod refusal;
mod secret;
mod slots;
mod stream;
mod supervise;
mod table;
mod traffic;
mod usage;
mod workers;

pub use cold_start::{ColdStart, PARTS as COLD_START_PARTS};
pub use decisions::ScalingDecision;
pub use denials::{Caller, Denial};
pub use handling::Handling;
pub use ingress::admits;
pub use recent::{COPY as SHADOW_HEADER, RecentRequest};
pub use refusal::Refusal;
pub use workers::Workers;

use denials::Denied;
use finish::Finish;
use instances::StopOrder;
use pool::Pool;
use pools::Pools;
use supervise::Supervisor;
use table::{Entry, Follower, Route, Table};

/// Any error of a body.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;
/// Bodies of requests and answers, streamed.
pub type Body = BoxBody<Bytes, BoxError>;
pub type Request = http::Request<Body>;
pub type Response = http::Response<Body>;

/// Where a request comes from; decided by the listener it came in by, never by a header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The host or its network.
    Outside { remote: std::net::SocketAddr, tls: bool },
    /// An instance of a project, or one of the platform's own senders (Pub/Sub, Scheduler, Eventarc).
    Inside { project: String },
}

/// Settings of the data plane.
#[derive(Clone)]
pub struct Config {
    /// Domains under which services have hosts, without port: `run.app`, `run.localhost`, an operator's own.
    pub domains: Vec<String>,
    /// PEM bundle that instances trust (public roots and tanebi's own).
    pub ca_bundle: Vec<u8>,
    /// The same as a key store that Java reads.
    pub java_trust_store: Vec<u8>,
    /// How long to hold a request when no slot comes free: Google's rule is max(3.5 x average startup, 10 s).
    pub hold_min: Duration,
    pub instance_idle_max: Duration,
    /// How much memory the templates of all revisions may hold.
    pub templates_bytes: u64,
    /// How many clones of a revision may wait armed.
    pub armed_max: usize,
    /// Opens the secrets that instances are given.
    pub vault: iam::Vault,
    /// How many hops what comes to a service may have; [`Refusal::Loop`] beyond.
    pub hops_max: u32,
    /// An empty folder, which is laid over folders of the host that instances must not see.
    pub empty: PathBuf,
}

/// The data plane. Clones share it.
#[derive(Clone)]
pub struct Serving {
    shared: Arc<Shared>,
    pools: Pools,
    table: Arc<ArcSwap<Table>>,
}

/// What an instance's network leads to: the listeners that were made inside it, one set for each instance.
pub trait InstanceNetwork: Send + Sync + 'static {
    /// Serves an instance's listeners until `ended` is cancelled. Returns at once. Which listener it is *is* the identity.
    fn serve(&self, identity: InstanceIdentity, outbound: OwnedFd, dns_udp: OwnedFd, dns_tcp: OwnedFd, metadata: OwnedFd, ended: CancellationToken);
}

/// Whose metadata server it is.
#[derive(Clone, Debug)]
pub struct InstanceIdentity {
    pub project: String,
    pub region: String,
    pub service: String,
    pub revision: String,
    /// Long hexadecimal id, as Google's.
    pub instance: String,
    pub service_account: String,
    /// What it is doing.
    pub handling: Arc<Handling>,
}

impl InstanceIdentity {
    /// What lies behind a request of the instance's with these headers.
    pub fn made(&self, headers: &http::HeaderMap) -> Hops {
        self.handling.made(&self.service, headers)
    }
}

/// Why a revision's first instance did not become ready.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StartFailure {
    #[error(
        "The user-provided container failed to start and listen on the port defined provided by the PORT={port} environment variable within the allocated timeout."
    )]
    NotListening { port: u16, last_output: String },
    #[error("The container exited with code {code}.")]
    Exited { code: i32, last_output: String },
    #[error("Memory limit of {limit_mib} MiB exceeded")]
    OutOfMemory { limit_mib: u64, last_output: String },
    /// The command is no program that can be run, in Google's words.
    #[error("terminated: Application failed to start: {0}")]
    Exec(String),
    #[error("{0}")]
    Platform(String),
}

#[derive(Clone, Debug)]
pub struct InstanceInfo {
    pub id: String,
    pub service: ServiceKey,
    pub revision: RevisionName,
    /// starting, ready, frozen, draining.
    pub state: &'static str,
    pub in_flight: u32,
    pub started: model::Timestamp,
    /// How it came to be: armed, template, ordinary; empty while it does.
    pub start: &'static str,
}

/// A revision's template: what its instances are clones of.
#[derive(Clone, Debug)]
pub struct TemplateInfo {
    pub service: ServiceKey,
    pub revision: RevisionName,
    /// none, making, ready, refused.
    pub state: &'static str,
    /// Clones that wait.
    pub armed: usize,
    /// What it holds.
    pub bytes: u64,
    /// Why there is none, or none that has loaded the code, when that was refused.
    pub why: String,
}

/// What all parts need.
pub(crate) struct Shared {
    config: Config,
    clock: Arc<dyn Clock>,
    store: store::Store,
    iam: iam::Iam,
    telemetry: telemetry::Telemetry,
    keeper: Arc<sandbox::Keeper>,
    network: Arc<dyn InstanceNetwork>,
    supervisor: Supervisor,
    /// Starts of sandboxes at a time, on the whole host.
    starts: Arc<Semaphore>,
    templates: clones::Templates,
    denials: denials::Denials,
    /// No new requests.
    closing: CancellationToken,
    /// Tunnels end.
    cut: CancellationToken,
}

/// What it takes to look at a service.
const SEE: &str = "run.services.get";
/// How long a revision that was proven may take to appear in the store.
const PROVEN_MAX: Duration = Duration::from_secs(60);

impl Serving {
    /// Reads the table of services and starts to follow it. Needs a running tokio runtime. `network` gets each instance's listeners.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn start(
        config: Config,
        clock: Arc<dyn Clock>,
        store: store::Store,
        iam: iam::Iam,
        telemetry: telemetry::Telemetry,
        keeper: Arc<sandbox::Keeper>,
        network: Arc<dyn InstanceNetwork>,
    ) -> Result<Self, BoxError> {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let domains = config.domains.clone();
        let templates = clones::Templates::new(config.templates_bytes);
        let shared = Arc::new(Shared {
            config,
            clock,
            store: store.clone(),
            iam,
            telemetry,
            keeper,
            network,
            supervisor: Supervisor::new(),
            starts: Arc::new(Semaphore::new(2 * cores)),
            templates,
            denials: denials::Denials::default(),
            closing: CancellationToken::new(),
            cut: CancellationToken::new(),
        });
        let pools = Pools::new(shared.clone());
        let mut follower = Follower::new(store, domains, pools.clone())?;
        let table = Arc::new(ArcSwap::from_pointee(follower.table(&Table::default())));
        let serving = Self { shared, pools, table };
        let (table, supervisor, closing) = (serving.table.clone(), serving.shared.supervisor.clone(), serving.shared.closing.clone());
        serving.shared.supervisor.spawn("table", async move {
            loop {
                let changed = tokio::select! {
                    changed = follower.changed() => changed,
                    () = closing.cancelled() => return,
                };
                match changed {
                    Ok(true) => table.store(Arc::new(follower.table(&table.load()))),
                    Ok(false) => return supervisor.fail("table: the store is closed"),
                    Err(error) => {
                        tracing::error!(%error, "the table of services cannot be followed");
                        return supervisor.fail("table: the store cannot be read");
                    }
                }
            }
        });
        Ok(serving)
    }

    /// Resolves with a name when a part of the data plane has failed for good: the process should end and be started again.
    pub fn failed(&self) -> impl Future<Output = &'static str> + Send + 'static {
        self.shared.supervisor.failed()
    }

    /// Whether `host` (no port) is one of a service's, existing or not: below one of the domains.
    pub fn owns_host(&self, host: &str) -> bool {
        host::below(host, &self.shared.config.domains)
    }

    /// How many hops what comes to a service may have.
    pub fn hops_max(&self) -> u32 {
        self.shared.config.hops_max
    }

    /// Answers a request for a service by its host, from `host` on: ingress, invoker, traffic, activator, forward, finish. Always an answer.
    ///
    /// What lies behind the request ([`Hops`]) is an extension of it, put there by whoever knows; without one nothing does.
    pub async fn handle(&self, origin: Origin, request: Request) -> Response {
        let (parts, body) = request.into_parts();
        let refuse = |refusal, parts: &http::request::Parts| pages::refusal(refusal, &parts.method, parts.uri.path());
        let authority = match host::authority(&parts) {
            Ok(Some(authority)) => authority.to_owned(),
            Ok(None) => return refuse(Refusal::UnknownHost, &parts),
            Err(refusal) => return refuse(refusal, &parts),
        };
        let found = {
            let table = self.table.load();
            table.by_host(&host::lowered(host::host(&authority))).map(|(entry, route)| (entry.clone(), route.clone()))
        };
        match found {
            Some((entry, route)) if !entry.default_uri_disabled => self.answer(&entry, &route, &origin, authority, parts, body).await,
            _ => refuse(Refusal::UnknownHost, &parts),
        }
    }

    /// Answers a request for a service named by path (`/_run/REGION/NAME/...` of the default project); the prefix is already cut off.
    pub async fn handle_service(&self, origin: Origin, service: &ServiceKey, request: Request) -> Response {
        let (parts, body) = request.into_parts();
        let entry = self.table.load().by_key(service).cloned();
        let authority = match host::authority(&parts) {
            Ok(authority) => authority.unwrap_or("localhost").to_owned(),
            Err(refusal) => return pages::refusal(refusal, &parts.method, parts.uri.path()),
        };
        match entry {
            // Such a path is a default URL too; the platform's own senders use none.
            Some(entry) if !(entry.default_uri_disabled && matches!(origin, Origin::Outside { .. })) => {
                self.answer(&entry, &Route::Split, &origin, authority, parts, body).await
            }
            _ => pages::refusal(Refusal::UnknownHost, &parts.method, parts.uri.path()),
        }
    }

    /// Answers a request by a function's own URL, `https://REGION-PROJECT.cloudfunctions.net/NAME/...`: for services that are functions'.
    pub async fn handle_function(&self, origin: Origin, region: &str, project: &str, request: Request) -> Response {
        let (mut parts, body) = request.into_parts();
        let found = host::authority(&parts).map(|authority| authority.unwrap_or_default().to_owned()).and_then(|authority| {
            let (name, uri) = host::function_path(&parts.uri).ok_or(Refusal::UnknownHost)?;
            let entry = self.table.load().function(region, project, &name).cloned().ok_or(Refusal::UnknownHost)?;
            Ok((authority, uri, entry))
        });
        match found {
            Ok((authority, uri, entry)) if !entry.default_uri_disabled => {
                parts.uri = uri;
                self.answer(&entry, &Route::Split, &origin, authority, parts, body).await
            }
            Ok(_) => pages::refusal(Refusal::UnknownHost, &parts.method, parts.uri.path()),
            Err(refusal) => pages::refusal(refusal, &parts.method, parts.uri.path()),
        }
    }

    /// Answers a request for one revision, whatever the service's traffic says: for the platform's own senders.
    pub async fn handle_revision(&self, origin: Origin, service: &ServiceKey, revision: &RevisionName, request: Request) -> Response {
        let (parts, body) = request.into_parts();
        let entry = self.table.load().by_key(service).cloned();
        let authority = match host::authority(&parts) {
            Ok(authority) => authority.unwrap_or("localhost").to_owned(),
            Err(refusal) => return pages::refusal(refusal, &parts.method, parts.uri.path()),
        };
        match entry.zip(self.pool_of(service, revision)) {
            Some((entry, pool)) => self.answer(&entry, &Route::Tag(pool), &origin, authority, parts, body).await,
            None => pages::refusal(Refusal::UnknownHost, &parts.method, parts.uri.path()),
        }
    }

    /// The service that a host (no port, lower case) leads to.
    pub fn service_of(&self, host: &str) -> Option<ServiceKey> {
        self.table.load().by_host(host).map(|(entry, _)| entry.key.clone())
    }

    /// Whether requests for the revision can be answered.
    pub fn has_revision(&self, service: &ServiceKey, revision: &RevisionName) -> bool {
        self.pool_of(service, revision).is_some()
    }

    /// The last requests of a service of which copies may be sent, the oldest first.
    pub fn recent(&self, service: &ServiceKey) -> Vec<RecentRequest> {
        self.table.load().by_key(service).map(|entry| entry.recent.list()).unwrap_or_default()
    }

    fn pool_of(&self, service: &ServiceKey, revision: &RevisionName) -> Option<Arc<Pool>> {
        let record = self.shared.store.get(&model::key::revision(service, revision)).ok()??;
        let revision: Revision = record.json().ok()?;
        revision.image.is_some().then(|| self.pools.of(&revision))
    }

    /// The story of a request for a service that is there.
    async fn answer(&self, entry: &Arc<Entry>, route: &Route, origin: &Origin, authority: String, mut parts: http::request::Parts, mut body: Body) -> Response {
        let mut finish = Finish::new(self.shared.clone(), entry.source.clone(), &parts, authority, origin);
        let (pool, held, who) = match self.admit(entry, route, origin, &parts) {
            Ok(admitted) => admitted,
            Err(Denied { refusal, caller }) => {
                self.shared.denials.push(Denial {
                    trace: String::from_utf8_lossy(&finish.trace.id_hex()).into_owned(),
                    time: self.shared.clock.now(),
                    service: entry.key.clone(),
                    refusal,
                    caller,
                    origin: origin.clone(),
                    host: finish.authority.clone(),
                });
                return finish.refuse(refusal);
            }
        };
        finish.belongs_to(&pool.source, pool.meter());
        let hops = parts.extensions.remove::<Hops>().unwrap_or_default();
        if hops.count > self.shared.config.hops_max {
            return finish.stop(&hops);
        }
        if pool.template.container.is_placeholder() {
            return finish.refuse(Refusal::Placeholder);
        }
        let h2c = pool.template.container.h2c || headers::is_grpc(&parts);
        let max = (!h2c).then_some(limits::REQUEST_BODY_MAX_BYTES);
        if max.is_some_and(|max| body.size_hint().lower() > max) {
            return finish.refuse(Refusal::BodyTooLarge);
        }
        let deadline = finish.arrived() + pool.template.timeout();
        let mut slot = match activator::slot_take(&pool, held, deadline).await {
            Ok(slot) => slot,
            Err(refusal) => return finish.refuse(refusal),
        };
        slot.handles(&finish.trace, hops);
        let cookie = pool.template.session_affinity.then(|| affinity::cookie(slot.instance(), &parts.headers, self.shared.clock.now())).flatten();
        if slot.is_cold {
            finish.is_cold(self.may_see(entry, who, &parts));
        }
        if recent::mark(&mut parts) {
            finish.is_copy();
        } else {
            body = entry.recent.offer(finish.arrived(), &parts, body);
        }
        invoker::signatures_remove(&self.shared.iam, &mut parts.headers);
        headers::request(&mut parts, &finish.authority, origin, &finish.remote_ip, &finish.trace, h2c);
        let body = forward::Upload::of(body, finish.flow.clone(), max);
        let mut response = forward::forward(slot, Request::from_parts(parts, body), Box::pin(sleep_until(deadline)), finish).await;
        if let Some(cookie) = cookie {
            response.headers_mut().append(http::header::SET_COOKIE, cookie);
        }
        response
    }

    /// The revision's instances, the slot to which the caller's cookie led, and who calls if that was asked. Who may not call is
    /// refused before anything is started for them.
    fn admit(&self, entry: &Arc<Entry>, route: &Route, origin: &Origin, parts: &http::request::Parts) -> Result<Admitted, Denied> {
        if self.shared.closing.is_cancelled() {
            return Err(Refusal::Closing.into());
        }
        ingress::check(entry.ingress, entry.key.project.as_str(), origin)?;
        if matches!(parts.method, http::Method::TRACE | http::Method::CONNECT) {
            return Err(Refusal::MethodNotAllowed.into());
        }
        let who = if entry.invoker_iam_disabled { None } else { self.with_target(entry, |target| invoker::check(&self.shared.iam, target, &parts.headers))? };
        let pool = match route {
            Route::Split => {
                let with_affinity = entry.shares.iter().map(|share| &share.pool).filter(|pool| pool.template.session_affinity);
                if let Some((pool, slot)) = affinity::slot(with_affinity, &parts.headers) {
                    return Ok((pool, Some(slot), who));
                }
                traffic::pick(&entry.shares).cloned().ok_or(Refusal::NoRevision)?
            }
            Route::Tag(pool) => {
                let held = affinity::slot(std::iter::once(pool).filter(|pool| pool.template.session_affinity), &parts.headers);
                return Ok((pool.clone(), held.map(|(_, slot)| slot), who));
            }
        };
        Ok((pool, None, who))
    }

    /// Whether the caller may look at the service, and so at where the time of its starts goes.
    fn may_see(&self, entry: &Arc<Entry>, who: Option<iam::Identity>, parts: &http::request::Parts) -> bool {
        self.with_target(entry, |target| {
            let who = who.or_else(|| invoker::caller(&self.shared.iam, target, &parts.headers));
            who.is_some_and(|who| self.shared.iam.may(Some(&who), SEE, target.resource, target.project))
        })
    }

    fn with_target<T>(&self, entry: &Arc<Entry>, ask: impl FnOnce(&invoker::Target<'_>) -> T) -> T {
        let table = self.table.load();
        let is_audience = |audience: &str| table.is_audience(entry, audience);
        ask(&invoker::Target { resource: &entry.resource, project: entry.key.project.as_str(), is_audience: &is_audience })
    }

    /// Starts the first instance of a new revision and waits until it listens; it stays as the revision's first instance.
    ///
    /// It is ended again when the revision does not appear in the store within a minute.
    ///
    /// # Errors
    /// Why it does not listen; the failed instance is gone by then.
    pub async fn prove(&self, revision: &Revision, image: &Image) -> Result<(), StartFailure> {
        let pool = self.pools.of(revision);
        let instance = pool.first(image)?;
        let (pools, uid) = (self.pools.clone(), revision.uid.clone());
        self.shared.supervisor.spawn("proven", async move {
            tokio::time::sleep(PROVEN_MAX).await;
            if !pools.is_recorded(&uid) {
                pools.retire(&uid);
            }
        });
        instance.outcome().await
    }

    /// A request that was not let in, by its trace (32 hexadecimal digits), while it is remembered.
    pub fn denial(&self, trace: &str) -> Option<Denial> {
        self.shared.denials.find(trace)
    }

    /// The instances there are, in no order.
    pub fn instances(&self) -> Vec<InstanceInfo> {
        self.pools.all().iter().flat_map(|pool| pool.infos()).collect()
    }

    /// The templates of revisions that have run, by service and revision.
    pub fn templates(&self) -> Vec<TemplateInfo> {
        let mut templates: Vec<_> = self.pools.all().iter().map(|pool| clones::info(pool)).collect();
        templates.sort_by(|one, other| (&one.service, &one.revision).cmp(&(&other.service, &other.revision)));
        templates
    }

    /// Why instances of a revision cannot be clones of what has loaded its code; `None` when they can, or when it is not known.
    pub fn start_refused(&self, uid: &str) -> Option<String> {
        self.pools.find(uid).map(|pool| clones::info(&pool).why).filter(|why| !why.is_empty())
    }

    /// The last cold starts of each revision that has run, the oldest first; revisions in no order.
    pub fn cold_starts(&self) -> Vec<(ServiceKey, RevisionName, Vec<ColdStart>)> {
        self.pools.all().iter().map(|pool| (pool.service.clone(), pool.revision.clone(), pool.cold_starts())).collect()
    }

    /// The last decisions about the number of instances of a service's revisions that have run, the oldest first; revisions in no order.
    pub fn scaling_decisions(&self, service: &ServiceKey) -> Vec<(RevisionName, Vec<ScalingDecision>)> {
        self.pools.all().iter().filter(|pool| pool.service == *service).map(|pool| (pool.revision.clone(), pool.decisions.list())).collect()
    }

    /// Drains and ends the instances of a service (all services when `None`): scale to zero now. Returns how many; waits at most `grace`.
    ///
    /// Requests that come meanwhile start new ones.
    pub async fn stop_instances(&self, service: Option<&ServiceKey>, grace: Duration) -> usize {
        let order = StopOrder::within(grace);
        let pools = self.pools.all();
        let stopped: Vec<_> =
            pools.iter().filter(|pool| service.is_none_or(|service| pool.service == *service)).flat_map(|pool| pool.drain_all(order)).collect();
        // The keeper ends what is left at the deadline; that takes a moment of its own.
        let deadline = Instant::now() + grace + END_MAX;
        for instance in &stopped {
            if timeout_at(deadline, instance.gone.cancelled()).await.is_err() {
                tracing::warn!(instance = %instance.sandbox, "an instance has not ended in time");
            }
        }
        stopped.len()
    }

    /// Ends everything: no new requests, SIGTERM, `grace`, SIGKILL.
    pub async fn shutdown(&self, grace: Duration) {
        self.shared.closing.cancel();
        self.pools.close();
        self.stop_instances(None, grace).await;
        self.shared.cut.cancel();
    }
}

type Admitted = (Arc<Pool>, Option<pool::Slot>, Option<iam::Identity>);

/// What ending the processes of an instance takes at most.
const END_MAX: Duration = Duration::from_secs(1);

#[cfg(test)]
pub(crate) mod tests {
    use std::collections::BTreeMap;

    use model::{
        ProjectId, Region, ServiceName, Timestamp,
        revision::{Container, RevisionTemplate},
        service::{Ingress, ServiceStatus},
    };

    use super::*;

    pub(crate) fn service_sample(name: &str) -> model::Service {
        model::Service {
            key: ServiceKey {
                project: ProjectId::parse("my-project").unwrap(),
                region: Region::parse("asia-northeast1").unwrap(),
                service: ServiceName::parse(name).unwrap(),
            },
            uid: format!("uid-of-{name}"),
            generation: 1,
            labels: BTreeMap::new(),
            annotations: BTreeMap::new(),
            created: Timestamp::UNIX_EPOCH,
            updated: Timestamp::UNIX_EPOCH,
            deleted: None,
            creator: String::new(),
            last_modifier: String::new(),
            client: String::new(),
            client_version: String::new(),
            description: String::new(),
            ingress: Ingress::All,
            invoker_iam_disabled: false,
            default_uri_disabled: false,
            custom_audiences: Vec::new(),
            scaling: model::service::ServiceScaling::default(),
            build_config: None,
            template: RevisionTemplate {
                revision: None,
                labels: BTreeMap::new(),
                annotations: BTreeMap::new(),
                container: Container::default(),
                min_instances: 0,
                max_instances: None,
                concurrency: None,
                timeout_s: None,
                service_account: String::new(),
                execution_environment: model::revision::ExecutionEnvironment::Unset,
                session_affinity: false,
                health_check_disabled: false,
            },
            traffic: Vec::new(),
            status: ServiceStatus::default(),
        }
    }

    pub(crate) fn revision_sample(service: &model::Service, name: &str) -> Revision {
        Revision {
            service: service.key.clone(),
            name: RevisionName::parse(name).unwrap(),
            uid: format!("uid-of-{name}"),
            service_uid: service.uid.clone(),
            generation: 1,
            created: Timestamp::UNIX_EPOCH,
            creator: String::new(),
            template: service.template.clone(),
            image: None,
            conditions: Vec::new(),
            client: String::new(),
            client_version: String::new(),
        }
    }
}
