//! What a deployed function and its callers see: scaling, time limits, crashes, headers, the way out.

mod cpu;
mod overload;
mod pushes_out;
mod way_out;

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use cpu::scaling_by_cpu;
use e2e::{REGION, Tanebi, eventually, holds, http1, repository, tests};
use overload::{overload, slow_and_idle_connections};
use pushes_out::pushes_and_jobs_to_the_world;
use way_out::the_way_out;

pub fn tests() -> Vec<e2e::runner::Test> {
    tests!["serving"; contract, limits_of_time_and_memory, scaling, scaling_by_cpu, overload, slow_and_idle_connections, inside_and_outside, the_way_out, pushes_and_jobs_to_the_world, restart_keeps_what_was_deployed]
}

fn function() -> PathBuf {
    repository().join("tests/serving")
}

struct Function {
    tanebi: Tanebi,
    host: String,
}

impl Function {
    fn deploy(flags: &str) -> Result<Self> {
        let tanebi = Tanebi::start()?;
        tanebi.deploy("f", &function(), &format!("--function function --allow-unauthenticated {flags}"))?;
        let host = format!("f-{}.{REGION}.run.localhost", tanebi.number);
        Ok(Self { tanebi, host })
    }

    fn call(&self, method: &str, target: &str, fields: &[&str], body: &[u8]) -> Result<http1::Answer> {
        http1::call(self.tanebi.listen, method, target, &self.host, fields, body)
    }

    fn get(&self, target: &str) -> Result<http1::Answer> {
        self.call("GET", target, &[], b"")
    }
}

/// Environment, headers, bodies, streams, statuses, logs.
fn contract() -> Result<()> {
    let f = Function::deploy("--set-env-vars A=1")?;
    let env: serde_json::Value = serde_json::from_slice(&f.get("/env")?.body)?;
    for (name, value) in [("PORT", "8080"), ("K_SERVICE", "f"), ("K_CONFIGURATION", "f"), ("FUNCTION_TARGET", "function"), ("A", "1")] {
        ensure!(env[name] == value, "{name}: {env}");
    }
    ensure!(env["K_REVISION"].as_str().is_some_and(|r| r.starts_with("f-00001-")), "{env}");
    for host_name in ["HOME_OF_TEST", "CARGO_TARGET_DIR", "SSH_AUTH_SOCK", "PYTHONDONTWRITEBYTECODE"] {
        ensure!(env[host_name].is_null(), "{host_name} of the host is in the function's environment");
    }

    let token = f.tanebi.script("gcloud auth print-identity-token")?;
    let authorization = format!("Authorization: Bearer {}", token.trim());
    let headers: serde_json::Value = serde_json::from_slice(
        &f.call("GET", "/headers", &["X-Forwarded-For: 6.6.6.6", "X-Forwarded-Proto: https", &authorization, "Keep-Alive: 5", "X-Own: kept"], b"")?.body,
    )?;
    ensure!(headers["X-Forwarded-For"] == "127.0.0.1" && headers["X-Forwarded-Proto"] == "http" && headers["X-Own"] == "kept", "{headers}");
    ensure!(headers["X-Cloud-Trace-Context"].is_string() && headers["Traceparent"].is_string(), "{headers}");
    ensure!(headers["Authorization"].as_str().is_some_and(|a| a.ends_with(".SIGNATURE_REMOVED_BY_GOOGLE")), "{headers}");

    ensure!(f.call("POST", "/length", &[], &vec![b'x'; 5 << 20])?.text() == (5 << 20).to_string());
    ensure!(f.call("POST", "/length", &[], &vec![b'x'; 33 << 20])?.status == 413, "32 MiB is the limit");
    ensure!(f.get("/big?n=3000000")?.body.len() == 3_000_000);
    ensure!(f.get("/stream?n=4")?.text() == "part 0\npart 1\npart 2\npart 3\n");
    for code in [201, 404, 500, 503] {
        ensure!(f.get(&format!("/status?code={code}"))?.status == code);
    }
    ensure!(f.call("HEAD", "/", &[], b"")?.body.is_empty());
    ensure!(f.call("TRACE", "/", &[], b"")?.status >= 400);

    f.get("/log")?;
    eventually("the structured line is in the log", || {
        Ok(f.tanebi.script("tanebi logs f --log-filter 'severity=WARNING AND jsonPayload.n=1'")?.contains("from the function").then_some(()))
    })
}

fn limits_of_time_and_memory() -> Result<()> {
    let f = Function::deploy("--timeout 2 --memory 256Mi --concurrency 4")?;
    let started = Instant::now();
    let late = f.get("/sleep?s=20")?;
    ensure!(late.status == 504 && late.text() == "upstream request timeout", "{late:?}");
    ensure!(started.elapsed() < Duration::from_secs(15), "{:?}", started.elapsed());
    let crashed = f.get("/crash")?;
    ensure!(crashed.status == 503, "{crashed:?}");
    eventually("it answers again after a crash", || Ok((f.get("/x")?.status == 200).then_some(())))?;
    let eaten = f.get("/eat")?;
    ensure!(eaten.status == 503 || eaten.status == 504, "{eaten:?}");
    eventually("it answers again after its memory", || Ok((f.get("/x")?.status == 200).then_some(())))?;
    eventually("the log says why", || Ok(f.tanebi.script("tanebi logs f")?.contains("Memory limit of 256 MiB exceeded").then_some(())))
}

/// One request an instance: a second one at the same time gets a second instance, a third waits.
fn scaling() -> Result<()> {
    let f = Function::deploy("--concurrency 1 --max-instances 2")?;
    let f = &f;
    let slept = std::thread::scope(|scope| {
        let calls: Vec<_> = (0..2).map(|_| scope.spawn(|| f.get("/sleep?s=3"))).collect();
        eventually("two instances", || Ok((f.tanebi.script("tanebi instances list")?.lines().count() == 2).then_some(())))?;
        let pid = f.get("/pid")?;
        ensure!(pid.status == 200, "{pid:?}");
        for call in calls {
            ensure!(call.join().expect("no panic")?.text() == "slept");
        }
        Ok(())
    });
    slept?;
    // More than two can serve for longer than anyone waits: refused, with the reason in the log.
    std::thread::scope(|scope| {
        let calls: Vec<_> = (0..2).map(|_| scope.spawn(|| f.get("/sleep?s=25"))).collect();
        eventually("both are busy", || Ok((f.tanebi.script("tanebi instances list")?.matches("\t1 in flight").count() == 2).then_some(())))?;
        let refused = f.get("/pid")?;
        ensure!(refused.status == 429 && refused.text() == "Rate exceeded.", "{refused:?}");
        for call in calls {
            call.join().expect("no panic")?;
        }
        Ok(())
    })
}

/// Ingress by where a request comes from; the metadata server; walls around the way out.
fn inside_and_outside() -> Result<()> {
    let f = Function::deploy("")?;
    let tanebi = &f.tanebi;
    let metadata = |path: &str| -> Result<String> { Ok(f.get(&format!("/metadata?path={path}"))?.text()) };
    ensure!(metadata("project/project-id")? == "tanebi-local");
    ensure!(metadata("project/numeric-project-id")? == tanebi.number);
    holds(&metadata("instance/region")?, REGION)?;
    holds(&metadata("instance/service-accounts/default/email")?, "-compute@developer.gserviceaccount.com")?;
    ensure!(metadata("instance/service-accounts/default/identity?audience=https://x.example")?.split('.').count() == 3);

    tanebi.deploy("inner", &function(), "--function function --allow-unauthenticated --ingress internal")?;
    let inner = tanebi.url("inner");
    ensure!(tanebi.script(&format!("curl -s -o /dev/null -w '%{{http_code}}' {inner}"))? == "404");
    let from_function = f.get(&format!("/fetch?url={inner}/from-inside"))?;
    ensure!(from_function.text().starts_with("GET /from-inside"), "{from_function:?}");

    let host = std::net::TcpListener::bind("0.0.0.0:0")?;
    let port = host.local_addr()?.port();
    for target in ["127.0.0.1", "localhost", "0.0.0.0", "::1", "169.254.169.254", "10.0.0.1", "192.168.0.1", "[::ffff:127.0.0.1]", "2130706433"] {
        let target = target.trim_matches(['[', ']']);
        let answer = f.get(&format!("/connect?host={target}&port={port}"))?.text();
        ensure!(answer.starts_with("refused"), "{target}: {answer}");
    }
    eventually("the log says so", || Ok(tanebi.script("tanebi logs f")?.contains("A connection to 10.0.0.1").then_some(())))?;
    let own = f.get(&format!("/connect?host=127.0.0.1&port={}", tanebi.listen.port()))?.text();
    ensure!(own.starts_with("refused"), "tanebi's own port: {own}");
    Ok(())
}

fn restart_keeps_what_was_deployed() -> Result<()> {
    let mut f = Function::deploy("")?;
    ensure!(f.get("/x")?.status == 200);
    // The daemon dies: the supervisor starts it again.
    let seen = f.tanebi.ready_count();
    let daemon = *e2e::children(f.tanebi.pid()).first().ok_or_else(|| anyhow::anyhow!("no daemon"))?;
    e2e::kill(daemon, "KILL")?;
    f.tanebi.ready_wait(seen)?;
    ensure!(f.get("/x")?.text().starts_with("GET /x"));
    // The keeper dies: the daemon gives up and is started again.
    let seen = f.tanebi.ready_count();
    let daemon = *e2e::children(f.tanebi.pid()).first().ok_or_else(|| anyhow::anyhow!("no daemon"))?;
    let keeper = *e2e::children(daemon).first().ok_or_else(|| anyhow::anyhow!("no keeper"))?;
    e2e::kill(keeper, "KILL")?;
    f.tanebi.ready_wait(seen)?;
    ensure!(f.get("/x")?.text().starts_with("GET /x"));
    // In order, and again.
    let number = f.tanebi.number.clone();
    let tanebi = Tanebi::start_with(f.tanebi.stop()?, &[])?;
    ensure!(tanebi.number == number, "the project's number stays");
    let again = Function { tanebi, host: f.host };
    ensure!(again.get("/x")?.text().starts_with("GET /x"));
    Ok(())
}
