//! Streams, upgrades, HTTP/2: what is more than a request and an answer.

use bytes::Bytes;
use futures_util::{FutureExt, StreamExt};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use serving::{Body, BoxError};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
    sync::mpsc,
};

use crate::world::{Check, World, full, host, outside, request, whole};

pub const CHECKS: &[Check] = &[
    ("bytes go both ways before either side has ended", |world| both_ways(world).boxed()),
    ("an answer that comes before the body was read is passed on at once", |world| early_answer(world).boxed()),
    ("a WebSocket's upgrade passes and holds its slot", |world| upgrade(world).boxed()),
    ("a function may speak HTTP/2 without TLS", |world| h2c(world).boxed()),
    ("gRPC comes as HTTP/2 to a port that is not named h2c", |world| grpc(world).boxed()),
    ("trailers reach a caller over HTTP/2", |world| trailers(world).boxed()),
    ("a caller that goes is logged as 499 and gives its slot back", |world| client_gone(world).boxed()),
    ("a caller that waits for leave to send its body gets it", |world| continues(world).boxed()),
    ("one connection carries many requests", |world| keep_alive(world).boxed()),
];

/// A body that is sent piece by piece.
pub fn pieces() -> (mpsc::Sender<&'static str>, Body) {
    let (sender, mut receiver) = mpsc::channel::<&'static str>(1);
    let stream = futures_util::stream::poll_fn(move |cx| receiver.poll_recv(cx));
    let frames = stream.map(|piece| Ok::<_, BoxError>(Frame::data(Bytes::from_static(piece.as_bytes()))));
    (sender, BodyExt::boxed(StreamBody::new(frames)))
}

async fn both_ways(world: &World) {
    let service = world.service().deploy().await;
    let (sender, body) = pieces();
    let response = world.serving.handle(outside(), request("POST", &host(&service), "/echo").body(body).unwrap()).await;
    assert_eq!(response.status(), 200);
    let mut answer = response.into_body();
    for (piece, expect) in [("one", "ONE"), ("two", "TWO"), ("three", "THREE")] {
        sender.send(piece).await.unwrap();
        let frame = answer.frame().await.unwrap().unwrap();
        assert_eq!(frame.into_data().unwrap(), expect);
    }
    drop(sender);
    assert!(answer.frame().await.is_none());
    let http = world.request_log_until(&service, 200).await.http.unwrap();
    assert_eq!((http.request_bytes, http.response_bytes), (11, 11));
}

async fn early_answer(world: &World) {
    let service = world.service().deploy().await;
    let (sender, body) = pieces();
    sender.send("begun, and never ended").await.unwrap();
    let answer = whole(world.serving.handle(outside(), request("POST", &host(&service), "/early").body(body).unwrap()).await).await;
    assert_eq!((answer.status, answer.body.as_str()), (403, "no thanks"));
    drop(sender);
    assert_eq!(world.get(&host(&service), "/").await.status, 200);
}

async fn upgrade(world: &World) {
    let service = world.service().template(|template| template.concurrency = Some(1)).deploy().await;
    let mut stream = BufReader::new(TcpStream::connect(world.address).await.unwrap());
    let head = format!("GET /upgrade HTTP/1.1\r\nHost: {}\r\nConnection: Upgrade\r\nUpgrade: shout\r\n\r\n", host(&service));
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut line = String::new();
    stream.read_line(&mut line).await.unwrap();
    assert_eq!(line, "HTTP/1.1 101 Switching Protocols\r\n");
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        stream.read_line(&mut head).await.unwrap();
    }
    let head = head.to_ascii_lowercase();
    assert!(head.contains("upgrade: shout\r\n") && head.contains("connection: upgrade\r\n"), "{head}");
    let mut said = String::new();
    stream.read_line(&mut said).await.unwrap();
    for word in ["hello\n", "again\n"] {
        stream.write_all(word.as_bytes()).await.unwrap();
        stream.read_line(&mut said).await.unwrap();
    }
    assert_eq!(said, "welcome\nHELLO\nAGAIN\n");
    assert_eq!(world.instances(&service)[0].in_flight, 1);
    assert!(world.log(&service).await.iter().all(|entry| entry.http.is_none()), "it has not ended");
    drop(stream);
    world.request_log_until(&service, 101).await;
    crate::world::until("the slot is free", || async { world.instances(&service)[0].in_flight == 0 }).await;
}

async fn h2c(world: &World) {
    let service = world.service().mode("h2c").template(|template| template.container.h2c = true).deploy().await;
    let host = host(&service);
    let calls = (0..20).map(|_| world.get(&host, "/"));
    for answer in futures_util::future::join_all(calls).await {
        assert_eq!((answer.status, answer.body.as_str()), (200, "h2c"));
    }
    let call = request("POST", &host, "/").body(full("x")).unwrap();
    let body = world.serving.handle(outside(), call).await.into_body().collect().await.unwrap();
    assert_eq!(body.trailers().unwrap()["grpc-status"], "0");
}

async fn grpc(world: &World) {
    let service = world.service().mode("h2c").template(|template| template.timeout_s = Some(1)).deploy().await;
    let call = |kind: &'static str, version| {
        let call = request("POST", &host(&service), "/").version(version).header("content-type", kind).header("te", "trailers").body(full("x")).unwrap();
        world.serving.handle(outside(), call)
    };
    for kind in ["application/grpc", "application/grpc+proto"] {
        let response = call(kind, http::Version::HTTP_2).await;
        assert_eq!(response.status(), 200, "{kind}");
        assert_eq!(response.into_body().collect().await.unwrap().trailers().unwrap()["grpc-status"], "0");
    }
    // What is no gRPC, or cannot be, comes as HTTP/1, to which this function says nothing.
    for (kind, version) in [("application/grpc-web", http::Version::HTTP_2), ("application/grpc", http::Version::HTTP_11)] {
        assert_eq!(call(kind, version).await.status(), 504, "{kind}");
    }
}

async fn trailers(world: &World) {
    let service = world.service().mode("h2c").template(|template| template.container.h2c = true).deploy().await;
    let stream = TcpStream::connect(world.address).await.unwrap();
    let executor = hyper_util::rt::TokioExecutor::new();
    let (mut sender, connection) = hyper::client::conn::http2::handshake(executor, hyper_util::rt::TokioIo::new(stream)).await.unwrap();
    let driver = tokio::spawn(connection);
    let call = http::Request::post(format!("http://{}/", host(&service))).header("te", "trailers").body(full("x")).unwrap();
    let response = sender.send_request(call).await.unwrap();
    assert_eq!((response.status().as_u16(), response.version()), (200, http::Version::HTTP_2));
    let body = response.into_body().collect().await.unwrap();
    assert_eq!(body.trailers().unwrap()["grpc-status"], "0");
    driver.abort();
}

async fn client_gone(world: &World) {
    let service = world.service().deploy().await;
    assert_eq!(world.get(&host(&service), "/").await.status, 200);
    let mut stream = TcpStream::connect(world.address).await.unwrap();
    stream.write_all(format!("GET /sleep?1000 HTTP/1.1\r\nHost: {}\r\n\r\n", host(&service)).as_bytes()).await.unwrap();
    crate::world::until("the request is in flight", || async { world.instances(&service)[0].in_flight == 1 }).await;
    drop(stream);
    let entry = world.request_log_until(&service, 499).await;
    assert_eq!(entry.severity, model::log::Severity::Warning);
    crate::world::until("the slot is free", || async { world.instances(&service)[0].in_flight == 0 }).await;
}

async fn continues(world: &World) {
    let service = world.service().deploy().await;
    let mut stream = BufReader::new(TcpStream::connect(world.address).await.unwrap());
    let head = format!("POST /length HTTP/1.1\r\nHost: {}\r\nContent-Length: 5\r\nExpect: 100-continue\r\nConnection: close\r\n\r\n", host(&service));
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut said = String::new();
    stream.read_line(&mut said).await.unwrap();
    assert_eq!(said, "HTTP/1.1 100 Continue\r\n");
    stream.write_all(b"12345").await.unwrap();
    stream.read_to_string(&mut said).await.unwrap();
    assert!(said.contains("HTTP/1.1 200 OK") && said.ends_with("\r\n\r\n5"), "{said}");
}

async fn keep_alive(world: &World) {
    let service = world.service().deploy().await;
    let stream = TcpStream::connect(world.address).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(hyper_util::rt::TokioIo::new(stream)).await.unwrap();
    let driver = tokio::spawn(connection);
    for number in 0..100 {
        sender.ready().await.unwrap();
        let method = if number % 3 == 0 { "HEAD" } else { "GET" };
        let response = sender.send_request(request(method, &host(&service), "/").body(full("")).unwrap()).await.unwrap();
        assert_eq!(response.status(), 200);
        response.into_body().collect().await.unwrap();
    }
    driver.abort();
    assert_eq!(world.instances(&service).len(), 1);
}
