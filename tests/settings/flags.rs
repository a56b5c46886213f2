//! Flags about the build, the container, secrets, probes, volumes, callers and revisions, each with its effect.

use anyhow::{Result, ensure};
use e2e::{PROJECT, REGION, eventually, holds};
use serde_json::Value;

use super::{World, app};

/// Deploys `s` from source, four times, and another service once.
pub fn build(w: &World) -> Result<()> {
    let app = app().display().to_string();
    let deploy = |flags: &str| format!("run deploy s --region {REGION} {flags}");
    let first = format!(
        "--source '{app}' --base-image nodejs20 --no-invoker-iam-check --description hello --labels env=test,tier=one --tag first --revision-suffix one \
         --set-build-env-vars STAMP=a,OTHER=b --automatic-updates --allow-unencrypted-build"
    );
    w.gcloud.step(&deploy(&first), |output| {
        holds(output, "Service [s] revision [s-one] has been deployed and is serving 100 percent of traffic.")?;
        ensure!(w.revision()? == "s-one" && w.get_tagged("first", "/revision")? == "s-one");
        ensure!(w.get("/read?path=stamp")? == r#"["a","b"]"#);
        let described = w.describe()?;
        let annotation = |name: &str| described["metadata"]["annotations"][format!("run.googleapis.com/{name}")].clone();
        ensure!(annotation("description") == "hello" && annotation("build-enable-automatic-updates") == "true", "{described:#}");
        for labels in [&described["metadata"]["labels"], &described["spec"]["template"]["metadata"]["labels"]] {
            ensure!(labels["env"] == "test" && labels["tier"] == "one", "{described:#}");
        }
        Ok(())
    })?;
    let second = format!(
        "--source '{app}' --update-build-env-vars STAMP=c --remove-build-env-vars OTHER --clear-base-image --clear-build-service-account \
         --clear-build-worker-pool --no-traffic --tag second"
    );
    w.gcloud.step(&deploy(&second), |_| {
        ensure!(w.revision()? == "s-one", "no traffic was to be moved");
        ensure!(w.get_tagged("second", "/read?path=stamp")? == r#"["c",null]"#);
        let described = w.describe()?;
        ensure!(described["spec"]["template"]["metadata"]["annotations"]["run.googleapis.com/base-images"].is_null(), "{described:#}");
        Ok(())
    })?;
    let variables = w.files.path().join("build.yaml");
    std::fs::write(&variables, "STAMP: from a file\n")?;
    let account = format!("projects/{PROJECT}/serviceAccounts/{}-compute@developer.gserviceaccount.com", w.tanebi.number);
    let third = format!(
        "--source '{app}' --base-image nodejs20 --build-env-vars-file '{}' --no-automatic-updates --build-service-account {account} --tag third",
        variables.display()
    );
    w.gcloud.step(&deploy(&third), |_| {
        ensure!(w.get_tagged("third", "/read?path=stamp")? == r#"["from a file",null]"#);
        let described = w.describe()?;
        let annotation = |name: &str| described["metadata"]["annotations"][format!("run.googleapis.com/{name}")].clone();
        ensure!(annotation("build-service-account") == *account && annotation("build-enable-automatic-updates") != "true", "{described:#}");
        Ok(())
    })?;
    let nobody = format!("--source '{app}' --base-image nodejs20 --build-service-account projects/{PROJECT}/serviceAccounts/nobody@example.com");
    holds(&w.gcloud.refused(&deploy(&nobody))?, "iam.serviceaccounts.actAs")?;
    let fourth = format!("--delegate-builds --tag fourth --source '{app}' --base-image nodejs20 --clear-build-env-vars");
    w.gcloud.step(&format!("alpha {}", deploy(&fourth)), |_| {
        ensure!(w.get_tagged("fourth", "/read?path=stamp")? == "[null,null]");
        Ok(())
    })?;
    w.gcloud.step(&format!("run services update-traffic s --region {REGION} --to-latest"), |_| {
        ensure!(w.revision()? == w.get_tagged("fourth", "/revision")?);
        Ok(())
    })?;
    w.gcloud.step(&format!("run deploy named --region {REGION} --no-invoker-iam-check --container main --source '{app}' --base-image nodejs20"), |_| {
        let names = format!("run services describe named --region {REGION} --format value(spec.template.spec.containers[].name)");
        holds(&w.gcloud.ok(&names)?, "main")
    })
}

/// What the process is and is given.
pub fn container(w: &World) -> Result<()> {
    let about = || -> Result<Value> { Ok(serde_json::from_str(&w.get("/about")?)?) };
    w.update("", "--set-env-vars A=1,B=2 --command node --args server.js,one,two", |_| {
        let about = about()?;
        ensure!(about["env"]["A"] == "1" && about["env"]["B"] == "2" && about["argv"] == serde_json::json!(["one", "two"]), "{about:#}");
        Ok(())
    })?;
    for (command, text) in [
        ("no-such-program", "failed to resolve binary path: error finding executable \"no-such-program\" in PATH ["),
        ("/workspace/absent", "failed to load /workspace/absent: no such file or directory"),
        ("./package.json", "failed to load /workspace/package.json: permission denied"),
    ] {
        let text = format!("terminated: Application failed to start: {text}");
        let told = w.gcloud.refused(&format!("run services update s --region {REGION} --command {command}"))?;
        holds(&told.split_whitespace().collect::<Vec<_>>().join(" "), &text)?;
        eventually("the log says it too", || Ok(w.tanebi.script("tanebi logs s --limit 1000")?.contains(&text).then_some(())))?;
    }
    w.update("", "--update-env-vars C=3 --remove-env-vars A --command= --args= --port 9000", |_| {
        let about = about()?;
        let env = &about["env"];
        ensure!(env["A"].is_null() && env["B"] == "2" && env["C"] == "3" && env["PORT"] == "9000" && about["argv"] == serde_json::json!([]), "{about:#}");
        Ok(())
    })?;
    let variables = w.files.path().join("env.yaml");
    std::fs::write(&variables, "H2: 'yes'\nLINES: |\n  one\n  two\n")?;
    w.update("", &format!("--env-vars-file '{}' --use-http2 --port default", variables.display()), |_| {
        let answer = w.call(None, "/about", &[])?;
        let about: Value = serde_json::from_slice(&answer.body)?;
        ensure!(about["env"]["LINES"] == "one\ntwo\n" && about["env"]["PORT"] == "8080" && about["env"]["C"].is_null(), "{about:#}");
        ensure!(answer.field("spoken") == Some("2.0"), "{}", answer.head);
        Ok(())
    })?;
    w.update("", "--clear-env-vars --no-use-http2", |_| {
        ensure!(w.env("LINES")?.is_none() && w.call(None, "/id", &[])?.field("spoken") == Some("1.1"));
        Ok(())
    })?;
    const NOTHING: &str = "--clear-vpc-connector --clear-binary-authorization --clear-key --clear-post-key-revocation-action-type \
                           --clear-encryption-key-shutdown-hours --clear-cloudsql-instances --remove-containers other";
    for flags in [NOTHING, "--clear-network --remove-cloudsql-instances p:r:i", "--clear-network-tags"] {
        w.update("", flags, |_| {
            w.get("/id")?;
            let annotations = w.describe()?["spec"]["template"]["metadata"]["annotations"].to_string();
            ensure!(!["cloudsql", "vpc", "network", "encryption"].iter().any(|word| annotations.contains(word)), "{annotations}");
            Ok(())
        })?;
    }
    let before = w.revision()?;
    w.update("", "--async --update-labels tier=two,more=x --remove-labels env", |output| {
        ensure!(!output.contains("has been deployed"), "it did not wait");
        eventually("the change is made", || Ok((w.revision()? != before).then_some(())))?;
        let described = w.describe()?;
        for labels in [&described["metadata"]["labels"], &described["spec"]["template"]["metadata"]["labels"]] {
            ensure!(labels["env"].is_null() && labels["tier"] == "two" && labels["more"] == "x", "{described:#}");
        }
        Ok(())
    })?;
    w.update("", "--clear-labels", |_| {
        let described = w.describe()?;
        for labels in [&described["metadata"]["labels"], &described["spec"]["template"]["metadata"]["labels"]] {
            ensure!(labels["tier"].is_null() && labels["more"].is_null(), "{described:#}");
        }
        Ok(())
    })
}

pub fn secrets(w: &World) -> Result<()> {
    let payload = w.files.path().join("payload");
    let account = format!("serviceAccount:{}-compute@developer.gserviceaccount.com", w.tanebi.number);
    std::fs::write(&payload, "one")?;
    w.gcloud.ok(&format!("secrets create api-key --replication-policy automatic --data-file '{}'", payload.display()))?;
    std::fs::write(&payload, "two")?;
    w.gcloud.ok(&format!("secrets versions add api-key --data-file '{}'", payload.display()))?;
    w.gcloud.ok(&format!("secrets add-iam-policy-binding api-key --member {account} --role roles/secretmanager.secretAccessor"))?;
    w.update("", "--set-secrets KEY=api-key:latest,OTHER=api-key:1,/secrets/key=api-key:1", |_| {
        ensure!(w.env("KEY")?.as_deref() == Some("two") && w.env("OTHER")?.as_deref() == Some("one") && w.get("/read?path=/secrets/key")? == "one");
        Ok(())
    })?;
    w.update("", "--update-secrets KEY=api-key:1 --remove-secrets OTHER", |_| {
        ensure!(w.env("KEY")?.as_deref() == Some("one") && w.env("OTHER")?.is_none() && w.get("/read?path=/secrets/key")? == "one");
        Ok(())
    })?;
    w.update("", "--clear-secrets", |_| {
        ensure!(w.env("KEY")?.is_none() && w.status("/read?path=/secrets/key")? == 500);
        Ok(())
    })
}

pub fn probes(w: &World) -> Result<()> {
    let update = format!("run services update s --region {REGION}");
    let before = w.revision()?;
    let failing = w.gcloud.refused(&format!("{update} --startup-probe grpc.port=8080,periodSeconds=1,failureThreshold=2"))?;
    holds(&failing, "failed to start and listen on the port")?;
    ensure!(w.revision()? == before, "the old revision goes on serving");
    w.update("", "--startup-probe httpGet.path=/live,periodSeconds=1 --liveness-probe httpGet.path=/live,periodSeconds=1,failureThreshold=2", |_| {
        let sick = w.get("/set?live=false")?;
        eventually("another instance serves", || Ok(w.call(None, "/id", &[]).ok().filter(|answer| answer.status == 200 && answer.text() != sick)))?;
        let text = r#"LIVENESS HTTP probe failed 2 times consecutively for container "s-1" on port 8080 path "/live". The instance has been shut down."#;
        eventually("the log says why", || Ok(w.tanebi.script("tanebi logs s")?.contains(text).then_some(())))
    })?;
    w.update(
        "alpha ",
        "--liveness-probe= --startup-probe= --readiness-probe httpGet.path=/ready,periodSeconds=1,failureThreshold=2,successThreshold=1",
        |_| {
            let first = w.get("/set?ready=false")?;
            let other = eventually("another instance serves", || {
                let id = w.get("/id")?;
                Ok((id != first).then_some(id))
            })?;
            ensure!(w.instances(&w.revision()?)?.len() == 2, "the first is still there");
            // The other one fails too: now the first is asked for, once it passes again, which it does not; so that a third is started.
            ensure!(w.get("/set?ready=false")? == other);
            eventually("a third instance serves", || {
                let id = w.get("/id")?;
                Ok((id != first && id != other).then_some(()))
            })
        },
    )?;
    w.update("alpha ", "--readiness-probe=", |_| {
        let described = w.describe()?;
        ensure!(described["spec"]["template"]["spec"]["containers"][0]["readinessProbe"].is_null(), "{described:#}");
        Ok(())
    })?;
    // A container that never listens: ready when nobody looks.
    w.update("beta ", "--no-deploy-health-check --command sleep --args 1000 --no-traffic --tag deaf", |output| {
        holds(output, "has been deployed and is serving 0 percent of traffic.")
    })?;
    w.update("beta ", "--deploy-health-check --command= --args= --tag hearing", |_| {
        ensure!(w.get_tagged("hearing", "/id")?.len() == 16);
        Ok(())
    })?;
    holds(
        &w.gcloud.refused(&format!("{update} --command sleep --args 1000 --startup-probe tcpSocket.port=8080,periodSeconds=1,failureThreshold=2"))?,
        "not ready",
    )?;
    w.gcloud.ok(&format!("{update} --command= --args= --startup-probe="))?;
    w.gcloud.step(&format!("run services update-traffic s --region {REGION} --to-latest --clear-tags"), |_| {
        w.get("/id")?;
        ensure!(w.call(Some("hearing"), "/id", &[])?.status == 404);
        Ok(())
    })
}

pub fn volumes(w: &World) -> Result<()> {
    w.update(
        "",
        "--add-volume name=cache,type=in-memory,size-limit=10Mi --add-volume-mount volume=cache,mount-path=/cache \
         --add-volume name=more,type=in-memory --add-volume-mount volume=more,mount-path=/mnt/more",
        |_| {
            ensure!(w.get("/write?path=/cache/a&bytes=1000000")? == "1000000");
            holds(&w.call(None, "/write?path=/cache/b&bytes=20000000", &[])?.text(), "ENOSPC")?;
            ensure!(w.get("/write?path=/mnt/more/a&bytes=20000000")? == "20000000");
            holds(&w.gcloud.ok(&format!("run services describe s --region {REGION}"))?, "in-memory")
        },
    )?;
    w.update("", "--remove-volume-mount /cache --remove-volume cache", |_| {
        ensure!(w.status("/write?path=/cache/a&bytes=1")? == 500 && w.get("/write?path=/mnt/more/a&bytes=1")? == "1");
        Ok(())
    })?;
    w.update("", "--clear-volumes --clear-volume-mounts", |_| {
        ensure!(w.status("/write?path=/mnt/more/a&bytes=1")? == 500);
        Ok(())
    })
}

/// Who may call, and as whom the function calls.
pub fn access(w: &World) -> Result<()> {
    w.update("", "--ingress internal", |_| {
        ensure!(w.status("/id")? == 404);
        Ok(())
    })?;
    w.update("", "--ingress all", |_| {
        ensure!(w.status("/id")? == 200);
        Ok(())
    })?;
    w.update("beta ", "--no-default-url", |_| {
        ensure!(w.status("/id")? == 404);
        Ok(())
    })?;
    w.update("beta ", "--default-url", |_| {
        ensure!(w.status("/id")? == 200);
        Ok(())
    })?;
    w.gcloud.ok("iam service-accounts create robot-one")?;
    let robot = format!("robot-one@{PROJECT}.iam.gserviceaccount.com");
    w.update("", &format!("--service-account {robot}"), |_| {
        ensure!(w.get("/account?path=email")? == robot);
        Ok(())
    })?;
    // The robot may call; its tokens are for an audience.
    w.gcloud.ok(&format!("run services add-iam-policy-binding s --region {REGION} --member serviceAccount:{robot} --role roles/run.invoker"))?;
    let token = |audience: &str| -> Result<String> { Ok(format!("Authorization: Bearer {}", w.get(&format!("/account?path=identity?audience={audience}"))?)) };
    let [one, two] = [token("https://one.example")?, token("https://two.example")?];
    let let_in = |token: &str| -> Result<bool> { Ok(w.call(None, "/id", &[token])?.status == 200) };
    w.update("", "--invoker-iam-check --set-custom-audiences https://one.example", |_| {
        ensure!(w.status("/id")? == 403 && let_in(&one)? && !let_in(&two)?);
        Ok(())
    })?;
    w.update("", "--add-custom-audiences https://two.example", |_| {
        ensure!(let_in(&one)? && let_in(&two)?);
        Ok(())
    })?;
    w.update("", "--remove-custom-audiences https://one.example", |_| {
        ensure!(!let_in(&one)? && let_in(&two)?);
        Ok(())
    })?;
    w.update("", "--clear-custom-audiences", |_| {
        ensure!(!let_in(&one)? && !let_in(&two)?);
        Ok(())
    })?;
    w.update("", "--no-invoker-iam-check", |_| {
        ensure!(w.status("/id")? == 200);
        Ok(())
    })
}

/// What is listed, described, replaced and deleted.
pub fn revisions(w: &World) -> Result<()> {
    let g = &w.gcloud;
    let list = |flags: &str| format!("run revisions list --region {REGION} {flags} --format value(metadata.name)");
    let all = g.ok(&list(""))?.lines().count();
    ensure!(all > 10, "{all}");
    g.step(&list("--service s --limit 3"), |output| {
        ensure!(output.lines().count() == 3);
        Ok(())
    })?;
    g.step(&list("--page-size 2 --sort-by metadata.name"), |output| {
        let names: Vec<&str> = output.lines().collect();
        ensure!(names.len() == all && names.is_sorted(), "{names:?}");
        Ok(())
    })?;
    g.step(&list("--filter metadata.name=s-one"), |output| {
        ensure!(output.trim() == "s-one");
        Ok(())
    })?;
    g.step(&format!("run services list --region {REGION} --uri"), |output| holds(output, "/namespaces/"))?;
    holds(&g.ok(&format!("run revisions describe s-one --region {REGION}"))?, "s-one")?;
    let latest = w.revision()?;
    let refused = g.refused(&format!("run revisions delete {latest} --region {REGION}"))?;
    holds(&refused, &format!("Revision '{latest}' cannot be deleted"))?;
    holds(&g.ok(&format!("run revisions delete s-one --region {REGION}"))?, "Deleted revision [s-one].")?;
    ensure!(g.refused(&format!("run revisions describe s-one --region {REGION}"))?.contains("Cannot find revision [s-one]"));

    // What `describe` exports is what `replace` takes: as it is, changed, and as a new service.
    let file = w.files.path().join("s.yaml");
    let export = || -> Result<String> { g.ok(&format!("run services describe s --region {REGION} --format export")) };
    let exported = export()?;
    let replace = |text: &str, flags: &str| -> Result<String> {
        std::fs::write(&file, text)?;
        g.ok(&format!("run services replace '{}' --region {REGION} {flags}", file.display()))
    };
    replace(&exported, "")?;
    ensure!(w.revision()? == latest, "nothing was changed, and a revision was made");
    let changed = exported.replace("timeoutSeconds: 300", "timeoutSeconds: 299");
    ensure!(changed != exported, "{exported}");
    replace(&changed, "--dry-run")?;
    ensure!(export()? == exported && w.revision()? == latest, "a dry run has changed something");
    g.saw("--dry-run");
    replace(&changed, "")?;
    ensure!(w.revision()? != latest && export()? != exported);
    g.ok(&format!("run services delete s --region {REGION}"))?;
    eventually("the service is gone", || Ok((w.status("/id")? == 404).then_some(())))?;
    replace(&exported, "")?;
    ensure!(w.get("/id")?.len() == 16, "a deleted service comes back from its export");
    Ok(())
}
