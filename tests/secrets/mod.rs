//! Secret Manager with the real gcloud; and that no file of the data folder, and no line that the server wrote, holds a payload.

mod canaries;

use anyhow::{Result, ensure};
use canaries::canaries_are_where_they_belong;
use e2e::{Tanebi, eventually, folder, holds, tests};

pub fn tests() -> Vec<e2e::runner::Test> {
    tests!["secrets"; commands, in_a_service, canaries_are_where_they_belong]
}

/// Parts of payloads; each is looked for everywhere in the end.
const CANARIES: [&str; 3] = ["canary-one-8f2c41d7", "canary-two-0b9e63aa", "canary-three-57d10e4f"];

fn commands() -> Result<()> {
    let tanebi = Tanebi::start()?;
    let [one, two, three] = CANARIES;
    let script = |text: &str| tanebi.script_all(text);
    let value = |text: &str| Ok::<_, anyhow::Error>(tanebi.script(text)?.trim().to_owned());

    holds(
        &script(&format!("printf '{one}' | gcloud --quiet secrets create api-key --replication-policy automatic --labels env=test --data-file -"))?,
        "Created version [1] of the secret [api-key].",
    )?;
    holds(&tanebi.script_failing("gcloud --quiet secrets create api-key --replication-policy automatic")?, "already exists")?;
    holds(&script(&format!("printf '{two}' | gcloud secrets versions add api-key --data-file -"))?, "Created version [2] of the secret [api-key].")?;
    ensure!(value("gcloud secrets versions access latest --secret api-key")? == two);
    ensure!(value("gcloud secrets versions access 1 --secret api-key")? == one);
    script("gcloud --quiet secrets create other --replication-policy user-managed --locations asia-northeast1,us-central1 --ttl 36000s")?;

    ensure!(value("gcloud secrets list --format 'value(name)'")? == "other\napi-key", "newest first");
    ensure!(value("gcloud secrets list --filter labels.env=test --format 'value(name)'")? == "api-key");
    let described = value("gcloud secrets describe api-key --format 'value(name,labels.env,replication.automatic)'")?;
    ensure!(described.starts_with(&format!("projects/{}/secrets/api-key\ttest", tanebi.number)), "{described}");
    holds(&script("gcloud secrets describe other")?, "expireTime:")?;

    holds(&script("gcloud secrets versions disable 2 --secret api-key")?, "Disabled version [2] of the secret [api-key].")?;
    holds(&tanebi.script_failing("gcloud secrets versions access latest --secret api-key")?, "is in DISABLED state.")?;
    holds(&script("gcloud secrets versions enable 2 --secret api-key")?, "Enabled version [2] of the secret [api-key].")?;
    script("gcloud --quiet secrets update api-key --update-labels tier=gold --update-annotations note=kept --update-version-aliases prod=1")?;
    ensure!(value("gcloud secrets describe api-key --format 'value(labels.env,labels.tier,annotations.note,versionAliases.prod)'")? == "test\tgold\tkept\t1");
    ensure!(value("gcloud secrets versions access prod --secret api-key")? == one);
    script("gcloud --quiet secrets update other --remove-expiration")?;
    ensure!(value("gcloud secrets describe other --format 'value(expireTime)'")?.is_empty());
    script("gcloud --quiet secrets update other --version-destroy-ttl 86400s")?;
    script(&format!("printf '{three}' | gcloud secrets versions add other --data-file -"))?;
    holds(&script("gcloud secrets versions destroy 1 --secret other --quiet")?, "version [1]")?;
    ensure!(value("gcloud secrets versions describe 1 --secret other --format 'value(state)'")? == "DISABLED", "its delay runs");
    holds(&script("gcloud secrets versions destroy 1 --secret api-key --quiet")?, "Destroyed version [1] of the secret [api-key].")?;
    ensure!(value("gcloud secrets versions list api-key --format 'csv[no-heading](name,state)'")? == "2,enabled\n1,destroyed");
    holds(&tanebi.script_failing("gcloud --quiet secrets update api-key --add-topics projects/p/topics/t")?, "topics")?;

    // A guest reads it once it was given the role, and sees no more than that.
    let guest = |text: &str| tanebi.shell_as(Some("guest@example.com"), text);
    const ACCESS: &str = "gcloud secrets versions access latest --secret api-key 2>&1";
    let refused = guest(ACCESS)?;
    ensure!(!refused.status.success());
    holds(&String::from_utf8_lossy(&refused.stdout), "PERMISSION_DENIED")?;
    let bound = script("gcloud secrets add-iam-policy-binding api-key --member user:guest@example.com --role roles/secretmanager.secretAccessor")?;
    holds(&bound, "user:guest@example.com")?;
    eventually("the guest is let in", || Ok(String::from_utf8_lossy(&guest(ACCESS)?.stdout).ends_with(two).then_some(())))?;
    ensure!(!guest("gcloud secrets versions list api-key 2>&1")?.status.success());
    holds(&script("gcloud secrets get-iam-policy api-key")?, "roles/secretmanager.secretAccessor")?;
    script("gcloud secrets remove-iam-policy-binding api-key --member user:guest@example.com --role roles/secretmanager.secretAccessor")?;

    holds(&script("gcloud secrets delete other --quiet")?, "Deleted secret [other].")?;
    holds(&tanebi.script_failing("gcloud secrets describe other")?, "NOT_FOUND")?;

    let output = tanebi.output();
    ensure!(!CANARIES.iter().any(|canary| output.contains(canary)), "the server wrote a payload:\n{output}");
    // What it was before is what it is after a restart; the grep is of the folder at rest.
    let data = tanebi.stop()?;
    let found = std::process::Command::new("grep").args(["-rlaE", &CANARIES.join("|")]).arg(data.path()).output()?;
    ensure!(found.status.code() == Some(1), "payloads lie in {}", String::from_utf8_lossy(&found.stdout));
    let tanebi = Tanebi::start_with(data, &[])?;
    ensure!(tanebi.script("gcloud secrets versions access latest --secret api-key")? == two);
    Ok(())
}

/// A variable and a file, read when an instance starts, by who may read them only; and nowhere else.
fn in_a_service() -> Result<()> {
    const MAIN: &str = "import os\nimport functions_framework\n@functions_framework.http\ndef hello(request):\n    with open('/secrets/api') as file:\n        return os.environ['API_KEY'] + ' ' + file.read()\n";
    let tanebi = Tanebi::start()?;
    let [one, two, _] = CANARIES;
    tanebi.script_all(&format!("printf '{one}' | gcloud --quiet secrets create api-key --replication-policy automatic --data-file -"))?;
    let source = folder(&[("main.py", MAIN), ("requirements.txt", "functions-framework==3.*\n")])?;
    let deploy = format!(
        "cd '{}'\ngcloud run deploy hello --source . --function hello --base-image python312 --region asia-northeast1 --no-invoker-iam-check --quiet --set-secrets API_KEY=api-key:latest,/secrets/api=api-key:1",
        source.path().display()
    );
    holds(&tanebi.script_failing(&deploy)?, "Permission denied on secret")?;
    tanebi.script_all(&format!(
        "gcloud secrets add-iam-policy-binding api-key --member serviceAccount:{}-compute@developer.gserviceaccount.com --role roles/secretmanager.secretAccessor",
        tanebi.number
    ))?;
    tanebi.script_all(&deploy)?;
    let answer = || tanebi.script(&format!("curl -s {}", tanebi.url("hello")));
    ensure!(answer()? == format!("{one} {one}"), "{}", answer()?);
    // Another version is seen by instances that start after it: those of another revision, here.
    tanebi.script_all(&format!("printf '{two}' | gcloud secrets versions add api-key --data-file -"))?;
    tanebi.script_all("gcloud run services update hello --region asia-northeast1 --update-env-vars B=2")?;
    ensure!(answer()? == format!("{two} {one}"), "{}", answer()?);
    let shown = tanebi.script("gcloud run services describe hello --region asia-northeast1 --format export")?;
    holds(&shown, "secretKeyRef:")?;
    ensure!(!CANARIES.iter().any(|canary| shown.contains(canary)), "{shown}");
    let data = tanebi.stop()?;
    let found = std::process::Command::new("grep").args(["-rlaE", &CANARIES.join("|")]).arg(data.path()).output()?;
    ensure!(found.status.code() == Some(1), "payloads lie in {}", String::from_utf8_lossy(&found.stdout));
    Ok(())
}
