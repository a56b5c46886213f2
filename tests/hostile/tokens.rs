//! Forged and odd tokens, at a private service and at an API: refused each; the good ones pass before and after.

use std::{
    io::Write,
    process::{Command, Stdio},
};

use anyhow::{Context, Result, ensure};
use e2e::{PROJECT, REGION, Tanebi, http1, text};
use serde_json::{Value, json};

use super::{Client, GUEST, OWNER, bearer, here, host, id_token, own};

pub(super) fn forged_tokens() -> Result<()> {
    let tanebi = Tanebi::start()?;
    tanebi.deploy("f", &e2e::repository().join("examples/python/hello_http"), "--function hello_http --no-allow-unauthenticated")?;
    let audience = tanebi.url("f");
    let services = format!("/v2/projects/{PROJECT}/locations/{REGION}/services");
    let at_service = |fields: &[&str]| Ok::<_, anyhow::Error>(http1::call(tanebi.listen, "GET", "/", &host(&tanebi, "f"), fields, b"")?.status);
    let at_api = |fields: &[&str]| Ok::<_, anyhow::Error>(http1::call(tanebi.listen, "GET", &services, "run.googleapis.com", fields, b"")?.status);

    let owner = Client::new(&tanebi, OWNER)?;
    let good_id = id_token(&tanebi, OWNER, &audience)?;
    let by_gcloud = tanebi.script("gcloud auth print-identity-token")?;
    let good_access = owner.token.clone().context("the owner has a token")?;
    let good_ones_pass = || -> Result<()> {
        for token in [&good_id, by_gcloud.trim()] {
            ensure!(at_service(&[&bearer(token)])? == 200, "a good ID token");
        }
        ensure!(at_api(&[&bearer(&good_access)])? == 200, "a good access token");
        Ok(())
    };
    good_ones_pass()?;

    let forged = forge(&tanebi, &owner, &audience, &good_id)?;
    let (mut ids, mut accesses) = (0, 0);
    let rows: Vec<(String, String, String)> = serde_json::from_value(forged["forged"].clone())?;
    for (name, token, place) in &rows {
        let field = bearer(token);
        if place != "access" {
            let status = at_service(&[&field]).with_context(|| name.clone())?;
            ensure!(status == 401, "{name} at the service: {status}");
            ids += 1;
        }
        if place != "id" {
            let status = at_api(&[&field]).with_context(|| name.clone())?;
            ensure!(status == 401, "{name} at the API: {status}");
            accesses += 1;
        }
    }
    println!("  {ids} tokens refused at a service, {accesses} at an API");
    ensure!(ids >= 100 && accesses >= 100, "{ids} and {accesses} tokens are fewer than there were");

    // Good credentials of somebody without the role; and none at all, which a service answers with 403 as Google does.
    let guest = Client::new(&tanebi, GUEST)?.token.context("a token")?;
    ensure!(at_service(&[&bearer(&id_token(&tanebi, GUEST, &audience)?)])? == 403, "a guest's good ID token");
    ensure!(at_api(&[&bearer(&guest)])? == 403, "a guest's good access token");
    let self_signed = forged["good"].as_str().context("a good self-signed token")?;
    ensure!(at_api(&[&bearer(self_signed)])? == 403, "an account's good self-signed token, without a role");
    let (basic, empty, bare) = ("Authorization: Basic ZGV2ZWxvcGVyOng=", "Authorization: Bearer ", format!("Authorization: {good_id}"));
    for fields in [&[][..], &[basic], &[empty], &["Authorization:"], &[&bare]] {
        ensure!(at_service(fields)? == 403, "no token at the service: {fields:?}");
        ensure!(at_api(fields)? == 401, "no token at the API: {fields:?}");
    }
    // Of two answers to one question none is taken; the header for services comes first.
    ensure!(at_api(&[&bearer(&good_access), &bearer("x.y.z")])? == 401, "two headers at the API");
    let serverless = |token: &str| format!("X-Serverless-Authorization: Bearer {token}");
    ensure!(at_service(&[&bearer(&good_id), &serverless("x.y.z")])? == 401, "the header for services comes first");
    ensure!(at_service(&[&bearer("x.y.z"), &serverless(&good_id)])? == 200, "the other header is the application's");
    // Tokens in the query stand in logs: not taken.
    let in_query = http1::call(tanebi.listen, "GET", &format!("{services}?access_token={good_access}"), "run.googleapis.com", &[], b"")?.status;
    ensure!(in_query == 401, "a token in the query: {in_query}");
    good_ones_pass()?;
    let log = tanebi.output();
    ensure!(![&good_id, &good_access, self_signed].iter().any(|token| log.contains(*token)), "a token stands in the log");
    Ok(())
}

/// Gives the forger what an attacker has.
fn forge(tanebi: &Tanebi, owner: &Client, audience: &str, owner_id: &str) -> Result<Value> {
    let session = own(tanebi, "POST", "/_tanebi/v1/sessions", &json!({ "email": GUEST }))?;
    let published = |host: &str, path: &str| -> Result<String> { Ok(http1::call(tanebi.listen, "GET", path, host, &[], b"")?.text()) };
    let jwks = published("www.googleapis.com", "/oauth2/v3/certs")?;
    let parsed: Value = serde_json::from_str(&jwks)?;
    let certificates: Value = serde_json::from_str(&published("www.googleapis.com", "/oauth2/v1/certs")?)?;
    let certificate = certificates.as_object().and_then(|all| all.values().next()).and_then(Value::as_str).context("a certificate")?;
    let elsewhere = [
        format!("{audience}/path?a=1"),
        audience.to_uppercase(),
        format!("{audience}.evil.example"),
        audience.replace("https", "http").replace("f-", "g-"),
        "*".to_owned(),
        "32555940559.apps.googleusercontent.com.evil".to_owned(),
    ];
    let audiences: Result<serde_json::Map<_, _>> = elsewhere.into_iter().map(|to| Ok((to.clone(), json!(id_token(tanebi, OWNER, &to)?)))).collect();
    let have = json!({
        "guest_id": id_token(tanebi, GUEST, audience)?,
        "guest_access": session["accessToken"],
        "refresh": session["refreshToken"],
        "secret": std::fs::read_to_string(tanebi.data.path().join("client/secret"))?.trim(),
        "owner_claims": owner_id.split('.').nth(1),
        "audience": audience,
        "elsewhere": id_token(tanebi, OWNER, "https://g-1.asia-northeast1.run.app")?,
        "audiences": audiences?,
        "jwks": jwks,
        "jwks_uri": "https://www.googleapis.com/oauth2/v3/certs",
        "modulus": parsed["keys"][0]["n"],
        "certificate": certificate,
        "key": account_key(owner, "the-forger")?,
        "other_key": account_key(owner, "forgers-friend")?,
    });
    let mut forger = Command::new("python3").arg(here().join("forge.py")).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    forger.stdin.take().context("stdin")?.write_all(have.to_string().as_bytes())?;
    Ok(serde_json::from_str(&text(forger.wait_with_output()?, "forge.py")?)?)
}

/// The key file of a new account.
fn account_key(owner: &Client, name: &str) -> Result<String> {
    use base64::Engine;
    let accounts = format!("/v1/projects/{PROJECT}/serviceAccounts");
    let account = owner.json("POST", "iam.googleapis.com", &accounts, &json!({ "accountId": name, "serviceAccount": {} }))?;
    let email = account["email"].as_str().context("an e-mail")?;
    let key = owner.json("POST", "iam.googleapis.com", &format!("{accounts}/{email}/keys"), &json!({ "privateKeyType": "TYPE_GOOGLE_CREDENTIALS_FILE" }))?;
    let file = base64::engine::general_purpose::STANDARD.decode(key["privateKeyData"].as_str().context("a key")?)?;
    Ok(String::from_utf8(file)?)
}
