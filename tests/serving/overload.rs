//! More requests than can be served, with real connections: who is refused and when, what the served ones see, how soon all is well again;
//! and callers beside thousands of slow and idle connections.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use e2e::{http1, is_full};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinSet,
};

use super::Function;

/// One request's fate.
#[derive(Debug)]
struct Told {
    status: u16,
    /// From its being sent to the whole answer.
    took: Duration,
    /// From the function's own clock when it began to the whole answer: what a served request sees of the platform.
    since_slot: Duration,
    retry_after_s: Option<u64>,
}

/// Sends one request on a connection of its own.
async fn call(address: SocketAddr, host: Arc<str>, target: &str) -> Result<Told> {
    let sent = Instant::now();
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(format!("GET {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n").as_bytes()).await?;
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).await?;
    let took = sent.elapsed();
    let answer = http1::parse(&bytes)?;
    let began: f64 = if answer.status == 200 { answer.text().trim().parse().with_context(|| answer.text())? } else { 0.0 };
    let now = std::time::SystemTime::UNIX_EPOCH.elapsed()?.as_secs_f64();
    let since_slot = if began > 0.0 { Duration::from_secs_f64((now - began).max(0.0)) } else { Duration::ZERO };
    Ok(Told { status: answer.status, took, since_slot, retry_after_s: answer.field("retry-after").and_then(|value| value.parse().ok()) })
}

/// The value that a share of all does not exceed.
fn quantile(times: &mut [Duration], share: f64) -> Duration {
    times.sort_unstable();
    times[((times.len() as f64 * share).ceil() as usize).clamp(1, times.len()) - 1]
}

fn runtime() -> Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?)
}

const SERVICE_S: f64 = 0.2;
const OVER: usize = 10;
/// Google's hold time.
const HOLD: Duration = Duration::from_secs(10);

/// Ten times what can be served, open-loop: requests come whether or not the earlier ones were answered.
pub fn overload() -> Result<()> {
    let (concurrency, load_s) = if is_full() { (10, 60) } else { (4, 14) };
    let f = Function::deploy(&format!("--concurrency {concurrency} --max-instances 1 --memory 1Gi"))?;
    let (address, host) = (f.tanebi.listen, Arc::<str>::from(f.host.as_str()));
    let target: Arc<str> = format!("/stamp?s={SERVICE_S}").into();
    let capacity = concurrency as f64 / SERVICE_S;
    let rate = capacity * OVER as f64;
    runtime()?.block_on(async {
        let mut unloaded = Vec::new();
        for _ in 0..30 {
            let told = call(address, host.clone(), &target).await?;
            ensure!(told.status == 200, "{told:?}");
            unloaded.push(told.since_slot);
        }
        let mut calls = JoinSet::new();
        let began = Instant::now();
        let all = (rate * f64::from(load_s)) as usize;
        for n in 0..all {
            tokio::time::sleep_until((began + Duration::from_secs_f64(n as f64 / rate)).into()).await;
            let (host, target) = (host.clone(), target.clone());
            calls.spawn(async move { call(address, host, &target).await });
        }
        let loaded = began.elapsed();
        let mut told = Vec::new();
        while let Some(one) = calls.try_join_next() {
            told.push(one??);
        }
        // Whoever still waits hangs up: a slot is free at once for who comes now.
        let waiting = calls.len();
        calls.shutdown().await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        let after = call(address, host.clone(), &target).await?;
        ensure!(after.status == 200 && after.took < Duration::from_secs_f64(SERVICE_S * 2.0), "a second after the load: {after:?}");

        let count = |is: &dyn Fn(&&Told) -> bool| told.iter().filter(is).count();
        let served = count(&|one| one.status == 200);
        let refused: Vec<&Told> = told.iter().filter(|one| one.status == 429).collect();
        ensure!(served + refused.len() == told.len(), "other answers than 200 and 429: {:?}", told.iter().find(|one| !matches!(one.status, 200 | 429)));
        ensure!(refused.iter().all(|one| one.retry_after_s.is_some_and(|s| (1..=60).contains(&s))), "{:?}", refused.iter().find(|one| one.retry_after_s.is_none()));
        let (mut at_once, late): (Vec<Duration>, Vec<Duration>) = refused.iter().map(|one| one.took).partition(|took| *took < HOLD / 2);
        let longest = told.iter().filter(|one| one.status == 200).map(|one| one.took).max().unwrap_or_default();
        let mut slots: Vec<Duration> = told.iter().filter(|one| one.status == 200).map(|one| one.since_slot).collect();
        let (p50, p99) = (quantile(&mut at_once, 0.5), quantile(&mut at_once, 0.99));
        let (slot, slot_unloaded) = (quantile(&mut slots, 0.99), quantile(&mut unloaded, 0.99));
        println!(
            "  {all} requests at {rate:.0}/s for {:.1} s, capacity {capacity:.0}/s: {served} served (the longest after {:.1} s), {} refused at once (p50 {:.1} ms, \
             p99 {:.1} ms), {} at the end of the hold time, {waiting} waiting at the end; slot to reply p99 {:.0} ms, unloaded {:.0} ms",
            loaded.as_secs_f64(),
            longest.as_secs_f64(),
            at_once.len(),
            p50.as_secs_f64() * 1e3,
            p99.as_secs_f64() * 1e3,
            late.len(),
            slot.as_secs_f64() * 1e3,
            slot_unloaded.as_secs_f64() * 1e3,
        );
        // The queue holds what the hold time serves, so all that come after its first second are too many.
        ensure!(at_once.len() as f64 > 0.6 * (all - served) as f64, "most are refused at once, not {} of {}", at_once.len(), all - served);
        ensure!(served as f64 >= 0.9 * capacity * loaded.as_secs_f64(), "{served} served, {:.0} could have been", capacity * loaded.as_secs_f64());
        ensure!(late.iter().all(|took| *took >= HOLD && *took < HOLD + Duration::from_secs(3)), "{late:?}");
        let (at_once_max, slot_factor) = if is_full() { (Duration::from_millis(20), 1.5) } else { (Duration::from_millis(100), 2.5) };
        ensure!(p99 < at_once_max, "who is refused at once waits {p99:?}");
        ensure!(slot.as_secs_f64() < slot_factor * slot_unloaded.as_secs_f64(), "{slot:?} and {slot_unloaded:?}");
        Ok(())
    })?;
    let words = "The request was aborted because there was no available instance.";
    e2e::eventually("the log says why", || Ok(f.tanebi.script("tanebi logs f")?.contains(words).then_some(())))?;
    let why = f.tanebi.script("tanebi why-scaled f")?;
    e2e::holds(&why, "4 of 4 slots were taken; maximum reached, 2 wanted")
        .or_else(|error| if is_full() { e2e::holds(&why, "maximum reached") } else { Err(error) })
}

/// Connections that send a head byte by byte, and connections that send nothing, beside callers that ask one after the other.
pub fn slow_and_idle_connections() -> Result<()> {
    let (each, rounds) = if is_full() { (2000, 400) } else { (200, 60) };
    let f = Function::deploy("--memory 512Mi")?;
    let (address, host) = (f.tanebi.listen, Arc::<str>::from(f.host.as_str()));
    runtime()?.block_on(async {
        let normal = async || -> Result<Vec<Duration>> {
            let mut times = Vec::new();
            for _ in 0..rounds {
                let told = call(address, host.clone(), "/stamp?s=0").await?;
                ensure!(told.status == 200, "{told:?}");
                times.push(told.took);
            }
            Ok(times)
        };
        normal().await?;
        let mut before = normal().await?;
        let mut held = JoinSet::new();
        for n in 0..2 * each {
            let host = host.clone();
            held.spawn(async move {
                // Cut after ten seconds, and there again.
                loop {
                    let Ok(mut stream) = TcpStream::connect(address).await else { continue };
                    if n % 2 == 0 {
                        let head = format!("GET /stamp?s=0 HTTP/1.1\r\nHost: {host}\r\nX-Slow: {}", "a".repeat(1000));
                        for byte in head.as_bytes() {
                            if stream.write_all(&[*byte]).await.is_err() {
                                break;
                            }
                            tokio::time::sleep(Duration::from_secs(1)).await;
                        }
                    } else {
                        let _ = stream.read(&mut [0; 64]).await;
                    }
                }
            });
        }
        tokio::time::sleep(Duration::from_secs(3)).await;
        let mut during = normal().await?;
        held.shutdown().await;
        let ratio = |share| quantile(&mut during.clone(), share).as_secs_f64() / quantile(&mut before.clone(), share).as_secs_f64();
        let (p50, p90) = (ratio(0.5), ratio(0.9));
        println!(
            "  {each} slow and {each} idle connections: a normal request takes {:.2} ms (median; {:.2} without them), {p50:.2} times; p90 {p90:.2} times",
            quantile(&mut during, 0.5).as_secs_f64() * 1e3,
            quantile(&mut before, 0.5).as_secs_f64() * 1e3,
        );
        // The clients' own 4,000 connections are on this machine too.
        ensure!(p50 < if is_full() { 1.2 } else { 2.0 }, "{p50:.2} times");
        Ok(())
    })
}
