//! tanebi's own commands.

use std::process::Command;

use anyhow::{Result, ensure};
use e2e::{Tanebi, holds, program, repository, tests};

mod shadow;
use shadow::a_revision_is_compared_before_it_takes_traffic;

pub fn tests() -> Vec<e2e::runner::Test> {
    tests!["cli"; commands, a_revision_is_compared_before_it_takes_traffic, environments_come_and_go, settings_that_are_wrong, nothing_reaches_google_when_it_is_stopped, sign_in]
}

fn commands() -> Result<()> {
    let tanebi = Tanebi::start()?;
    let folder = repository().join("examples/python/hello_http");
    let deployed = tanebi.deploy("hello", &folder, "--function hello_http --allow-unauthenticated --set-env-vars A=1 --concurrency 7")?;
    holds(&deployed, "is serving 100 percent of traffic.")?;
    ensure!(tanebi.script("tanebi run call hello")? == "Hello World!\n");
    ensure!(tanebi.script("tanebi run call hello --data '{\"name\":\"CLI\"}'")? == "Hello CLI!\n");
    holds(&tanebi.script("tanebi run list")?, "hello\tasia-northeast1\tready")?;
    // What a second deploy does not speak of stays.
    tanebi.script_all("gcloud run services update hello --region asia-northeast1 --add-custom-audiences https://own.example --update-labels team=a")?;
    tanebi.deploy("hello", &folder, "--function hello_http --update-env-vars B=2,C=3 --remove-env-vars C --no-cpu-throttling --labels l=1")?;
    let described = tanebi.script("tanebi run describe hello")?;
    for part in ["https://own.example", "\"team\": \"a\"", "\"l\": \"1\"", "\"maxInstanceRequestConcurrency\": 7", "\"A\"", "\"B\""] {
        holds(&described, part)?;
    }
    ensure!(!described.contains("\"C\"") && !described.contains("\"cpuIdle\": true"), "{described}");
    holds(&tanebi.script("tanebi instances list")?, "hello\thello-0000")?;
    holds(&tanebi.script_all("tanebi instances stop hello")?, "stopped")?;
    ensure!(tanebi.script("tanebi instances list")?.is_empty());
    ensure!(tanebi.script("tanebi run call hello")? == "Hello World!\n", "it starts again");
    e2e::eventually("the log tells of the call", || Ok(tanebi.script("tanebi logs hello")?.contains("GET 200").then_some(())))?;
    ensure!(tanebi.script("tanebi exec -- sh -c 'echo $GOOGLE_CLOUD_PROJECT'")? == "tanebi-local\n");
    holds(&tanebi.script_failing("tanebi run deploy hello --source /nonexistent")?, "/nonexistent")?;
    holds(&tanebi.script_failing("tanebi run describe nothing")?, "nothing")?;
    tanebi.script_all("tanebi run delete hello")?;
    ensure!(tanebi.script("tanebi run list")?.is_empty());
    holds(
        &tanebi.script(
            "curl -s http://localhost:$PORT/metrics -H \"Authorization: Bearer $(cat $TANEBI_DATA_DIR/client/secret)\""
                .replace("$PORT", &tanebi.listen.port().to_string())
                .as_str(),
        )?,
        "tanebi_requests_total",
    )
}

fn environments_come_and_go() -> Result<()> {
    let tanebi = Tanebi::start()?;
    let script = format!(
        "export GOOGLE_APPLICATION_CREDENTIALS='/a b/it'\"'\"'s' CLOUDSDK_CORE_PROJECT=mine HTTPS_PROXY=\nunset https_proxy\nenv | sort > $D/before\n\
         eval \"$(tanebi env --data-dir '{0}')\"\n[ \"$GOOGLE_APPLICATION_CREDENTIALS\" = \"$CLOUDSDK_CONFIG/application_default_credentials.json\" ] || exit 3\n[ -z \"$CLOUDSDK_CORE_PROJECT\" ] || exit 4\n[ \"$https_proxy\" = 'http://{1}' ] || exit 5\n\
         eval \"$(tanebi env --data-dir '{0}' --as x@example.com)\"\neval \"$(tanebi env --unset)\"\nenv | sort > $D/after\ndiff $D/before $D/after",
        tanebi.data.path().display(),
        tanebi.listen
    );
    let dir = tempfile::tempdir()?;
    let path = format!("{}:{}", program().parent().expect("a folder").display(), std::env::var("PATH")?);
    let output = Command::new("bash").args(["-c", &script]).env("PATH", path).env("D", dir.path()).env_remove("https_proxy").output()?;
    e2e::text(output, "env and --unset restore every variable")?;
    let json = tanebi.script("tanebi env --format json")?;
    let json: serde_json::Value = serde_json::from_str(&json)?;
    ensure!(json["project"] == "tanebi-local" && json["variables"]["CURL_CA_BUNDLE"].is_string(), "{json}");
    // What a gcloud that runs now may be reading stays.
    let tables = "$CLOUDSDK_CONFIG/access_tokens.db";
    tanebi.script(&format!("gcloud run services list && stat -c %i {tables} > /tmp/tables.$$ && tanebi env > /dev/null && [ $(stat -c %i {tables}) = $(cat /tmp/tables.$$) ] && rm /tmp/tables.$$"))?;
    Ok(())
}

fn settings_that_are_wrong() -> Result<()> {
    let check = |arguments: &[&str], part: &str| -> Result<()> {
        let dir = tempfile::tempdir()?;
        let output = Command::new(program()).args(arguments).arg("--data-dir").arg(dir.path()).output()?;
        ensure!(!output.status.success(), "{arguments:?}");
        holds(&String::from_utf8_lossy(&output.stderr), part)
    };
    check(&["serve", "--listen", "0.0.0.0:1"], "beyond loopback")?;
    check(&["serve", "--listen", "nonsense"], "nonsense")?;
    check(&["serve", "--project", "BAD"], "BAD")?;
    check(&["serve", "--region", "mars-east1"], "mars-east1")?;
    check(&["env"], "no tanebi runs")?;
    let taken = std::net::TcpListener::bind("127.0.0.1:0")?;
    let address = taken.local_addr()?.to_string();
    check(&["serve", "--listen", &address], "is taken by")?;
    // Two servers of one folder.
    let tanebi = Tanebi::start()?;
    let output = Command::new("timeout")
        .arg("60")
        .arg(program())
        .args(["serve", "--listen", "127.0.0.1:0", "--tls-listen", "127.0.0.1:0", "--data-dir"])
        .arg(tanebi.data.path())
        .output()?;
    ensure!(!output.status.success());
    holds(&String::from_utf8_lossy(&output.stderr), "another tanebi")?;
    ensure!(tanebi.script("tanebi run list")?.is_empty(), "the first one goes on");
    Ok(())
}

fn nothing_reaches_google_when_it_is_stopped() -> Result<()> {
    let tanebi = Tanebi::start()?;
    let environment = tanebi.script("tanebi env --data-dir \"$TANEBI_DATA_DIR\"")?;
    let _data = tanebi.stop()?;
    let output =
        Command::new("timeout").args(["200", "bash", "-c", &format!("{environment}\ncurl -sS --max-time 20 https://run.googleapis.com/ 2>&1")]).output()?;
    ensure!(!output.status.success());
    holds(&String::from_utf8_lossy(&output.stdout), "connect")
}

/// The link that `serve` prints sets a password, once; with it `gcloud auth login` signs in, and then gcloud has what it needs.
fn sign_in() -> Result<()> {
    let tanebi = Tanebi::start()?;
    let output = tanebi.output();
    let link = output.lines().find_map(|line| line.strip_prefix("to sign in in a browser: ")).ok_or_else(|| anyhow::anyhow!("no link:\n{output}"))?;
    let person = repository().join("tests/cli/browser.py");
    let told = tanebi.script_all(&format!("python3 '{}' '{link}' && gcloud projects list --format 'value(projectId)'", person.display()))?;
    holds(&told, "signed in")?;
    holds(&told, "tanebi-local")
}
