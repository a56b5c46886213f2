//! What may take how long on a caller's connection, and the ways to end it from outside.
//!
//! hyper ends slow heads, reset floods and broken frames by itself. What it does not end is done here: a connection that says
//! nothing, a body that trickles, a flood of control frames, and an answer that nobody reads although its time is over.

use std::{
    future::Future,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::{Buf, Bytes};
use http_body::{Body as _, Frame, SizeHint};
use hyper::body::Incoming;
use parking_lot::Mutex;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep, sleep_until},
};

use crate::{Body, BoxError};

// --- cutting an answer --------------------------------------------------------------------------------------------

tokio::task_local! {
    static CURRENT: Arc<Stream>;
}

/// The task that carries an answer to its caller: a connection's for HTTP/1, a stream's for HTTP/2.
///
/// hyper does not look at an answer's body while the caller takes no bytes, so the body cannot say that its time is over.
#[derive(Default)]
pub(crate) struct Stream {
    cut_at: Mutex<Option<Instant>>,
    after: Mutex<Vec<Box<dyn FnOnce() + Send>>>,
}

impl Stream {
    /// The stream of the running task; `None` for requests that came by no connection.
    pub(crate) fn current() -> Option<Arc<Self>> {
        CURRENT.try_with(Arc::clone).ok()
    }

    /// From `at` on the task is dropped when it is woken and has not ended. Whoever sets it also wakes the task then.
    pub(crate) fn cut_at(&self, at: Option<Instant>) {
        *self.cut_at.lock() = at;
    }

    fn is_overdue(&self) -> bool {
        self.cut_at.lock().is_some_and(|at| at <= Instant::now())
    }

    /// Does `work` once the task has sent what it can send now: the caller need not wait for it. It is done in any case.
    pub(crate) fn after(&self, work: impl FnOnce() + Send + 'static) {
        self.after.lock().push(Box::new(work));
    }

    fn settle(&self) {
        // Taken first: the lock is not held while it is done.
        let works = std::mem::take(&mut *self.after.lock());
        works.into_iter().for_each(|work| work());
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.settle();
    }
}

/// Runs `task` as a stream that can be cut.
pub(crate) async fn cuttable<T>(task: impl Future<Output = T>) -> Option<T> {
    let stream = Arc::new(Stream::default());
    let task = CURRENT.scope(stream.clone(), task);
    let mut task = std::pin::pin!(task);
    std::future::poll_fn(|cx| {
        let polled = task.as_mut().poll(cx);
        stream.settle();
        match polled {
            Poll::Ready(result) => Poll::Ready(Some(result)),
            Poll::Pending if stream.is_overdue() => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

/// Spawns the streams of an HTTP/2 connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Streams;

impl<F> hyper::rt::Executor<F> for Streams
where
    F: Future + Send + 'static,
    F::Output: Send,
{
    fn execute(&self, task: F) {
        tokio::spawn(async move {
            cuttable(task).await;
        });
    }
}

// --- what a connection does ---------------------------------------------------------------------------------------

/// From accepting a connection to its first byte, and from the first byte of a head to its end.
pub(crate) const HEAD_MAX: Duration = Duration::from_secs(10);
/// How long a connection without requests is kept.
const IDLE_MAX: Duration = Duration::from_secs(240);

/// Whether a connection is busy, and since when it is not.
pub(crate) struct Activity(Mutex<Now>);

struct Now {
    open: u32,
    since: Instant,
    head_since: Option<Instant>,
    served: bool,
    http2: bool,
}

impl Activity {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self(Mutex::new(Now { open: 0, since: Instant::now(), head_since: None, served: false, http2: false })))
    }

    /// A request begins; it ends when this is dropped.
    pub(crate) fn request(self: &Arc<Self>) -> Open {
        let mut now = self.0.lock();
        now.open += 1;
        now.head_since = None;
        now.served = true;
        Open(self.clone())
    }

    /// When the connection is to be cut; `None` while it has a request.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let now = self.0.lock();
        match (now.open, now.head_since) {
            (1.., _) => None,
            // On HTTP/2 bytes between requests are no head that was begun: acknowledgements, pings.
            (0, Some(since)) if !(now.http2 && now.served) => Some(since + HEAD_MAX),
            (0, _) if !now.served => Some(now.since + HEAD_MAX),
            (0, _) => Some(now.since + IDLE_MAX),
        }
    }

    fn read(&self, http2: bool) {
        let mut now = self.0.lock();
        now.http2 |= http2;
        if now.open == 0 && now.head_since.is_none() {
            now.head_since = Some(Instant::now());
        }
    }
}

/// A request that has not ended.
pub(crate) struct Open(Arc<Activity>);

impl Drop for Open {
    fn drop(&mut self) {
        let mut now = self.0.0.lock();
        now.open -= 1;
        if now.open == 0 {
            now.since = Instant::now();
        }
    }
}

/// A caller's stream of bytes, watched. `held` goes when the stream does, which after an upgrade is later than the connection.
pub(crate) struct Watched<S, H> {
    stream: S,
    activity: Arc<Activity>,
    frames: Frames,
    _held: H,
}

impl<S, H> Watched<S, H> {
    pub(crate) fn new(stream: S, activity: Arc<Activity>, held: H) -> Self {
        Self { stream, activity, frames: Frames::new(Instant::now()), _held: held }
    }
}

impl<S: AsyncRead + Unpin, H: Unpin> AsyncRead for Watched<S, H> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let this = &mut *self;
        let polled = Pin::new(&mut this.stream).poll_read(cx, buffer);
        let read = &buffer.filled()[before..];
        if matches!(polled, Poll::Ready(Ok(()))) && !read.is_empty() {
            if !this.frames.read(read) {
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::ConnectionAborted, "too many control frames")));
            }
            this.activity.read(this.frames.is_http2());
        }
        polled
    }
}

impl<S: AsyncWrite + Unpin, H: Unpin> AsyncWrite for Watched<S, H> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.wrote(&polled);
        polled
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write_vectored(cx, bytes);
        self.wrote(&polled);
        polled
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

impl<S, H> Watched<S, H> {
    fn wrote(&mut self, polled: &Poll<io::Result<usize>>) {
        if let Poll::Ready(Ok(written)) = polled {
            self.frames.wrote(*written);
        }
    }
}

// --- control frames -----------------------------------------------------------------------------------------------

/// Counts the control frames of an HTTP/2 connection.
///
/// 100 in 10 s are free. Clients that measure their bandwidth (gRPC) send a PING for every piece of an answer, so what is sent to
/// them earns more; the acknowledgements of a flood earn far less than it costs.
struct Frames {
    state: FramesState,
    credit: f64,
    at: Instant,
}

enum FramesState {
    /// So many bytes of the preface have come.
    Preface(usize),
    Http1,
    /// A frame's head, as far as it has come.
    Head {
        bytes: [u8; 9],
        len: usize,
    },
    /// So many bytes of a frame are still to come.
    Payload(usize),
}

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const CONTROL_FRAMES: f64 = 100.0;
const CONTROL_PERIOD_S: f64 = 10.0;
/// Bytes sent that earn one frame. An acknowledgement of a PING has 17.
const BYTES_FOR_ONE: f64 = 100.0;
/// Earned frames that can be saved up.
const CREDIT_MAX: f64 = 10_000.0;
/// PRIORITY, SETTINGS, PING. Resets, empty frames and CONTINUATION are counted by `h2` itself.
const CONTROL: [u8; 3] = [2, 4, 6];

impl Frames {
    fn new(now: Instant) -> Self {
        Self { state: FramesState::Preface(0), credit: CONTROL_FRAMES, at: now }
    }

    fn is_http2(&self) -> bool {
        matches!(self.state, FramesState::Head { .. } | FramesState::Payload(_))
    }

    fn wrote(&mut self, bytes: usize) {
        if self.is_http2() {
            #[expect(clippy::cast_precision_loss, reason = "writes are small")]
            let earned = bytes as f64 / BYTES_FOR_ONE;
            self.credit = (self.credit + earned).min(CREDIT_MAX);
        }
    }

    /// `false` when there were too many.
    fn read(&mut self, mut bytes: &[u8]) -> bool {
        while !bytes.is_empty() {
            match &mut self.state {
                FramesState::Http1 => return true,
                FramesState::Preface(seen) => {
                    let len = bytes.len().min(PREFACE.len() - *seen);
                    if bytes[..len] != PREFACE[*seen..*seen + len] {
                        self.state = FramesState::Http1;
                        return true;
                    }
                    *seen += len;
                    bytes = &bytes[len..];
                    if *seen == PREFACE.len() {
                        self.state = FramesState::Head { bytes: [0; 9], len: 0 };
                    }
                }
                FramesState::Head { bytes: head, len } => {
                    let take = bytes.len().min(head.len() - *len);
                    head[*len..*len + take].copy_from_slice(&bytes[..take]);
                    *len += take;
                    bytes = &bytes[take..];
                    if *len == head.len() {
                        let (payload, kind) = (u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize, head[3]);
                        self.state = if payload == 0 { FramesState::Head { bytes: [0; 9], len: 0 } } else { FramesState::Payload(payload) };
                        if CONTROL.contains(&kind) && !self.spend(Instant::now()) {
                            return false;
                        }
                    }
                }
                FramesState::Payload(left) => {
                    let take = bytes.len().min(*left);
                    *left -= take;
                    bytes = &bytes[take..];
                    if *left == 0 {
                        self.state = FramesState::Head { bytes: [0; 9], len: 0 };
                    }
                }
            }
        }
        true
    }

    fn spend(&mut self, now: Instant) -> bool {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        self.at = now;
        if self.credit < CONTROL_FRAMES {
            self.credit = (self.credit + passed * CONTROL_FRAMES / CONTROL_PERIOD_S).min(CONTROL_FRAMES);
        }
        self.credit -= 1.0;
        self.credit >= 0.0
    }
}

// --- bodies that trickle ------------------------------------------------------------------------------------------

/// A caller must send this much in each [`PACE_PERIOD`] that it is waited for: 1 KiB/s.
const PACE_BYTES: u64 = 30 << 10;
const PACE_PERIOD: Duration = Duration::from_secs(30);

/// The body of a request, which must not trickle.
///
/// Only time in which bytes were wanted and did not come counts. Streams of gRPC may rest; the request's own timeout ends them.
pub(crate) struct Paced {
    body: Incoming,
    /// Since bytes were waited for: when to judge, and how many have come.
    timer: Option<Pin<Box<Sleep>>>,
    bytes: u64,
    /// When the reader got bytes and went to use them.
    given_at: Option<Instant>,
}

impl Paced {
    pub(crate) fn of(body: Incoming, may_rest: bool) -> Body {
        use http_body_util::{BodyExt, Empty};
        if body.is_end_stream() {
            Empty::new().map_err(|never| match never {}).boxed()
        } else if may_rest {
            body.map_err(Into::into).boxed()
        } else {
            Self { body, timer: None, bytes: 0, given_at: None }.boxed()
        }
    }
}

impl http_body::Body for Paced {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = &mut *self;
        if let Some(timer) = &mut this.timer
            && let Some(given_at) = this.given_at.take()
        {
            let pause = given_at.elapsed();
            let due = timer.deadline() + pause;
            timer.as_mut().reset(due);
        }
        match Pin::new(&mut this.body).poll_frame(cx) {
            Poll::Ready(frame) => {
                if let Some(Ok(frame)) = &frame {
                    this.bytes += frame.data_ref().map_or(0, |data| data.remaining() as u64);
                }
                if this.bytes >= PACE_BYTES {
                    this.timer = None;
                } else if this.timer.is_some() {
                    this.given_at = Some(Instant::now());
                }
                Poll::Ready(frame.map(|frame| frame.map_err(Into::into)))
            }
            Poll::Pending => {
                let timer = this.timer.get_or_insert_with(|| {
                    this.bytes = 0;
                    Box::pin(sleep_until(Instant::now() + PACE_PERIOD))
                });
                if timer.as_mut().poll(cx).is_ready() {
                    // Enough would have taken the timer away.
                    return Poll::Ready(Some(Err("the request's body comes more slowly than 1 KiB/s".into())));
                }
                Poll::Pending
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, payload: usize) -> Vec<u8> {
        let mut bytes = vec![0, 0, u8::try_from(payload).unwrap(), kind, 0, 0, 0, 0, 0];
        bytes.extend(vec![b'P'; payload]);
        bytes
    }

    #[tokio::test]
    async fn a_flood_of_pings_is_seen_however_it_is_cut_into_pieces() {
        for piece in [1, 3, 9, 17, 1000] {
            let mut frames = Frames::new(Instant::now());
            let mut bytes = PREFACE.to_vec();
            (0..500).for_each(|_| bytes.extend(frame(6, 8)));
            let mut read = 0;
            for piece in bytes.chunks(piece) {
                read += piece.len();
                if !frames.read(piece) {
                    break;
                }
                // Each PING is answered by one of the same size.
                frames.wrote(piece.len());
            }
            assert!(frames.is_http2());
            assert!((100 * 17..200 * 17).contains(&read), "{read}");
        }
    }

    #[tokio::test]
    async fn data_is_no_control_frame_and_http1_has_none() {
        let mut frames = Frames::new(Instant::now());
        assert!(frames.read(PREFACE));
        let data = frame(0, 100);
        assert!((0..1000).all(|_| frames.read(&data)));
        let mut frames = Frames::new(Instant::now());
        assert!(frames.read(b"PRI / HTTP/1.1\r\n") && !frames.is_http2());
        let ping = frame(6, 8);
        assert!((0..1000).all(|_| frames.read(&ping)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_has_ten_seconds_for_its_first_request_and_more_after_it() {
        let activity = Activity::new();
        let start = Instant::now();
        assert_eq!(activity.deadline(), Some(start + HEAD_MAX));
        tokio::time::advance(Duration::from_secs(9)).await;
        activity.read(false);
        activity.read(false);
        assert_eq!(activity.deadline(), Some(start + Duration::from_secs(19)));
        let open = activity.request();
        assert_eq!(activity.deadline(), None);
        drop(open);
        assert_eq!(activity.deadline(), Some(start + Duration::from_secs(9) + IDLE_MAX));
        activity.read(false);
        assert_eq!(activity.deadline(), Some(start + Duration::from_secs(19)));
    }

    #[tokio::test]
    async fn what_is_left_is_done_after_the_poll_and_also_when_the_task_is_dropped() {
        let done = Arc::new(Mutex::new(Vec::new()));
        let tell = |what: &'static str| {
            let done = done.clone();
            move || done.lock().push(what)
        };
        let task = cuttable(async {
            Stream::current().unwrap().after(tell("after"));
            tell("sent")();
        });
        assert_eq!(task.await, Some(()));
        let stream = Stream::default();
        stream.after(tell("dropped"));
        drop(stream);
        assert_eq!(*done.lock(), ["sent", "after", "dropped"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_whose_time_is_over_is_dropped_when_it_is_woken() {
        let cut = cuttable(async {
            let stream = Stream::current().unwrap();
            stream.cut_at(Some(Instant::now() + Duration::from_secs(5)));
            let _wakes = tokio::time::sleep(Duration::from_secs(5));
            tokio::pin!(_wakes);
            // Wakes the task, and goes on waiting like a body that nobody reads.
            std::future::poll_fn::<(), _>(|cx| {
                let _ = _wakes.as_mut().poll(cx);
                Poll::Pending
            })
            .await;
        });
        assert_eq!(cut.await, None);
        assert!(Stream::current().is_none());
        assert_eq!(cuttable(async { 7 }).await, Some(7));
    }
}
