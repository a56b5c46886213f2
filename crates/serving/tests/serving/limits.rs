//! Time, size, number: what ends where.

use std::time::{Duration, Instant};

use futures_util::FutureExt;
use model::log::Severity;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::{
    protocols::pieces,
    world::{Check, World, full, host, outside, request, text, until, whole},
};

pub const CHECKS: &[Check] = &[
    ("a request's timeout is 504 and leaves the instance", |world| timeout(world).boxed()),
    ("a function that ends by the same clock is too late", |world| same_clock(world).boxed()),
    ("an instance all of whose slots timed out is replaced", |world| unresponsive(world).boxed()),
    ("an answer that nobody reads is cut at the timeout", |world| unread(world).boxed()),
    ("no free slot within the hold time is 429", |world| hold(world).boxed()),
    ("who cannot get a slot within the hold time is refused at once", |world| too_many(world).boxed()),
    ("more than 32 MiB is 413 for HTTP/1", |world| too_large(world).boxed()),
    ("a log flood is cut and counted", |world| log_flood(world).boxed()),
    ("slow and silent callers are cut at ten seconds", |world| slow_heads(world).boxed()),
    ("heads that contradict themselves are 400", |world| contradictions(world).boxed()),
];

async fn timeout(world: &World) {
    let service = world.service().template(|template| template.timeout_s = Some(1)).deploy().await;
    let before = world.get(&host(&service), "/pid").await.body;
    let begun = Instant::now();
    let answer = world.get(&host(&service), "/sleep?1000").await;
    assert_eq!((answer.status, answer.body.as_str()), (504, "upstream request timeout"));
    assert!(begun.elapsed() >= Duration::from_secs(1));
    let entry = world.request_log_until(&service, 504).await;
    assert!(text(&entry).starts_with("The request has been terminated because it has reached the maximum request timeout."));
    assert_eq!(world.get(&host(&service), "/pid").await.body, before);
}

/// What it answers then would have to be cut in the middle.
async fn same_clock(world: &World) {
    let service = world.service().template(|template| template.timeout_s = Some(1)).deploy().await;
    assert_eq!(world.get(&host(&service), "/").await.status, 200);
    let call = || async {
        let mut stream = TcpStream::connect(world.address).await.unwrap();
        let request = format!("GET /sleep?1 HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", host(&service));
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    };
    for answer in futures_util::future::join_all((0..20).map(|_| call())).await {
        assert!(answer.starts_with("HTTP/1.1 504 ") && answer.ends_with("upstream request timeout"), "{answer:?}");
    }
}

async fn unresponsive(world: &World) {
    let change = |template: &mut model::revision::RevisionTemplate| (template.timeout_s, template.concurrency) = (Some(1), Some(2));
    let service = world.service().template(change).deploy().await;
    let before = world.get(&host(&service), "/pid").await.body;
    assert_eq!(world.get(&host(&service), "/sleep?1000").await.status, 504);
    assert_eq!(world.get(&host(&service), "/sleep?1000").await.status, 504);
    world.system_log_until(&service, "does not answer any more").await;
    assert_ne!(world.get(&host(&service), "/pid").await.body, before);
}

async fn unread(world: &World) {
    let service = world.service().template(|template| template.timeout_s = Some(2)).deploy().await;
    assert_eq!(world.get(&host(&service), "/").await.status, 200);
    // HTTP/1: the connection is cut.
    let mut stream = TcpStream::connect(world.address).await.unwrap();
    stream.write_all(format!("GET /flood HTTP/1.1\r\nHost: {}\r\n\r\n", host(&service)).as_bytes()).await.unwrap();
    let mut first = [0; 17];
    stream.read_exact(&mut first).await.unwrap();
    assert_eq!(&first, b"HTTP/1.1 200 OK\r\n");
    let entry = world.request_log_until(&service, 504).await;
    assert_eq!(entry.severity, Severity::Error);
    until("the slot is free", || async { world.instances(&service).iter().all(|instance| instance.in_flight == 0) }).await;
    let mut rest = Vec::new();
    let _ = stream.read_to_end(&mut rest).await;
    assert!(!rest.ends_with(b"0\r\n\r\n"), "it must not look whole");
    // HTTP/2: the stream is cut, the others go on.
    let stream = TcpStream::connect(world.address).await.unwrap();
    let executor = hyper_util::rt::TokioExecutor::new();
    let (mut sender, connection) = hyper::client::conn::http2::handshake(executor, hyper_util::rt::TokioIo::new(stream)).await.unwrap();
    let driver = tokio::spawn(connection);
    let call = |path: &str| http::Request::get(format!("http://{}{path}", host(&service))).body(full("")).unwrap();
    let flood = sender.send_request(call("/flood")).await.unwrap();
    assert_eq!(sender.send_request(call("/")).await.unwrap().status(), 200);
    until("the stream was cut", || async {
        world.log(&service).await.iter().filter(|entry| entry.http.as_ref().is_some_and(|http| http.status == 504)).count() == 2
    })
    .await;
    assert_eq!(sender.send_request(call("/")).await.unwrap().status(), 200);
    drop(flood);
    driver.abort();
}

async fn hold(world: &World) {
    let change = |template: &mut model::revision::RevisionTemplate| (template.concurrency, template.max_instances) = (Some(1), Some(1));
    let service = world.service().template(change).deploy().await;
    assert_eq!(world.get(&host(&service), "/").await.status, 200);
    let host = host(&service);
    let call = request("GET", &host, "/sleep?1000").body(full("")).unwrap();
    let busy = {
        let serving = world.serving.clone();
        tokio::spawn(async move { whole(serving.handle(outside(), call).await).await })
    };
    until("the only slot is taken", || async { world.instances(&service)[0].in_flight == 1 }).await;
    let begun = Instant::now();
    let answer = world.get(&host, "/").await;
    assert_eq!((answer.status, answer.body.as_str()), (429, "Rate exceeded."));
    assert!(begun.elapsed() >= Duration::from_secs(2), "{:?}", begun.elapsed());
    let entry = world.request_log_until(&service, 429).await;
    assert!(text(&entry).starts_with("The request was aborted because there was no available instance."));
    assert_eq!(world.instances(&service).len(), 1);
    // A slot that comes free within the time goes to who waits.
    let waiting = world.get(&host, "/");
    let (answer, ()) = tokio::join!(waiting, async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        busy.abort();
    });
    assert_eq!(answer.status, 200);
}

async fn too_many(world: &World) {
    let change = |template: &mut model::revision::RevisionTemplate| (template.concurrency, template.max_instances) = (Some(2), Some(1));
    let service = world.service().template(change).deploy().await;
    let host = host(&service);
    for _ in 0..12 {
        let (one, other) = tokio::join!(world.get(&host, "/sleep?0.1"), world.get(&host, "/sleep?0.1"));
        assert_eq!((one.status, other.status), (200, 200));
    }
    // Two slots serve 40 within the 2 s of this world's hold time.
    let call = async || {
        let begun = Instant::now();
        let answer = world.get(&host, "/sleep?0.1").await;
        (answer.status, begun.elapsed())
    };
    let calls: Vec<_> = (0..150).map(|_| call()).collect();
    let told = futures_util::future::join_all(calls).await;
    let at_once = told.iter().filter(|(status, took)| *status == 429 && *took < Duration::from_secs(1)).count();
    let served = told.iter().filter(|(status, _)| *status == 200).count();
    assert!(told.iter().all(|(status, _)| matches!(status, 200 | 429)), "{told:?}");
    assert!(at_once >= 60, "{at_once} refused at once, {served} served: {told:?}");
    assert!(served >= 20, "{served} served: {told:?}");
    assert!(told.iter().all(|(status, took)| *status == 200 || *took < Duration::from_secs(1) || *took >= Duration::from_secs(2)), "{told:?}");
    let entry = world.request_log_until(&service, 429).await;
    assert!(text(&entry).starts_with("The request was aborted because there was no available instance."));
    // It is over as soon as the queue is.
    assert_eq!(world.get(&host, "/").await.status, 200);
    let reasons: Vec<_> = world.serving.scaling_decisions(&service).into_iter().flat_map(|(_, list)| list).map(|one| one.decision.to_string()).collect();
    assert!(reasons.iter().any(|words| words.ends_with("maximum reached, 2 wanted")), "{reasons:?}");
}

async fn too_large(world: &World) {
    let service = world.service().deploy().await;
    let max = usize::try_from(model::limits::REQUEST_BODY_MAX_BYTES).unwrap();
    let post = |body| request("POST", &host(&service), "/length").body(body).unwrap();
    let answer = world.send(post(full(vec![b'x'; max + 1]))).await;
    assert_eq!(answer.status, 413);
    assert!(world.instances(&service).is_empty(), "nothing was started for it");
    let answer = world.send(post(full(vec![b'x'; max]))).await;
    assert_eq!((answer.status, answer.body), (200, max.to_string()));
    // Without a length it shows on the way.
    const PIECE: &str = match std::str::from_utf8(&[b'y'; 1 << 20]) {
        Ok(piece) => piece,
        Err(_) => unreachable!(),
    };
    let (sender, body) = pieces();
    let sending = tokio::spawn(async move { while sender.send(PIECE).await.is_ok() {} });
    assert_eq!(world.send(post(body)).await.status, 413);
    sending.await.unwrap();
    assert_eq!(world.get(&host(&service), "/").await.status, 200);
}

async fn log_flood(world: &World) {
    let service = world.service().deploy().await;
    // 10 MB; the answer comes when the function has written it all.
    assert_eq!(world.get(&host(&service), "/log-flood?1000").await.status, 200);
    let entry = world.system_log_until(&service, "dropped ").await;
    assert_eq!(entry.severity, Severity::Warning);
}

async fn slow_heads(world: &World) {
    let service = world.service().deploy().await;
    assert_eq!(world.get(&host(&service), "/").await.status, 200);
    let heads = ["", "P", "PRI * HTTP/2.0\r\n\r\nSM\r\n", "GET / HTTP/1.1\r\nHost: ", "GET / HTTP/1.1\r\nX: 1\r\n"];
    let cut = heads.map(|head| async move {
        let mut stream = TcpStream::connect(world.address).await.unwrap();
        stream.write_all(head.as_bytes()).await.unwrap();
        let begun = Instant::now();
        let mut rest = Vec::new();
        let _ = tokio::time::timeout(crate::world::LIMIT, stream.read_to_end(&mut rest)).await.unwrap_or_else(|_| panic!("{head:?} is not cut"));
        assert!(begun.elapsed() >= Duration::from_secs(9), "{head:?} after {:?}", begun.elapsed());
    });
    futures_util::future::join_all(cut).await;
}

async fn contradictions(world: &World) {
    let service = world.service().deploy().await;
    let host = host(&service);
    for (head, expect) in [
        (format!("GET / HTTP/1.1\r\nHost: {host}\r\n"), "200"),
        (format!("GET http://{host}/ HTTP/1.1\r\nHost: {host}\r\n"), "200"),
        (format!("GET http://{host}/ HTTP/1.1\r\nHost: other.run.app\r\n"), "400"),
        (format!("GET http://me@{host}/ HTTP/1.1\r\nHost: {host}\r\n"), "400"),
        (format!("GET / HTTP/1.1\r\nHost: me@{host}\r\n"), "400"),
        (format!("GET / HTTP/1.1\r\nHost: {host}\r\nHost: {host}\r\n"), "400"),
        (format!("POST / HTTP/1.1\r\nHost: {host}\r\nContent-Length: 3\r\nContent-Length: 4\r\n"), "400"),
        (format!("POST / HTTP/1.1\r\nHost: {host}\r\nTransfer-Encoding: gzip\r\n"), "400"),
        (format!("GET / HTTP/1.1\r\nHost: {host}\r\n{}", "X-Many: 1\r\n".repeat(200)), "431"),
        ("GET / HTTP/1.1\r\n".to_owned(), "400"),
        ("GET / HTTP/1.1\r\nHost: nothing.run.app\r\n".to_owned(), "404"),
        (format!("TRACE / HTTP/1.1\r\nHost: {host}\r\n"), "405"),
    ] {
        let mut stream = TcpStream::connect(world.address).await.unwrap();
        stream.write_all(format!("{head}Connection: close\r\n\r\n").as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        let _ = tokio::time::timeout(crate::world::LIMIT, stream.read_to_end(&mut answer)).await.unwrap();
        let answer = String::from_utf8_lossy(&answer);
        assert_eq!(answer.get(9..12), Some(expect), "{head:?}: {answer}");
    }
}
