//! `tanebi serve`, the child of the supervisor: what needs the starting user's rights happens here, in order, with one thread;
//! then the keeper is forked, privileges are dropped, and [`crate::wire`] runs the server.

use std::{
    net::TcpListener,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use rustix::process::{Resource, Rlimit, Signal};
use tracing_subscriber::EnvFilter;

use crate::{
    ca,
    clock::SystemClock,
    config::{Config, ServeArgs},
    folder,
    packages::Packages,
    ports::{self, Port},
    running::{self, Running},
    wire,
};

/// The daemon's uid and gid when it is started by root and there is no user `tanebi`.
const DAEMON_UID: u32 = 61843;
/// Of the daemon's threads; instances have 0. With it a busy function makes the others' requests wait less.
const NICE: i32 = -5;
/// How long work that blocks may go on when everything else has ended.
const BLOCKED_MAX: Duration = Duration::from_millis(200);
/// How long a keeper may take to end its sandboxes when its daemon died.
const OLD_KEEPER_MAX: Duration = Duration::from_secs(10);

/// The parts of the data folder, each of one owner's.
#[derive(Clone, Debug)]
pub struct Folders {
    /// Records, blobs, layers, logs. The daemon's, 0700.
    pub state: PathBuf,
    /// Caches of builds and work in progress. The daemon's; sandboxes write below it.
    pub build: PathBuf,
    /// The certificate (readable by all) and key (not) of the CA. The daemon's.
    pub ca: PathBuf,
    /// Nothing: laid over what instances must not see of the host.
    pub empty: PathBuf,
}

/// What `wire` gets.
pub struct Prepared {
    pub config: Config,
    pub folders: Folders,
    pub listener: TcpListener,
    pub tls_listener: TcpListener,
    pub keeper: Arc<sandbox::Keeper>,
    pub catalogue: build::Catalogue,
    pub packages: Packages,
    pub upstream: Option<serving::egress::UpstreamProxy>,
    pub own_addresses: Vec<std::net::IpAddr>,
    /// The roots that the host trusts, PEM.
    pub host_roots: Vec<u8>,
    pub secret: String,
}

pub fn serve(args: &ServeArgs) -> Result<ExitCode> {
    let config = Config::resolve(args)?;
    tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::try_from_env("TANEBI_LOG").unwrap_or_else(|_| EnvFilter::new("warn")))
        .with_writer(std::io::stderr)
        .with_target(false)
        .init();
    let prepared = prepare(config)?;
    // A server whose supervisor was killed ends in order.
    rustix::process::set_parent_process_death_signal(Some(Signal::TERM)).context("the parent's death signal")?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("the runtime")?;
    let ended = runtime.block_on(wire::run(prepared));
    // What still blocks waits for a keeper that is gone, or for a function: nothing that was acknowledged is in its hands.
    runtime.shutdown_timeout(BLOCKED_MAX);
    ended
}

/// Everything up to the last use of a privilege. One thread.
fn prepare(config: Config) -> Result<Prepared> {
    let me = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    let daemon = if me.0 == 0 { daemon_user() } else { me };
    let data = &config.data_dir;
    folder::ensure(data, me, 0o755)?;
    if daemon != me {
        folder::reachable(data, daemon)?;
    }
    let folders = Folders { state: data.join("state"), build: data.join("build"), ca: data.join("ca"), empty: data.join("empty") };
    folder::ensure(&folders.state, daemon, 0o700)?;
    folder::ensure(&folders.build, daemon, 0o711)?;
    folder::ensure(&folders.ca, daemon, 0o755)?;
    folder::ensure(&folders.empty, me, 0o755)?;
    folder::ensure(&running::client_dir(data), me, 0o700)?;
    let keeper_dir = data.join("keeper");
    folder::ensure(&keeper_dir, me, 0o700)?;

    descriptors_raise()?;
    let ports_file = running::client_dir(data).join("ports.json");
    let listener = ports::bind(&ports_file, Port::Plain, config.listen, config.listen_given)?;
    let tls_listener = ports::bind(&ports_file, Port::Tls, config.tls_listen, config.tls_listen_given)?;
    let secret = running::secret_ensure(data)?;
    let variable = |name: &str| std::env::var(name).ok();
    let home = std::env::var_os("HOME").map(PathBuf::from);
    let packages = Packages::read(variable, home.as_deref());
    let catalogue = catalogue(data, Some(&running::client_dir(data).join("interpreters.json")));
    let host_roots = host_roots()?;
    let upstream = upstream()?;
    let own_addresses = own_addresses();
    let keeper = keeper_start(
        &sandbox::KeeperConfig { dir: keeper_dir, writable_under: vec![folders.build.clone()], daemon_uid: daemon.0, daemon_gid: daemon.1 },
        data,
    )?;
    // Only now is it certain that the folder is this server's.
    Running { pid: std::process::id(), listen: listener.local_addr()?, tls_listen: tls_listener.local_addr()?, version: env!("CARGO_PKG_VERSION").to_owned() }
        .write(data)?;
    // The way to all functions before any one of them. Without root it may not be so.
    let _ = rustix::process::setpriority_process(None, NICE);
    sandbox::drop_privileges(daemon.0, daemon.1).context("giving up privileges")?;
    Ok(Prepared { config, folders, listener, tls_listener, keeper: Arc::new(keeper), catalogue, packages, upstream, own_addresses, host_roots, secret })
}

/// After a crash the old keeper is still ending its sandboxes: it is waited for. One that stays belongs to another server.
fn keeper_start(config: &sandbox::KeeperConfig, data: &Path) -> Result<sandbox::Keeper> {
    let deadline = Instant::now() + OLD_KEEPER_MAX;
    loop {
        match sandbox::fork_keeper(config.clone()) {
            Err(error) if is_taken(&error) && Instant::now() < deadline => std::thread::sleep(Duration::from_millis(20)),
            Err(error) if is_taken(&error) => anyhow::bail!("another tanebi uses the data folder {}: stop it, or choose another --data-dir", data.display()),
            started => return started.context("starting the keeper of sandboxes"),
        }
    }
}

fn is_taken(error: &sandbox::Error) -> bool {
    let source = match error {
        sandbox::Error::Step { source, .. } | sandbox::Error::Hinted { source, .. } => source,
        _ => return false,
    };
    source.kind() == std::io::ErrorKind::WouldBlock
}

/// The interpreters of this host, each proven by running it; what they said is remembered in `memory`.
pub fn catalogue(data_dir: &Path, memory: Option<&Path>) -> build::Catalogue {
    let mut search = vec![data_dir.join("runtimes")];
    if let Some(home) = std::env::var_os("HOME") {
        for below in [".pyenv/versions", ".local/share/uv/python", ".nvm/versions/node", "sdk", "go/pkg/mod/golang.org", ".sdkman/candidates/java", ".jdks"] {
            search.push(Path::new(&home).join(below));
        }
    }
    for folder in ["/opt/python", "/usr/local/go", "/usr/lib/go", "/usr/lib/jvm", "/opt/gradle", "/usr/local/bin", "/usr/bin"] {
        search.push(folder.into());
    }
    build::Catalogue::discover(&search, memory)
}

/// The user `tanebi` of /etc/passwd, or a number that nobody has.
fn daemon_user() -> (u32, u32) {
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    passwd
        .lines()
        .find_map(|line| {
            let fields: Vec<_> = line.split(':').collect();
            (fields.first() == Some(&"tanebi")).then(|| Some((fields.get(2)?.parse().ok()?, fields.get(3)?.parse().ok()?))).flatten()
        })
        .unwrap_or((DAEMON_UID, DAEMON_UID))
}

/// Each connection and each instance needs some; the soft limit is often 1024.
fn descriptors_raise() -> Result<()> {
    let limit = rustix::process::getrlimit(Resource::Nofile);
    rustix::process::setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum }).context("raising the limit of open files")
}

fn host_roots() -> Result<Vec<u8>> {
    let own = std::env::var_os("SSL_CERT_FILE").filter(|p| Path::new(p).is_file()).map(PathBuf::from);
    let system = ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem", "/etc/ssl/ca-bundle.pem"];
    match own.or_else(|| system.iter().map(PathBuf::from).find(|p| p.is_file())) {
        Some(path) => std::fs::read(&path).with_context(|| path.display().to_string()),
        None => Ok(Vec::new()),
    }
}

/// A proxy that is in the environment already becomes the way out for what is tunnelled. One that is tanebi itself is not.
fn upstream() -> Result<Option<serving::egress::UpstreamProxy>> {
    let first = |names: &[&str]| names.iter().find_map(|name| std::env::var(name).ok().filter(|v| !v.is_empty()));
    if std::env::var_os("TANEBI_SAVED").is_some() {
        return Ok(None);
    }
    match first(&["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"]) {
        Some(url) => {
            let proxy = serving::egress::UpstreamProxy::parse(&url, &first(&["no_proxy", "NO_PROXY"]).unwrap_or_default());
            proxy.map(Some).map_err(|error| anyhow::anyhow!("the proxy in the environment (https_proxy): {error}"))
        }
        None => Ok(None),
    }
}

/// Addresses of this host's interfaces: no function reaches them, public ones included.
fn own_addresses() -> Vec<std::net::IpAddr> {
    nix::ifaddrs::getifaddrs()
        .into_iter()
        .flatten()
        .filter_map(|interface| {
            let address = interface.address?;
            address.as_sockaddr_in().map(|a| std::net::IpAddr::from(a.ip())).or_else(|| address.as_sockaddr_in6().map(|a| std::net::IpAddr::from(a.ip())))
        })
        .collect()
}

/// Writes the CA's certificate where clients find it; the key stays beside it, 0600.
pub fn authority_root(folders: &Folders) -> Result<ca::Root> {
    ca::root_ensure(&folders.ca, model::Clock::now(&SystemClock))
}
