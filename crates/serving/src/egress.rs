//! What a sandbox may reach: every outbound connection and every name look-up of one ends here.
//!
//! A sandbox has no route out. The kernel leads its TCP to a listener of its own, which the keeper made inside its
//! namespace before user code ran; which listener a connection came in by is whose it is. Here each is
//! checked by policy and address and, when allowed, connected onward by the daemon. UDP other than DNS goes nowhere.
//!
//! Hosts of Google's that this server plays, and service URLs, resolve to [`PLAYED_V4`] and are handed [`Inward`] without leaving the machine.

mod address;
mod client;
mod dns;
mod upstream;

use std::{
    net::{IpAddr, SocketAddr},
    os::fd::{AsFd, OwnedFd},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use futures_util::future::BoxFuture;
use parking_lot::RwLock;
use tokio::{
    net::{TcpListener, TcpStream, UdpSocket},
    sync::{OwnedSemaphorePermit, Semaphore},
};
use tokio_util::sync::CancellationToken;

pub use address::is_public;
pub use client::{Client, ClientConfig, ClientError};
pub use dns::{PLAYED_V4, PLAYED_V6};
pub use upstream::UpstreamProxy;

use crate::InstanceIdentity;

/// Connections, look-ups and metadata requests that one sandbox has open at once.
const PER_SANDBOX_MAX: usize = 1024;
/// The same, over all sandboxes: far below what descriptors allow.
const TOTAL_MAX: usize = 4096;
/// Refusals of one instance that are written down: what asks on and on says nothing new.
const REFUSALS_TOLD_MAX: u32 = 100;
/// How long an onward connection may take to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Mail is what stolen functions send; Google blocks the port too.
const PORT_SMTP: u16 = 25;

/// Whose sandbox it is.
#[derive(Clone, Debug)]
pub enum Owner {
    Instance(InstanceIdentity),
    Build { project: String },
}

impl Owner {
    pub fn project(&self) -> &str {
        match self {
            Owner::Instance(identity) => &identity.project,
            Owner::Build { project } => project,
        }
    }
}

/// What lies beyond loopback and namespace for one sandbox.
#[derive(Clone, Debug)]
pub enum Policy {
    /// Public addresses, any port but mail's, and the hosts that this server plays. The default of instances.
    Public,
    /// These hosts only, wherever they are: a registry's mirror may be private. The rule of build steps.
    Hosts(Arc<[AllowedHost]>),
}

/// A host that a build may reach.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AllowedHost {
    /// Lower-case name or address; a leading `*.` stands for one or more labels.
    pub name: String,
    /// Any port when `None`.
    pub port: Option<u16>,
}

impl AllowedHost {
    /// `HOST` or `HOST:PORT`; an address of IPv6 with a port is in brackets.
    ///
    /// # Errors
    /// A text saying what is not understood.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is not HOST or HOST:PORT, such as db.example, *.example or 10.1.2.3:8080");
        let (name, port) = match (text.parse::<IpAddr>(), text.rsplit_once(':')) {
            (Err(_), Some((name, port))) => (name, Some(port.parse().map_err(|_| wrong())?)),
            _ => (text, None),
        };
        let name = name.trim_matches(['[', ']']).to_ascii_lowercase();
        let is_address = name.parse::<IpAddr>().is_ok();
        let bare = name.strip_prefix("*.").unwrap_or(&name);
        if !is_address && (bare.is_empty() || !bare.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))) {
            return Err(wrong());
        }
        Ok(Self { name, port })
    }

    fn matches(&self, name: &str) -> bool {
        match self.name.strip_prefix("*.") {
            Some(suffix) => name.strip_suffix(suffix).is_some_and(|rest| rest.ends_with('.') && rest.len() > 1),
            None => self.name == name,
        }
    }
}

/// The ends of a sandbox's network that the keeper handed over.
pub struct Ends {
    pub outbound: OwnedFd,
    pub dns_udp: OwnedFd,
    pub dns_tcp: OwnedFd,
    pub metadata: Option<OwnedFd>,
}

/// What the daemon itself answers.
pub trait Inward: Send + Sync + 'static {
    /// Whether this server plays `host` (lower case, no port).
    fn plays(&self, host: &str) -> bool;
    /// A connection to `port` of a played host: TLS when it is 443.
    fn serve(&self, owner: Arc<Owner>, stream: TcpStream, port: u16) -> BoxFuture<'static, ()>;
    /// A connection to the metadata server of an instance.
    fn metadata(&self, identity: InstanceIdentity, stream: TcpStream) -> BoxFuture<'static, ()>;
}

/// Where it is written down what an instance could not reach.
pub type RefusalLog = Box<dyn Fn(&InstanceIdentity, String) + Send + Sync>;

/// The way out for all sandboxes. Clones share it.
#[derive(Clone)]
pub struct Egress(Arc<Shared>);

struct Shared {
    inward: Arc<dyn Inward>,
    upstream: Option<UpstreamProxy>,
    /// The host's own addresses, public ones too: a function reaches none of them.
    own: Vec<IpAddr>,
    log: RefusalLog,
    total: Arc<Semaphore>,
    lookups: Arc<Semaphore>,
}

impl Shared {
    /// Whether `ip` is a public address of another machine.
    fn is_open(&self, ip: IpAddr) -> bool {
        is_public(ip) && !self.own.contains(&ip)
    }

    /// The upstream proxy gets the address that was checked, not a name that it could resolve to another.
    async fn connect(&self, address: SocketAddr) -> std::io::Result<TcpStream> {
        let connecting = async {
            match &self.upstream {
                Some(proxy) if !proxy.bypasses(&address.ip().to_string()) => proxy.connect(&address.ip().to_string(), address.port()).await,
                _ => TcpStream::connect(address).await,
            }
        };
        tokio::time::timeout(CONNECT_TIMEOUT, connecting).await.unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()))
    }
}

impl Egress {
    pub fn new(inward: Arc<dyn Inward>, upstream: Option<UpstreamProxy>, own_addresses: Vec<IpAddr>, log: RefusalLog) -> Self {
        Self(Arc::new(Shared {
            inward,
            upstream,
            own: own_addresses,
            log,
            total: Arc::new(Semaphore::new(TOTAL_MAX)),
            lookups: Arc::new(Semaphore::new(dns::LOOKUPS_MAX)),
        }))
    }

    /// Serves a sandbox's network until `ended`; then everything that it had open is cut. Must be called within the runtime.
    ///
    /// # Errors
    /// When a descriptor is no socket.
    pub fn serve(&self, owner: Owner, policy: Policy, ends: Ends, ended: CancellationToken) -> std::io::Result<()> {
        let outbound = listener(ends.outbound)?;
        let dns_tcp = listener(ends.dns_tcp)?;
        let dns_udp = std::net::UdpSocket::from(ends.dns_udp);
        dns_udp.set_nonblocking(true)?;
        let dns_udp = Arc::new(UdpSocket::from_std(dns_udp)?);
        let way = Arc::new(Way {
            shared: self.0.clone(),
            owner: Arc::new(owner),
            policy,
            permits: Arc::new(Semaphore::new(PER_SANDBOX_MAX)),
            lookups: Arc::new(Semaphore::new(dns::LOOKUPS_PER_SANDBOX)),
            names: RwLock::new(dns::Names::default()),
            told: AtomicU32::new(0),
            ended,
        });
        if let (Some(metadata), Owner::Instance(identity)) = (ends.metadata, &*way.owner) {
            let identity = identity.clone();
            let listener = listener(metadata)?;
            way.clone().accept(listener, move |way, stream| way.shared.inward.metadata(identity.clone(), stream));
        }
        way.clone().accept(outbound, |way, stream| async move { way.outbound(stream).await });
        way.clone().accept(dns_tcp, |way, stream| async move { way.dns_stream(stream).await });
        tokio::spawn(way.dns_datagrams(dns_udp));
        Ok(())
    }
}

/// A sandbox's way out.
struct Way {
    shared: Arc<Shared>,
    owner: Arc<Owner>,
    policy: Policy,
    permits: Arc<Semaphore>,
    lookups: Arc<Semaphore>,
    names: RwLock<dns::Names>,
    /// Refusals that were written down.
    told: AtomicU32,
    ended: CancellationToken,
}

/// Where a connection leads.
enum Onward {
    Played,
    Address(SocketAddr),
    /// Through the upstream proxy, which alone can resolve the name.
    Name(String, u16),
}

impl Way {
    /// Accepts until the sandbox ends. Each connection holds a permit of its sandbox and of all; without one it is closed.
    fn accept<F, S>(self: Arc<Self>, listener: TcpListener, serve: S)
    where
        F: Future<Output = ()> + Send + 'static,
        S: Fn(Arc<Self>, TcpStream) -> F + Send + Sync + 'static,
    {
        tokio::spawn(async move {
            loop {
                let accepted = tokio::select! {
                    () = self.ended.cancelled() => return,
                    accepted = listener.accept() => accepted,
                };
                match accepted {
                    Ok((stream, _)) => {
                        if let Some(permits) = self.permits_take() {
                            pieces_pass(&stream);
                            let ended = self.ended.clone();
                            let work = serve(self.clone(), stream);
                            tokio::spawn(async move {
                                let _permits = permits;
                                tokio::select! { () = ended.cancelled() => {}, () = work => {} }
                            });
                        }
                    }
                    Err(error) if is_of_one_connection(&error) => {}
                    Err(error) => {
                        // Out of descriptors: what waits in the backlog is taken when some are free again.
                        tracing::warn!(%error, "a sandbox's connection could not be accepted");
                        tokio::time::sleep(Duration::from_millis(100)).await;
                    }
                }
            }
        });
    }

    fn permits_take(&self) -> Option<(OwnedSemaphorePermit, OwnedSemaphorePermit)> {
        let own = self.permits.clone().try_acquire_owned().ok()?;
        let all = self.shared.total.clone().try_acquire_owned().ok()?;
        Some((own, all))
    }

    async fn outbound(self: Arc<Self>, stream: TcpStream) {
        let Ok(destination) = sandbox::original_destination(stream.as_fd()) else { return };
        let destination = SocketAddr::new(destination.ip().to_canonical(), destination.port());
        match self.onward(destination) {
            Some(Onward::Played) => self.shared.inward.serve(self.owner.clone(), stream, destination.port()).await,
            Some(Onward::Address(address)) => match self.shared.connect(address).await {
                Ok(onward) => relay(stream, onward).await,
                Err(error) => refuse(&stream, destination, &error),
            },
            Some(Onward::Name(name, port)) => {
                let proxy = self.shared.upstream.as_ref().expect("names without addresses are only given out with an upstream proxy");
                match tokio::time::timeout(CONNECT_TIMEOUT, proxy.connect(&name, port)).await {
                    Ok(Ok(onward)) => relay(stream, onward).await,
                    Ok(Err(error)) => refuse(&stream, destination, &error),
                    Err(_) => refuse(&stream, destination, &std::io::ErrorKind::TimedOut.into()),
                }
            }
            None => {
                self.tell(|| format!("A connection to {destination} was refused: a function reaches public addresses of other machines, and no port of mail."));
                refuse(&stream, destination, &std::io::ErrorKind::PermissionDenied.into());
            }
        }
    }

    /// Writes down what an instance was refused.
    fn tell(&self, what: impl FnOnce() -> String) {
        if let Owner::Instance(identity) = &*self.owner
            && self.told.fetch_add(1, Ordering::Relaxed) < REFUSALS_TOLD_MAX
        {
            (self.shared.log)(identity, what());
        }
    }

    /// The rule. `None` is a refusal.
    fn onward(&self, destination: SocketAddr) -> Option<Onward> {
        let (ip, port) = (destination.ip(), destination.port());
        if ip == IpAddr::V4(PLAYED_V4) || ip == IpAddr::V6(PLAYED_V6) {
            return matches!(self.policy, Policy::Public).then_some(Onward::Played);
        }
        if dns::is_stand_in(ip) {
            let name = self.names.read().of_stand_in(ip)?;
            return self.allows(&name, port).then_some(Onward::Name(name, port));
        }
        let allowed = match &self.policy {
            Policy::Public => port != PORT_SMTP && self.shared.is_open(ip),
            Policy::Hosts(hosts) => {
                let literal = ip.to_string();
                hosts.iter().any(|host| {
                    host.port.is_none_or(|p| p == port) && (host.name == literal || self.names.read().gave(&host.name, ip, |name| host.matches(name)))
                })
            }
        };
        allowed.then_some(Onward::Address(destination))
    }

    fn allows(&self, name: &str, port: u16) -> bool {
        match &self.policy {
            Policy::Public => port != PORT_SMTP,
            Policy::Hosts(hosts) => hosts.iter().any(|host| host.matches(name) && host.port.is_none_or(|p| p == port)),
        }
    }
}

async fn relay(mut inside: TcpStream, mut outside: TcpStream) {
    pieces_pass(&outside);
    // An error ends both halves; there is nobody to tell.
    let _ = tokio::io::copy_bidirectional(&mut inside, &mut outside).await;
}

/// What comes in pieces is passed on in pieces: without this each small one after the first waits up to 40 ms for an acknowledgement
/// (Nagle's rule against delayed ones). Maven asks for some 800 small files.
fn pieces_pass(stream: &TcpStream) {
    let _ = stream.set_nodelay(true);
}

/// Closes with a reset, so that the function sees a refused connection and not an empty answer.
fn refuse(stream: &TcpStream, destination: SocketAddr, error: &std::io::Error) {
    tracing::debug!(%destination, %error, "outbound connection refused");
    let _ = socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO));
}

fn listener(fd: OwnedFd) -> std::io::Result<TcpListener> {
    let listener = std::net::TcpListener::from(fd);
    listener.set_nonblocking(true)?;
    TcpListener::from_std(listener)
}

fn is_of_one_connection(error: &std::io::Error) -> bool {
    matches!(
        error.kind(),
        std::io::ErrorKind::ConnectionAborted | std::io::ErrorKind::ConnectionReset | std::io::ErrorKind::ConnectionRefused | std::io::ErrorKind::Interrupted
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn allowed_hosts_are_written_with_or_without_a_port() {
        let check = |text: &str, expect: Option<(&str, Option<u16>)>| {
            let got = AllowedHost::parse(text).ok();
            assert_eq!(got.as_ref().map(|host| (host.name.as_str(), host.port)), expect, "{text}");
        };
        check("Db.example", Some(("db.example", None)));
        check("*.example:8080", Some(("*.example", Some(8080))));
        check("10.1.2.3:80", Some(("10.1.2.3", Some(80))));
        check("fd00::7", Some(("fd00::7", None)));
        check("[fd00::7]:80", Some(("fd00::7", Some(80))));
        for wrong in ["", "*.", "a b", "a:", "a:99999", "http://a", "a/b", "a,b"] {
            check(wrong, None);
        }
    }

    #[test]
    fn allowed_hosts_match_whole_labels() {
        let check = |rule: &str, name: &str, expect: bool| {
            let host = AllowedHost { name: rule.into(), port: None };
            assert_eq!(host.matches(name), expect, "{rule} {name}");
        };
        check("pypi.org", "pypi.org", true);
        check("pypi.org", "xpypi.org", false);
        check("pypi.org", "a.pypi.org", false);
        check("*.pythonhosted.org", "files.pythonhosted.org", true);
        check("*.pythonhosted.org", "pythonhosted.org", false);
        check("*.pythonhosted.org", "evilpythonhosted.org", false);
        check("*.pythonhosted.org", ".pythonhosted.org", false);
    }

    #[tokio::test]
    async fn an_answer_in_two_pieces_is_not_held_back() {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let [sandbox_listener, world_listener] = [TcpListener::bind("127.0.0.1:0").await.unwrap(), TcpListener::bind("127.0.0.1:0").await.unwrap()];
        let mut asker = TcpStream::connect(sandbox_listener.local_addr().unwrap()).await.unwrap();
        let (inside, _) = sandbox_listener.accept().await.unwrap();
        let outside = TcpStream::connect(world_listener.local_addr().unwrap()).await.unwrap();
        let (mut answerer, _) = world_listener.accept().await.unwrap();
        answerer.set_nodelay(true).unwrap();
        pieces_pass(&inside);
        tokio::spawn(relay(inside, outside));
        tokio::spawn(async move {
            while answerer.read_u8().await.is_ok() {
                answerer.write_all(b"head").await.unwrap();
                // So that the relay sees two pieces.
                tokio::time::sleep(Duration::from_millis(2)).await;
                answerer.write_all(b"body").await.unwrap();
            }
        });
        let mut fastest = Duration::MAX;
        for round in 0..100 {
            let began = std::time::Instant::now();
            asker.write_all(b"?").await.unwrap();
            asker.read_exact(&mut [0; 8]).await.unwrap();
            // A young connection acknowledges at once.
            if round >= 50 {
                fastest = fastest.min(began.elapsed());
            }
        }
        assert!(fastest < Duration::from_millis(30), "{fastest:?}");
    }
}
