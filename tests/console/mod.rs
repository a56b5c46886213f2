//! The console: the article in a real browser, every page, and what its origin lets in.

use std::{collections::BTreeMap, path::PathBuf, process::Command, sync::Mutex};

use anyhow::{Context, Result, ensure};
use e2e::{Tanebi, holds, repository, tests};
use serde_json::Value;

pub fn tests() -> Vec<e2e::runner::Test> {
    tests!["console"; both_languages_have_all_texts, only_its_own_page_calls, article_in_japanese, article_in_english]
}

/// No text is missing or empty, and placeholders are the same.
fn both_languages_have_all_texts() -> Result<()> {
    let read = |language: &str| -> Result<BTreeMap<String, String>> {
        Ok(serde_json::from_slice(&std::fs::read(repository().join(format!("web/src/texts/{language}.json")))?)?)
    };
    let (english, japanese) = (read("en")?, read("ja")?);
    ensure!(english.keys().eq(japanese.keys()), "the texts of the two languages have different keys");
    let places = regex::Regex::new(r"\{\{\w+\}\}")?;
    for (key, text) in &english {
        let other = &japanese[key];
        ensure!(!text.is_empty() && !other.is_empty(), "{key} is empty");
        let sorted = |text: &str| {
            let mut found: Vec<_> = places.find_iter(text).map(|place| place.as_str().to_owned()).collect();
            found.sort();
            found
        };
        ensure!(sorted(text) == sorted(other), "{key} has different places: {text} {other}");
    }
    Ok(())
}

/// The session is a cookie, calls need the page's own header and origin, and nobody has more rights here than elsewhere.
fn only_its_own_page_calls() -> Result<()> {
    let tanebi = Tanebi::start()?;
    let port = tanebi.listen.port();
    let origin = format!("http://console.localhost:{port}");
    let resolve = format!("console.localhost:{port}:127.0.0.1");
    let call = |arguments: &[&str]| -> Result<String> {
        let common = ["-sS", "--noproxy", "*", "--resolve", &resolve, "-w", "\n%{http_code}"];
        e2e::text(Command::new("curl").args(common).args(arguments).output()?, "curl")
    };
    let own = ["-H", "x-tanebi-console: 1", "-H", "content-type: application/json"];
    let sign_in = |link: &str, from: &str| {
        call(
            &[&own[..], &["-i", "-H", &format!("origin: {from}"), "-d", &format!("{{\"link\":\"{link}\"}}"), &format!("{origin}/_console/v1/session")]]
                .concat(),
        )
    };

    // The page itself is for everyone, with a policy that lets no other script in.
    let page = call(&["-i", &format!("{origin}/services/new")])?;
    for part in ["script-src 'self'", "frame-ancestors 'none'", "require-trusted-types-for 'script'", "cache-control: no-store", "\n200"] {
        holds(&page, part)?;
    }

    // A link signs in once; another site's page cannot use it.
    let secret = secret_of(&tanebi, "")?;
    holds(&sign_in(&secret, "http://evil.example")?, "\n403")?;
    let signed_in = sign_in(&secret, &origin)?;
    holds(&signed_in, "\n200")?;
    holds(&signed_in, "HttpOnly; SameSite=Strict")?;
    holds(&sign_in(&secret, &origin)?, "\n401")?;
    let cookie = cookie_of(&signed_in)?;

    let services = format!("{origin}/api/run.googleapis.com/v2/projects/tanebi-local/locations/-/services");
    let with = |cookie: &str, more: &[&str]| call(&[&["-H", &format!("cookie: {cookie}")], more].concat());
    holds(&with(&cookie, &[&own[..], &[services.as_str()]].concat())?, "\n200")?;
    holds(&call(&[&own[..], &[services.as_str()]].concat())?, "\n401")?;
    // A cookie alone, as another page's image or form would bring it.
    holds(&with(&cookie, &[&services])?, "\n403")?;
    holds(&with(&cookie, &[&own[..], &["-H", "sec-fetch-site: same-site", &services]].concat())?, "\n403")?;
    let topic = format!("{origin}/api/pubsub.googleapis.com/v1/projects/tanebi-local/topics/greetings");
    let function = format!("http://f-{}.asia-northeast1.run.localhost:{port}", tanebi.number);
    holds(&with(&cookie, &[&own[..], &["-X", "PUT", "-d", "{}", "-H", &format!("origin: {function}"), &topic]].concat())?, "\n403")?;
    holds(&with(&cookie, &[&own[..], &["-X", "PUT", "-d", "{}", "-H", &format!("origin: {origin}"), &topic]].concat())?, "\n200")?;
    // Neither tokens nor sign-in pages are behind the gateway, and a name that leads here by DNS is another host.
    holds(&with(&cookie, &[&own[..], &[format!("{origin}/api/oauth2.googleapis.com/tokeninfo").as_str()]].concat())?, "\n404")?;
    holds(&call(&["-H", &format!("host: evil.example:{port}"), &format!("http://127.0.0.1:{port}/")])?, "\n404")?;
    // The cookie is good nowhere else.
    let token = cookie.split_once('=').context("a cookie")?.1;
    let bearer = format!("authorization: Bearer {token}");
    holds(&call(&["-H", &bearer, &format!("http://127.0.0.1:{port}/v2/projects/tanebi-local/locations/-/services")])?, "\n401")?;

    // Someone without a role sees nothing.
    let nobody = cookie_of(&sign_in(&secret_of(&tanebi, "--as nobody@example.com")?, &origin)?)?;
    holds(&with(&nobody, &[&own[..], &[services.as_str()]].concat())?, "\n403")?;
    holds(&with(&nobody, &[&own[..], &[format!("{origin}/_console/v1/meters").as_str()]].concat())?, "{\"meters\":[]}")?;

    let post = |method: &str, body: &str| {
        with(&nobody, &[&own[..], &["-H", &format!("origin: {origin}"), "-d", body, &format!("{origin}/_console/v1/{method}")]].concat())
    };
    let service = r#"{"region":"asia-northeast1","service":"f","revision":"f-1"}"#;
    holds(&post("requests:count", service)?, "\n403")?;
    holds(&post("requests:shadow", service)?, "\n403")?;
    let doctor = format!("{origin}/_console/v1/doctor");
    holds(&with(&nobody, &[&own[..], &[doctor.as_str()]].concat())?, "\n403")?;
    holds(&with(&cookie, &[&own[..], &[doctor.as_str()]].concat())?, "\"walls\":[")?;

    // Signing out ends the session, on the server.
    holds(&with(&cookie, &[&own[..], &["-X", "DELETE", "-H", &format!("origin: {origin}"), &format!("{origin}/_console/v1/session")]].concat())?, "\n200")?;
    holds(&with(&cookie, &[&own[..], &[services.as_str()]].concat())?, "\n401")
}

fn article_in_japanese() -> Result<()> {
    article("ja")
}

fn article_in_english() -> Result<()> {
    article("en")
}

/// The article from an empty installation, then every page with what it has left behind.
fn article(language: &str) -> Result<()> {
    let folder = modules()?;
    let tanebi = Tanebi::start()?;
    for play in ["article", "triggers", "shadow", "pages", "many"] {
        let link = format!("http://console.localhost:{}/#link={}", tanebi.listen.port(), secret_of(&tanebi, "")?);
        // Pictures are left only where someone asks for them.
        let pictures = std::env::var("TANEBI_PICTURES").unwrap_or_default();
        let told = tanebi.script_all(&format!("cd '{}'\nnode {play}.mjs {language} '{link}' 'bash -s' {pictures}", folder.display()))?;
        for line in told.lines().filter(|line| line.contains(" ms") || line.contains(" in ")) {
            println!("  {line}");
        }
    }
    Ok(())
}

/// The secret of a link of `tanebi env`.
fn secret_of(tanebi: &Tanebi, flags: &str) -> Result<String> {
    let document: Value = serde_json::from_str(&tanebi.script(&format!("tanebi env --format json {flags}"))?)?;
    let link = document["console"].as_str().context("env names the console")?;
    Ok(link.split_once("/#link=").context("the console's address has a link")?.1.to_owned())
}

fn cookie_of(answer: &str) -> Result<String> {
    let line = answer.lines().find(|line| line.to_ascii_lowercase().starts_with("set-cookie:")).with_context(|| format!("a cookie is set:\n{answer}"))?;
    Ok(line.split_once(": ").and_then(|(_, rest)| rest.split(';').next()).context("a cookie has a value")?.to_owned())
}

/// The folder of the plays, with what they need from npm, fetched once for each list of it.
fn modules() -> Result<PathBuf> {
    // Two plays may begin at the same time.
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _one = ONE_AT_A_TIME.lock().expect("no panic while held");
    let folder = repository().join("tests/console");
    let (lock, mark) = (folder.join("package-lock.json"), folder.join("node_modules/.tanebi-lock.json"));
    if std::fs::read(&mark).ok() != Some(std::fs::read(&lock)?) {
        let npm = Command::new("npm").args(["ci", "--ignore-scripts", "--no-fund", "--no-audit", "--quiet"]).current_dir(&folder).output()?;
        e2e::text(npm, "npm ci")?;
        std::fs::copy(&lock, &mark)?;
    }
    Ok(folder)
}
