//! What strangers try: code that wants out, bombs, crooked HTTP, forged tokens, calls without a right, evil archives, pages of others.
//!
//! The built program is attacked as an attacker would: by deployed functions, by what a build runs, and by bytes on its ports.
//! Each table counts what it tried, so that a list that has become empty fails.

mod archives;
mod bombs;
mod floods;
mod http;
mod pages;
mod permissions;
mod probes;
mod tokens;

use std::{net::SocketAddr, path::PathBuf, sync::Mutex, time::Duration};

use anyhow::{Context, Result, ensure};
use archives::evil_archives;
use bombs::bombs_hurt_nobody_else;
use e2e::{REGION, Tanebi, eventually, http1, repository, tests};
use floods::http2_floods;
use http::http_limits;
use pages::pages_from_elsewhere_get_nothing;
use permissions::api_methods_need_permission;
use probes::{probes_from_a_function_and_a_build_step, probes_from_clones};
use serde_json::{Value, json};
use tokens::forged_tokens;

pub fn tests() -> Vec<e2e::runner::Test> {
    tests![
        "hostile";
        pages_from_elsewhere_get_nothing,
        api_methods_need_permission,
        evil_archives,
        forged_tokens,
        http_limits,
        http2_floods,
        probes_from_a_function_and_a_build_step,
        probes_from_clones,
        bombs_hurt_nobody_else,
    ]
}

const OWNER: &str = "developer@tanebi.local";
const GUEST: &str = "guest@example.com";

/// This folder.
fn here() -> PathBuf {
    repository().join("tests/hostile")
}

/// The host by which a machine without proxy calls a service of the default project.
pub(crate) fn host(tanebi: &Tanebi, service: &str) -> String {
    format!("{service}-{}.{REGION}.run.localhost", tanebi.number)
}

/// One of tanebi's own methods, with the operator's secret.
pub(crate) fn own(tanebi: &Tanebi, method: &str, path: &str, body: &Value) -> Result<Value> {
    let secret = std::fs::read_to_string(tanebi.data.path().join("client/secret"))?;
    let address = tanebi.listen.to_string();
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let answer = http1::call(tanebi.listen, method, path, &address, &[&bearer(secret.trim())], body.as_bytes())?;
    ensure!(answer.status == 200, "{method} {path}: {} {}", answer.status, answer.text());
    Ok(serde_json::from_slice(&answer.body)?)
}

/// An access token of `email`, a user who is made when there is none.
fn access_token(tanebi: &Tanebi, email: &str) -> Result<String> {
    let session = own(tanebi, "POST", "/_tanebi/v1/sessions", &json!({ "email": email }))?;
    Ok(session["accessToken"].as_str().context("a session has an access token")?.to_owned())
}

pub(crate) fn id_token(tanebi: &Tanebi, email: &str, audience: &str) -> Result<String> {
    let issued = own(tanebi, "POST", "/_tanebi/v1/idTokens", &json!({ "email": email, "audience": audience }))?;
    Ok(issued["idToken"].as_str().context("an ID token")?.to_owned())
}

pub(crate) fn bearer(token: &str) -> String {
    format!("Authorization: Bearer {token}")
}

/// Google's APIs by hand, as whoever `token` is of.
pub(crate) struct Client {
    pub(crate) address: SocketAddr,
    pub(crate) token: Option<String>,
}

impl Client {
    pub(crate) fn new(tanebi: &Tanebi, email: &str) -> Result<Self> {
        Ok(Self { address: tanebi.listen, token: Some(access_token(tanebi, email)?) })
    }

    pub(crate) fn call(&self, method: &str, host: &str, target: &str, body: &[u8]) -> Result<http1::Answer> {
        let authorization = self.token.as_deref().map(bearer);
        let fields: Vec<&str> = authorization.as_deref().into_iter().chain(["Content-Type: application/json"]).collect();
        http1::call(self.address, method, target, host, &fields, body)
    }

    /// The answer of a call that must succeed; `null` when it is empty.
    pub(crate) fn json(&self, method: &str, host: &str, target: &str, body: &Value) -> Result<Value> {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let answer = self.call(method, host, target, body.as_bytes())?;
        ensure!(answer.status == 200, "{method} {host}{target}: {} {}", answer.status, answer.text());
        Ok(if answer.body.is_empty() { Value::Null } else { serde_json::from_slice(&answer.body)? })
    }
}

/// What failed in a table: the whole of it is told, not the first row alone.
#[derive(Default)]
pub(crate) struct Faults(Mutex<Vec<String>>);

impl Faults {
    pub(crate) fn check(&self, what: &str, result: Result<()>) {
        if let Err(error) = result {
            self.0.lock().expect("no panic while held").push(format!("{what}: {error:#}"));
        }
    }

    pub(crate) fn none(self) -> Result<()> {
        let faults = self.0.into_inner().expect("no panic while held");
        ensure!(faults.is_empty(), "{} rows failed:\n{}", faults.len(), faults.join("\n"));
        Ok(())
    }
}

/// Resident bytes of a process.
fn resident_bytes(pid: u32) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let kib: u64 = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("VmRSS")?.trim().trim_end_matches(" kB").parse()?;
    Ok(kib << 10)
}

/// The process that parses what strangers send.
fn daemon(tanebi: &Tanebi) -> Result<u32> {
    e2e::children(tanebi.pid()).first().copied().context("the supervisor has a daemon")
}

/// Waits until a GET of the service answers 200.
fn answers(tanebi: &Tanebi, service: &str) -> Result<()> {
    let host = host(tanebi, service);
    eventually(&format!("{service} answers"), || Ok(http1::call(tanebi.listen, "GET", "/", &host, &[], b"").ok().filter(|a| a.status == 200).map(drop)))
}

/// Longer than any limit under test, shorter than what a test may take.
const QUIET: Duration = Duration::from_secs(45);
