//! The article, word for word: its commands with the real gcloud and curl, its pages byte for byte.

use std::process::Command;

use anyhow::{Result, ensure};
use e2e::{Tanebi, eventually, holds, repository, tests};

pub fn tests() -> Vec<e2e::runner::Test> {
    tests!["seed"; article, allow_unauthenticated_and_second_revision]
}

const NOT_FOUND: &str = "<html><head>\n<meta http-equiv=\"content-type\" content=\"text/html;charset=utf-8\">\n<title>404 Page not found</title>\n</head>\n<body text=#000000 bgcolor=#ffffff>\n<h1>Error: Page not found</h1>\n<h2>The requested URL was not found on this server.</h2>\n<h2></h2>\n</body></html>\n";
const FORBIDDEN: &str = "<html><head>\n<meta http-equiv=\"content-type\" content=\"text/html;charset=utf-8\">\n<title>403 Forbidden</title>\n</head>\n<body text=#000000 bgcolor=#ffffff>\n<h1>Error: Forbidden</h1>\n<h2>Your client does not have permission to get URL <code>/</code> from this server.</h2>\n<h2></h2>\n</body></html>\n";

/// Every shell line of the article, in its order.
fn article() -> Result<()> {
    let tanebi = Tanebi::start()?;
    let folder = repository().join("examples/python/hello_http");
    let url = tanebi.url("sample-function-1");
    let deployed = tanebi.script_all(&format!(
        "cd '{}'\ngcloud run deploy sample-function-1 --source . --function hello_http --base-image python312 --region asia-northeast1 --no-invoker-iam-check",
        folder.display()
    ))?;
    holds(
        &deployed,
        "Building using Buildpacks and deploying container to Cloud Run service [sample-function-1] in project [tanebi-local] region [asia-northeast1]",
    )?;
    holds(&deployed, "has been deployed and is serving 100 percent of traffic.")?;
    holds(&deployed, &format!("Service URL: {url}"))?;

    // The endpoint, as a browser and as the article's curl line call it.
    let world = tanebi.script(&format!("curl -sS {url}"))?;
    ensure!(world == "Hello World!", "{world:?}");
    let developer = tanebi.script(&format!(
        "curl -sS -X POST \"{url}\" -H \"Authorization: bearer $(gcloud auth print-identity-token)\" -H \"Content-Type: application/json\" -d '{{ \"name\": \"Developer\" }}'"
    ))?;
    ensure!(developer == "Hello Developer!", "{developer:?}");
    // A browser on this machine, without proxy or CA; by path where *.localhost does not resolve.
    let port = tanebi.listen.port();
    let browser = curl(&[
        "--resolve",
        &format!("*:{port}:127.0.0.1"),
        &format!("http://sample-function-1-{}.asia-northeast1.run.localhost:{port}/?name=Browser", tanebi.number),
    ])?;
    ensure!(browser == "Hello Browser!", "{browser:?}");
    let path = curl(&[&format!("http://localhost:{port}/_run/asia-northeast1/sample-function-1/?name=Path")])?;
    ensure!(path == "Hello Path!", "{path:?}");

    // Not reachable from outside.
    let updated = tanebi.script_all("gcloud run services update sample-function-1 --region asia-northeast1 --ingress internal")?;
    holds(&updated, "Service [sample-function-1] has been updated.")?;
    let page = tanebi.script(&format!("curl -sS -w '%{{http_code}}' {url}"))?;
    ensure!(page == format!("{NOT_FOUND}404"), "{page:?}");
    tanebi.script_all("gcloud run services update sample-function-1 --region asia-northeast1 --ingress all")?;

    // Authentication required.
    tanebi.script_all("gcloud run services update sample-function-1 --region asia-northeast1 --invoker-iam-check")?;
    let page = tanebi.script(&format!("curl -sS -w '%{{http_code}}' {url}"))?;
    ensure!(page == format!("{FORBIDDEN}403"), "{page:?}");
    let invoked = tanebi.script(&format!(
        "curl -sS -X POST \"{url}\" -H \"Authorization: bearer $(gcloud auth print-identity-token)\" -H \"Content-Type: application/json\" -d '{{ \"name\": \"Developer\" }}'"
    ))?;
    ensure!(invoked == "Hello Developer!", "{invoked:?}");
    let bound = tanebi.script_all(
        "gcloud run services add-iam-policy-binding sample-function-1 --region asia-northeast1 --member=\"allUsers\" --role=\"roles/run.invoker\"",
    )?;
    holds(&bound, "Updated IAM policy for service [sample-function-1].")?;
    holds(&bound, "allUsers")?;
    eventually("the policy is effective", || Ok((tanebi.script(&format!("curl -sS {url}"))? == "Hello World!").then_some(())))
}

fn allow_unauthenticated_and_second_revision() -> Result<()> {
    let tanebi = Tanebi::start()?;
    let url = tanebi.url("hello");
    let folder = e2e::folder(&[
        ("main.py", "import functions_framework\n@functions_framework.http\ndef hello(request):\n    return 'one'\n"),
        ("requirements.txt", "functions-framework==3.*\n"),
    ])?;
    let deploy = format!(
        "cd '{}'\ngcloud run deploy hello --source . --function hello --base-image python312 --region asia-northeast1 --allow-unauthenticated",
        folder.path().display()
    );
    let first = tanebi.script_all(&deploy)?;
    holds(&first, "Setting IAM Policy")?;
    ensure!(tanebi.script(&format!("curl -sS {url}"))? == "one");
    std::fs::write(folder.path().join("main.py"), "import functions_framework\n@functions_framework.http\ndef hello(request):\n    return 'two'\n")?;
    holds(&tanebi.script_all(&deploy)?, "revision [hello-00002-")?;
    ensure!(tanebi.script(&format!("curl -sS {url}"))? == "two");
    let revisions = tanebi.script("gcloud run revisions list --service hello --region asia-northeast1 --format 'value(metadata.name)'")?;
    ensure!(revisions.lines().count() == 2 && revisions.contains("hello-00002-"), "{revisions}");
    Ok(())
}

/// curl in a shell that knows nothing of tanebi.
fn curl(arguments: &[&str]) -> Result<String> {
    let output = Command::new("curl").args(["-sS", "--noproxy", "*"]).args(arguments).output()?;
    e2e::text(output, "curl")
}
