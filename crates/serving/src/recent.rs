//! The last requests of each service, so that copies of them can show what a new revision answers before it takes traffic.
//!
//! In memory, of this run, bounded, and never more of a service than one in [`PAUSE`]: a busy service pays an atomic read for it. What is
//! kept of a request that reads is no more than its log entry has, and the headers of [`HEADERS`], of which none is a credential. Other
//! requests, and bodies, are kept only where the service's owner has said so. Who may see them is decided by who asks for them.

use std::{
    collections::VecDeque,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Buf, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri, header, request::Parts};
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::{BodyExt, Full};
use model::service::Shadow;
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::{Body, BoxError, Request};

/// Said to a function of a request that is a copy; what a caller says of it is taken away.
pub const COPY: HeaderName = HeaderName::from_static("tanebi-shadow");

/// Of a service, the newest that differ from each other.
const KEPT_MAX: usize = 50;
/// Of all services together, with what holds them.
const BYTES_MAX: u64 = 32 << 20;
/// A request with a longer method and target, or body, is not kept.
const TARGET_MAX_BYTES: usize = 4 << 10;
const BODY_MAX_BYTES: usize = 64 << 10;
const HEADERS_MAX_BYTES: usize = 8 << 10;
const PAUSE: Duration = Duration::from_millis(100);
/// About what a request takes besides its texts.
const EACH_BYTES: usize = 512;

/// Headers that are kept, with those of a CloudEvent. No others: no list of credentials' names would ever be whole.
const HEADERS: [HeaderName; 7] = [
    header::ACCEPT,
    header::ACCEPT_LANGUAGE,
    header::ACCESS_CONTROL_REQUEST_HEADERS,
    header::ACCESS_CONTROL_REQUEST_METHOD,
    header::CONTENT_TYPE,
    header::ORIGIN,
    header::USER_AGENT,
];
const EVENT: &str = "ce-";

/// One recorded request.
#[derive(Clone, Debug)]
pub struct RecentRequest {
    pub method: Method,
    /// Path and query, or `*`.
    pub target: Uri,
    pub headers: HeaderMap,
    pub body: Bytes,
}

/// Marks a request as a copy.
#[derive(Clone, Copy)]
struct Copied;

impl RecentRequest {
    /// The request again, for `host`, marked as a copy.
    pub fn copy(&self, host: &HeaderValue) -> Request {
        let mut request = Request::new(Full::new(self.body.clone()).map_err(|never| match never {}).boxed());
        request.method_mut().clone_from(&self.method);
        request.uri_mut().clone_from(&self.target);
        request.headers_mut().clone_from(&self.headers);
        request.headers_mut().insert(header::HOST, host.clone());
        if !self.body.is_empty() {
            request.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(self.body.len()));
        }
        request.extensions_mut().insert(Copied);
        request
    }

    /// Whether it only reads: doing it again changes nothing, unless the function breaks HTTP's rules. One with a body may do anything.
    pub fn is_read(&self) -> bool {
        is_read(&self.method) && self.body.is_empty()
    }

    fn of(parts: &Parts, body: Bytes) -> Option<Self> {
        let target = target(&parts.uri)?;
        if parts.method.as_str().len() + length(&target) > TARGET_MAX_BYTES {
            return None;
        }
        // Values are slices of what was read, the credentials with them: only what is kept is copied.
        let own = |(name, value): (&HeaderName, &HeaderValue)| Some((name.clone(), HeaderValue::from_bytes(value.as_bytes()).ok()?));
        let headers: HeaderMap = parts.headers.iter().filter(|(name, _)| is_kept(name)).filter_map(own).collect();
        let bytes: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
        (bytes <= HEADERS_MAX_BYTES).then(|| Self { method: parts.method.clone(), target, headers, body })
    }

    fn is_same(&self, other: &Self) -> bool {
        self.method == other.method && self.target == other.target && self.body == other.body
    }

    fn bytes(&self) -> u64 {
        let headers: usize = self.headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
        (EACH_BYTES + self.method.as_str().len() + length(&self.target) + headers + self.body.len()) as u64
    }
}

/// Path and query of `uri`, in memory of its own. `None` for one that has no meaning alone.
fn target(uri: &Uri) -> Option<Uri> {
    let target = uri.path_and_query().map_or("/", |target| target.as_str());
    match target.as_bytes().first() {
        // `http://HOST?x=1`
        Some(b'?') => format!("/{target}").parse().ok(),
        Some(b'/') => target.parse().ok(),
        _ if target == "*" => Some(Uri::from_static("*")),
        _ => None,
    }
}

fn length(target: &Uri) -> usize {
    target.path_and_query().map_or(0, |target| target.as_str().len())
}

fn is_read(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS)
}

fn is_kept(name: &HeaderName) -> bool {
    HEADERS.contains(name) || name.as_str().starts_with(EVENT)
}

/// Tells the function whether a request is a copy; whether it is one.
pub(crate) fn mark(parts: &mut Parts) -> bool {
    let is_copy = parts.extensions.get::<Copied>().is_some();
    if is_copy {
        parts.headers.insert(COPY, HeaderValue::from_static("1"));
    } else {
        parts.headers.remove(COPY);
    }
    is_copy
}

/// What all services' requests take together.
#[derive(Clone, Default)]
pub(crate) struct Room(Arc<AtomicU64>);

/// Those of one service.
pub(crate) struct Recent {
    begun: Instant,
    /// When one was taken last, in microseconds since `begun`.
    last_us: AtomicU64,
    /// Whether others than reads are kept.
    keeps_all: AtomicBool,
    kept: Mutex<VecDeque<RecentRequest>>,
    room: Room,
}

impl Recent {
    pub(crate) fn new(room: &Room) -> Arc<Self> {
        Arc::new(Self { begun: Instant::now(), last_us: AtomicU64::new(0), keeps_all: AtomicBool::new(false), kept: Mutex::default(), room: room.clone() })
    }

    /// The oldest first.
    pub(crate) fn list(&self) -> Vec<RecentRequest> {
        self.kept.lock().iter().cloned().collect()
    }

    /// What the service's owner says from now on. What was kept by another word goes.
    pub(crate) fn allow(&self, shadow: Shadow) {
        let mut kept = self.kept.lock();
        self.keeps_all.store(shadow == Shadow::All, Ordering::Relaxed);
        if shadow != Shadow::All {
            let gone: u64 = kept.iter().filter(|request| !request.is_read()).map(RecentRequest::bytes).sum();
            kept.retain(RecentRequest::is_read);
            self.room.0.fetch_sub(gone, Ordering::Relaxed);
        }
    }

    /// Keeps a request that arrived `now` when one is due and may be kept. Its body, which passes through.
    pub(crate) fn offer(self: &Arc<Self>, now: Instant, parts: &Parts, body: Body) -> Body {
        let is_allowed = self.keeps_all.load(Ordering::Relaxed) || (is_read(&parts.method) && body.is_end_stream());
        if !is_allowed || parts.headers.contains_key(header::UPGRADE) || !self.is_due(now) {
            return body;
        }
        let Some(request) = RecentRequest::of(parts, Bytes::new()) else { return body };
        if body.is_end_stream() {
            self.keep(request);
            return body;
        }
        Tap { body, taken: Some((self.clone(), request, BytesMut::new())) }.boxed()
    }

    fn is_due(&self, now: Instant) -> bool {
        let now = u64::try_from(now.saturating_duration_since(self.begun).as_micros()).unwrap_or(u64::MAX).max(1);
        let last = self.last_us.load(Ordering::Relaxed);
        let is_over = last == 0 || now.saturating_sub(last) >= PAUSE.as_micros() as u64;
        is_over && self.last_us.compare_exchange(last, now, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    fn keep(&self, request: RecentRequest) {
        let mut kept = self.kept.lock();
        // The owner may have said no while its body came.
        if !request.is_read() && !self.keeps_all.load(Ordering::Relaxed) {
            return;
        }
        if let Some(same) = kept.iter().position(|other| other.is_same(&request)).and_then(|at| kept.remove(at)) {
            self.room.0.fetch_sub(same.bytes(), Ordering::Relaxed);
        }
        self.room.0.fetch_add(request.bytes(), Ordering::Relaxed);
        kept.push_back(request);
        // A service gives way with its own, the last one too when all room is others'.
        while kept.len() > KEPT_MAX || self.room.0.load(Ordering::Relaxed) > BYTES_MAX {
            let Some(oldest) = kept.pop_front() else { return };
            self.room.0.fetch_sub(oldest.bytes(), Ordering::Relaxed);
        }
    }
}

impl Drop for Recent {
    fn drop(&mut self) {
        let bytes: u64 = self.kept.get_mut().iter().map(RecentRequest::bytes).sum();
        self.room.0.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// A body that is copied as it passes, and kept when it was whole and not too long.
struct Tap {
    body: Body,
    /// `None` once it is kept, or never will be.
    taken: Option<(Arc<Recent>, RecentRequest, BytesMut)>,
}

impl http_body::Body for Tap {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        match &frame {
            Some(Ok(frame)) => {
                if let (Some(data), Some((_, _, bytes))) = (frame.data_ref(), &mut self.taken) {
                    if bytes.len() + data.remaining() > BODY_MAX_BYTES {
                        self.taken = None;
                    } else {
                        bytes.extend_from_slice(data);
                    }
                }
            }
            Some(Err(_)) => self.taken = None,
            None => {}
        }
        if (frame.is_none() || self.body.is_end_stream())
            && let Some((recent, mut request, bytes)) = self.taken.take()
        {
            request.body = bytes.freeze();
            recent.keep(request);
        }
        Poll::Ready(frame)
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

    fn body(text: &'static str) -> Body {
        Full::new(Bytes::from_static(text.as_bytes())).map_err(|never| match never {}).boxed()
    }

    fn parts(method: &str, target: &str, headers: &[(&'static str, &'static str)]) -> Parts {
        let mut request = http::Request::builder().method(method).uri(target);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    /// Offers requests, each `PAUSE` after the one before; what is kept, as `METHOD target body`.
    async fn kept(allowed: Shadow, offered: &[(&str, &str, &'static str)]) -> Vec<String> {
        let recent = Recent::new(&Room::default());
        recent.allow(allowed);
        for (i, (method, target, text)) in offered.iter().enumerate() {
            let now = recent.begun + PAUSE * (i as u32 + 1);
            let passed = recent.offer(now, &parts(method, target, &[]), body(text)).collect().await.unwrap().to_bytes();
            assert_eq!(passed, text, "the body passes");
        }
        recent.list().iter().map(|one| format!("{} {} {}", one.method, one.target, String::from_utf8_lossy(&one.body))).collect()
    }

    #[tokio::test]
    async fn only_what_reads_is_kept_unless_the_owner_says_so() {
        let offered = [("GET", "/a?b=1", ""), ("POST", "/", "x"), ("GET", "/a?b=1", ""), ("HEAD", "/", ""), ("DELETE", "/", ""), ("GET", "/with", "body")];
        assert_eq!(kept(Shadow::Off, &offered).await, ["GET /a?b=1 ", "HEAD / "]);
        assert_eq!(kept(Shadow::Reads, &offered).await, ["GET /a?b=1 ", "HEAD / "]);
        assert_eq!(kept(Shadow::All, &offered).await, ["POST / x", "GET /a?b=1 ", "HEAD / ", "DELETE / ", "GET /with body"]);
    }

    #[tokio::test]
    async fn what_was_kept_goes_when_the_owner_says_no() {
        let room = Room::default();
        let recent = Recent::new(&room);
        recent.allow(Shadow::All);
        let offer = |at: u32, method: &str, text| recent.offer(recent.begun + PAUSE * at, &parts(method, "/", &[]), body(text));
        for (at, method, text) in [(1, "GET", ""), (2, "POST", "x"), (3, "GET", "x"), (4, "DELETE", "")] {
            offer(at, method, text).collect().await.unwrap();
        }
        let late = offer(5, "PUT", "late");
        assert_eq!(recent.list().len(), 4);
        recent.allow(Shadow::Reads);
        late.collect().await.unwrap();
        let left = recent.list();
        assert_eq!((left.len(), left[0].method.as_str(), left[0].body.len()), (1, "GET", 0));
        assert_eq!(room.0.load(Ordering::Relaxed), left[0].bytes());
    }

    #[tokio::test]
    async fn no_credential_is_kept() {
        let recent = Recent::new(&Room::default());
        let headers = [
            ("authorization", "Bearer secret"),
            ("cookie", "session=secret"),
            ("x-api-key", "secret"),
            ("x-serverless-authorization", "secret"),
            ("referer", "https://a/?token=secret"),
            ("accept", "text/html"),
            ("ce-id", "7"),
        ];
        drop(recent.offer(recent.begun + PAUSE, &parts("GET", "/", &headers), body("")));
        let kept = recent.list().remove(0);
        let copy = kept.copy(&HeaderValue::from_static("f.run.app"));
        let mut names: Vec<_> = copy.headers().keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, ["accept", "ce-id", "host"]);
        assert!(!format!("{kept:?}").contains("secret"));
    }

    #[test]
    fn nothing_of_a_requests_head_stays_but_what_is_kept() {
        let head = Bytes::from(b"GET /a?b=1 HTTP/1.1\r\naccept: text/html\r\nauthorization: Bearer secret\r\n\r\n".to_vec());
        let mut sent = parts("GET", "/", &[]);
        sent.uri = Uri::from_maybe_shared(head.slice(4..10)).unwrap();
        sent.headers.insert(header::ACCEPT, HeaderValue::from_maybe_shared(head.slice(29..38)).unwrap());
        let recent = Recent::new(&Room::default());
        drop(recent.offer(recent.begun + PAUSE, &sent, body("")));
        assert!(!head.is_unique(), "a request holds what was read");
        drop(sent);
        assert!(head.is_unique(), "the record does not");
        let kept = recent.list().remove(0);
        assert_eq!((kept.target.path(), kept.headers[header::ACCEPT].as_bytes()), ("/a", &b"text/html"[..]));
    }

    #[test]
    fn every_form_of_a_target_can_be_sent_again() {
        let check = |method: &str, target: &str, expect: &str| {
            let recent = Recent::new(&Room::default());
            drop(recent.offer(recent.begun + PAUSE, &parts(method, target, &[]), body("")));
            let copies: Vec<_> = recent.list().iter().map(|one| one.copy(&HeaderValue::from_static("f.run.app")).uri().to_string()).collect();
            assert_eq!(copies, [expect], "{target}");
        };
        check("GET", "http://f.run.app?x=1", "/?x=1");
        check("GET", "http://f.run.app", "/");
        check("GET", "http://f.run.app/a?b", "/a?b");
        check("GET", "//a/b", "//a/b");
        check("GET", "/%2f?", "/%2f?");
        check("OPTIONS", "*", "*");
    }

    #[test]
    fn a_copy_says_so_and_nobody_else_can() {
        let recent = Recent::new(&Room::default());
        drop(recent.offer(recent.begun + PAUSE, &parts("GET", "/", &[]), body("")));
        let mut copy = recent.list()[0].copy(&HeaderValue::from_static("f.run.app")).into_parts().0;
        assert!(mark(&mut copy));
        assert_eq!(copy.headers[COPY], "1");
        let mut claimed = parts("GET", "/", &[("tanebi-shadow", "1")]);
        assert!(!mark(&mut claimed));
        assert!(!claimed.headers.contains_key(COPY));
    }

    #[tokio::test]
    async fn what_is_kept_is_bounded() {
        let room = Room::default();
        let recent = Recent::new(&room);
        recent.allow(Shadow::All);
        let offer = |recent: &Arc<Recent>, at: u32, target: &str, text: Vec<u8>| {
            let sent: Body = Full::new(Bytes::from(text)).map_err(|never| match never {}).boxed();
            recent.offer(recent.begun + PAUSE * at, &parts("POST", target, &[]), sent)
        };
        // By number.
        for at in 1..KEPT_MAX as u32 + 10 {
            drop(offer(&recent, at, &format!("/{at}"), Vec::new()));
        }
        assert_eq!((recent.list().len(), recent.list()[0].target.path()), (KEPT_MAX, "/10"));
        // By time.
        drop(offer(&recent, KEPT_MAX as u32 + 9, "/too-soon", Vec::new()));
        assert_ne!(recent.list().last().unwrap().target, "/too-soon");
        // By body and target.
        for (at, body, target) in [(100, BODY_MAX_BYTES + 1, "/long".to_owned()), (101, 0, format!("/{}", "x".repeat(TARGET_MAX_BYTES)))] {
            offer(&recent, at, &target, vec![b'x'; body]).collect().await.unwrap();
            assert_ne!(recent.list().last().unwrap().target, *target);
        }
        let mut long = parts("GET", "/", &[]);
        long.method = Method::from_bytes(&[b'X'; TARGET_MAX_BYTES]).unwrap();
        drop(recent.offer(recent.begun + PAUSE * 102, &long, body("")));
        assert_ne!(recent.list().last().unwrap().method, long.method);
        // By bytes of all.
        let others: Vec<_> = (0..20).map(|_| Recent::new(&room)).collect();
        for other in &others {
            other.allow(Shadow::All);
            for at in 1..=KEPT_MAX as u32 {
                offer(other, at, &format!("/{at}"), vec![b'x'; BODY_MAX_BYTES]).collect().await.unwrap();
            }
        }
        assert!(room.0.load(Ordering::Relaxed) <= BYTES_MAX);
        drop((recent, others));
        assert_eq!(room.0.load(Ordering::Relaxed), 0, "all room is given back");
    }
}
