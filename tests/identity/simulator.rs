//! `tanebi iam why-denied` and `who-can`: forty questions whose answers are known, requests that were refused, and lines that mend.

use anyhow::{Context, Result, anyhow, ensure};
use e2e::{PROJECT, REGION, Tanebi, eventually, holds, http1};
use serde_json::{Value, json};

use super::{ALICE, NOW, OWNER, deploy, status_for, timed};
use crate::hostile::{Client, Faults, bearer, host, id_token};

const BOB: &str = "bob@example.com";
const CAROL: &str = "carol@corp.example";
const TROUBLE: &str = "policytroubleshooter.googleapis.com";

/// Who (an address, or `@NAME` for an account), for what, the answer, what stands in the way, and a part of the line that mends it.
type Row = (&'static str, &'static str, bool, &'static [&'static str], &'static str);

const ROWS: &[Row] = &[
    // At a private service.
    ("developer@tanebi.local", "service=private", true, &[], ""),
    (
        "alice@example.com",
        "service=private",
        false,
        &["MISSING_BINDING"],
        "gcloud run services add-iam-policy-binding private --region=asia-northeast1 --member=user:alice@example.com --role=roles/run.invoker",
    ),
    ("user:alice@example.com", "service=private&region=asia-northeast1", false, &["MISSING_BINDING"], "roles/run.invoker"),
    ("allUsers", "service=private", false, &["NO_TOKEN"], "gcloud auth print-identity-token"),
    ("nobody@example.com", "service=private", false, &["PRINCIPAL_UNKNOWN", "MISSING_BINDING"], "tanebi exec --as nobody@example.com"),
    ("bob@example.com", "service=private", true, &[], ""),
    ("bob@example.com", "service=private&permission=run.services.get", false, &["MISSING_BINDING"], "gcloud run services add-iam-policy-binding private"),
    ("bob@example.com", "service=private&permission=run.services.fly", false, &["UNKNOWN_PERMISSION"], ""),
    ("@worker", "service=private", false, &["MISSING_BINDING"], "--member=serviceAccount:worker-1@"),
    ("@retired", "service=private", false, &["ACCOUNT_DISABLED"], "gcloud iam service-accounts enable retired-1@"),
    ("@gone", "service=private", false, &["PRINCIPAL_UNKNOWN", "MISSING_BINDING"], "gcloud iam service-accounts create gone-1"),
    ("dave@example.com", "service=private", true, &[], ""),
    ("erin@example.com", "service=private", false, &["MISSING_BINDING"], "roles/run.invoker"),
    // At others.
    ("alice@example.com", "service=public", true, &[], ""),
    ("allUsers", "service=public", true, &[], ""),
    ("@retired", "service=public", false, &["ACCOUNT_DISABLED"], "enable"),
    ("allUsers", "service=unchecked", true, &[], ""),
    ("alice@example.com", "service=unchecked&permission=run.services.get", false, &["MISSING_BINDING"], "unchecked"),
    ("developer@tanebi.local", "service=internal", false, &["INGRESS"], "gcloud run services update internal --region=asia-northeast1 --ingress=all"),
    ("developer@tanebi.local", "service=internal&from=inside", true, &[], ""),
    ("alice@example.com", "service=internal", false, &["INGRESS", "MISSING_BINDING"], "--ingress=all"),
    ("alice@example.com", "service=internal&from=inside", false, &["MISSING_BINDING"], "add-iam-policy-binding internal"),
    ("developer@tanebi.local", "service=internal&permission=run.services.get", true, &[], ""),
    // Conditions.
    ("alice@example.com", "service=timed", true, &[], ""),
    ("bob@example.com", "service=timed", false, &["CONDITION"], "--member=user:bob@example.com --role=roles/run.invoker --condition=None"),
    ("carol@corp.example", "service=timed", false, &["CONDITION"], "--condition=None"),
    // The project's own roles.
    ("erin@example.com", "service=timed", false, &["ROLE_DELETED"], "gcloud iam roles undelete Gone --project=tanebi-local"),
    ("dave@example.com", "service=timed", false, &["ROLE_DISABLED"], "gcloud iam roles update Off --project=tanebi-local --stage=GA"),
    // Deny policies.
    (
        "mallory@example.com",
        "service=public",
        false,
        &["DENY_POLICY"],
        "gcloud iam policies update no-mallory --attachment-point=cloudresourcemanager.googleapis.com/projects/tanebi-local --kind=denypolicies",
    ),
    ("mallory@example.com", "service=private", false, &["DENY_POLICY", "MISSING_BINDING"], "no-mallory"),
    ("mallory@example.com", "service=unchecked", true, &[], ""),
    // Other resources.
    ("developer@tanebi.local", "permission=run.services.create", true, &[], ""),
    (
        "alice@example.com",
        "permission=run.services.create",
        false,
        &["MISSING_BINDING"],
        "gcloud projects add-iam-policy-binding tanebi-local --member=user:alice@example.com",
    ),
    ("carol@corp.example", "permission=run.services.list", true, &[], ""),
    ("alice@example.com", "resource=gs://simulated-1&permission=storage.objects.get", true, &[], ""),
    (
        "alice@example.com",
        "resource=gs://simulated-1&permission=storage.objects.create",
        false,
        &["MISSING_BINDING"],
        "gcloud storage buckets add-iam-policy-binding gs://simulated-1",
    ),
    (
        "@worker",
        "resource=projects/tanebi-local/secrets/simulated&permission=secretmanager.versions.access",
        false,
        &["MISSING_BINDING"],
        "gcloud secrets add-iam-policy-binding simulated",
    ),
    (
        "alice@example.com",
        "resource=projects/tanebi-local/topics/simulated&permission=pubsub.topics.publish",
        false,
        &["MISSING_BINDING"],
        "gcloud pubsub topics add-iam-policy-binding simulated --member=user:alice@example.com --role=roles/pubsub.publisher",
    ),
    (
        "developer@tanebi.local",
        "resource=projects/tanebi-local/serviceAccounts/worker-1@tanebi-local.iam.gserviceaccount.com&permission=iam.serviceAccounts.getAccessToken",
        false,
        &["MISSING_BINDING"],
        "gcloud iam service-accounts add-iam-policy-binding worker-1@",
    ),
    (
        "developer@tanebi.local",
        "resource=projects/tanebi-local/serviceAccounts/worker-1@tanebi-local.iam.gserviceaccount.com&permission=iam.serviceAccounts.actAs",
        true,
        &[],
        "",
    ),
    (
        "bob@example.com",
        "resource=projects/tanebi-local&permission=resourcemanager.projects.get",
        false,
        &["MISSING_BINDING"],
        "gcloud projects add-iam-policy-binding",
    ),
];

pub(super) fn forty_cases_of_the_simulator() -> Result<()> {
    let tanebi = timed()?;
    let owner = Client::new(&tanebi, OWNER)?;
    settings_make(&tanebi, &owner)?;
    ensure!(ROWS.len() >= 40, "{} rows", ROWS.len());
    let faults = Faults::default();
    for row in ROWS {
        faults.check(&format!("{} {}", row.0, row.1), row_check(&owner, row));
    }
    faults.none()?;
    println!("  {} questions", ROWS.len());
    // What it says is what a caller meets.
    for (who, service, _) in [
        (ALICE, "private", 403),
        (BOB, "private", 200),
        (ALICE, "public", 200),
        ("mallory@example.com", "public", 403),
        (BOB, "timed", 403),
        (ALICE, "timed", 200),
    ] {
        let allowed = why(&owner, who, &format!("service={service}"))?["allowed"] == true;
        let status = status_for(&tanebi, service, who)?;
        ensure!(allowed == (status == 200), "{who} at {service}: {status}, and the simulator says {allowed}");
    }
    // Who may not read the policy is told nothing.
    let guest = Client::new(&tanebi, ALICE)?;
    ensure!(guest.call("GET", TROUBLE, &path("whyDenied", "principal=x@example.com"), b"")?.status == 403);

    requests_by_their_trace(&tanebi, &owner)?;
    lines_that_mend(&tanebi, &owner)?;
    who_can(&tanebi)
}

fn path(method: &str, query: &str) -> String {
    format!("/tanebi/v1/projects/{PROJECT}:{method}?{query}")
}

fn account(name: &str) -> String {
    format!("{name}-1@{PROJECT}.iam.gserviceaccount.com")
}

fn why(owner: &Client, who: &str, question: &str) -> Result<Value> {
    let who = who.strip_prefix('@').map_or_else(|| who.to_owned(), account);
    owner.json("GET", TROUBLE, &path("whyDenied", &format!("principal={who}&{question}")), &Value::Null)
}

fn row_check(owner: &Client, (who, question, allowed, kinds, fix): &Row) -> Result<()> {
    let told = why(owner, who, question)?;
    let reasons = told["reasons"].as_array().context("reasons")?;
    let found: Vec<_> = reasons.iter().filter_map(|reason| reason["kind"].as_str()).collect();
    ensure!(told["allowed"] == *allowed && found == *kinds, "{told:#}");
    ensure!(reasons.iter().all(|reason| reason["message"].as_str().is_some_and(|message| message.len() > 20)), "{told:#}");
    if !fix.is_empty() {
        reasons.iter().filter_map(|reason| reason["fix"].as_str()).find(|line| line.contains(fix)).ok_or_else(|| anyhow!("no line with {fix:?}: {told:#}"))?;
    }
    Ok(())
}

fn settings_make(tanebi: &Tanebi, owner: &Client) -> Result<()> {
    for service in ["private", "public", "internal", "timed", "unchecked"] {
        deploy(tanebi, service)?;
    }
    for user in [ALICE, BOB, CAROL, "dave@example.com", "erin@example.com", "mallory@example.com"] {
        Client::new(tanebi, user)?;
    }
    for name in ["worker", "retired"] {
        owner.json("POST", "iam.googleapis.com", &format!("/v1/projects/{PROJECT}/serviceAccounts"), &json!({ "accountId": format!("{name}-1") }))?;
    }
    owner.json("POST", "iam.googleapis.com", &format!("/v1/projects/{PROJECT}/serviceAccounts/{}:disable", account("retired")), &json!({}))?;
    for (id, permission) in [("Gone", "run.routes.invoke"), ("Off", "run.routes.invoke")] {
        let role = json!({ "roleId": id, "role": { "title": id, "includedPermissions": [permission], "stage": "GA" } });
        owner.json("POST", "iam.googleapis.com", &format!("/v1/projects/{PROJECT}/roles"), &role)?;
    }
    let policy = |resource: &str, bindings: Value| {
        let body = json!({ "policy": { "version": 3, "bindings": bindings } });
        owner.json("POST", "run.googleapis.com", &format!("/v2/projects/{PROJECT}/locations/{REGION}/services/{resource}:setIamPolicy"), &body)
    };
    let invoker = "roles/run.invoker";
    let of = |role: &str| format!("projects/{PROJECT}/roles/{role}");
    policy(
        "private",
        json!([{ "role": invoker, "members": [format!("user:{BOB}"), "user:dave@example.com", format!("serviceAccount:{}", account("retired"))] }]),
    )?;
    policy("public", json!([{ "role": invoker, "members": ["allUsers"] }]))?;
    let until = |at: &str| json!({ "title": "until", "expression": format!("request.time < timestamp('{at}')") });
    policy(
        "timed",
        json!([
            { "role": invoker, "members": [format!("user:{ALICE}")], "condition": until("2027-04-01T00:00:00Z") },
            { "role": invoker, "members": [format!("user:{BOB}")], "condition": until("2027-02-01T00:00:00Z") },
            { "role": invoker, "members": ["domain:corp.example"], "condition": { "title": "by path", "expression": "request.path == '/'" } },
            { "role": of("Gone"), "members": ["user:erin@example.com"] },
            { "role": of("Off"), "members": ["user:dave@example.com"] },
        ]),
    )?;
    owner.json("DELETE", "iam.googleapis.com", &format!("/v1/{}", of("Gone")), &Value::Null)?;
    owner.json("PATCH", "iam.googleapis.com", &format!("/v1/{}?updateMask=stage", of("Off")), &json!({ "stage": "DISABLED" }))?;
    let service = |name: &str| format!("/v2/projects/{PROJECT}/locations/{REGION}/services/{name}");
    owner.json(
        "PATCH",
        "run.googleapis.com",
        &format!("{}?updateMask=ingress", service("internal")),
        &json!({ "ingress": "INGRESS_TRAFFIC_INTERNAL_ONLY" }),
    )?;
    owner.json("PATCH", "run.googleapis.com", &format!("{}?updateMask=invokerIamDisabled", service("unchecked")), &json!({ "invokerIamDisabled": true }))?;
    let mut project = owner.json("POST", "cloudresourcemanager.googleapis.com", &format!("/v1/projects/{PROJECT}:getIamPolicy"), &json!({}))?;
    let bindings = project["bindings"].as_array_mut().context("bindings")?;
    bindings.push(json!({ "role": "roles/iam.denyAdmin", "members": [format!("user:{OWNER}")] }));
    bindings.push(json!({ "role": "roles/run.viewer", "members": ["domain:corp.example"] }));
    owner.json("POST", "cloudresourcemanager.googleapis.com", &format!("/v1/projects/{PROJECT}:setIamPolicy"), &json!({ "policy": project }))?;
    let rule = json!({ "denyRule": { "deniedPrincipals": ["principal://goog/subject/mallory@example.com"], "deniedPermissions": ["run.googleapis.com/routes.invoke"] } });
    let deny = format!("/v2/policies/cloudresourcemanager.googleapis.com%2Fprojects%2F{PROJECT}/denypolicies?policyId=no-mallory");
    owner.json("POST", "iam.googleapis.com", &deny, &json!({ "rules": [rule] }))?;
    owner.json("POST", "storage.googleapis.com", &format!("/storage/v1/b?project={PROJECT}"), &json!({ "name": "simulated-1" }))?;
    let viewer = json!({ "bindings": [{ "role": "roles/storage.objectViewer", "members": [format!("user:{ALICE}")] }] });
    owner.json("PUT", "storage.googleapis.com", "/storage/v1/b/simulated-1/iam", &viewer)?;
    owner.json(
        "POST",
        "secretmanager.googleapis.com",
        &format!("/v1/projects/{PROJECT}/secrets?secretId=simulated"),
        &json!({ "replication": { "automatic": {} } }),
    )?;
    owner.json("PUT", "pubsub.googleapis.com", &format!("/v1/projects/{PROJECT}/topics/simulated"), &json!({}))?;
    eventually("the settings are the data plane's", || Ok((status_for(tanebi, "internal", OWNER)? == 404).then_some(())))
}

/// Requests that were refused are told of by the trace in their log entries.
fn requests_by_their_trace(tanebi: &Tanebi, owner: &Client) -> Result<()> {
    let expired = id_token(tanebi, BOB, &tanebi.url("private"))?;
    let elsewhere = id_token(tanebi, BOB, "https://elsewhere.example")?;
    let alice = id_token(tanebi, ALICE, &tanebi.url("private"))?;
    let worker = id_token(tanebi, &account("worker"), "https://elsewhere.example")?;
    let cases: [(&str, Option<&str>, u16, &str, &str); 6] = [
        ("private", None, 403, "NO_TOKEN", "gcloud auth print-identity-token"),
        ("private", Some(&alice), 403, "MISSING_BINDING", "--member=user:alice@example.com"),
        ("private", Some(&elsewhere), 401, "AUDIENCE", "--add-custom-audiences='https://elsewhere.example'"),
        ("private", Some(&worker), 401, "AUDIENCE", "--impersonate-service-account=worker-1@"),
        ("private", Some("x.y.z"), 401, "BAD_TOKEN", "gcloud auth print-identity-token"),
        ("internal", Some(&alice), 404, "INGRESS", "--ingress=all"),
    ];
    let refused = |service: &str, token: Option<&str>, trace: &str| -> Result<u16> {
        let (trace, token) = (format!("traceparent: 00-{trace}-00000000000000ff-01"), token.map(bearer));
        let fields: Vec<&str> = [trace.as_str()].into_iter().chain(token.as_deref()).collect();
        Ok(http1::call(tanebi.listen, "GET", "/", &host(tanebi, service), &fields, b"")?.status)
    };
    for (at, (service, token, status, kind, fix)) in cases.iter().enumerate() {
        let trace = format!("{:032x}", 0xabc0 + at);
        ensure!(refused(service, *token, &trace)? == *status, "{kind}");
        let text = tanebi.script(&format!("tanebi iam why-denied --request projects/{PROJECT}/traces/{trace}"))?;
        for part in [*kind, *fix, "was refused:"] {
            holds(&text, part)?;
        }
        ensure!(token.is_none_or(|token| !text.contains(token)), "the token is told: {text}");
    }
    // The trace of a request that named none is in its log entry.
    ensure!(refused("private", Some(&alice), "not-a-trace")? == 403);
    let logged = eventually("the request is logged", || {
        let log = tanebi.script("gcloud logging read 'logName:requests AND httpRequest.status=403' --limit 1 --order desc --format 'value(trace)'")?;
        Ok((!log.trim().is_empty()).then(|| log.trim().to_owned()))
    })?;
    holds(&tanebi.script(&format!("tanebi iam why-denied --request {logged}"))?, "MISSING_BINDING")?;
    holds(&tanebi.script_failing("tanebi iam why-denied --request 00000000000000000000000000000001")?, "among the last that were not let in")?;

    // An account that was disabled since its token was made, and a token that is over.
    let token = id_token(tanebi, &account("worker"), &tanebi.url("private"))?;
    owner.json("POST", "iam.googleapis.com", &format!("/v1/projects/{PROJECT}/serviceAccounts/{}:disable", account("worker")), &json!({}))?;
    ensure!(refused("private", Some(&token), &"d".repeat(32))? == 401);
    holds(&tanebi.script(&format!("tanebi iam why-denied --request {}", "d".repeat(32)))?, "gcloud iam service-accounts enable worker-1@")?;
    tanebi.script("tanebi clock advance 2h")?;
    ensure!(refused("private", Some(&expired), &"e".repeat(32))? == 401);
    let text = tanebi.script(&format!("tanebi iam why-denied --request {}", "e".repeat(32)))?;
    holds(&text, &format!("EXPIRED_TOKEN: The token has expired, or is not valid yet. It was good until {}", NOW.replace("00:00:00", "01:00:00")))
}

/// The lines are typed, and what they were for is there.
fn lines_that_mend(tanebi: &Tanebi, owner: &Client) -> Result<()> {
    let owner = Client { address: owner.address, token: Client::new(tanebi, OWNER)?.token };
    let questions = [
        (ALICE, "service=private"),
        (BOB, "service=timed"),
        ("dave@example.com", "service=timed"),
        (ALICE, "permission=run.services.list"),
        (ALICE, "resource=gs://simulated-1&permission=storage.objects.create"),
    ];
    for (who, question) in questions {
        let told = why(&owner, who, question)?;
        let fix = told["reasons"][0]["fix"].as_str().with_context(|| format!("{told:#}"))?;
        tanebi.script_all(fix)?;
        let after = why(&owner, who, question)?;
        ensure!(after["allowed"] == true, "{fix}: {after:#}");
    }
    ensure!(status_for(tanebi, "private", ALICE)? == 200);
    // A request that was refused before would be let in now.
    let before = tanebi.script(&format!("tanebi iam why-denied --request {:032x} --format json", 0xabc1))?;
    ensure!(serde_json::from_str::<Value>(&before)?["allowedNow"] == true, "{before}");
    let text = tanebi.script("tanebi iam why-denied --principal alice@example.com --service private")?;
    for part in ["user:alice@example.com has run.routes.invoke on projects/tanebi-local/locations/asia-northeast1/services/private.", "by roles/run.invoker"] {
        holds(&text, part)?;
    }
    Ok(())
}

fn who_can(tanebi: &Tanebi) -> Result<()> {
    let text = tanebi.script("tanebi iam who-can invoke timed")?;
    for part in
        ["user:alice@example.com", "when request.time < timestamp('2027-04-01T00:00:00Z')", "user:developer@tanebi.local", "roles/owner", "domain:corp.example"]
    {
        holds(&text, part)?;
    }
    let json: Value = serde_json::from_str(&tanebi.script("tanebi iam who-can invoke private --format json")?)?;
    let may = |member: &str| json["principals"].as_array().into_iter().flatten().find(|one| one["member"] == member).map(|one| one["may"] == true);
    ensure!(may("user:bob@example.com") == Some(true) && may(&format!("serviceAccount:{}", account("retired"))) == Some(false), "{json:#}");
    ensure!(may("user:carol@corp.example").is_none(), "{json:#}");
    holds(&tanebi.script("tanebi iam who-can storage.objects.get gs://simulated-1")?, "roles/storage.objectViewer")?;
    holds(&tanebi.script("tanebi iam who-can invoke unchecked")?, "asks no caller")?;
    holds(&tanebi.script_failing("tanebi iam who-can invoke no-such")?, "does not exist")?;
    holds(&tanebi.script_failing("tanebi iam who-can run.services.fly private")?, "is no permission of this server")
}
