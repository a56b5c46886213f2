//! One table of requests that every language answers alike, however its instances come to be. The function: tests/functions/LANGUAGE.

use std::{
    io::{Read, Write},
    net::TcpStream,
    process::Command,
    sync::{Barrier, LazyLock, Mutex, atomic::Ordering},
    thread::ScopedJoinHandle,
};

use anyhow::{Context, Result, ensure};
use aws_lc_rs::digest;
use e2e::{PATIENCE, Tanebi, eventually, holds, http1, program};
use serde_json::json;

use super::{GO, JAVA, Language, NODEJS, PYTHON, Service, json_of};

pub fn table_python() -> Result<()> {
    table(&PYTHON)
}

pub fn table_nodejs() -> Result<()> {
    table(&NODEJS)
}

pub fn table_go() -> Result<()> {
    table(&GO)
}

pub fn table_java() -> Result<()> {
    table(&JAVA)
}

type Row = fn(&Service, &Language) -> Result<()>;

/// The last one ends the instance.
const ROWS: [(&str, Row); 14] = [
    ("hello", hello),
    ("size", size),
    ("stream", stream),
    ("slow", slow),
    ("cors", cors),
    ("upload", upload),
    ("environment", environment),
    ("echo", echo),
    ("paths", paths),
    ("malformed", malformed),
    ("favicon", favicon),
    ("fail", fail),
    ("log", log),
    ("sigterm", sigterm),
];

/// Deploys with each base image at a time, then asks two services at a time, as rows mostly wait.
fn table(language: &Language) -> Result<()> {
    let tanebi = Tanebi::start()?;
    // Here none waits armed, so that each is cloned when it is asked for.
    let unarmed = Tanebi::start_with(tempfile::Builder::new().prefix("tanebi-e2e-").tempdir()?, &["--armed-max", "0"])?;
    let images = language.images(&tanebi)?;
    let folder = format!("tests/functions/{}", language.name);
    const FLAGS: &str = "--max-instances 1 --concurrency 80";
    let (whole, off, runtime) = (format!("{FLAGS} {}", language.table_flags), format!("{FLAGS} --start off"), format!("{FLAGS} --start runtime"));
    #[derive(Clone)]
    struct Wanted<'a>(&'a Tanebi, String, &'a str, &'a str, &'static str);
    let mut wanted: Vec<_> = images.iter().map(|image| Wanted(&tanebi, format!("table-{image}"), image, &whole, "armed")).collect();
    wanted.push(Wanted(&tanebi, "table-ordinary".to_owned(), language.main, &off, "ordinary"));
    wanted.push(Wanted(&unarmed, "table-template".to_owned(), language.main, &whole, "template"));
    if language.has_runtime_templates {
        wanted.push(Wanted(&tanebi, "table-runtime".to_owned(), language.main, &runtime, "runtime"));
    }
    let folder = &folder;
    let services: Vec<_> = std::thread::scope(|scope| {
        let deploy = |Wanted(tanebi, name, image, flags, _)| Service::deploy(tanebi, &name, folder, language.table, image, flags);
        let deploys: Vec<_> = wanted.clone().into_iter().map(|wanted| scope.spawn(move || deploy(wanted))).collect();
        deploys.into_iter().map(joined).collect::<Result<_>>()
    })?;
    let rungs: Vec<_> = wanted.iter().map(|Wanted(.., rung)| *rung).collect();
    let asked = Mutex::new(services.iter().zip(&rungs));
    let lane = || {
        while let Some((service, rung)) = asked.lock().expect("no panic").next() {
            rows(service, language, rung)?;
        }
        Ok(())
    };
    std::thread::scope(|scope| [scope.spawn(lane), scope.spawn(lane)].into_iter().try_for_each(joined))?;
    let other: Vec<_> = rungs.into_iter().filter(|rung| *rung != "armed").collect();
    println!("  {} armed, {} {}: {} rows each", images.join(", "), language.main, other.join(", "), ROWS.len());
    Ok(())
}

/// Each row begins with a start.
fn rows(service: &Service, language: &Language, rung: &str) -> Result<()> {
    for (name, row) in ROWS {
        let done = service.anew(rung).and_then(|()| row(service, language));
        done.with_context(|| format!("row {name:?} of {}", service.name))?;
    }
    let starts = service.starts()?;
    ensure!(starts.len() >= ROWS.len() && starts.iter().all(|start| start == rung), "{} was not always started {rung}: {starts:?}", service.name);
    Ok(())
}

fn joined<T>(thread: ScopedJoinHandle<'_, Result<T>>) -> Result<T> {
    thread.join().expect("no panic")
}

fn hello(service: &Service, _: &Language) -> Result<()> {
    let check = |answer: http1::Answer, expect: &str| {
        ensure!(answer.status == 200 && answer.text() == expect, "{answer:?}");
        holds(answer.field("content-type").unwrap_or_default(), "text/plain")
    };
    check(service.get("/hello")?, "Hello World!")?;
    check(service.get("/hello?name=Taro")?, "Hello Taro!")?;
    check(service.post_json("/hello", r#"{"name":"世界"}"#)?, "Hello 世界!")?;
    check(service.post_json("/hello?name=Taro", "{}")?, "Hello Taro!")?;
    check(service.call("POST", "/hello?name=Taro", &["Content-Type: text/plain"], b"x")?, "Hello Taro!")
}

/// The longest body of HTTP/1 at Google.
const BODY_MAX: usize = 32 << 20;

/// No part of it is like another one at the same place of a block.
static BODY: LazyLock<Vec<u8>> = LazyLock::new(|| (0..=250).collect::<Vec<u8>>().repeat(BODY_MAX / 251 + 1));

fn size(service: &Service, _: &Language) -> Result<()> {
    for bytes in [0, 1000, BODY_MAX] {
        let body = &BODY[..bytes];
        let answer = service.call("POST", "/size", &["Content-Type: application/octet-stream"], body)?;
        ensure!(answer.status == 200, "{bytes} bytes: {answer:?}");
        let digest = hex::encode(digest::digest(&digest::SHA256, body));
        let (seen, expect) = (json_of(&answer)?, json!({ "bytes": bytes, "sha256": digest }));
        ensure!(seen == expect, "{bytes} bytes: {seen}, not {expect}");
    }
    let answer = service.call("POST", "/size", &["Content-Type: application/octet-stream"], &BODY[..BODY_MAX + 1])?;
    ensure!(answer.status == 413, "one byte more: {answer:?}");
    Ok(())
}

/// The first part is there before the function has written the last one.
fn stream(service: &Service, _: &Language) -> Result<()> {
    const PARTS: usize = 12;
    let mut socket = TcpStream::connect(service.tanebi.listen)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    write!(socket, "GET /stream?parts={PARTS} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", service.host)?;
    let mut bytes = Vec::new();
    let mut buffer = [0; 4096];
    let has = |bytes: &[u8], part: usize| String::from_utf8_lossy(bytes).contains(&format!("part {part}\n"));
    while !has(&bytes, 1) {
        let read = socket.read(&mut buffer)?;
        ensure!(read > 0, "it ended before the first part: {}", String::from_utf8_lossy(&bytes));
        bytes.extend_from_slice(&buffer[..read]);
    }
    ensure!(!has(&bytes, PARTS), "all parts came at once");
    socket.read_to_end(&mut bytes)?;
    let answer = http1::parse(&bytes)?;
    let parts: String = (1..=PARTS).map(|part| format!("part {part}\n")).collect();
    ensure!(answer.status == 200 && answer.text() == parts, "{answer:?}");
    Ok(())
}

/// Eighty at once are in one instance at once, whatever its framework makes of them.
fn slow(service: &Service, language: &Language) -> Result<()> {
    const CALLS: usize = 80;
    let start = Barrier::new(CALLS);
    let target = format!("/slow?ms={}", language.slow_ms);
    let most = std::thread::scope(|scope| {
        let call = || {
            start.wait();
            let answer = service.get(&target)?;
            ensure!(answer.status == 200 && answer.text() == format!("slept {} ms\n", language.slow_ms), "{answer:?}");
            Ok(())
        };
        let calls: Vec<_> = (0..CALLS).map(|_| scope.spawn(call)).collect();
        let mut most = 0;
        while calls.iter().any(|call| !call.is_finished()) {
            most = most.max(in_flight(service)?);
        }
        calls.into_iter().try_for_each(joined)?;
        anyhow::Ok(most)
    })?;
    // Where the framework makes the later ones wait, the first ones may be gone when they are counted.
    let least = if language.threads < CALLS { CALLS - language.threads } else { CALLS };
    ensure!((least..=CALLS).contains(&most), "{most} of {CALLS} were in flight at once");
    Ok(())
}

/// Requests in the service's only instance.
fn in_flight(service: &Service) -> Result<usize> {
    let output = Command::new(program()).args(["instances", "--data-dir"]).arg(service.tanebi.data.path()).arg("list").output()?;
    let list = e2e::text(output, "tanebi instances list")?;
    let own: Vec<_> = list.lines().filter(|line| line.split('\t').next() == Some(&service.name)).collect();
    ensure!(own.len() <= 1, "{} has more than one instance:\n{list}", service.name);
    let count = |line: &&str| line.split('\t').find_map(|part| part.strip_suffix(" in flight")?.parse().ok());
    own.first().map_or(Ok(0), |line| count(line).with_context(|| format!("no count in {list}")))
}

fn cors(service: &Service, _: &Language) -> Result<()> {
    let asked = service.call("OPTIONS", "/cors", &["Origin: https://page.example", "Access-Control-Request-Method: GET"], b"")?;
    ensure!(asked.status == 204 && asked.body.is_empty(), "{asked:?}");
    for (name, value) in [("origin", "*"), ("methods", "GET"), ("headers", "Content-Type")] {
        ensure!(asked.field(&format!("access-control-allow-{name}")) == Some(value), "{name}: {asked:?}");
    }
    ensure!(asked.field("access-control-max-age") == Some("3600"), "{asked:?}");
    let answer = service.call("GET", "/cors", &["Origin: https://page.example"], b"")?;
    ensure!(answer.status == 200 && answer.text() == "Hello World!" && answer.field("access-control-allow-origin") == Some("*"), "{answer:?}");
    Ok(())
}

/// A form of two fields and a file.
fn upload(service: &Service, _: &Language) -> Result<()> {
    let file = &BODY[..10_000];
    let mut form = Vec::new();
    for (name, value) in [("title", "夏"), ("note", "a=1&b=2\r\nsecond line")] {
        form.extend(format!("--edge\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n").bytes());
    }
    form.extend(b"--edge\r\nContent-Disposition: form-data; name=\"photo\"; filename=\"kingfisher.jpg\"\r\nContent-Type: image/jpeg\r\n\r\n");
    form.extend(file);
    form.extend(b"\r\n--edge--\r\n");
    let answer = service.call("POST", "/upload", &["Content-Type: multipart/form-data; boundary=edge"], &form)?;
    ensure!(answer.status == 200, "{answer:?}");
    let expect = json!({
        "fields": { "title": "夏", "note": "a=1&b=2\r\nsecond line" },
        "files": { "photo": { "filename": "kingfisher.jpg", "bytes": file.len() } },
    });
    let seen = json_of(&answer)?;
    ensure!(seen == expect, "{seen}, not {expect}");
    Ok(())
}

fn environment(service: &Service, language: &Language) -> Result<()> {
    for (name, value) in [("K_SERVICE", service.name.as_str()), ("FUNCTION_TARGET", language.table), ("PORT", "8080"), ("K_NOTHING", "")] {
        let answer = service.get(&format!("/environment?name={name}"))?;
        ensure!(answer.status == 200 && answer.text() == value, "{name}: {answer:?}");
    }
    Ok(())
}

/// Method, path, query and fields arrive as they were sent.
fn echo(service: &Service, _: &Language) -> Result<()> {
    const QUERY: &str = "a=1&b=%20x+y&c=%E3%81%82&a=2&d";
    let fields = ["X-Own: kept as it is", "X-Many: a", "X-Many: b", "Content-Type: text/plain; charset=utf-8"];
    for (method, body) in [("GET", ""), ("POST", "本文"), ("PUT", "x"), ("PATCH", "{}"), ("DELETE", "")] {
        let answer = service.call(method, &format!("/echo?{QUERY}"), &fields, body.as_bytes())?;
        ensure!(answer.status == 200, "{method}: {answer:?}");
        let seen = json_of(&answer)?;
        for (name, value) in [("method", method), ("path", "/echo"), ("query", QUERY), ("body", body)] {
            ensure!(seen[name] == value, "{method}: {name} is {}, not {value:?}", seen[name]);
        }
        let headers = &seen["headers"];
        let many: Vec<_> = headers["x-many"].as_str().unwrap_or_default().split(',').map(str::trim).collect();
        ensure!(headers["x-own"] == "kept as it is" && many == ["a", "b"], "{method}: {headers}");
        ensure!(headers["host"] == service.host && headers["x-forwarded-proto"] == "http", "{method}: {headers}");
    }
    Ok(())
}

/// The function is asked for every path, subfolders too, and no part of one is taken for all of it.
fn paths(service: &Service, _: &Language) -> Result<()> {
    for path in ["/", "/hello/", "/echo/sub/folder", "/no/such/path?a=1"] {
        let answer = service.get(path)?;
        ensure!(answer.status == 404 && answer.text() == "no such path\n", "{path}: {answer:?}");
    }
    Ok(())
}

/// JSON that is none.
fn malformed(service: &Service, language: &Language) -> Result<()> {
    let answer = service.post_json("/hello", r#"{"name":"#)?;
    ensure!(answer.status == language.malformed_status, "{answer:?}");
    ensure!(answer.status != 200 || answer.text() == "Hello World!", "{answer:?}");
    Ok(())
}

/// What browsers ask for by themselves.
fn favicon(service: &Service, language: &Language) -> Result<()> {
    for path in ["/favicon.ico", "/robots.txt"] {
        let answer = service.get(path)?;
        ensure!(answer.status == 404 && (answer.text() != "no such path\n") == language.hides_favicon, "{path}: {answer:?}");
    }
    Ok(())
}

/// A failure is one request's own.
fn fail(service: &Service, _: &Language) -> Result<()> {
    for _ in 0..2 {
        let failed = service.get("/fail")?;
        ensure!(failed.status == 500, "{failed:?}");
        let answer = service.get("/hello")?;
        ensure!(answer.status == 200 && answer.text() == "Hello World!", "after a failure: {answer:?}");
    }
    Ok(())
}

/// A line is text, a structured one has a severity; both are in the log.
fn log(service: &Service, _: &Language) -> Result<()> {
    let answer = service.get("/log?text=%E5%A4%8F-line")?;
    ensure!(answer.status == 200 && answer.text() == "ok", "{answer:?}");
    let mut seen = Vec::new();
    eventually("both lines are in the log", || {
        seen = severities(&service.log()?, "夏-line");
        Ok((seen.len() >= 2).then_some(()))
    })?;
    seen.sort();
    ensure!(seen == ["DEFAULT", "WARNING"], "the severities of the two lines are {seen:?}");
    Ok(())
}

/// The severities of the lines that say `text` and nothing else.
fn severities(log: &str, text: &str) -> Vec<String> {
    let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    log.lines().map(words).filter(|words| words.get(3..).is_some_and(|rest| rest == [text])).map(|words| words[1].clone()).collect()
}

/// An instance is asked to end and may say a last word.
fn sigterm(service: &Service, _: &Language) -> Result<()> {
    let last_words = || anyhow::Ok(service.log()?.lines().filter(|line| line.ends_with(" table: SIGTERM")).count());
    let before = service.stopped.load(Ordering::Relaxed);
    eventually("the last words of those before are in the log", || Ok((last_words()? == before).then_some(())))?;
    ensure!(service.get("/hello")?.status == 200);
    holds(&service.tanebi.script_all(&format!("tanebi instances stop {}", service.name))?, "stopped 1")?;
    eventually("its last word is in the log", || Ok((last_words()? == before + 1).then_some(())))?;
    service.stopped.store(before + 1, Ordering::Relaxed);
    let answer = service.get("/hello")?;
    ensure!(answer.status == 200 && answer.text() == "Hello World!", "after the end: {answer:?}");
    Ok(())
}
