//! Connections to an instance, kept for the next request.
//!
//! A connection that speaks HTTP/1 is driven by the request that uses it, in that request's own task: no other task and no other
//! thread is woken on the way; it is kept for requests of the same thread. It is looked at again when it is taken from the pool, so that one which the instance has closed is not used.
//! A connection that speaks HTTP/2 carries many requests and has a task of its own.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    task::{Context, Poll},
    thread::{self, ThreadId},
    time::Duration,
};

use futures_util::task::noop_waker_ref;
use http::Response;
use hyper::{
    body::Incoming,
    client::conn::{self, TrySendError},
};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use parking_lot::Mutex;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::Instant,
};

use crate::{Body, Request, instances::Instance};

pub(crate) type Sender1 = conn::http1::SendRequest<Body>;
pub(crate) type Connection1 = conn::http1::Connection<TokioIo<Prompt>, Body>;
pub(crate) type Sender2 = conn::http2::SendRequest<Body>;
type Connection2 = conn::http2::Connection<TokioIo<TcpStream>, Body, TokioExecutor>;

/// Of an instance's answer. Space for so many is cleared with each one.
const HEADERS_MAX: usize = 512;
const HEAD_MAX_BYTES: u16 = u16::MAX;
/// A kept connection is not used after this: servers close theirs after 2 s (gunicorn), 5 s (Node.js) or later.
const KEPT_MAX: Duration = Duration::from_secs(1);
const KEPT_COUNT_MAX: usize = 1000;

pub(crate) async fn http1(stream: impl Into<Prompt>) -> hyper::Result<(Sender1, Connection1)> {
    conn::http1::Builder::new().max_headers(HEADERS_MAX).max_header_size(usize::from(HEAD_MAX_BYTES)).handshake(TokioIo::new(stream.into())).await
}

pub(crate) async fn http2(stream: TcpStream) -> hyper::Result<(Sender2, Connection2)> {
    conn::http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .initial_stream_window_size(256 << 10)
        .initial_connection_window_size(WINDOW_MAX)
        .max_header_list_size(u32::from(HEAD_MAX_BYTES))
        .handshake(TokioIo::new(stream))
        .await
}

/// The largest window there is: one answer that is not read must not hold up the others.
const WINDOW_MAX: u32 = (1 << 31) - 1;

/// A connection that speaks HTTP/1, for one request at a time.
pub(crate) struct Http1 {
    sender: Sender1,
    connection: Connection1,
    wait: Arc<Wait>,
    /// The connection has come to its end and must not be polled again.
    pub(crate) closed: bool,
    kept_since: Instant,
    /// Whose event queue the stream is in.
    thread: ThreadId,
}

impl Http1 {
    pub(crate) async fn new(stream: TcpStream) -> hyper::Result<Box<Self>> {
        let stream = Prompt::from(stream);
        let wait = stream.wait.clone();
        let (sender, connection) = http1(stream).await?;
        Ok(Box::new(Self { sender, connection, wait, closed: false, kept_since: Instant::now(), thread: thread::current().id() }))
    }

    /// Sends `request` and waits for the head of the answer; what follows is read while [`Http1::drive`] is called.
    pub(crate) async fn send(&mut self, request: Request) -> Result<Response<Incoming>, TrySendError<Request>> {
        let Self { sender, connection, wait, closed, .. } = self;
        let answer = sender.try_send_request(request);
        let mut answer = std::pin::pin!(answer);
        std::future::poll_fn(|cx| {
            drive(connection, closed, cx);
            let polled = answer.as_mut().poll(cx);
            if polled.is_pending() {
                wait_for_more(wait, connection, closed, cx);
            }
            polled
        })
        .await
    }

    /// Reads and writes what can be read and written now.
    pub(crate) fn drive(&mut self, cx: &mut Context<'_>) {
        drive(&mut self.connection, &mut self.closed, cx);
    }

    /// [`Http1::drive`], of an answer whose next part has not come.
    pub(crate) fn wait_for_more(&mut self, cx: &mut Context<'_>) {
        wait_for_more(&self.wait, &mut self.connection, &mut self.closed, cx);
    }

    /// Whether another request can be sent.
    fn is_usable(&mut self) -> bool {
        self.drive(&mut Context::from_waker(noop_waker_ref()));
        !self.closed && self.sender.is_ready()
    }

    /// The same stream in this thread's event queue. The connection must be unused.
    async fn moved(self: Box<Self>) -> Option<Box<Self>> {
        let parts = self.connection.into_parts();
        if !parts.read_buf.is_empty() {
            // It said something that nobody asked for.
            return None;
        }
        Self::found(parts.io.into_inner().stream.into_std().ok()?).await
    }

    /// A connection of a stream that was unused in no event queue; `None` when its server has closed it, or said something, by now.
    async fn found(stream: std::net::TcpStream) -> Option<Box<Self>> {
        let silent = stream.peek(&mut [0]).is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock);
        if !silent {
            return None;
        }
        Self::new(TcpStream::from_std(stream).ok()?).await.ok()
    }

    /// The stream and what was read of it beyond the answer's head, after an answer of 101.
    pub(crate) async fn upgraded(mut self: Box<Self>) -> (TcpStream, bytes::Bytes) {
        std::future::poll_fn(|cx| {
            self.drive(cx);
            if self.closed { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
        let parts = self.connection.into_parts();
        (parts.io.into_inner().stream, parts.read_buf)
    }
}

fn drive(connection: &mut Connection1, closed: &mut bool, cx: &mut Context<'_>) {
    if !*closed && connection.poll_without_shutdown(cx).is_ready() {
        // With an error or without: the answer, or its body, says which.
        *closed = true;
    }
}

fn wait_for_more(wait: &Wait, connection: &mut Connection1, closed: &mut bool, cx: &mut Context<'_>) {
    if wait.has_read.load(Relaxed) {
        wait.acknowledges.store(true, Relaxed);
        drive(connection, closed, cx);
        wait.acknowledges.store(false, Relaxed);
    }
}

/// A stream that acknowledges what it has read when more is waited for.
///
/// Servers that write an answer's head and body apart and leave Nagle's algorithm on (Python's `http.server`, Java's `HttpServer`) send the
/// body only when the head is acknowledged, which the kernel would otherwise do 40 ms later: each of their answers would take that long.
/// What came as a whole is acknowledged with the next request: a packet that nobody waits for is not sent.
pub(crate) struct Prompt {
    stream: TcpStream,
    wait: Arc<Wait>,
}

impl From<TcpStream> for Prompt {
    fn from(stream: TcpStream) -> Self {
        Self { stream, wait: Arc::default() }
    }
}

/// What a stream and who waits for it know of each other.
#[derive(Default)]
struct Wait {
    /// Bytes came since the last write.
    has_read: AtomicBool,
    /// The next read that finds nothing acknowledges them.
    acknowledges: AtomicBool,
}

impl AsyncRead for Prompt {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_read(cx, buffer);
        if polled.is_ready() {
            self.wait.has_read.store(true, Relaxed);
        } else if self.wait.acknowledges.swap(false, Relaxed) {
            // The kernel forgets the wish as it goes (tcp(7)), so it is told each time.
            let _ = self.stream.set_quickack(true);
        }
        polled
    }
}

impl AsyncWrite for Prompt {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.wait.has_read.store(false, Relaxed);
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        self.wait.has_read.store(false, Relaxed);
        Pin::new(&mut self.stream).poll_write_vectored(cx, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// What an instance has of connections.
#[derive(Default)]
pub(crate) struct Connections {
    #[expect(clippy::vec_box, reason = "they go to and fro between here and the requests, and are large")]
    kept: Mutex<Vec<Box<Http1>>>,
    /// Made before any request asked, in no thread's event queue.
    offered: Mutex<Option<(Instant, std::net::TcpStream)>>,
    http2: tokio::sync::Mutex<Option<Sender2>>,
}

impl Connections {
    /// A kept connection that is still open: this thread's that was used last, else one that was offered, else another thread's.
    pub(crate) async fn take(&self) -> Option<Box<Http1>> {
        let here = thread::current().id();
        while let Some(mut own) = self.pop(|kept| kept.thread == here) {
            if own.is_usable() {
                return Some(own);
            }
        }
        let offered = self.offered.lock().take();
        if let Some((since, stream)) = offered
            && since.elapsed() <= KEPT_MAX
            && let Some(connection) = Http1::found(stream).await
        {
            return Some(connection);
        }
        while let Some(mut other) = self.pop(|_| true) {
            if other.is_usable()
                && let Some(connection) = other.moved().await
            {
                return Some(connection);
            }
        }
        None
    }

    /// The connection that was kept last of those that are `wanted`, unless it is too old.
    fn pop(&self, wanted: impl Fn(&Http1) -> bool) -> Option<Box<Http1>> {
        let mut kept = self.kept.lock();
        let index = kept.iter().rposition(|kept| wanted(kept))?;
        if kept[index].kept_since.elapsed() > KEPT_MAX {
            // All below it are older.
            kept.drain(..=index);
            return None;
        }
        Some(kept.remove(index))
    }

    /// Keeps `connection` when its last exchange came to a clean end.
    pub(crate) fn keep(&self, mut connection: Box<Http1>) {
        // One whose request is still being sent is not: it is dropped, and the caller's body with it.
        if connection.is_usable() {
            connection.kept_since = Instant::now();
            let mut kept = self.kept.lock();
            if kept.len() < KEPT_COUNT_MAX {
                kept.push(connection);
            }
        }
    }

    /// Keeps a new connection, in no event queue and not blocking, for a request that waits.
    pub(crate) fn offer(&self, instance: &Instance, stream: std::net::TcpStream) {
        if !instance.pool.template.container.h2c {
            *self.offered.lock() = Some((Instant::now(), stream));
        }
    }

    /// Whether a connection waits for a request.
    pub(crate) fn is_offered(&self) -> bool {
        self.offered.lock().is_some()
    }

    /// The connection for HTTP/2, made when there is none.
    pub(crate) async fn http2(&self, instance: &Arc<Instance>) -> Result<Sender2, String> {
        let mut current = self.http2.lock().await;
        if let Some(sender) = current.as_ref().filter(|sender| !sender.is_closed()) {
            return Ok(sender.clone());
        }
        // What was made for HTTP/1 is of no use to who comes here.
        *self.offered.lock() = None;
        let stream = instance.dial(instance.pool.template.port()).await?;
        let (sender, connection) = http2(stream).await.map_err(|error| error.to_string())?;
        instance.shared().supervisor.spawn_here("http2", async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection to an instance ended");
            }
        });
        *current = Some(sender.clone());
        Ok(sender)
    }

    /// Closes what no request uses.
    pub(crate) fn clear(&self) {
        let kept = std::mem::take(&mut *self.kept.lock());
        drop(kept);
        *self.offered.lock() = None;
        if let Ok(mut http2) = self.http2.try_lock() {
            *http2 = None;
        }
    }
}
