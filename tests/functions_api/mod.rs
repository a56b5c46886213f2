//! Cloud Functions v2 with the real gcloud: a function from its deploy to its end, and the service that it is.

use anyhow::{Context as _, Result, ensure};
use e2e::{PROJECT, Tanebi, eventually, folder, holds, repository, tests};

pub fn tests() -> Vec<e2e::runner::Test> {
    tests!["functions_api"; commands]
}

fn commands() -> Result<()> {
    let tanebi = Tanebi::start()?;
    let source = repository().join("examples/python/hello_http");
    let deploy = |folder: &std::path::Path, flags: &str| {
        format!(
            "gcloud --quiet functions deploy hello-fn --gen2 --runtime python312 --source '{}' --entry-point hello_http --region asia-northeast1 {flags}",
            folder.display()
        )
    };
    let deployed = tanebi.script_all(&deploy(&source, "--trigger-http --no-allow-unauthenticated --set-env-vars A=1"))?;
    for part in ["state: ACTIVE", "environment: GEN_2", "entryPoint: hello_http", "[Build]", "[Service]"] {
        holds(&deployed, part)?;
    }
    let value = |text: &str| Ok::<_, anyhow::Error>(tanebi.script(text)?.trim().to_owned());
    let listed = value("gcloud functions list --format 'csv[no-heading](name,state,environment)'")?;
    ensure!(listed.contains("hello-fn") && listed.contains("ACTIVE"), "{listed}");
    let config = "serviceConfig.availableMemory,serviceConfig.timeoutSeconds,serviceConfig.maxInstanceRequestConcurrency,serviceConfig.environmentVariables.A";
    let described = value(&format!("gcloud functions describe hello-fn --gen2 --region asia-northeast1 --format 'value({config})'"))?;
    ensure!(described == "256M\t60\t1\t1", "{described}");

    // The same service, seen through run.
    let service = "gcloud run services describe hello-fn --region asia-northeast1";
    let seen = value(&format!(
        "{service} --format 'value(metadata.labels[goog-managed-by],spec.template.spec.containerConcurrency,spec.template.spec.timeoutSeconds)'"
    ))?;
    ensure!(seen == "cloudfunctions\t1\t60", "{seen}");
    let url = value(&format!("{service} --format 'value(status.url)'"))?;
    ensure!(value("gcloud functions describe hello-fn --gen2 --region asia-northeast1 --format 'value(serviceConfig.uri)'")? == url);

    let called = tanebi.script_all("gcloud functions call hello-fn --gen2 --region asia-northeast1 --data '{\"name\":\"Developer\"}'")?;
    holds(&called, "Hello Developer!")?;
    ensure!(value(&format!("curl -s -o /dev/null -w '%{{http_code}}' {url}"))? == "403");
    let bound = tanebi.script_all("gcloud functions add-invoker-policy-binding hello-fn --region asia-northeast1 --member allUsers")?;
    holds(&bound, "roles/run.invoker")?;
    eventually("everyone is let in", || Ok((value(&format!("curl -s {url}"))? == "Hello World!").then_some(())))?;
    eventually("the calls are in its log", || {
        let log = tanebi.script_all("gcloud functions logs read hello-fn --gen2 --region asia-northeast1 --limit 50")?;
        Ok(log.contains("hello-fn").then_some(()))
    })?;

    // Deployed again with another environment only, and then broken: what served before goes on.
    tanebi.script_all(&format!(
        "printf canary-of-a-function | gcloud --quiet secrets create key-of-hello --replication-policy automatic --data-file -\ngcloud secrets add-iam-policy-binding key-of-hello --member serviceAccount:{}-compute@developer.gserviceaccount.com --role roles/secretmanager.secretAccessor",
        tanebi.number
    ))?;
    tanebi.script_all(&deploy(&source, "--trigger-http --update-env-vars B=2 --memory 512Mi --set-secrets KEY=key-of-hello:latest"))?;
    let config = "serviceConfig.availableMemory,serviceConfig.environmentVariables.A,serviceConfig.environmentVariables.B";
    let described = value(&format!("gcloud functions describe hello-fn --gen2 --region asia-northeast1 --format 'value({config})'"))?;
    ensure!(described == "512Mi\t1\t2", "{described}");
    let described =
        value("gcloud functions describe hello-fn --gen2 --region asia-northeast1 --format 'value(serviceConfig.secretEnvironmentVariables[0].secret)'")?;
    ensure!(described == "key-of-hello", "{described}");
    let broken = folder(&[("main.py", "def hello_http(:\n"), ("requirements.txt", "functions-framework==3.*\n")])?;
    let failed = tanebi.script_failing(&deploy(broken.path(), "--trigger-http"))?;
    holds(&failed, "Build failed with status: FAILURE")?;
    ensure!(value("gcloud functions describe hello-fn --gen2 --region asia-northeast1 --format 'value(state)'")? == "FAILED");
    ensure!(value(&format!("curl -s {url}"))? == "Hello World!", "what served goes on");
    let refused = tanebi.script_failing(&deploy(&source, "--trigger-http --vpc-connector some-connector").replace("hello-fn", "other-fn"))?;
    ensure!(!refused.contains("state: ACTIVE"), "{refused}");

    // Its own URL, as path and as audience; and its source, by an address that is good for a while.
    let own = format!("https://asia-northeast1-{PROJECT}.cloudfunctions.net/hello-fn");
    ensure!(value("gcloud functions describe hello-fn --gen2 --region asia-northeast1 --format 'value(url)'")? == own);
    ensure!(value(&format!("curl -s '{own}?x=y'"))? == "Hello World!");
    ensure!(value(&format!("curl -s -o /dev/null -w '%{{http_code}}' {own}s"))? == "404");
    let download = value(&format!(
        "curl -s -X POST -H \"Authorization: Bearer $(gcloud auth print-access-token)\" https://cloudfunctions.googleapis.com/v2/projects/{PROJECT}/locations/asia-northeast1/functions/hello-fn:generateDownloadUrl"
    ))?;
    let download: serde_json::Value = serde_json::from_str(&download).with_context(|| download.clone())?;
    let listed = value(&format!("at=$(mktemp); curl -s -o $at '{}'; python3 -m zipfile -l $at; rm $at", download["downloadUrl"].as_str().unwrap_or_default()))?;
    holds(&listed, "main.py")?;

    // Each call that changed something is in the audit log.
    let audited = "gcloud logging read 'logName:\"cloudaudit.googleapis.com%2Factivity\" AND protoPayload.serviceName=\"cloudfunctions.googleapis.com\"' --format 'value(protoPayload.methodName,protoPayload.authenticationInfo.principalEmail)'";
    let log = value(audited)?;
    for method in ["FunctionService.CreateFunction", "FunctionService.UpdateFunction"] {
        holds(&log, &format!("google.cloud.functions.v2.{method}\tdeveloper@tanebi.local"))?;
    }

    holds(&tanebi.script_all("gcloud --quiet functions delete hello-fn --gen2 --region asia-northeast1")?, "Deleted")?;
    ensure!(value("gcloud functions list --format 'value(name)' 2>/dev/null")?.is_empty());
    ensure!(value("gcloud run services list --format 'value(metadata.name)' 2>/dev/null")?.is_empty());
    Ok(())
}
