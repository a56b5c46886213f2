//! Who may do what: roles of a project's own, conditions, deny policies and groups by the real gcloud, and the simulator that tells why.

mod groups;
mod simulator;

use anyhow::{Context, Result, ensure};
use e2e::{PROJECT, REGION, Tanebi, eventually, holds, http1, repository, tests};

use crate::hostile::{Client, bearer, host, id_token};
use groups::groups_of_people;
use simulator::forty_cases_of_the_simulator;

pub fn tests() -> Vec<e2e::runner::Test> {
    tests!["identity"; forty_cases_of_the_simulator, roles_of_a_projects_own, conditions_of_bindings, deny_policies_go_first, groups_of_people]
}

const OWNER: &str = "developer@tanebi.local";
const ALICE: &str = "alice@example.com";
const NOW: &str = "2027-03-01T00:00:00Z";

/// A server whose clock the test moves.
fn timed() -> Result<Tanebi> {
    Tanebi::start_with(tempfile::Builder::new().prefix("tanebi-e2e-").tempdir()?, &["--clock", &format!("manual={NOW}")])
}

fn deploy(tanebi: &Tanebi, service: &str) -> Result<()> {
    tanebi.deploy(service, &repository().join("examples/python/hello_http"), "--function hello_http --no-allow-unauthenticated").map(drop)
}

/// What a service answers to somebody with a token for it.
fn status_for(tanebi: &Tanebi, service: &str, email: &str) -> Result<u16> {
    let token = id_token(tanebi, email, &tanebi.url(service))?;
    Ok(http1::call(tanebi.listen, "GET", "/", &host(tanebi, service), &[&bearer(&token)], b"")?.status)
}

/// A change holds within a second.
fn within_a_second(what: &str, holds: impl Fn() -> Result<bool>) -> Result<()> {
    let began = std::time::Instant::now();
    eventually(what, || Ok(holds()?.then_some(())))?;
    ensure!(began.elapsed() < std::time::Duration::from_secs(1), "{what}: took {:?}", began.elapsed());
    Ok(())
}

/// `gcloud iam roles`, all of it, and a role at work.
fn roles_of_a_projects_own() -> Result<()> {
    let tanebi = Tanebi::start()?;
    deploy(&tanebi, "f")?;
    Client::new(&tanebi, ALICE)?;
    ensure!(status_for(&tanebi, "f", ALICE)? == 403);

    let create = "gcloud iam roles create Caller --project tanebi-local --title 'A caller' --description 'Calls' --permissions run.routes.invoke --stage GA";
    let made = tanebi.script_all(create)?;
    for part in ["Created role [Caller].", "name: projects/tanebi-local/roles/Caller", "- run.routes.invoke", "stage: GA", "title: A caller"] {
        holds(&made, part)?;
    }
    holds(&tanebi.script_failing(create)?, "already exists")?;
    let bind =
        "gcloud run services add-iam-policy-binding f --region asia-northeast1 --member user:alice@example.com --role projects/tanebi-local/roles/Caller";
    holds(&tanebi.script_all(bind)?, "projects/tanebi-local/roles/Caller")?;
    within_a_second("the role's holder is let in", || Ok(status_for(&tanebi, "f", ALICE)? == 200))?;

    let described = tanebi.script("gcloud iam roles describe Caller --project tanebi-local --format 'value(includedPermissions,etag)'")?;
    ensure!(described.starts_with("run.routes.invoke\t") && described.trim().len() > 20, "{described}");
    let removed = tanebi.script_all(
        "gcloud iam roles update Caller --project tanebi-local --remove-permissions run.routes.invoke --add-permissions run.services.get,run.services.list --title Another",
    )?;
    holds(&removed, "- run.services.get")?;
    ensure!(!removed.contains("run.routes.invoke") && removed.contains("title: Another"), "{removed}");
    within_a_second("what was taken out is not held", || Ok(status_for(&tanebi, "f", ALICE)? == 403))?;
    tanebi.script_all("gcloud iam roles update Caller --project tanebi-local --add-permissions run.routes.invoke")?;
    within_a_second("what was put in is held", || Ok(status_for(&tanebi, "f", ALICE)? == 200))?;
    tanebi.script_all("gcloud iam roles update Caller --project tanebi-local --stage DISABLED")?;
    within_a_second("a disabled role grants nothing", || Ok(status_for(&tanebi, "f", ALICE)? == 403))?;
    tanebi.script_all("gcloud iam roles update Caller --project tanebi-local --stage GA")?;

    // By a file with an old etag, and with the current one.
    let file = "F=$(mktemp)\ngcloud iam roles describe Caller --project tanebi-local > $F\ngcloud iam roles update Caller --project tanebi-local --description changed\ngcloud iam roles update Caller --project tanebi-local --file $F --quiet";
    holds(&tanebi.script_failing(file)?, "Stale \"etag\"")?;
    tanebi.script_all("F=$(mktemp)\ngcloud iam roles describe Caller --project tanebi-local > $F\nsed -i 's/changed/by a file/' $F\ngcloud iam roles update Caller --project tanebi-local --file $F --quiet")?;
    holds(&tanebi.script("gcloud iam roles describe Caller --project tanebi-local")?, "by a file")?;

    let deleted = tanebi.script_all("gcloud iam roles delete Caller --project tanebi-local")?;
    holds(&deleted, "deleted: true")?;
    within_a_second("a deleted role grants nothing", || Ok(status_for(&tanebi, "f", ALICE)? == 403))?;
    ensure!(tanebi.script("gcloud iam roles list --project tanebi-local --format 'value(name)'")?.trim().is_empty());
    holds(&tanebi.script("gcloud iam roles list --project tanebi-local --show-deleted --format 'value(name)'")?, "projects/tanebi-local/roles/Caller")?;
    holds(&tanebi.script_failing(create)?, "where there is an existing role with that role_id in a deleted state")?;
    tanebi.script_all("gcloud iam roles undelete Caller --project tanebi-local")?;
    within_a_second("a role that was had back grants again", || Ok(status_for(&tanebi, "f", ALICE)? == 200))?;

    // A copy leaves out what a project's role cannot hold.
    let copied = tanebi.script_all("gcloud iam roles copy --source roles/run.viewer --destination Viewer --dest-project tanebi-local")?;
    holds(&copied, "resourcemanager.projects.list")?;
    let permissions = tanebi.script("gcloud iam roles describe Viewer --project tanebi-local --format 'value(includedPermissions)'")?;
    ensure!(permissions.contains("run.services.get") && !permissions.contains("resourcemanager.projects.list"), "{permissions}");
    holds(
        &tanebi.script_failing("gcloud iam roles create Bad --project tanebi-local --permissions run.services.fly --quiet")?,
        "Permission run.services.fly is not valid.",
    )?;
    holds(&tanebi.script("gcloud iam roles list --format 'value(name)'")?, "roles/run.invoker")?;
    holds(&tanebi.script("gcloud iam roles describe roles/run.invoker")?, "run.routes.invoke")?;
    let project = format!("//cloudresourcemanager.googleapis.com/projects/{PROJECT}");
    holds(&tanebi.script(&format!("gcloud iam list-grantable-roles {project} --format 'value(name)'"))?, "roles/run.admin")?;
    holds(&tanebi.script(&format!("gcloud iam list-testable-permissions {project} --format 'value(name)'"))?, "run.routes.invoke")?;
    holds(&tanebi.script_failing("gcloud iam roles list --organization 123")?, "there are no organizations here")?;
    Ok(())
}

/// `--condition` and its file, on a service, a project and a bucket, by the clock and by names.
fn conditions_of_bindings() -> Result<()> {
    let tanebi = timed()?;
    deploy(&tanebi, "f")?;
    deploy(&tanebi, "g")?;
    Client::new(&tanebi, ALICE)?;
    let bind = |condition: &str| {
        format!("gcloud run services add-iam-policy-binding f --region {REGION} --member user:{ALICE} --role roles/run.invoker --condition \"{condition}\"")
    };
    tanebi.script_all(&bind("expression=request.time < timestamp('2027-03-01T01:00:00Z'),title=an hour,description=one hour only"))?;
    within_a_second("the condition is true", || Ok(status_for(&tanebi, "f", ALICE)? == 200))?;
    let policy = tanebi.script(&format!("gcloud run services get-iam-policy f --region {REGION}"))?;
    for part in ["condition:", "title: an hour", "description: one hour only", "version: 3"] {
        holds(&policy, part)?;
    }
    // An older version shows that there is one, and cannot be written back.
    let owner = Client::new(&tanebi, OWNER)?;
    let path = format!("/v1/projects/{PROJECT}/locations/{REGION}/services/f");
    let old = owner.json("GET", "run.googleapis.com", &format!("{path}:getIamPolicy"), &serde_json::Value::Null)?;
    let role = old["bindings"][0]["role"].as_str().context("a role")?;
    ensure!(role.starts_with("roles/run.invoker_withcond_") && old["version"] == 1, "{old}");
    let answer = owner.call("POST", "run.googleapis.com", &format!("{path}:setIamPolicy"), serde_json::json!({ "policy": old }).to_string().as_bytes())?;
    ensure!(answer.status == 400, "{}", answer.text());
    holds(&answer.text(), "Requested policy version (1) cannot be less than the existing policy version (3)")?;
    tanebi.script("tanebi clock advance 61m")?;
    within_a_second("the hour is over", || Ok(status_for(&tanebi, "f", ALICE)? == 403))?;
    tanebi.script_all(&format!("gcloud run services remove-iam-policy-binding f --region {REGION} --member user:{ALICE} --role roles/run.invoker --all"))?;

    for (condition, word) in [
        ("expression=1 <,title=t", "LintValidationUnits/ConditionCompileCheck Error: ERROR: Parse expression"),
        ("expression=user.name == 'x',title=t", "undeclared reference to"),
        ("expression=resource.name,title=t", "expected type 'bool' but found 'string'"),
    ] {
        holds(&tanebi.script_failing(&bind(condition))?, word)?;
    }
    let lint = |expression: &str| tanebi.script(&format!("gcloud alpha iam policies lint-condition --expression \"{expression}\" --title t"));
    holds(&lint("true=false")?, "LintValidationUnits/ConditionCompileCheck")?;
    ensure!(!lint("1 < 2")?.contains("ERROR"));
    let many = ["1 < 2"; 14].join(" || ");
    holds(&lint(&many)?, "Logical operators count must not be more than 12")?;

    // Of all services of a project one, by a file.
    let by_file = format!(
        "F=$(mktemp)\necho '{{\"title\":\"f alone\",\"expression\":\"resource.name.endsWith(\\\"/services/f\\\")\"}}' > $F\ngcloud projects add-iam-policy-binding {PROJECT} --member user:{ALICE} --role roles/run.invoker --condition-from-file $F"
    );
    holds(&tanebi.script_all(&by_file)?, "f alone")?;
    within_a_second("of two services the named one", || Ok((status_for(&tanebi, "f", ALICE)?, status_for(&tanebi, "g", ALICE)?) == (200, 403)))?;
    holds(
        &tanebi.script_failing(&format!("gcloud projects add-iam-policy-binding {PROJECT} --member user:{ALICE} --role roles/viewer"))?,
        "Run the command again with `--condition=None`",
    )?;

    // Objects by their names, lists by their prefix.
    let alice =
        |script: &str| -> Result<String> { Ok(String::from_utf8_lossy(&tanebi.shell_as(Some(ALICE), &format!("{{ {script}\n}} 2>&1"))?.stdout).into_owned()) };
    tanebi.script_all("gcloud storage buckets create gs://conditions-1\necho open | gcloud storage cp - gs://conditions-1/open/a\necho closed | gcloud storage cp - gs://conditions-1/closed/a")?;
    tanebi.script_all(&format!(
        "gcloud storage buckets add-iam-policy-binding gs://conditions-1 --member user:{ALICE} --role roles/storage.objectViewer --condition \"^;^expression=resource.name.startsWith('projects/_/buckets/conditions-1/objects/open/') || api.getAttribute('storage.googleapis.com/objectListPrefix', '').startsWith('open/');title=open\""
    ))?;
    eventually("an object of the open folder is read", || Ok((alice("gcloud storage cat gs://conditions-1/open/a")?.trim() == "open").then_some(())))?;
    holds(&alice("gcloud storage cat gs://conditions-1/closed/a")?, "403")?;
    let list = |prefix: &str| -> Result<u16> {
        let client = Client::new(&tanebi, ALICE)?;
        Ok(client.call("GET", "storage.googleapis.com", &format!("/storage/v1/b/conditions-1/o?prefix={prefix}"), b"")?.status)
    };
    ensure!((list("open/")?, list("closed/")?, list("")?) == (200, 403, 403));
    let shown = tanebi.script("gcloud storage buckets get-iam-policy gs://conditions-1")?;
    holds(&shown, "title: open")
}

/// `gcloud iam policies` of the kind denypolicies.
fn deny_policies_go_first() -> Result<()> {
    let tanebi = Tanebi::start()?;
    deploy(&tanebi, "f")?;
    tanebi.script_all(&format!("gcloud run services add-iam-policy-binding f --region {REGION} --member user:{ALICE} --role roles/run.invoker"))?;
    within_a_second("a caller with the role is let in", || Ok(status_for(&tanebi, "f", ALICE)? == 200))?;
    let point = format!("--attachment-point cloudresourcemanager.googleapis.com/projects/{PROJECT} --kind denypolicies");
    let file = |principals: &str, exceptions: &str| {
        format!(
            "F=$(mktemp)\ncat > $F <<'X'\n{{\"displayName\":\"No calls\",\"rules\":[{{\"description\":\"of late\",\"denyRule\":{{\"deniedPrincipals\":[{principals}],\"exceptionPrincipals\":[{exceptions}],\"deniedPermissions\":[\"run.googleapis.com/routes.invoke\"]}}}}]}}\nX\n"
        )
    };
    let everyone = "\"principalSet://goog/public:all\"";
    let create = format!("{}gcloud iam policies create no-calls {point} --policy-file $F", file(everyone, ""));
    // As at Google a project's owner has no right to it.
    holds(&tanebi.script_failing(&create)?, "iam.denypolicies.create")?;
    tanebi.script_all(&format!("gcloud projects add-iam-policy-binding {PROJECT} --member user:{OWNER} --role roles/iam.denyAdmin"))?;
    holds(&tanebi.script_all(&create)?, "no-calls")?;
    within_a_second("nobody may", || Ok((status_for(&tanebi, "f", ALICE)?, status_for(&tanebi, "f", OWNER)?) == (403, 403)))?;
    let got = tanebi.script(&format!("gcloud iam policies get no-calls {point}"))?;
    for part in ["DenyPolicy", "principalSet://goog/public:all", "run.googleapis.com/routes.invoke", "etag", "No calls", &tanebi.number] {
        holds(&got, part)?;
    }
    holds(&tanebi.script(&format!("gcloud iam policies list {point}"))?, "denypolicies/no-calls")?;
    let owner_excepted = file(everyone, &format!("\"principal://goog/subject/{OWNER}\""));
    let update = format!(
        "{owner_excepted}ETAG=$(gcloud iam policies get no-calls {point} --format 'value(etag)')\ngcloud iam policies update no-calls {point} --policy-file $F --etag $ETAG"
    );
    tanebi.script_all(&update)?;
    within_a_second("who is excepted may", || Ok((status_for(&tanebi, "f", ALICE)?, status_for(&tanebi, "f", OWNER)?) == (403, 200)))?;
    holds(
        &tanebi.script_failing(&format!("{owner_excepted}gcloud iam policies update no-calls {point} --policy-file $F --etag b2xk"))?,
        "concurrent policy changes",
    )?;
    let why = tanebi.script(&format!("tanebi iam why-denied --principal {ALICE} --service f"))?;
    for part in ["DENY_POLICY: Rule 1 of the deny policy no-calls", "$ gcloud iam policies update no-calls"] {
        holds(&why, part)?;
    }
    holds(&tanebi.script_failing(&format!("{}gcloud iam policies create odd-one {point} --policy-file $F", file("\"user:a@b.c\"", "")))?, "is no principal")?;
    let folder = "--attachment-point cloudresourcemanager.googleapis.com/folders/1 --kind denypolicies";
    holds(&tanebi.script_failing(&format!("gcloud iam policies list {folder}"))?, "there are no folders and organizations here")?;
    tanebi.script_all(&format!("gcloud iam policies delete no-calls {point} --quiet"))?;
    within_a_second("it is gone", || Ok(status_for(&tanebi, "f", ALICE)? == 200))?;
    // It outlives a kill.
    tanebi.script_all(&create)?;
    let flags: &[&str] = &[];
    let tanebi = Tanebi::start_with(tanebi.stop()?, flags)?;
    eventually("it holds after a restart", || Ok((status_for(&tanebi, "f", ALICE)? == 403).then_some(())))
}
