//! Bytes both ways between a caller and an instance.
//!
//! Everything of one request happens in the caller's own task: the request's body, the connection to the instance and the answer's
//! body are polled together. The deadline counts from the request's arrival and holds to the answer's last byte, also when the caller
//! does not read: then the stream is cut from outside (`stream.rs`). A request is sent a second time only when nothing of it was
//! sent, or when it has no body and doing it twice is doing it once.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use http::{Method, StatusCode, Version};
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::{BodyExt, Empty};
use hyper::{body::Incoming, upgrade::OnUpgrade};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncReadExt, copy_bidirectional},
    net::TcpStream,
    time::{Sleep, timeout},
};

use crate::{
    Body, BoxError, Request, Response,
    connection::{Http1, Sender2},
    finish::{End, Finish, Flow},
    headers,
    instances::{self, Instance},
    pool::Slot,
    refusal::Refusal,
    stream::Stream,
};

/// Sends `request` to the instance of `slot` and passes its answer on. The slot is held until the answer's last byte.
pub(crate) async fn forward(slot: Slot, mut request: Request, mut deadline: Pin<Box<Sleep>>, mut finish: Finish) -> Response {
    let instance = slot.instance().clone();
    finish.belongs_to(&instance.source, instance.pool.meter());
    let upgrade = request.extensions_mut().remove::<OnUpgrade>();
    // Anything else that the listener attached is for this process only.
    request.extensions_mut().clear();
    let asked = request.headers().contains_key(http::header::UPGRADE);
    let answer = tokio::select! {
        biased;
        answer = exchange(&instance, request, &finish.flow) => answer,
        () = &mut deadline => Err(Refusal::Timeout),
    };
    // Timers come up to a millisecond late. A function that ends by its own clock, as Go's framework makes it, answers just then: such an
    // answer would be cut before its first byte.
    let answer = answer.and_then(|answer| if deadline.deadline() <= tokio::time::Instant::now() { Err(Refusal::Timeout) } else { Ok(answer) });
    let (response, mut lease) = match answer {
        Ok(answer) => answer,
        Err(refusal) => {
            // A body that was still coming in is the caller's slowness.
            if refusal == Refusal::Timeout && finish.flow.is_whole() {
                instances::suspect(&instance);
            }
            return finish.refuse(refusal);
        }
    };
    instance.pool.answered(&instance);
    let (mut parts, incoming) = response.into_parts();
    let switched = parts.status == StatusCode::SWITCHING_PROTOCOLS;
    if switched && !(asked && upgrade.is_some()) {
        return finish.refuse(Refusal::MalformedResponse);
    }
    parts.extensions.clear();
    headers::response(&mut parts, finish.method(), &finish.trace, switched);
    if let Some(cold) = finish.cold.take() {
        cold.answered(&instance, &mut parts.headers);
    }
    finish.status(parts.status);
    if let (true, Some(upgrade), Lease::Http1(connection)) = (switched, upgrade, &mut lease)
        && let Some(connection) = connection.take()
    {
        let supervisor = instance.shared().supervisor.clone();
        supervisor.spawn_here("tunnel", tunnel(upgrade, connection, slot, deadline, finish));
        return Response::from_parts(parts, empty());
    }
    let rest = Rest { lease, slot, finish, deadline, stream: Stream::current() };
    if incoming.is_end_stream() {
        rest.end(End::Whole);
        return Response::from_parts(parts, empty());
    }
    if let Some(stream) = &rest.stream {
        stream.cut_at(Some(rest.deadline.deadline()));
    }
    Response::from_parts(parts, Answer { incoming, rest: Some(rest) }.boxed())
}

fn empty() -> Body {
    Empty::new().map_err(|never| match never {}).boxed()
}

// --- the request --------------------------------------------------------------------------------------------------

/// The connection that an answer comes by.
enum Lease {
    /// Empty once it was given away.
    Http1(Option<Box<Http1>>),
    /// Shared with other requests; kept so that it is not closed under this one.
    Http2(#[expect(dead_code, reason = "held, not used")] Sender2),
}

/// Sends the request and waits for the head of the answer.
async fn exchange(instance: &Arc<Instance>, request: Request, flow: &Flow) -> Result<(http::Response<Incoming>, Lease), Refusal> {
    let broken = |error: String| {
        tracing::debug!(instance = %instance.sandbox, %error, "no answer from an instance");
        // When the caller's body ended badly, the connection ended with it.
        flow.faulted().unwrap_or(Refusal::MalformedResponse)
    };
    let mut request = request;
    let mut second = false;
    loop {
        let (sent, kept, copy);
        let mut lease;
        if request.version() == Version::HTTP_2 {
            let mut sender = instance.connections.http2(instance).await.map_err(broken)?;
            (kept, copy) = (true, copy_of(&request));
            sent = sender.try_send_request(request).await;
            lease = Lease::Http2(sender);
        } else {
            let found = if second { None } else { instance.connections.take().await };
            kept = found.is_some();
            let connection = match found {
                Some(connection) => connection,
                None => {
                    let stream = instance.dial(instance.pool.template.port()).await.map_err(broken)?;
                    Http1::new(stream).await.map_err(|error| broken(error.to_string()))?
                }
            };
            copy = if kept { copy_of(&request) } else { None };
            lease = Lease::Http1(Some(connection));
            let Lease::Http1(Some(connection)) = &mut lease else { unreachable!("it was just put there") };
            sent = connection.send(request).await;
        }
        let mut error = match sent {
            Ok(response) => return Ok((response, lease)),
            Err(error) => error,
        };
        let unsent = error.take_message();
        let error = error.into_error();
        // A kept connection may have been closed just as the request was sent. A new one that breaks is the instance's doing.
        let again = unsent.or(copy.filter(|_| kept && !error.is_parse()));
        match again {
            Some(again) if !second && flow.faulted().is_none() => {
                request = again;
                second = true;
            }
            _ => return Err(broken(error.to_string())),
        }
    }
}

/// The request again, when sending it twice is sending it once.
fn copy_of(request: &Request) -> Option<Request> {
    let idempotent = matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS | Method::PUT | Method::DELETE);
    if !idempotent || !request.body().is_end_stream() {
        return None;
    }
    let mut copy = Request::new(empty());
    copy.method_mut().clone_from(request.method());
    copy.uri_mut().clone_from(request.uri());
    *copy.version_mut() = request.version();
    copy.headers_mut().clone_from(request.headers());
    Some(copy)
}

/// The body of a request on its way, counted and limited.
pub(crate) struct Upload {
    body: Body,
    flow: Arc<Flow>,
    /// In bytes; `None` for functions that speak HTTP/2.
    max: Option<u64>,
}

impl Upload {
    pub(crate) fn of(body: Body, flow: Arc<Flow>, max: Option<u64>) -> Body {
        if body.is_end_stream() {
            flow.whole();
            empty()
        } else {
            Self { body, flow, max }.boxed()
        }
    }
}

impl http_body::Body for Upload {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        match &frame {
            Some(Ok(frame)) => {
                if let Some(data) = frame.data_ref() {
                    let total = self.flow.add(data.remaining() as u64);
                    if self.max.is_some_and(|max| total > max) {
                        self.flow.fault(Refusal::BodyTooLarge);
                        return Poll::Ready(Some(Err("the request is too large".into())));
                    }
                }
            }
            Some(Err(_)) => self.flow.fault(Refusal::BodyBroken),
            None => {}
        }
        if frame.is_none() || self.body.is_end_stream() {
            self.flow.whole();
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

// --- the answer ---------------------------------------------------------------------------------------------------

/// The body of an answer, with all that must be given back at its end.
struct Answer {
    incoming: Incoming,
    /// `None` after the end.
    rest: Option<Rest>,
}

struct Rest {
    lease: Lease,
    slot: Slot,
    finish: Finish,
    deadline: Pin<Box<Sleep>>,
    stream: Option<Arc<Stream>>,
}

impl Rest {
    fn end(self, end: End) {
        if let Some(stream) = &self.stream {
            stream.cut_at(None);
        }
        let instance = self.slot.instance().clone();
        // The connection first: whoever gets the slot finds it.
        if let (End::Whole, Lease::Http1(Some(connection))) = (end, self.lease) {
            instance.connections.keep(connection);
        }
        // The slot at once too: whoever has the answer may ask again.
        drop(self.slot);
        let finish = self.finish;
        match self.stream {
            // Written down when the answer's last bytes have gone out.
            Some(stream) => stream.after(move || finish.end(end)),
            None => finish.end(end),
        }
    }
}

impl Answer {
    fn end(&mut self, end: End) {
        if let Some(rest) = self.rest.take() {
            rest.end(end);
        }
    }
}

impl http_body::Body for Answer {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = &mut *self;
        let Some(rest) = &mut this.rest else { return Poll::Ready(None) };
        if rest.deadline.as_mut().poll(cx).is_ready() {
            this.end(End::TimedOut);
            return Poll::Ready(Some(Err("the request timeout has passed".into())));
        }
        if let Lease::Http1(Some(connection)) = &mut rest.lease {
            connection.drive(cx);
        }
        let frame = Pin::new(&mut this.incoming).poll_frame(cx);
        if let (Poll::Pending, Lease::Http1(Some(connection))) = (&frame, &mut rest.lease) {
            connection.wait_for_more(cx);
        }
        match ready!(frame) {
            Some(Ok(frame)) => {
                if let Some(data) = frame.data_ref() {
                    rest.finish.sent(data.remaining());
                }
                if this.incoming.is_end_stream() {
                    this.end(End::Whole);
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Some(Err(error)) => {
                this.end(End::Broken);
                Poll::Ready(Some(Err(error.into())))
            }
            None => {
                this.end(End::Whole);
                Poll::Ready(None)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_none() || self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        let end = match &self.rest {
            None => return,
            Some(_) if self.incoming.is_end_stream() => End::Whole,
            Some(rest) if rest.deadline.is_elapsed() || rest.deadline.deadline() <= tokio::time::Instant::now() => End::TimedOut,
            Some(_) => End::ClientGone,
        };
        self.end(end);
    }
}

// --- other protocols ----------------------------------------------------------------------------------------------

/// How long a caller may take to switch after it was told to.
const SWITCH_MAX: std::time::Duration = std::time::Duration::from_secs(10);

/// Passes bytes both ways until both have ended, the request's time is over or the instance is gone. An open one is a request in flight.
async fn tunnel(upgrade: OnUpgrade, connection: Box<Http1>, slot: Slot, deadline: Pin<Box<Sleep>>, finish: Finish) {
    let instance = slot.instance().clone();
    let both = async {
        let (stream, read): (TcpStream, Bytes) = connection.upgraded().await;
        let caller = timeout(SWITCH_MAX, upgrade).await.map_err(|_| std::io::ErrorKind::TimedOut)?.map_err(std::io::Error::other)?;
        let mut caller = TokioIo::new(caller);
        let (reader, writer) = stream.into_split();
        let mut function = tokio::io::join(AsyncReadExt::chain(std::io::Cursor::new(read), reader), writer);
        copy_bidirectional(&mut caller, &mut function).await.map(|_| ())
    };
    let end = tokio::select! {
        ended = both => if ended.is_ok() { End::Whole } else { End::ClientGone },
        () = deadline => End::TimedOut,
        () = instance.gone.cancelled() => End::Broken,
        () = instance.shared().cut.cancelled() => End::ClientGone,
    };
    drop(slot);
    finish.end(end);
}
