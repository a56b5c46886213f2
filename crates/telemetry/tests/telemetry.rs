//! Entries in and out through the public interface: order, pages, bounds, restarts, broken files.

use std::{
    fs,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::{Duration, Instant},
};

use model::{
    Clock, Timestamp,
    log::{Entry, LogName, Payload, Severity, Source},
};
use telemetry::{MeterKey, Page, Query, QueryError, Retention, Telemetry};

/// 2026-11-24T06:00:00Z.
const START_S: i64 = 1_795_500_000;

struct ManualClock(AtomicI64);

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_second(self.0.load(Ordering::Relaxed)).unwrap()
    }

    fn until(&self, _: Timestamp) -> model::clock::Until {
        Box::pin(std::future::pending())
    }
}

fn clock() -> Arc<ManualClock> {
    Arc::new(ManualClock(AtomicI64::new(START_S)))
}

fn open(dir: &Path) -> Telemetry {
    Telemetry::open(dir, clock()).unwrap()
}

fn source(project: &str, service: &str) -> Arc<Source> {
    Arc::new(Source {
        project: project.into(),
        region: "asia-northeast1".into(),
        service: service.into(),
        revision: format!("{service}-00001-abc"),
        instance: "i1".into(),
        build: String::new(),
        job: String::new(),
        managed_by: String::new(),
    })
}

/// A line of output, `second` seconds from the start.
fn line(source: &Arc<Source>, second: i64, text: &str) -> Entry {
    Entry {
        source: source.clone(),
        log: LogName::Stdout,
        time: Timestamp::from_second(START_S + second).unwrap(),
        severity: Severity::Info,
        payload: Payload::Text(text.into()),
        http: None,
        trace: String::new(),
        span: String::new(),
        trace_sampled: false,
        labels: Default::default(),
    }
}

fn query(filter: &str) -> Query {
    Query { projects: vec!["p".into()], filter: filter.into(), limit: 1000, ..Query::default() }
}

fn texts(page: &Page) -> Vec<&str> {
    page.entries
        .iter()
        .map(|(_, entry)| match &entry.payload {
            Payload::Text(text) => text.as_str(),
            _ => "",
        })
        .collect()
}

#[tokio::test]
async fn entries_come_back_as_they_were_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let telemetry = open(folder.path());
    let source = source("p", "s");
    let mut full = line(&source, 2, "");
    full.payload = Payload::Json(r#"{"a":"b"}"#.into());
    full.log = LogName::Requests;
    full.severity = Severity::Critical;
    full.trace = "projects/p/traces/t".into();
    full.span = "77".into();
    full.trace_sampled = true;
    full.labels = [("k".into(), "v \"quoted\" 日本".into())].into();
    full.http = Some(model::log::HttpRequest {
        method: "GET".into(),
        url: "/".into(),
        request_bytes: 1,
        status: 204,
        response_bytes: u64::MAX,
        user_agent: "u".into(),
        remote_ip: "::1".into(),
        referer: "r".into(),
        latency_us: 9,
        protocol: "HTTP/2".into(),
    });
    let mut none = line(&source, 1, "");
    none.payload = Payload::None;
    let logged = [full, none, line(&source, 3, "later"), line(&source, 3, "later still")];
    logged.iter().cloned().for_each(|entry| telemetry.log(entry));
    telemetry.flush().await;

    let page = telemetry.entries(&query("")).unwrap();
    let found: Vec<&Entry> = page.entries.iter().map(|(_, entry)| entry).collect();
    assert_eq!(found, [&logged[1], &logged[0], &logged[2], &logged[3]]);
    assert_eq!(page.next, None);
    let newest = telemetry.entries(&Query { newest_first: true, ..query("") }).unwrap();
    let backwards: Vec<&Entry> = newest.entries.iter().rev().map(|(_, entry)| entry).collect();
    assert_eq!(backwards, found);
    assert!(page.entries[2].0 < page.entries[3].0, "insertIds rise");
}

#[tokio::test]
async fn only_the_projects_asked_for_are_seen() {
    let folder = tempfile::tempdir().unwrap();
    let telemetry = open(folder.path());
    telemetry.log(line(&source("p", "s"), 0, "mine"));
    telemetry.log(line(&source("q", "s"), 0, "theirs"));
    telemetry.flush().await;
    assert_eq!(texts(&telemetry.entries(&query("")).unwrap()), ["mine"]);
    assert_eq!(texts(&telemetry.entries(&query("resource.labels.project_id=q OR theirs")).unwrap()), [] as [&str; 0]);
    let none = Query { projects: Vec::new(), ..query("") };
    assert_eq!(texts(&telemetry.entries(&none).unwrap()), [] as [&str; 0]);
}

#[tokio::test]
async fn pages_hold_everything_once() {
    let folder = tempfile::tempdir().unwrap();
    let telemetry = open(folder.path());
    let sources = [source("p", "a"), source("p", "b")];
    // Many of one second: the insertId decides.
    for number in 0..500_i64 {
        telemetry.log(line(&sources[number as usize % 2], number / 50, &number.to_string()));
    }
    telemetry.flush().await;
    for newest_first in [false, true] {
        for filter in ["", "resource.labels.service_name=b", "\"7\""] {
            let whole = Query { newest_first, ..query(filter) };
            let all = telemetry.entries(&whole).unwrap();
            assert!(all.next.is_none() && !all.entries.is_empty());
            let mut paged = Vec::new();
            let mut next = None;
            loop {
                let page = telemetry.entries(&Query { limit: 7, page: next, ..whole.clone() }).unwrap();
                assert!(page.entries.len() <= 7);
                paged.extend(page.entries);
                next = page.next;
                if next.is_none() {
                    break;
                }
            }
            assert_eq!(paged, all.entries, "{filter} {newest_first}");
        }
    }
}

#[tokio::test]
async fn a_token_belongs_to_its_query() {
    let folder = tempfile::tempdir().unwrap();
    let telemetry = open(folder.path());
    for number in 0..10 {
        telemetry.log(line(&source("p", "s"), number, "x"));
    }
    telemetry.flush().await;
    let first = telemetry.entries(&Query { limit: 2, ..query("") }).unwrap();
    let token = first.next.unwrap();
    let other = Query { page: Some(token.clone()), ..query("x") };
    assert!(matches!(telemetry.entries(&other), Err(QueryError::Page)));
    for odd in ["", "x", &token[1..], &format!("{token}0"), &"é".repeat(24)] {
        let odd = Query { page: Some(odd.into()), ..query("") };
        assert!(matches!(telemetry.entries(&odd), Err(QueryError::Page)));
    }
}

#[tokio::test]
async fn a_filter_that_is_none_is_an_error_with_its_place() {
    let folder = tempfile::tempdir().unwrap();
    let telemetry = open(folder.path());
    let error = telemetry.entries(&query("severity>=")).unwrap_err().to_string();
    assert_eq!(error, "Unparseable filter: syntax error: expected a value, found the end at line 1, column 11");
    let error = telemetry.entries(&query(&"x".repeat(20_001))).unwrap_err().to_string();
    assert!(error.contains("at most 20000"), "{error}");
}

#[tokio::test]
async fn entries_outlive_a_restart_and_ids_go_on_rising() {
    let folder = tempfile::tempdir().unwrap();
    let telemetry = open(folder.path());
    telemetry.log(line(&source("p", "s"), 0, "before"));
    drop(telemetry);
    let telemetry = open(folder.path());
    telemetry.log(line(&source("p", "s"), 0, "after"));
    telemetry.flush().await;
    let page = telemetry.entries(&query("")).unwrap();
    assert_eq!(texts(&page), ["before", "after"]);
    assert!(page.entries[0].0 < page.entries[1].0);
}

#[tokio::test]
async fn entries_are_readable_soon_without_a_flush() {
    let folder = tempfile::tempdir().unwrap();
    let telemetry = open(folder.path());
    telemetry.log(line(&source("p", "s"), 0, "x"));
    let start = Instant::now();
    while telemetry.entries(&query("")).unwrap().entries.is_empty() {
        assert!(start.elapsed() < Duration::from_secs(120), "the entry does not appear");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_log_at_once_and_what_is_not_written_is_counted() {
    let folder = tempfile::tempdir().unwrap();
    let telemetry = open(folder.path());
    let threads: Vec<_> = (0..4)
        .map(|thread| {
            let telemetry = telemetry.clone();
            std::thread::spawn(move || {
                let source = source("p", &format!("s{thread}"));
                for number in 0..10_000 {
                    telemetry.log(line(&source, 0, &number.to_string()));
                }
            })
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    telemetry.flush().await;
    let mut found = 0;
    let mut next = None;
    loop {
        let page = telemetry.entries(&Query { page: next, ..query("log_id(\"run.googleapis.com/stdout\")") }).unwrap();
        found += page.entries.len() as u64;
        next = page.next;
        if next.is_none() {
            break;
        }
    }
    assert_eq!(found + telemetry.entries_dropped(), 40_000);
    // Each source that lost some says how many: together not more than were lost.
    let told: u64 = telemetry
        .entries(&query("log_id(\"run.googleapis.com/varlog/system\")"))
        .unwrap()
        .entries
        .iter()
        .map(|(_, entry)| match &entry.payload {
            Payload::Text(text) => text.split(' ').next().unwrap().parse::<u64>().unwrap(),
            other => panic!("{other:?}"),
        })
        .sum();
    assert!(told <= telemetry.entries_dropped());
    // A few may be in the total only, when two are noted at once.
    assert!(told > 0 || telemetry.entries_dropped() < 100);
}

#[tokio::test]
async fn a_broken_file_is_set_aside() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("telemetry.db");
    let check = async |content: &[u8]| {
        fs::write(&path, content).unwrap();
        let telemetry = open(folder.path());
        telemetry.log(line(&source("p", "s"), 0, "anew"));
        telemetry.flush().await;
        assert_eq!(texts(&telemetry.entries(&query("")).unwrap()), ["anew"]);
        drop(telemetry);
        // SQLite may have noted in the header that there is a WAL.
        let aside = fs::read(folder.path().join("telemetry.db.broken")).unwrap();
        assert_eq!(aside.len(), content.len());
        assert_eq!(aside[..16], content[..16]);
        fs::remove_file(&path).unwrap();
    };
    check(b"this is no database at all, but long enough to be looked at").await;
    // A database of something else.
    let other = folder.path().join("other.db");
    rusqlite::Connection::open(&other).unwrap().execute_batch("CREATE TABLE entry (x); PRAGMA user_version = 1").unwrap();
    check(&fs::read(&other).unwrap()).await;
    rusqlite::Connection::open(&other).unwrap().execute_batch("PRAGMA user_version = 99").unwrap();
    check(&fs::read(&other).unwrap()).await;
}

#[tokio::test]
async fn a_file_that_breaks_while_it_is_used_is_set_aside_too() {
    let folder = tempfile::tempdir().unwrap();
    let telemetry = open(folder.path());
    telemetry.log(line(&source("p", "s"), 0, "before"));
    telemetry.flush().await;
    drop(telemetry);
    let telemetry = open(folder.path());
    // Under its hands: nothing of it is cached yet but the first page.
    let path = folder.path().join("telemetry.db");
    let bytes = fs::read(&path).unwrap();
    fs::write(&path, vec![0x5A; bytes.len()]).unwrap();
    let start = Instant::now();
    loop {
        telemetry.log(line(&source("p", "t"), 1, "after"));
        telemetry.flush().await;
        if telemetry.entries(&query("after")).is_ok_and(|page| !page.entries.is_empty()) {
            break;
        }
        assert!(start.elapsed() < Duration::from_secs(120), "logs do not begin anew");
    }
    assert!(folder.path().join("telemetry.db.broken").exists());
}

#[tokio::test]
async fn old_entries_go() {
    let folder = tempfile::tempdir().unwrap();
    let clock = clock();
    let retention = Retention { age_max: Duration::from_secs(3 * 24 * 3600), ..Retention::DEFAULT };
    let telemetry = Telemetry::open_with(folder.path(), clock.clone(), retention).unwrap();
    let day = 24 * 3600;
    for number in 0..6 {
        telemetry.log(line(&source("p", &format!("s{number}")), number * day, &number.to_string()));
    }
    telemetry.flush().await;
    drop(telemetry);
    clock.0.store(START_S + 6 * day, Ordering::Relaxed);
    let telemetry = Telemetry::open_with(folder.path(), clock, retention).unwrap();
    // The first look is before the first batch.
    telemetry.flush().await;
    assert_eq!(texts(&telemetry.entries(&query("")).unwrap()), ["3", "4", "5"]);
    // Sources without entries go with them, those with some stay known.
    assert_eq!(texts(&telemetry.entries(&query("resource.labels.service_name=s4")).unwrap()), ["4"]);
    telemetry.log(line(&source("p", "s0"), 6 * day, "back"));
    telemetry.flush().await;
    assert_eq!(texts(&telemetry.entries(&query("resource.labels.service_name=s0")).unwrap()), ["back"]);
}

#[tokio::test]
async fn the_file_stays_within_its_bytes() {
    const BYTES_MAX: u64 = 4 << 20;
    let folder = tempfile::tempdir().unwrap();
    let retention = Retention { bytes_max: BYTES_MAX, ..Retention::DEFAULT };
    let telemetry = Telemetry::open_with(folder.path(), clock(), retention).unwrap();
    let source = source("p", "s");
    let text = "x".repeat(1000);
    for number in 0..20_000 {
        telemetry.log(line(&source, number, &format!("{number} {text}")));
        if number % 2000 == 0 {
            telemetry.flush().await;
        }
    }
    telemetry.flush().await;
    let newest = telemetry.entries(&Query { newest_first: true, limit: 1, ..query("") }).unwrap();
    assert!(texts(&newest)[0].starts_with("19999 "));
    let oldest = telemetry.entries(&Query { limit: 1, ..query("") }).unwrap();
    assert!(!texts(&oldest)[0].starts_with("0 "));
    drop(telemetry);
    let bytes = fs::metadata(folder.path().join("telemetry.db")).unwrap().len();
    // A batch or two over it: it is looked at between batches.
    assert!(bytes < 4 * BYTES_MAX, "{bytes} bytes");
}

#[test]
fn meters_are_shared() {
    let folder = tempfile::tempdir().unwrap();
    let telemetry = open(folder.path());
    let key = MeterKey { project: "p".into(), region: "r".into(), service: "s".into(), revision: "s-1".into() };
    telemetry.meter(&key).request(200, Duration::from_millis(3));
    telemetry.clone().meter(&key).request(200, Duration::from_millis(3));
    let meters = telemetry.meters();
    assert_eq!(meters.len(), 1);
    assert_eq!(meters[0].1.snapshot().requests_by_class[2], 2);
    assert!(telemetry.prometheus().contains("revision=\"s-1\",class=\"2xx\"} 2\n"));
    telemetry.meter_forget(&key);
    assert!(telemetry.meters().is_empty());
}

#[test]
fn a_folder_that_is_none_is_an_error() {
    let error = Telemetry::open(Path::new("/nonexistent/folder"), clock()).err().map(|error| error.to_string());
    assert!(error.is_some_and(|error| error.contains("open telemetry.db")));
}
