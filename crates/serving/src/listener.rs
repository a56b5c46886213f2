//! Accepts callers, speaks TLS, HTTP/1 and HTTP/2 with them, and hands each request to whoever knows what its host means.
//!
//! What a request may look like is checked here, before anything is looked up: a head within limits that does not contradict
//! itself. How long a caller may take is `stream.rs`. Which hosts there are is not known here.

use std::{
    collections::HashMap,
    convert::Infallible,
    io,
    net::IpAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use futures_util::future::{BoxFuture, select_all};
use http::header;
use http_body::{Frame, SizeHint};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::conn::auto,
};
use parking_lot::Mutex;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
    time::{Instant, sleep, sleep_until, timeout},
};
use tokio_rustls::TlsAcceptor;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    Body, BoxError, Origin, Request, Response, Workers, host, pages,
    refusal::Refusal,
    stream::{Activity, HEAD_MAX, Open, Paced, Streams, Watched, cuttable},
};

/// Answers requests. Always: an error is an answer too.
pub trait Handler: Send + Sync + 'static {
    fn handle(&self, origin: Origin, request: Request) -> BoxFuture<'static, Response>;
}

impl<F> Handler for F
where
    F: Fn(Origin, Request) -> BoxFuture<'static, Response> + Send + Sync + 'static,
{
    fn handle(&self, origin: Origin, request: Request) -> BoxFuture<'static, Response> {
        self(origin, request)
    }
}

/// How many callers at a time, and how long the last of them may take.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections of one listener; well below the process's limit of open files, as each request needs one more.
    pub connections_max: usize,
    /// Connections from one address; for IPv6 from one /64.
    pub connections_per_ip_max: usize,
    /// Requests at a time on one HTTP/2 connection. Google: 100.
    pub streams_max: u32,
    /// From being stopped until connections are cut, whatever they do.
    pub drain_max: Duration,
}

impl Default for Limits {
    /// For a process that may open 20,000 files and has two listeners. Many callers behind one address (a proxy, a test) are common on a
    /// machine of one's own, so an address may have half of the connections.
    fn default() -> Self {
        Self { connections_max: 4000, connections_per_ip_max: 2000, streams_max: 100, drain_max: Duration::from_secs(10) }
    }
}

/// Serves `listener` on all of `workers` until `stop` is cancelled and its connections have ended: with TLS when `tls` is given, whose ALPN the
/// caller has set.
///
/// Once stopped there are no new connections and no new requests on old ones; what is in flight has `limits.drain_max`.
pub async fn serve(
    listener: std::net::TcpListener,
    tls: Option<Arc<rustls::ServerConfig>>,
    handler: Arc<dyn Handler>,
    limits: Limits,
    stop: CancellationToken,
    workers: &Workers,
) {
    let callers = Arc::new(Callers { limits, by_ip: Mutex::default() });
    let connections = TaskTracker::new();
    let shutdown = Shutdown { drain: stop, cut: CancellationToken::new() };
    let accepting = workers.spawn_each(|| {
        let listener = listener.set_nonblocking(true).and_then(|()| listener.try_clone());
        accept(listener, tls.clone(), handler.clone(), callers.clone(), connections.clone(), shutdown.clone())
    });
    drop(listener);
    // None ends before it is told to: with one gone the whole is broken, and whoever waits for this is to know.
    let (ended, _, _) = select_all(accepting).await;
    if !shutdown.drain.is_cancelled() {
        return tracing::error!(?ended, "a thread of requests accepts no more");
    }
    connections.close();
    if timeout(limits.drain_max, connections.wait()).await.is_err() {
        shutdown.cut.cancel();
        connections.wait().await;
    }
}

/// Accepts connections and serves them on this thread, until told to drain.
async fn accept(
    listener: io::Result<std::net::TcpListener>,
    tls: Option<Arc<rustls::ServerConfig>>,
    handler: Arc<dyn Handler>,
    callers: Arc<Callers>,
    connections: TaskTracker,
    shutdown: Shutdown,
) {
    let listener = match listener.and_then(TcpListener::from_std) {
        Ok(listener) => listener,
        Err(error) => return tracing::error!(%error, "a listener cannot be used"),
    };
    let limits = callers.limits;
    loop {
        let accepted = tokio::select! {
            biased;
            () = shutdown.drain.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        let (stream, remote) = match accepted {
            Ok(accepted) => accepted,
            Err(error) if is_connections(&error) => continue,
            Err(error) => {
                // Out of descriptors or memory: what frees them needs time, not another try at once.
                tracing::warn!(%error, "connections cannot be accepted");
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Some(held) = callers.admit(remote.ip()) else {
            tracing::debug!(%remote, "too many connections");
            continue;
        };
        let (tls, handler, shutdown) = (tls.clone(), handler.clone(), shutdown.clone());
        connections.spawn(async move {
            // Small answers must not wait for acknowledgements.
            let _ = stream.set_nodelay(true);
            match tls {
                None => connection(stream, Origin::Outside { remote, tls: false }, None, held, handler, limits, shutdown).await,
                Some(config) => tls_connection(stream, config, Origin::Outside { remote, tls: true }, held, handler, limits, shutdown).await,
            }
        });
    }
}

/// How the connections of a listener are told to end.
#[derive(Clone, Default)]
struct Shutdown {
    /// Requests in flight may finish.
    drain: CancellationToken,
    /// Everything ends now.
    cut: CancellationToken,
}

const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Whether the error is one of the connection that was to be accepted (accept(2), "Error handling").
fn is_connections(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::Interrupted)
}

/// Serves one stream that something else has accepted: a tunnel's inside, an instance's way out. Ends with it.
pub async fn serve_connection<S>(stream: S, origin: Origin, handler: Arc<dyn Handler>, limits: Limits)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    connection(stream, origin, None, (), handler, limits, Shutdown::default()).await;
}

/// [`serve_connection`] for a stream on which the caller speaks TLS. Requests for another host than TLS was spoken for are refused with 421.
pub async fn serve_tls_connection<S>(stream: S, config: Arc<rustls::ServerConfig>, origin: Origin, handler: Arc<dyn Handler>, limits: Limits)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    tls_connection(stream, config, origin, (), handler, limits, Shutdown::default()).await;
}

async fn tls_connection<S, H>(
    stream: S,
    config: Arc<rustls::ServerConfig>,
    origin: Origin,
    held: H,
    handler: Arc<dyn Handler>,
    limits: Limits,
    shutdown: Shutdown,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    H: Send + Unpin + 'static,
{
    let accepted = tokio::select! {
        accepted = timeout(HEAD_MAX, TlsAcceptor::from(config).accept(stream)) => accepted,
        () = shutdown.cut.cancelled() => return,
    };
    match accepted {
        Ok(Ok(stream)) => {
            let name = stream.get_ref().1.server_name().map(str::to_ascii_lowercase);
            connection(stream, origin, name, held, handler, limits, shutdown).await;
        }
        Ok(Err(error)) => tracing::debug!(?origin, %error, "no TLS"),
        Err(_) => tracing::debug!(?origin, "no TLS within 10 s"),
    }
}

async fn connection<S, H>(stream: S, origin: Origin, tls_name: Option<String>, held: H, handler: Arc<dyn Handler>, limits: Limits, shutdown: Shutdown)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    H: Send + Unpin + 'static,
{
    let activity = Activity::new();
    let io = TokioIo::new(Watched::new(stream, activity.clone(), held));
    let service = {
        let activity = activity.clone();
        service_fn(move |request: http::Request<Incoming>| {
            let open = activity.request();
            let answer = match check(&request, tls_name.as_deref()) {
                Ok(()) => {
                    let may_rest = request.headers().get(header::CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"));
                    Ok(handler.handle(origin.clone(), request.map(|body| Paced::of(body, may_rest))))
                }
                Err(refusal) => Err(pages::refusal(refusal, request.method(), request.uri().path())),
            };
            async move {
                let response = match answer {
                    Ok(answer) => answer.await,
                    Err(page) => page,
                };
                Ok::<_, Infallible>(response.map(|body| Tracked { body, _open: open }))
            }
        })
    };
    let mut builder = auto::Builder::new(Streams);
    // Slow heads are ended by `Activity`, which tells a head that was begun from a connection that is kept.
    // At most 100 fields, as hyper has it without being told: told, it clears space for them with each request.
    builder.http1().timer(TokioTimer::new()).header_read_timeout(None).max_buf_size(HEAD_MAX_BYTES);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.streams_max)
        .max_header_list_size(HEAD_MAX_BYTES as u32)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES);
    let serving = builder.serve_connection_with_upgrades(io, service);
    let task = async {
        let mut serving = std::pin::pin!(serving);
        let mut timer = std::pin::pin!(sleep_until(Instant::now() + HEAD_MAX));
        let mut draining = false;
        loop {
            tokio::select! {
                biased;
                ended = &mut serving => {
                    if let Err(error) = ended {
                        tracing::debug!(%error, "a connection ended");
                    }
                    return;
                }
                () = &mut timer => {
                    let now = Instant::now();
                    match activity.deadline() {
                        Some(deadline) if deadline <= now => return,
                        Some(deadline) => timer.as_mut().reset(deadline),
                        None => timer.as_mut().reset(now + HEAD_MAX),
                    }
                }
                () = shutdown.cut.cancelled() => return,
                () = shutdown.drain.cancelled(), if !draining => {
                    draining = true;
                    serving.as_mut().graceful_shutdown();
                }
            }
        }
    };
    cuttable(task).await;
}

/// Of a request's head.
const HEAD_MAX_BYTES: usize = 64 << 10;
/// What one stream may send ahead of its reader.
const STREAM_WINDOW_BYTES: u32 = 256 << 10;
/// The largest there is, so that a stream which is not read does not hold up the others; streams times their window is the limit.
const CONNECTION_WINDOW_BYTES: u32 = (1 << 31) - 1;

/// What no request may be, whatever its host.
fn check(request: &http::Request<Incoming>, tls_name: Option<&str>) -> Result<(), Refusal> {
    let headers = request.headers();
    if headers.contains_key(header::TRANSFER_ENCODING) && headers.contains_key(header::CONTENT_LENGTH) {
        return Err(Refusal::MalformedRequest);
    }
    let authority = if request.method() == http::Method::CONNECT { None } else { authority_of(request)? };
    match (tls_name, authority) {
        (Some(name), Some(host)) if !host.eq_ignore_ascii_case(name) => Err(Refusal::Misdirected),
        _ => Ok(()),
    }
}

fn authority_of(request: &http::Request<Incoming>) -> Result<Option<&str>, Refusal> {
    host::authority_of(request.uri(), request.headers(), request.version()).map(|authority| authority.map(host::host))
}

/// An answer's body; the request is open until it has gone out.
struct Tracked {
    body: Body,
    _open: Open,
}

impl http_body::Body for Tracked {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

// --- how many callers ---------------------------------------------------------------------------------------------

struct Callers {
    limits: Limits,
    by_ip: Mutex<ByIp>,
}

#[derive(Default)]
struct ByIp {
    all: usize,
    each: HashMap<IpAddr, usize>,
}

/// One connection's place among the callers; given back by dropping it.
struct Held {
    callers: Arc<Callers>,
    ip: IpAddr,
}

impl Callers {
    fn admit(self: &Arc<Self>, ip: IpAddr) -> Option<Held> {
        let ip = network(ip);
        let mut by_ip = self.by_ip.lock();
        let from_it = by_ip.each.get(&ip).copied().unwrap_or(0);
        if by_ip.all >= self.limits.connections_max || from_it >= self.limits.connections_per_ip_max {
            return None;
        }
        by_ip.all += 1;
        by_ip.each.insert(ip, from_it + 1);
        drop(by_ip);
        Some(Held { callers: self.clone(), ip })
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut by_ip = self.callers.by_ip.lock();
        by_ip.all -= 1;
        match by_ip.each.get_mut(&self.ip) {
            Some(count) if *count > 1 => *count -= 1,
            _ => {
                by_ip.each.remove(&self.ip);
            }
        }
    }
}

/// Who has one address of an IPv6 /64 has them all.
fn network(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V6(ip) => {
            let [a, b, c, d, ..] = ip.segments();
            IpAddr::from([a, b, c, d, 0, 0, 0, 0])
        }
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn callers_are_counted_by_network() {
        let callers = Arc::new(Callers {
            limits: Limits { connections_max: 3, connections_per_ip_max: 2, streams_max: 100, drain_max: Duration::ZERO },
            by_ip: Mutex::default(),
        });
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let one = callers.admit(ip("2001:db8::1")).unwrap();
        let _two = callers.admit(ip("2001:db8::2")).unwrap();
        assert!(callers.admit(ip("2001:db8::3")).is_none());
        let _other = callers.admit(ip("192.0.2.1")).unwrap();
        assert!(callers.admit(ip("192.0.2.2")).is_none());
        drop(one);
        let _again = callers.admit(ip("::ffff:192.0.2.1")).unwrap();
        assert!(callers.admit(ip("2001:db8::3")).is_none());
        assert_eq!(callers.by_ip.lock().each.len(), 2);
    }
}
