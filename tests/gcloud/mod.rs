//! The real gcloud 528, command by command, with what it prints and its exit codes.

use anyhow::{Result, ensure};
use e2e::{PROJECT, Tanebi, eventually, folder, holds, repository, tests};

pub fn tests() -> Vec<e2e::runner::Test> {
    tests!["gcloud"; services, identities, storage, failed_deploys_leave_the_old_revision]
}

/// Services, revisions, policies, logs and the source bucket of one deployed function.
fn services() -> Result<()> {
    let tanebi = Tanebi::start()?;
    let url = tanebi.url("hello");
    tanebi.script_all(&format!(
        "cd '{}'\ngcloud run deploy hello --source . --function hello_http --base-image python312 --region asia-northeast1 --no-allow-unauthenticated --quiet",
        repository().join("examples/python/hello_http").display()
    ))?;

    let list = tanebi.script("gcloud run services list --format 'csv[no-heading](metadata.name,region,status.url)'")?;
    holds(&list, "hello")?;
    holds(&list, &url)?;
    holds(&tanebi.script("gcloud run services list --region asia-northeast1 --format 'value(metadata.name)'")?, "hello")?;
    ensure!(tanebi.script("gcloud run services describe hello --region asia-northeast1 --format 'value(status.url)'")?.trim() == url);
    let described = tanebi.script_all("gcloud run services describe hello --region asia-northeast1")?;
    for part in ["Service hello in region asia-northeast1", "Ingress:", "all", "Traffic:", "100% LATEST"] {
        holds(&described, part)?;
    }
    holds(&tanebi.script_failing("gcloud run services describe nothing --region asia-northeast1")?, "Cannot find service [nothing]")?;
    let revision = tanebi.script("gcloud run revisions list --service hello --region asia-northeast1 --format 'value(metadata.name)'")?;
    let revision = revision.trim();
    ensure!(revision.starts_with("hello-00001-"), "{revision}");
    holds(&tanebi.script_all(&format!("gcloud run revisions describe {revision} --region asia-northeast1"))?, revision)?;

    // Nobody without a token; the owner with one; others when they were given the role.
    ensure!(tanebi.script(&format!("curl -s -o /dev/null -w '%{{http_code}}' {url}"))? == "403");
    ensure!(tanebi.script(&format!("curl -s -o /dev/null -w '%{{http_code}}' {url} -H 'Authorization: Bearer x.y.z'"))? == "401");
    ensure!(tanebi.script(&format!("curl -s {url} -H \"Authorization: Bearer $(gcloud auth print-identity-token)\""))? == "Hello World!");
    let other = |script: &str| tanebi.shell_as(Some("guest@example.com"), script);
    let as_guest = format!("curl -s -w '%{{http_code}}' {url} -H \"Authorization: Bearer $(gcloud auth print-identity-token)\"");
    let refused = String::from_utf8(other(&as_guest)?.stdout)?;
    ensure!(refused.ends_with("403"), "{refused}");
    let output = other("gcloud run services list 2>&1")?;
    ensure!(!output.status.success(), "a guest may not list services");
    holds(&String::from_utf8_lossy(&output.stdout), "PERMISSION_DENIED")?;
    let policy = tanebi
        .script_all("gcloud run services add-iam-policy-binding hello --region asia-northeast1 --member user:guest@example.com --role roles/run.invoker")?;
    holds(&policy, "user:guest@example.com")?;
    eventually("the guest is let in", || Ok((String::from_utf8(other(&as_guest)?.stdout)? == "Hello World!200").then_some(())))?;
    holds(&tanebi.script("gcloud run services get-iam-policy hello --region asia-northeast1")?, "roles/run.invoker")?;
    tanebi
        .script_all("gcloud run services remove-iam-policy-binding hello --region asia-northeast1 --member user:guest@example.com --role roles/run.invoker")?;
    eventually("the guest is shut out", || Ok(String::from_utf8(other(&as_guest)?.stdout)?.ends_with("403").then_some(())))?;

    let updated = tanebi.script_all("gcloud run services update hello --region asia-northeast1 --ingress internal-and-cloud-load-balancing")?;
    holds(&updated, "Service [hello] has been updated.")?;
    ensure!(
        tanebi.script("gcloud run services describe hello --region asia-northeast1 --format 'value(metadata.annotations[run.googleapis.com/ingress])'")?.trim()
            == "internal-and-cloud-load-balancing"
    );
    tanebi.script_all("gcloud run services update hello --region asia-northeast1 --ingress all")?;
    tanebi.script_all(
        "gcloud run services update hello --region asia-northeast1 --memory 1Gi --cpu 1 --concurrency 10 --timeout 30 --max-instances 5 --set-env-vars A=1,B=2",
    )?;
    let template = tanebi.script("gcloud run services describe hello --region asia-northeast1 --format 'value(spec.template.spec.containerConcurrency,spec.template.spec.timeoutSeconds,spec.template.spec.containers[0].resources.limits.memory)'")?;
    ensure!(template.split_whitespace().collect::<Vec<_>>() == ["10", "30", "1Gi"], "{template}");

    let log = eventually("the request is in the log", || {
        let log = tanebi.script_all("gcloud run services logs read hello --region asia-northeast1 --limit 100")?;
        Ok(log.contains("GET 200").then_some(log))
    })?;
    holds(&log, "GET 403")?;

    let bucket = format!("gs://run-sources-{PROJECT}-asia-northeast1");
    holds(&tanebi.script(&format!("gcloud storage ls {bucket}/services/hello/"))?, ".zip")?;
    let copied = tanebi.script_all(&format!(
        "D=$(mktemp -d)\ngcloud storage cp \"$(gcloud storage ls {bucket}/services/hello/ | head -1)\" $D/source.zip\npython3 -m zipfile -l $D/source.zip\nhead -c 3000000 /dev/urandom > $D/up\ngcloud storage cp $D/up {bucket}/up\ngcloud storage cp {bucket}/up $D/down\ncmp $D/up $D/down && echo same"
    ))?;
    holds(&copied, "main.py")?;
    holds(&copied, "same")?;
    tanebi.script_all(
        "gcloud storage buckets create gs://bucket-to-go\necho x | gcloud storage cp - gs://bucket-to-go/a/b\ngcloud storage rm -r gs://bucket-to-go",
    )?;
    ensure!(!tanebi.script("gcloud storage ls")?.contains("bucket-to-go"), "the bucket is gone");

    // What `describe` exports is what `replace` takes, and makes no revision.
    let newest = "gcloud run revisions list --service hello --region asia-northeast1 --limit 1 --format 'value(metadata.name)'";
    let before = tanebi.script(newest)?;
    tanebi.script_all("F=$(mktemp)\ngcloud run services describe hello --region asia-northeast1 --format export > $F\ngcloud run services replace $F --region asia-northeast1")?;
    ensure!(tanebi.script(newest)? == before, "{before}");
    let refused = tanebi.script_failing("gcloud run services update hello --region asia-northeast1 --cpu 0.5")?;
    holds(&refused, "Total cpu < 1 is not supported with concurrency > 1")?;
    let beta = tanebi.script_all(&format!(
        "cd '{}'\ngcloud beta run deploy hello --source . --function hello_http --base-image python312 --region asia-northeast1 --quiet",
        repository().join("examples/python/hello_http").display()
    ))?;
    holds(&beta, "has been deployed and is serving 100 percent of traffic.")?;

    holds(&tanebi.script_all("gcloud run services delete hello --region asia-northeast1 --quiet")?, "Deleted service [hello].")?;
    ensure!(tanebi.script("gcloud run services list --format 'value(metadata.name)' 2>/dev/null")?.trim().is_empty());
    ensure!(tanebi.script(&format!("curl -s -o /dev/null -w '%{{http_code}}' {url}"))? == "404");
    Ok(())
}

/// Every way to a token that gcloud has.
fn identities() -> Result<()> {
    let tanebi = Tanebi::start()?;
    let claims = |token: &str| -> Result<serde_json::Value> {
        use base64::Engine;
        let payload = token.trim().split('.').nth(1).ok_or_else(|| anyhow::anyhow!("no token: {token}"))?;
        Ok(serde_json::from_slice(&base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(payload)?)?)
    };
    ensure!(tanebi.script("gcloud auth list --format 'value(account)'")?.trim() == "developer@tanebi.local");
    let token = claims(&tanebi.script("gcloud auth print-identity-token")?)?;
    ensure!(token["email"] == "developer@tanebi.local" && token["iss"] == "https://accounts.google.com", "{token}");

    holds(&tanebi.script_all("gcloud iam service-accounts create robot-one --display-name 'A robot'")?, "Created service account [robot-one].")?;
    let robot = format!("robot-one@{PROJECT}.iam.gserviceaccount.com");
    holds(&tanebi.script("gcloud iam service-accounts list --format 'value(email)'")?, &robot)?;
    let key_file = tanebi.data.path().join("key.json");
    holds(&tanebi.script_all(&format!("gcloud iam service-accounts keys create '{}' --iam-account {robot}", key_file.display()))?, "created key")?;
    let by_key = tanebi.script(&format!(
        "export CLOUDSDK_CONFIG=$(mktemp -d)\ngcloud auth activate-service-account --key-file '{}' 2>/dev/null\ngcloud auth print-identity-token --audiences https://example.com",
        key_file.display()
    ))?;
    let by_key = claims(&by_key)?;
    ensure!(by_key["aud"] == "https://example.com" && by_key["email"] == robot, "{by_key}");

    // Impersonation needs a role of its own... which the owner gives away.
    let refused = tanebi.shell_as(Some("guest@example.com"), &format!("gcloud auth print-identity-token --impersonate-service-account {robot} 2>&1"))?;
    ensure!(!refused.status.success(), "a guest impersonates nobody");
    tanebi.script_all(&format!(
        "gcloud iam service-accounts add-iam-policy-binding {robot} --member user:developer@tanebi.local --role roles/iam.serviceAccountTokenCreator"
    ))?;
    let impersonated = eventually("impersonation is allowed", || {
        let output = tanebi.shell(&format!(
            "gcloud auth print-identity-token --impersonate-service-account {robot} --audiences https://a.example --include-email 2>/dev/null"
        ))?;
        Ok(output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned()))
    })?;
    let impersonated = claims(&impersonated)?;
    ensure!(impersonated["email"] == robot && impersonated["aud"] == "https://a.example", "{impersonated}");

    // The metadata way.
    let by_metadata = tanebi.shell_as(Some(&robot), "gcloud auth print-identity-token")?;
    let by_metadata = claims(&e2e::text(by_metadata, "print-identity-token by metadata")?)?;
    ensure!(by_metadata["email"] == robot, "{by_metadata}");
    Ok(())
}

/// Buckets and objects: copied, moved, composed, listed in their versions, signed for, and gone.
fn storage() -> Result<()> {
    let tanebi = Tanebi::start()?;
    let files = folder(&[("a.txt", "hello "), ("b.txt", "world"), ("d/x", "x"), ("d/y", "y")])?;
    tanebi.script_all(&format!(
        "cd '{}'
gcloud storage buckets create gs://from-gcloud-1 --location us --soft-delete-duration 7d
gcloud storage buckets update gs://from-gcloud-1 --versioning --update-labels a=b
gcloud storage cp a.txt b.txt gs://from-gcloud-1/
gcloud storage rsync -r d gs://from-gcloud-1/d
gcloud storage mv gs://from-gcloud-1/d/x gs://from-gcloud-1/moved
gcloud storage objects compose gs://from-gcloud-1/a.txt gs://from-gcloud-1/b.txt gs://from-gcloud-1/ab
gcloud storage objects update gs://from-gcloud-1/ab --custom-metadata k=v
gcloud storage rm gs://from-gcloud-1/a.txt",
        files.path().display()
    ))?;
    ensure!(tanebi.script("gcloud storage cat gs://from-gcloud-1/ab")? == "hello world");
    let described = tanebi.script("gcloud storage objects describe gs://from-gcloud-1/ab --format 'value(custom_fields.k,size)'")?;
    ensure!(described.trim() == "v\t11", "{described:?}");
    let listed = tanebi.script("gcloud storage ls 'gs://from-gcloud-1/**'")?;
    let names: Vec<&str> = listed.lines().filter_map(|line| line.strip_prefix("gs://from-gcloud-1/")).collect();
    ensure!(names == ["ab", "b.txt", "d/y", "moved"], "{listed}");
    holds(&tanebi.script("gcloud storage ls -a gs://from-gcloud-1/a.txt")?, "gs://from-gcloud-1/a.txt#")?;
    holds(&tanebi.script("gcloud storage hash gs://from-gcloud-1/b.txt")?, "md5_hash: fXkwN6B2AYZXSwKC8vQ15w==")?;
    tanebi.script_all("gcloud storage rm -r gs://from-gcloud-1")?;
    holds(&tanebi.script_failing("gcloud storage ls gs://from-gcloud-1 2>&1")?, "404")
}

/// Each mistake is told in gcloud's output with its cause; what served before goes on serving.
fn failed_deploys_leave_the_old_revision() -> Result<()> {
    const MAIN: &str = "import functions_framework\n@functions_framework.http\ndef hello(request):\n    return 'good'\n";
    const REQUIREMENTS: (&str, &str) = ("requirements.txt", "functions-framework==3.*\n");
    let tanebi = Tanebi::start()?;
    let url = tanebi.url("hello");
    let deploy = |files: &[(&str, &str)], flags: &str| -> Result<(tempfile::TempDir, String)> {
        let folder = folder(files)?;
        let command =
            format!("cd '{}'\ngcloud run deploy hello --source . --region asia-northeast1 --no-invoker-iam-check --quiet {flags}", folder.path().display());
        Ok((folder, command))
    };
    let (_folder, good) = deploy(&[("main.py", MAIN), REQUIREMENTS], "--function hello --base-image python312")?;
    tanebi.script_all(&good)?;
    let check = |files: &[(&str, &str)], flags: &str, cause: &str| -> Result<()> {
        let (_folder, command) = deploy(files, flags)?;
        holds(&tanebi.script_failing(&command)?, cause)?;
        let reply = tanebi.script(&format!("curl -s {url}"))?;
        ensure!(reply == "good", "after {cause:?} the service answers {reply:?}");
        Ok(())
    };
    let function = "--function hello --base-image python312";
    check(&[("main.py", MAIN), REQUIREMENTS], "--function hello --base-image python399", "python399")?;
    check(&[("app.py", MAIN), REQUIREMENTS], function, "missing main.py")?;
    check(&[("main.py", "def hello(:\n"), REQUIREMENTS], function, "SyntaxError")?;
    check(&[("main.py", MAIN), ("requirements.txt", "functions-framework==3.*\nno-such-package-of-tanebi==1.0\n")], function, "no-such-package-of-tanebi")?;
    check(&[("main.py", MAIN), REQUIREMENTS], "--function nope --base-image python312", "expected to contain a function named 'nope'")?;
    check(&[("main.py", "import sys\nsys.exit(3)\n"), REQUIREMENTS], function, "failed to start and listen")?;
    Ok(())
}
