//! The server's own requests to the world: a push or a job whose URL is of no host here.
//!
//! Where a function may not connect, neither may they: the rule and the way are those of sandboxes ([`super::Shared`]). A name is
//! resolved once for a connection, each of its addresses is checked, and the connection is made to a checked one, so that a name
//! that changes leads nowhere else. A kept connection goes to the address that was checked when it was made. Redirects are not
//! followed here: who does follow them comes again with the new URL. HTTP/1.1, with TLS by the roots that the host trusts.
//!
//! An operator lists hosts that are reached wherever they are, such as those of an own network; this machine and its link never are.

use std::{
    collections::HashMap,
    io::IoSlice,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::{Arc, Weak},
    task::{Context, Poll},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use futures_util::future::BoxFuture;
use http::{Uri, uri::Authority};
use http_body_util::{BodyExt as _, Full};
use hyper_util::{
    client::legacy::{
        self,
        connect::{Connected, Connection},
    },
    rt::{TokioExecutor, TokioIo, TokioTimer},
};
use parking_lot::Mutex;
use rustls::pki_types::ServerName;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    sync::Semaphore,
};
use tokio_rustls::TlsConnector;

use super::{AllowedHost, CONNECT_TIMEOUT, Egress, PORT_SMTP, Shared, address::is_of_this_machine, dns};

/// Requests under way at a time, in all and to one authority: one that never answers keeps no other waiting.
const REQUESTS_MAX: usize = 512;
const REQUESTS_PER_AUTHORITY_MAX: usize = 64;
/// Connections that are kept for an authority without a request, and for how long.
const IDLE_PER_AUTHORITY_MAX: usize = 8;
const IDLE_MAX: Duration = Duration::from_secs(60);
/// Of an answer's head, in bytes.
const HEAD_MAX_BYTES: usize = 64 << 10;
const TLS_TIMEOUT: Duration = Duration::from_secs(10);

/// What an operator sets.
pub struct ClientConfig {
    /// Nothing is sent.
    pub offline: bool,
    /// Reached wherever they are, this machine and its link excepted.
    pub hosts: Arc<[AllowedHost]>,
    /// Whom servers' certificates must be of.
    pub roots: rustls::RootCertStore,
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClientError {
    /// A rule forbids it: it says which, and what to set where something can be.
    #[error("{0}")]
    Refused(String),
    #[error("{0}")]
    Unreachable(String),
    #[error("the answer broke off: {0}")]
    Broken(String),
}

/// Makes requests. Clones share connections and limits.
#[derive(Clone)]
pub struct Client(Arc<Inner>);

struct Inner {
    rule: Arc<Rule>,
    pooled: legacy::Client<Connector, Full<Bytes>>,
    total: Semaphore,
    by_authority: Mutex<HashMap<Authority, Weak<Semaphore>>>,
}

/// Where a request may go, and how it gets there.
struct Rule {
    shared: Arc<Shared>,
    offline: bool,
    hosts: Arc<[AllowedHost]>,
    tls: TlsConnector,
}

impl Egress {
    /// The server's own way to the world, by the rule of sandboxes.
    pub fn client(&self, config: ClientConfig) -> Client {
        let tls = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("the provider has the default versions")
            .with_root_certificates(config.roots)
            .with_no_client_auth();
        let rule = Arc::new(Rule { shared: self.0.clone(), offline: config.offline, hosts: config.hosts, tls: TlsConnector::from(Arc::new(tls)) });
        let pooled = legacy::Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_MAX)
            .pool_max_idle_per_host(IDLE_PER_AUTHORITY_MAX)
            .http1_max_buf_size(HEAD_MAX_BYTES)
            .build(Connector(rule.clone()));
        Client(Arc::new(Inner { rule, pooled, total: Semaphore::new(REQUESTS_MAX), by_authority: Mutex::default() }))
    }
}

impl Client {
    /// What can be said of a URL before anything is resolved.
    ///
    /// # Errors
    /// [`ClientError::Refused`].
    pub fn check(&self, url: &Uri) -> Result<(), ClientError> {
        let (host, port) = destination(url);
        self.0.rule.name_check(&host, port)?;
        match host.parse::<IpAddr>() {
            Ok(ip) => self.0.rule.allowed(&host, port, &[ip.to_canonical()]).map(drop),
            Err(_) => Ok(()),
        }
    }

    /// Sends a request with an absolute URL, and reads the answer, of its body at most `body_max_bytes`: the connection of a longer one
    /// is closed. Waits while too many are under way; how long in all is the caller's to say.
    ///
    /// # Errors
    /// Why there is no answer.
    pub async fn request(&self, request: http::Request<Full<Bytes>>, body_max_bytes: usize) -> Result<http::Response<Bytes>, ClientError> {
        let own = match request.uri().authority() {
            Some(authority) => self.of_authority(authority),
            None => return Err(ClientError::Refused(format!("{} is no absolute URL", request.uri()))),
        };
        let closed = |_| ClientError::Unreachable("the server ends".to_owned());
        let _own = own.acquire().await.map_err(closed)?;
        let _all = self.0.total.acquire().await.map_err(closed)?;
        let (parts, mut body) = self.0.pooled.request(request).await.map_err(|error| error_of(&error))?.into_parts();
        let mut kept = BytesMut::new();
        while kept.len() < body_max_bytes
            && let Some(frame) = body.frame().await
        {
            if let Ok(data) = frame.map_err(|error| ClientError::Broken(error.to_string()))?.into_data() {
                kept.extend_from_slice(&data[..data.len().min(body_max_bytes - kept.len())]);
            }
        }
        Ok(http::Response::from_parts(parts, kept.freeze()))
    }

    fn of_authority(&self, authority: &Authority) -> Arc<Semaphore> {
        let mut all = self.0.by_authority.lock();
        if let Some(found) = all.get(authority).and_then(Weak::upgrade) {
            return found;
        }
        all.retain(|_, one| one.strong_count() > 0);
        let one = Arc::new(Semaphore::new(REQUESTS_PER_AUTHORITY_MAX));
        all.insert(authority.clone(), Arc::downgrade(&one));
        one
    }
}

/// What the connector said, or else what the exchange did.
fn error_of(error: &legacy::Error) -> ClientError {
    let mut source = std::error::Error::source(error);
    let mut last = error.to_string();
    while let Some(cause) = source {
        if let Some(own) = cause.downcast_ref::<ClientError>() {
            return own.clone();
        }
        last = cause.to_string();
        source = cause.source();
    }
    ClientError::Broken(last)
}

/// Host (lower case, without brackets and the root's dot) and port of a URL.
fn destination(url: &Uri) -> (String, u16) {
    let host = url.host().unwrap_or_default().trim_matches(['[', ']']).trim_end_matches('.').to_ascii_lowercase();
    (host, url.port_u16().unwrap_or(if is_tls(url) { 443 } else { 80 }))
}

fn is_tls(url: &Uri) -> bool {
    url.scheme() == Some(&http::uri::Scheme::HTTPS)
}

impl Rule {
    fn name_check(&self, host: &str, port: u16) -> Result<(), ClientError> {
        let refused = |why: String| Err(ClientError::Refused(why));
        if self.offline {
            return refused(format!("{host} is outside, and nothing is sent there: tanebi was started with --offline"));
        }
        if port == PORT_SMTP {
            return refused(format!("port {PORT_SMTP} of {host} is that of mail, and nothing is sent to it"));
        }
        if host == "localhost" || host.ends_with(".localhost") {
            return refused(format!("{host} is this machine, and nothing is sent to it"));
        }
        Ok(())
    }

    fn is_listed(&self, host: &str, port: u16) -> bool {
        self.hosts.iter().any(|listed| listed.matches(host) && listed.port.is_none_or(|of| of == port))
    }

    /// Those of a host's addresses that it may be reached at.
    fn allowed(&self, host: &str, port: u16, addresses: &[IpAddr]) -> Result<Vec<IpAddr>, ClientError> {
        let is_listed = self.is_listed(host, port);
        let may = |ip: &IpAddr| if is_listed { !is_of_this_machine(*ip) } else { self.shared.is_open(*ip) };
        let allowed: Vec<IpAddr> = addresses.iter().copied().filter(may).collect();
        match addresses.first() {
            Some(ip) if allowed.is_empty() => {
                let at = if host == ip.to_string() { host.to_owned() } else { format!("{host} has the address {ip}, which") };
                Err(ClientError::Refused(if is_of_this_machine(*ip) {
                    format!("{at} is of this machine or of its link, and nothing is sent to it")
                } else {
                    format!("{at} is no public address of another machine; --outside-host {host} (outside_hosts in tanebi.toml) allows it")
                }))
            }
            _ => Ok(allowed),
        }
    }

    async fn connect(&self, host: &str, port: u16) -> Result<TcpStream, ClientError> {
        self.name_check(host, port)?;
        let unreachable = |error: std::io::Error| ClientError::Unreachable(format!("{host}:{port} cannot be reached: {error}"));
        let addresses = match host.parse::<IpAddr>() {
            Ok(ip) => vec![ip.to_canonical()],
            Err(_) => self.shared.look_up(host).await.map_err(unreachable)?,
        };
        if addresses.is_empty() {
            // On a host without DNS the proxy alone knows the name.
            return match &self.shared.upstream {
                Some(proxy) if dns::is_outside_name(host) && !proxy.bypasses(host) => {
                    let connected = tokio::time::timeout(CONNECT_TIMEOUT, proxy.connect(host, port)).await;
                    connected.unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into())).map_err(unreachable)
                }
                _ => Err(ClientError::Unreachable(format!("the name {host} has no address"))),
            };
        }
        let mut failed = std::io::Error::from(std::io::ErrorKind::AddrNotAvailable);
        for ip in self.allowed(host, port, &addresses)? {
            match self.shared.connect(SocketAddr::new(ip, port)).await {
                Ok(stream) => return Ok(stream),
                Err(error) => failed = error,
            }
        }
        Err(unreachable(failed))
    }
}

#[derive(Clone)]
struct Connector(Arc<Rule>);

impl tower::Service<Uri> for Connector {
    type Response = TokioIo<Stream>;
    type Error = ClientError;
    type Future = BoxFuture<'static, Result<TokioIo<Stream>, ClientError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), ClientError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, url: Uri) -> Self::Future {
        let rule = self.0.clone();
        Box::pin(async move {
            let (host, port) = destination(&url);
            let stream = rule.connect(&host, port).await?;
            super::pieces_pass(&stream);
            if !is_tls(&url) {
                return Ok(TokioIo::new(Stream(Box::new(stream))));
            }
            let unreachable = |why: String| ClientError::Unreachable(format!("{host}:{port}: {why}"));
            let name = ServerName::try_from(host.clone()).map_err(|error| unreachable(error.to_string()))?;
            match tokio::time::timeout(TLS_TIMEOUT, rule.tls.connect(name, stream)).await {
                Ok(Ok(stream)) => Ok(TokioIo::new(Stream(Box::new(stream)))),
                Ok(Err(error)) => Err(unreachable(format!("no TLS: {error}"))),
                Err(_) => Err(unreachable(format!("no TLS within {} s", TLS_TIMEOUT.as_secs()))),
            }
        })
    }
}

trait ReadWrite: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> ReadWrite for T {}

/// A connection, with TLS or without.
struct Stream(Box<dyn ReadWrite>);

impl Connection for Stream {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl AsyncRead for Stream {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[IoSlice<'_>]) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.0).poll_write_vectored(context, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::future::BoxFuture;
    use tokio::net::TcpStream;

    use super::*;
    use crate::{
        InstanceIdentity,
        egress::{Inward, Owner},
    };

    struct Nothing;

    impl Inward for Nothing {
        fn plays(&self, _: &str) -> bool {
            false
        }

        fn serve(&self, _: Arc<Owner>, _: TcpStream, _: u16) -> BoxFuture<'static, ()> {
            Box::pin(async {})
        }

        fn metadata(&self, _: InstanceIdentity, _: TcpStream) -> BoxFuture<'static, ()> {
            Box::pin(async {})
        }
    }

    fn client(offline: bool, hosts: &[&str]) -> Client {
        let own = vec!["51.15.0.2".parse().unwrap()];
        let hosts = hosts.iter().map(|host| AllowedHost::parse(host).unwrap()).collect();
        Egress::new(Arc::new(Nothing), None, own, Box::new(|_, _| {})).client(ClientConfig { offline, hosts, roots: rustls::RootCertStore::empty() })
    }

    async fn refusal(client: &Client, url: &str) -> String {
        let request = http::Request::get(url).body(Full::default()).unwrap();
        match client.request(request, 10).await {
            Err(ClientError::Refused(why)) => why,
            other => panic!("{url}: {other:?}"),
        }
    }

    /// Spellings of addresses that are not public, however a resolver reads them.
    #[tokio::test]
    async fn what_is_not_public_is_refused_in_every_spelling() {
        let client = client(false, &[]);
        for host in [
            "127.0.0.1",
            "127.1",
            "2130706433",
            "0x7f000001",
            "0x7f.1",
            "0177.0.0.1",
            "0.0.0.0",
            "0",
            "[::]",
            "[::1]",
            "[::ffff:127.0.0.1]",
            "[::127.0.0.1]",
            "169.254.169.254",
            "[::ffff:a9fe:a9fe]",
            "[fe80::1]",
            "localhost",
            "LOCALHOST.",
            "a.localhost",
        ] {
            let why = refusal(&client, &format!("http://{host}:1/")).await;
            assert!(why.contains("this machine"), "{host}: {why}");
        }
        for host in ["10.1.2.3", "172.16.0.1", "192.168.1.1", "100.64.0.1", "198.18.0.1", "240.0.0.1", "[fd00::1]", "[2002:a00:1::1]", "51.15.0.2"] {
            let why = refusal(&client, &format!("https://{host}/")).await;
            assert!(why.contains("--outside-host"), "{host}: {why}");
            assert!(client.check(&format!("https://{host}/").parse().unwrap()).is_err(), "{host}");
        }
        assert!(refusal(&client, "http://8.8.8.8:25/").await.contains("mail"));
    }

    /// Of a name that was made for it the resolver knows private addresses only: what rebinding ends in.
    #[test]
    fn of_a_names_addresses_the_public_ones_are_left() {
        let addresses = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect::<Vec<IpAddr>>();
        let check = |hosts: &[&str], found: &[&str], expect: &[&str]| {
            let client = client(false, hosts);
            let got = client.0.rule.allowed("evil.example", 443, &addresses(found)).unwrap_or_default();
            assert_eq!(got, addresses(expect), "{hosts:?} {found:?}");
        };
        check(&[], &["8.8.8.8"], &["8.8.8.8"]);
        check(&[], &["10.0.0.1", "8.8.8.8", "127.0.0.1"], &["8.8.8.8"]);
        check(&[], &["10.0.0.1"], &[]);
        check(&["evil.example"], &["10.0.0.1", "127.0.0.1", "169.254.169.254", "fe80::1", "::"], &["10.0.0.1"]);
        check(&["evil.example:443"], &["10.0.0.1"], &["10.0.0.1"]);
        check(&["evil.example:80"], &["10.0.0.1"], &[]);
        check(&["*.example"], &["10.0.0.1"], &["10.0.0.1"]);
    }

    #[tokio::test]
    async fn offline_is_offline() {
        let client = client(true, &["10.0.0.1"]);
        for url in ["https://example.com/", "http://10.0.0.1/"] {
            assert!(client.check(&url.parse().unwrap()).is_err());
            assert!(refusal(&client, url).await.contains("--offline"));
        }
    }

    #[test]
    fn one_authority_does_not_take_all() {
        let client = client(false, &[]);
        let one = client.of_authority(&"a.example".parse().unwrap());
        assert_eq!(one.available_permits(), REQUESTS_PER_AUTHORITY_MAX);
        assert!(Arc::ptr_eq(&one, &client.of_authority(&"a.example".parse().unwrap())));
        drop(one);
        drop(client.of_authority(&"b.example".parse().unwrap()));
        assert_eq!(client.0.by_authority.lock().len(), 1, "those without a request are forgotten");
    }
}
