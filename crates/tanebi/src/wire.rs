//! The whole program, created and connected once: read [`run`] and you know the process.

use std::{
    process::ExitCode,
    sync::{Arc, OnceLock},
    time::Duration,
};

use anyhow::{Context, Result, anyhow};
use futures_util::future::BoxFuture;
use serving::{
    InstanceIdentity, Origin, Serving, Workers,
    egress::{ClientConfig, Egress, Ends, Inward, Owner, Policy},
    listener::{self, Handler as _, Limits},
};
use tokio::{
    net::TcpStream,
    signal::unix::{SignalKind, signal},
};
use tokio_util::sync::CancellationToken;

use crate::{
    ca::Authority,
    clock::SystemClock,
    console::Console,
    front::{Door, Front, Hosts},
    own::Own,
    refused,
    serve::{Prepared, authority_root},
    shadow,
    supervise::EXIT_AGAIN,
    trust_store,
    tunnel::{Tunnel, said},
};

/// Between SIGTERM and the end: requests in flight finish, instances get their SIGTERM.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(10);
const BUILD_TIMEOUT: Duration = Duration::from_secs(600);
const BUILD_MEMORY_BYTES: u64 = 2 << 30;
/// How long an instance without requests is kept.
const IDLE_MAX: Duration = Duration::from_secs(model::limits::IDLE_MAX_S as u64);
/// What stopped templates of functions may hold together, and which part of the host's memory at most.
const TEMPLATES_BYTES: u64 = 1536 << 20;
const TEMPLATES_PART: u64 = 4;
const HOLD_MIN: Duration = Duration::from_secs(10);
const KEYS_TICK: Duration = Duration::from_secs(3600);

pub async fn run(prepared: Prepared) -> Result<ExitCode> {
    let Prepared { config, folders, listener, tls_listener, keeper, catalogue, packages, upstream, own_addresses, host_roots, secret } = prepared;
    let (listen, tls_listen) = (listener.local_addr()?, tls_listener.local_addr()?);
    let runtimes = crate::doctor::Runtimes::of(&catalogue);
    let status = |status: model::Status| anyhow!("{status}");

    // State, and who may do what with it. A clock that is moved by hand is of the state; certificates and files go by the real one.
    let store = store::Store::open(&folders.state).context("the store")?;
    let (clock, manual_clock) = crate::clock::open(config.clock, &store).await?;
    let real_clock: Arc<dyn model::Clock> = Arc::new(SystemClock);
    let vault = iam::Vault::open(&folders.state.join("vault.keys"), &store).context("the keys of secrets")?;
    let telemetry = telemetry::Telemetry::open(&folders.state, clock.clone()).context("the logs")?;
    let project = control::project_ensure(&store, &*clock, &config.project).await.map_err(status)?;
    let iam = iam::Iam::open(store.clone(), clock.clone(), project.id.clone(), project.number, &config.owner).await.map_err(status)?;

    // The hosts that are played, and the CA that speaks for them.
    let domains: Vec<String> = ["run.app", "run.localhost"].into_iter().map(str::to_owned).chain(config.domain.clone()).collect();
    let hosts = Hosts { domains: domains.clone(), real: config.google_hosts.clone() };
    let root = authority_root(&folders)?;
    let roots = roots_read(&host_roots);
    let mut ca_bundle = host_roots;
    ca_bundle.extend_from_slice(root.cert_pem.as_bytes());
    let java_trust_store = trust_store::java(&ca_bundle);
    let authority = Authority::new(
        root,
        real_clock.clone(),
        Arc::new({
            let hosts = hosts.clone();
            move |host| hosts.has_certificate(host)
        }),
    )?;
    let tls = authority.server_config()?;

    // The data plane; what its instances ask for comes back in by the same door.
    let inward = Arc::new(Within { hosts: hosts.clone(), door: OnceLock::new() });
    let refused = {
        let (telemetry, clock) = (telemetry.clone(), clock.clone());
        Box::new(move |identity: &InstanceIdentity, text| telemetry.log(refused::entry(identity, text, clock.now())))
    };
    let egress = Egress::new(inward.clone(), upstream.clone(), own_addresses, refused);
    let serving = Serving::start(
        serving::Config {
            domains,
            java_trust_store: java_trust_store.clone(),
            ca_bundle: ca_bundle.clone(),
            hold_min: HOLD_MIN,
            instance_idle_max: IDLE_MAX,
            templates_bytes: templates_bytes(),
            armed_max: config.armed_max,
            hops_max: config.hops_max,
            vault: vault.clone(),
            empty: folders.empty.clone(),
        },
        clock.clone(),
        store.clone(),
        iam.clone(),
        telemetry.clone(),
        keeper.clone(),
        Arc::new(InstanceEgress(egress.clone())),
    )
    .map_err(|error| anyhow!("the data plane: {error}"))?;

    // The control plane.
    let builder = build::Builder::new(
        build::Config {
            dir: folders.build.clone(),
            ca_bundle,
            java_trust_store,
            egress: Arc::new(BuildWay { egress: egress.clone(), hosts: packages.hosts.into(), runtime: tokio::runtime::Handle::current() }),
            timeout: BUILD_TIMEOUT,
            memory_bytes: BUILD_MEMORY_BYTES,
            package_environment: packages.environment,
            catalogue,
            // The same binary, in a sandbox.
            looker: std::env::current_exe().ok(),
            clock: real_clock.clone(),
        },
        store.clone(),
        keeper.clone(),
    )
    .context("the builder")?;
    let world = egress.client(ClientConfig { offline: config.offline, hosts: config.outside_hosts.clone().into(), roots });
    let deliverer = events::deliver::Deliverer::new(serving.clone(), iam.clone()).with_beyond(inward.clone(), world);
    let log = {
        let telemetry = telemetry.clone();
        Arc::new(move |entry| telemetry.log(entry))
    };
    let outside = Arc::new(events::pubsub::Platform { iam: iam.clone(), deliverer: deliverer.clone(), clock: clock.clone(), log });
    let pubsub = events::pubsub::PubSub::open(store.clone(), clock.clone(), outside).await.map_err(status)?;
    let control = control::Control::start(
        control::Config { default_project: project.id.clone(), default_region: config.region.clone(), files_clock: real_clock, vault },
        clock.clone(),
        store.clone(),
        iam.clone(),
        telemetry.clone(),
        builder.clone(),
        serving.clone(),
        pubsub.clone(),
    )
    .await
    .map_err(status)?;
    let way = events::scheduler::Sender { deliverer: deliverer.clone(), iam: iam.clone(), clock: clock.clone(), topics: pubsub.clone() };
    let log = {
        let telemetry = telemetry.clone();
        Box::new(move |entry| telemetry.log(entry))
    };
    let (scheduler, mut jobs) =
        events::scheduler::Scheduler::start(store.clone(), clock.clone(), Arc::new(way), deliverer.busy().clone(), log).await.map_err(status)?;
    repository_ensure(&control, &project.id, &config.region).await.map_err(status)?;
    let api = api::Api::new(api::Deps {
        clock: clock.clone(),
        control: control.clone(),
        iam: iam.clone(),
        pubsub: pubsub.clone(),
        scheduler,
        telemetry: telemetry.clone(),
        config: api::Config { default_project: project.id.clone(), default_region: config.region.clone(), owner: config.owner.clone() },
    });

    // The door.
    let (limits, stop) = (limits(), CancellationToken::new());
    let front = Arc::new(Front {
        hosts,
        serving: serving.clone(),
        api,
        own: Own {
            secret,
            iam: iam.clone(),
            control: control.clone(),
            builder: builder.clone(),
            telemetry: telemetry.clone(),
            project: project.clone(),
            region: config.region.clone(),
            owner: config.owner.clone(),
            ca_pem: authority.root_pem().to_owned(),
            clock: manual_clock,
            deliverer: deliverer.clone(),
            time: clock.clone(),
            keeper: keeper.clone(),
            runtimes,
            comparing: shadow::Turns::default(),
        },
        console: Console {
            iam: iam.clone(),
            clock: clock.clone(),
            project: project.clone(),
            region: config.region.clone(),
            listen,
            ca_file: folders.ca.join("ca.pem"),
        },
        tunnel: Tunnel { offline: config.offline, upstream, own: vec![listen, tls_listen] },
        refused: refused::Refused::new(telemetry.clone(), clock.clone()),
        tls: tls.clone(),
        limits,
        runtime: tokio::runtime::Handle::current(),
    });
    let door = Door::new(front);
    assert!(inward.door.set(door.clone()).is_ok(), "the door is set once");
    let workers = Workers::start().context("the threads of requests")?;
    let plain = listener::serve(listener, None, Arc::new(door.clone()), limits, stop.clone(), &workers);
    let secure = listener::serve(tls_listener, Some(tls), Arc::new(door), limits, stop.clone(), &workers);
    let (mut plain, mut secure) = (std::pin::pin!(plain), std::pin::pin!(secure));
    let keys = tokio::spawn(keys_turn(iam.clone(), clock.clone(), deliverer.busy().clone()));

    greet(&config, &project, listen, tls_listen, &keeper, &iam, &*clock);
    let end = tokio::select! {
        end = asked_to_stop() => end?,
        () = keeper_gone(&keeper) => End::Broken("the keeper of sandboxes is gone".into()),
        name = serving.failed() => End::Broken(format!("a loop of the data plane ended: {name}")),
        name = control.failed() => End::Broken(format!("a loop of the control plane ended: {name}")),
        () = &mut plain => End::Broken("the plain listener ended".into()),
        () = &mut secure => End::Broken("the TLS listener ended".into()),
        _ = &mut jobs => End::Broken("the loop of jobs ended".into()),
        _ = keys => End::Broken("the turning of keys ended".into()),
    };
    match end {
        End::Asked => {
            stop.cancel();
            // What is due from now on is done after the next start.
            jobs.abort();
            pubsub.close();
            tokio::select! {
                ((), (), ()) = async { tokio::join!(serving.shutdown(SHUTDOWN_GRACE), &mut plain, &mut secure) } => {}
                _ = asked_to_stop() => {}
            }
            telemetry.flush().await;
            Ok(ExitCode::SUCCESS)
        }
        End::Broken(why) => {
            eprintln!("error: {why}");
            Ok(ExitCode::from(EXIT_AGAIN))
        }
    }
}

/// Each connection is a descriptor, each request one more into an instance: a third of what the process may open.
fn limits() -> Limits {
    let files = rustix::process::getrlimit(rustix::process::Resource::Nofile).current.unwrap_or(1024);
    let connections_max = usize::try_from(files / 3).unwrap_or(usize::MAX).max(64);
    // All callers of one machine have one address, so the cap for one is near the whole.
    Limits { connections_max, connections_per_ip_max: connections_max / 4 * 3, ..Limits::default() }
}

/// The repository that gcloud puts its images in: with it there, a first deploy asks nothing and saves four requests.
async fn repository_ensure(control: &control::Control, project: &model::ProjectId, region: &model::Region) -> Result<(), model::Status> {
    match control.repository_get(project, region, crate::run::REPOSITORY) {
        Err(absent) if absent.code == model::Code::NotFound => {
            control.repository_create(project, region, crate::run::REPOSITORY, "DOCKER", "Cloud Run Source Deployments").await.map(drop)
        }
        found => found.map(drop),
    }
}

enum End {
    Asked,
    Broken(String),
}

/// What a user needs next, on stdout; what is missing, on stderr.
fn greet(
    config: &crate::config::Config,
    project: &control::Project,
    listen: std::net::SocketAddr,
    tls_listen: std::net::SocketAddr,
    keeper: &sandbox::Keeper,
    iam: &iam::Iam,
    clock: &dyn model::Clock,
) {
    println!("ready http://{listen} https://{tls_listen}");
    println!("project {} (number {}), region {}, owner {}", project.id, project.number, config.region, config.owner);
    if config.clock != crate::config::ClockKind::System {
        println!("clock stands at {} until tanebi clock moves it", clock.now());
    }
    println!("for a shell: eval \"$(tanebi env --data-dir '{}')\"", config.data_dir.display());
    println!("to sign in in a browser: http://{listen}/sign-in?link={}", iam.sign_in_link_issue(&config.owner));
    println!("console {}", crate::console::link(listen.port(), &iam.sign_in_link_issue(&config.owner)));
    match keeper.walls() {
        Ok(walls) => walls.missing.iter().for_each(|line| eprintln!("missing: {line}")),
        Err(error) => eprintln!("missing: the walls could not be measured: {error}"),
    }
}

async fn asked_to_stop() -> Result<End> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(End::Asked)
}

/// Waits on a thread of its own: the descriptor becomes readable once, when the keeper ends.
async fn keeper_gone(keeper: &sandbox::Keeper) {
    // One that cannot be watched is as good as gone.
    let Ok(gone) = keeper.gone() else { return };
    let (told, telling) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        while let Err(rustix::io::Errno::INTR) = rustix::event::poll(&mut [rustix::event::PollFd::new(&gone, rustix::event::PollFlags::IN)], None) {}
        let _ = told.send(());
    });
    let _ = telling.await;
}

async fn keys_turn(iam: iam::Iam, clock: Arc<dyn model::Clock>, busy: events::busy::Busy) {
    loop {
        clock.until(clock.now() + KEYS_TICK).await;
        let _under_way = busy.begin();
        if let Err(error) = iam.rotate().await {
            tracing::error!(%error, "signing keys could not be turned");
        }
    }
}

/// What instances ask of Google's hosts and of services comes in by the door, from inside.
struct Within {
    hosts: Hosts,
    door: OnceLock<Door>,
}

impl Inward for Within {
    fn plays(&self, host: &str) -> bool {
        self.hosts.plays(host)
    }

    fn serve(&self, owner: Arc<Owner>, stream: TcpStream, port: u16) -> BoxFuture<'static, ()> {
        let Some(door) = self.door.get().cloned() else { return Box::pin(async {}) };
        let origin = Origin::Inside { project: owner.project().to_owned() };
        Box::pin(async move {
            if port == 80 || port == 443 {
                door.within(owner).serve(stream, port == 443, origin).await;
            }
        })
    }

    fn metadata(&self, identity: InstanceIdentity, stream: TcpStream) -> BoxFuture<'static, ()> {
        let Some(door) = self.door.get().cloned() else { return Box::pin(async {}) };
        let origin = Origin::Inside { project: identity.project.clone() };
        Box::pin(async move { door.metadata(identity).serve(stream, origin).await })
    }
}

impl events::deliver::Played for Within {
    fn plays(&self, host: &str) -> bool {
        self.hosts.plays(host)
    }

    fn handle(&self, origin: Origin, is_tls: bool, request: serving::Request) -> BoxFuture<'static, serving::Response> {
        match self.door.get() {
            Some(door) => door.inside(is_tls).handle(origin, request),
            None => Box::pin(async { said(http::StatusCode::SERVICE_UNAVAILABLE, "the server is starting") }),
        }
    }
}

/// The network of instances: public addresses, played hosts, a metadata server.
struct InstanceEgress(Egress);

impl serving::InstanceNetwork for InstanceEgress {
    fn serve(
        &self,
        identity: InstanceIdentity,
        outbound: std::os::fd::OwnedFd,
        dns_udp: std::os::fd::OwnedFd,
        dns_tcp: std::os::fd::OwnedFd,
        metadata: std::os::fd::OwnedFd,
        ended: CancellationToken,
    ) {
        let ends = Ends { outbound, dns_udp, dns_tcp, metadata: Some(metadata) };
        if let Err(error) = self.0.serve(Owner::Instance(identity), Policy::Public, ends, ended) {
            tracing::error!(%error, "an instance has no network");
        }
    }
}

/// The network of build steps: the registries that the host is set to.
struct BuildWay {
    egress: Egress,
    hosts: Arc<[serving::egress::AllowedHost]>,
    runtime: tokio::runtime::Handle,
}

impl build::BuildEgress for BuildWay {
    fn serve(&self, sandbox: &mut sandbox::Sandbox, also: &[&str]) -> Box<dyn Send> {
        let (Some(outbound), Some(dns_udp), Some(dns_tcp)) = (sandbox.outbound.take(), sandbox.dns_udp.take(), sandbox.dns_tcp.take()) else {
            return Box::new(());
        };
        let _runtime = self.runtime.enter();
        let ended = CancellationToken::new();
        let ends = Ends { outbound, dns_udp, dns_tcp, metadata: None };
        let hosts = if also.is_empty() {
            self.hosts.clone()
        } else {
            let also = also.iter().map(|name| serving::egress::AllowedHost { name: (*name).to_owned(), port: Some(443) });
            self.hosts.iter().cloned().chain(also).collect()
        };
        if let Err(error) = self.egress.serve(Owner::Build { project: String::new() }, Policy::Hosts(hosts), ends, ended.clone()) {
            tracing::error!(%error, "a build step has no network");
        }
        Box::new(ended.drop_guard())
    }
}

/// Whom servers of the world must have their certificates of: what the host trusts. What cannot be read is left out.
fn roots_read(pem: &[u8]) -> rustls::RootCertStore {
    let mut roots = rustls::RootCertStore::empty();
    roots.add_parsable_certificates(rustls_pemfile::certs(&mut &*pem).filter_map(Result::ok));
    roots
}

fn templates_bytes() -> u64 {
    let memory = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let total = memory.lines().find_map(|line| line.strip_prefix("MemTotal:")?.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    total.map_or(TEMPLATES_BYTES, |kib| (kib << 10) / TEMPLATES_PART).min(TEMPLATES_BYTES)
}
