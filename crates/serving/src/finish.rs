//! The end of every request: its log entry and its place in the metrics, exactly once.
//!
//! Dropping it without an end is an end too: the caller has gone, and nobody will ever see an answer.

use std::{
    borrow::Cow,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering},
    },
};

use http::{HeaderName, HeaderValue, Method, StatusCode, Uri, Version, header};
use model::{
    Hops, Timestamp,
    log::{Entry, HttpRequest, LogName, Payload, Severity, Source},
    service::SHADOW,
};
use telemetry::Meter;
use tokio::time::Instant;

use crate::{
    Origin, Response, Shared,
    cold_start::Cold,
    headers::{self, Trace},
    pages,
    refusal::Refusal,
};

/// Google's status for a caller that did not wait.
const CLIENT_GONE: u16 = 499;

/// A request that has not ended.
pub(crate) struct Finish {
    shared: Arc<Shared>,
    source: Arc<Source>,
    meter: Option<Arc<Meter>>,
    arrived: Instant,
    time: Timestamp,
    method: Method,
    /// As the caller sent it.
    uri: Uri,
    version: Version,
    scheme: &'static str,
    /// The host that the caller named, with its port.
    pub(crate) authority: String,
    pub(crate) remote_ip: String,
    user_agent: Option<HeaderValue>,
    referer: Option<HeaderValue>,
    status: u16,
    response_bytes: u64,
    pub(crate) trace: Trace,
    pub(crate) flow: Arc<Flow>,
    /// An instance was started for it.
    pub(crate) cold: Option<Cold>,
    /// A copy of one that was answered before; its log entry says so.
    is_copy: bool,
    open: bool,
}

/// What is known of a request's body while others read it.
#[derive(Default)]
pub(crate) struct Flow {
    bytes: AtomicU64,
    fault: AtomicU8,
    whole: AtomicBool,
}

impl Flow {
    /// Counts `bytes` more; how many there are now.
    pub(crate) fn add(&self, bytes: u64) -> u64 {
        self.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes
    }

    /// All of the body has come.
    pub(crate) fn whole(&self) {
        self.whole.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_whole(&self) -> bool {
        self.whole.load(Ordering::Relaxed)
    }

    /// The body ended badly, by the caller's doing.
    pub(crate) fn fault(&self, refusal: Refusal) {
        self.fault.store(if refusal == Refusal::BodyTooLarge { 1 } else { 2 }, Ordering::Relaxed);
    }

    pub(crate) fn faulted(&self) -> Option<Refusal> {
        match self.fault.load(Ordering::Relaxed) {
            0 => None,
            1 => Some(Refusal::BodyTooLarge),
            _ => Some(Refusal::BodyBroken),
        }
    }
}

/// How an answer that had begun came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Whole,
    /// The instance stopped in the middle.
    Broken,
    TimedOut,
    ClientGone,
}

impl Finish {
    pub(crate) fn new(shared: Arc<Shared>, source: Arc<Source>, parts: &http::request::Parts, authority: String, origin: &Origin) -> Self {
        let kept = |name: HeaderName| parts.headers.get(name).cloned();
        let (scheme, remote_ip) = match origin {
            Origin::Outside { remote, tls } => (if *tls { "https" } else { "http" }, remote.ip().to_canonical().to_string()),
            Origin::Inside { .. } => ("https", headers::INSIDE.to_owned()),
        };
        Self {
            arrived: Instant::now(),
            time: shared.clock.now(),
            method: parts.method.clone(),
            uri: parts.uri.clone(),
            version: parts.version,
            scheme,
            authority,
            remote_ip,
            user_agent: kept(header::USER_AGENT),
            referer: kept(header::REFERER),
            status: 0,
            response_bytes: 0,
            trace: Trace::of(&parts.headers),
            flow: Arc::default(),
            cold: None,
            is_copy: false,
            meter: None,
            source,
            shared,
            open: true,
        }
    }

    pub(crate) fn arrived(&self) -> Instant {
        self.arrived
    }

    /// An instance was started for it, which it has now; `is_told`: its caller may know where the time went.
    pub(crate) fn is_cold(&mut self, is_told: bool) {
        self.cold = Some(Cold::new(self.time, self.arrived, is_told));
    }

    /// It is a copy that was made to see what a revision answers.
    pub(crate) fn is_copy(&mut self) {
        self.is_copy = true;
    }

    pub(crate) fn method(&self) -> &Method {
        &self.method
    }

    /// From now on the request is one of this revision, or of this instance.
    pub(crate) fn belongs_to(&mut self, source: &Arc<Source>, meter: &Arc<Meter>) {
        self.source = source.clone();
        self.meter = Some(meter.clone());
    }

    /// The head of an answer goes out.
    pub(crate) fn status(&mut self, status: StatusCode) {
        self.status = status.as_u16();
    }

    pub(crate) fn sent(&mut self, bytes: usize) {
        self.response_bytes += bytes as u64;
    }

    /// Ends with a refusal; its page.
    pub(crate) fn refuse(mut self, refusal: Refusal) -> Response {
        let response = pages::refusal(refusal, &self.method, self.uri.path());
        self.status = response.status().as_u16();
        self.response_bytes = http_body::Body::size_hint(response.body()).exact().unwrap_or(0);
        self.close(refusal.log_text());
        response
    }

    /// Ends what is one hop too far, before the function saw it: what to do stands in the log.
    pub(crate) fn stop(mut self, hops: &Hops) -> Response {
        let response = pages::refusal(Refusal::Loop, &self.method, self.uri.path());
        self.status = response.status().as_u16();
        self.response_bytes = http_body::Body::size_hint(response.body()).exact().unwrap_or(0);
        let max = self.shared.config.hops_max;
        self.close(Some(&format!(
            "This was stopped before it reached the function, as a loop: {hops}, and at most {max} are allowed. Each of these services published, wrote or \
             called what started the next. See that a function does not start itself again, by a topic, bucket or service of its own for \
             what it makes; a chain that is meant to be this long needs a greater tanebi serve --hops-max."
        )));
        response
    }

    /// Ends an answer that had begun.
    pub(crate) fn end(mut self, end: End) {
        match end {
            End::Whole => self.close(None),
            End::Broken => {
                self.status = StatusCode::SERVICE_UNAVAILABLE.as_u16();
                self.close(Refusal::MalformedResponse.log_text());
            }
            End::TimedOut => {
                self.status = StatusCode::GATEWAY_TIMEOUT.as_u16();
                self.close(Refusal::Timeout.log_text());
            }
            // Dropping is that.
            End::ClientGone => {}
        }
    }

    fn close(&mut self, text: Option<&str>) {
        self.open = false;
        let latency = self.arrived.elapsed();
        if let Some(meter) = &self.meter {
            meter.request(self.status, latency);
        }
        let string = |value: &Option<HeaderValue>| value.as_ref().map_or_else(String::new, |value| String::from_utf8_lossy(value.as_bytes()).into_owned());
        let path = self.uri.path_and_query().map_or("/", |path| path.as_str());
        let http = HttpRequest {
            method: method(&self.method),
            url: [self.scheme, "://", &self.authority, path].concat(),
            request_bytes: self.flow.bytes.load(Ordering::Relaxed),
            status: self.status,
            response_bytes: self.response_bytes,
            user_agent: string(&self.user_agent),
            remote_ip: std::mem::take(&mut self.remote_ip),
            referer: string(&self.referer),
            latency_us: u64::try_from(latency.as_micros()).unwrap_or(u64::MAX),
            protocol: protocol(self.version).into(),
        };
        self.shared.telemetry.log(Entry {
            trace: ["projects/", &self.source.project, "/traces/", digits(&self.trace.id_hex())].concat(),
            span: digits(&self.trace.span_hex()).to_owned(),
            trace_sampled: self.trace.sampled,
            source: self.source.clone(),
            log: LogName::Requests,
            time: self.time,
            severity: severity(self.status),
            payload: text.map_or(Payload::None, |text| Payload::Text(text.to_owned())),
            http: Some(http),
            labels: self.is_copy.then(|| (SHADOW.to_owned(), "copy".to_owned())).into_iter().collect(),
        });
    }
}

impl Drop for Finish {
    fn drop(&mut self) {
        if self.open {
            self.status = CLIENT_GONE;
            self.close(None);
        }
    }
}

fn severity(status: u16) -> Severity {
    match status {
        500.. => Severity::Error,
        400.. => Severity::Warning,
        _ => Severity::Info,
    }
}

fn digits(hex: &[u8]) -> &str {
    std::str::from_utf8(hex).expect("hexadecimal digits are ASCII")
}

fn method(method: &Method) -> Cow<'static, str> {
    match *method {
        Method::GET => "GET".into(),
        Method::POST => "POST".into(),
        _ => method.to_string().into(),
    }
}

fn protocol(version: Version) -> &'static str {
    match version {
        Version::HTTP_10 => "HTTP/1.0",
        Version::HTTP_2 => "HTTP/2",
        Version::HTTP_3 => "HTTP/3",
        _ => "HTTP/1.1",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn severity_follows_the_status() {
        for (status, expect) in [(200, Severity::Info), (302, Severity::Info), (404, Severity::Warning), (499, Severity::Warning), (503, Severity::Error)] {
            assert_eq!(severity(status), expect);
        }
    }
}
