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
    let right = right_ones(&tanebi, &owner, &forged["right"], &good_id, &good_access)?;
    println!("  {right} right ones taken");
    ensure!(right >= 15, "{right} right tokens are fewer than there were");
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

/// Tokens that are good, in every way that they are had and sent: each is taken. How many there were.
fn right_ones(tanebi: &Tanebi, owner: &Client, signed: &Value, owner_id: &str, owner_access: &str) -> Result<usize> {
    let email = format!("the-forger@{PROJECT}.iam.gserviceaccount.com");
    let bind = |path: &str, host: &str, role: &str, member: String, keep: Value| -> Result<()> {
        let mut bindings = keep.as_array().cloned().unwrap_or_default();
        bindings.push(json!({ "role": role, "members": [member] }));
        owner.json("POST", host, &format!("{path}:setIamPolicy"), &json!({ "policy": { "bindings": bindings } })).map(drop)
    };
    let account = format!("serviceAccount:{email}");
    bind(&format!("/v2/projects/{PROJECT}/locations/{REGION}/services/f"), "run.googleapis.com", "roles/run.invoker", account.clone(), json!([]))?;
    let project = owner.json("POST", "cloudresourcemanager.googleapis.com", &format!("/v1/projects/{PROJECT}:getIamPolicy"), &json!({}))?;
    bind(&format!("/v1/projects/{PROJECT}"), "cloudresourcemanager.googleapis.com", "roles/run.viewer", account, project["bindings"].clone())?;
    let creator = "roles/iam.serviceAccountTokenCreator";
    bind(&format!("/v1/projects/{PROJECT}/serviceAccounts/{email}"), "iam.googleapis.com", creator, format!("user:{OWNER}"), json!([]))?;

    let audience = tanebi.url("f");
    let credentials = |method: &str, body: &Value, name: &str| -> Result<String> {
        let made = owner.json("POST", "iamcredentials.googleapis.com", &format!("/v1/projects/-/serviceAccounts/{email}:{method}"), body)?;
        Ok(made[name].as_str().with_context(|| format!("{made}"))?.to_owned())
    };
    let grant = |name: &str, wanted: &str| -> Result<String> {
        let form = format!("grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Ajwt-bearer&assertion={}", signed[name].as_str().context("an assertion")?);
        let fields = ["Content-Type: application/x-www-form-urlencoded"];
        let answer = http1::call(tanebi.listen, "POST", "/token", "oauth2.googleapis.com", &fields, form.as_bytes())?;
        let made: Value = serde_json::from_slice(&answer.body)?;
        Ok(made[wanted].as_str().with_context(|| format!("{name}: {made}"))?.to_owned())
    };
    let described = owner.json("GET", "run.googleapis.com", &format!("/v2/projects/{PROJECT}/locations/{REGION}/services/f"), &Value::Null)?;
    let urls: Vec<&str> = described["urls"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    ensure!(urls.len() >= 2, "{described}");

    let mut at_service = vec![
        ("a user's", format!("Authorization: Bearer {owner_id}")),
        ("with the scheme in lower case", format!("authorization: bearer {owner_id}")),
        ("in the header for services", format!("X-Serverless-Authorization: Bearer {owner_id}")),
        ("for the URL with a slash", bearer(&id_token(tanebi, OWNER, &format!("{audience}/"))?)),
        ("gcloud's own audience", bearer(&id_token(tanebi, OWNER, "32555940559.apps.googleusercontent.com")?)),
        ("an account's, with its address", bearer(&credentials("generateIdToken", &json!({ "audience": audience, "includeEmail": true }), "token")?)),
        ("an account's, without", bearer(&credentials("generateIdToken", &json!({ "audience": audience }), "token")?)),
        ("for an assertion", bearer(&grant("for_id", "id_token")?)),
        ("gcloud's", bearer(tanebi.script("gcloud auth print-identity-token")?.trim())),
        (
            "gcloud's of an account",
            bearer(
                tanebi.script(&format!("gcloud auth print-identity-token --impersonate-service-account {email} --audiences {audience} 2>/dev/null"))?.trim(),
            ),
        ),
    ];
    for url in urls {
        at_service.push(("for another of its URLs", bearer(&id_token(tanebi, OWNER, url)?)));
    }
    let at_api = [
        ("a user's", bearer(owner_access)),
        ("with the scheme in lower case", format!("authorization: bearer {owner_access}")),
        ("an account's", bearer(&credentials("generateAccessToken", &json!({ "scope": ["https://www.googleapis.com/auth/cloud-platform"] }), "accessToken")?)),
        ("for an assertion", bearer(&grant("for_access", "access_token")?)),
        ("self-signed for the API", bearer(signed["audience"].as_str().context("a token")?)),
        ("self-signed with a scope", bearer(signed["scope"].as_str().context("a token")?)),
        ("gcloud's", bearer(tanebi.script("gcloud auth print-access-token")?.trim())),
    ];
    let services = format!("/v2/projects/{PROJECT}/locations/{REGION}/services");
    for (name, field) in &at_service {
        let status = http1::call(tanebi.listen, "GET", "/", &host(tanebi, "f"), &[field], b"")?.status;
        ensure!(status == 200, "a right ID token, {name}: {status}");
    }
    for (name, field) in &at_api {
        let status = http1::call(tanebi.listen, "GET", &services, "run.googleapis.com", &[field], b"")?.status;
        ensure!(status == 200, "a right access token, {name}: {status}");
    }
    Ok(at_service.len() + at_api.len())
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
