//! Copies of recent requests before a revision takes traffic: what is compared, what is never kept, and who keeps serving.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use e2e::{Tanebi, eventually, folder, holds};
use serde_json::Value;

/// Tells which headers it got and counts what changes something; `{}` is what differs between revisions.
fn function(answer: &str) -> String {
    format!(
        "import json, time\nimport functions_framework\nchanged = 0\n\n@functions_framework.http\ndef shadowed(request):\n    global changed\n    \
         if request.method == 'POST':\n        changed += 1\n        print('changed by', request.get_data(as_text=True), 'copy', request.headers.get('tanebi-shadow'))\n    \
         seen = sorted(name.lower() for name, _ in request.headers.items())\n    {answer}\n    \
         return json.dumps({{'path': request.full_path, 'at': time.time_ns(), 'said': said, 'seen': seen}}), 200, {{'content-type': 'application/json'}}\n"
    )
}

pub fn a_revision_is_compared_before_it_takes_traffic() -> Result<()> {
    let tanebi = Tanebi::start()?;
    let url = tanebi.url("shadowed");
    let source = |answer: &str| folder(&[("main.py", &function(answer)), ("requirements.txt", "functions-framework\n")]);
    let deploy = |folder: &Path, flags: &str| {
        format!("tanebi run deploy shadowed --source '{}' --base-image python312 --function shadowed --no-invoker-iam-check {flags}", folder.display())
    };
    let (first, second, broken) = (source("said = 'one'")?, source("said = 'two'")?, source("said = 'two' if '/b' not in request.path else 1 / 0")?);

    // Nothing is recorded yet: it is said, and the new revision serves at once.
    tanebi.script_all(&deploy(first.path(), ""))?;
    holds(&tanebi.script_all(&deploy(first.path(), "--shadow"))?, "nothing to compare")?;
    // One is kept in a tenth of a second; credentials of all sorts come with them.
    let secrets = "-H 'cookie: session=s3cret' -H 'x-api-key: s3cret' -H 'authorization: Basic czNjcmV0' -H 'tanebi-shadow: 1'";
    for path in ["/a?x=1", "/b", "/c"] {
        tanebi.script(&format!("curl -sf {secrets} '{url}{path}' && sleep 0.2"))?;
    }
    tanebi.script(&format!("curl -sf -d '{{\"order\": 1}}' {url}/order"))?;

    // What differs is told, what differs by itself is not, and the revision takes traffic.
    let told = tanebi.script_all(&deploy(second.path(), "--shadow"))?;
    holds(&told, "3 of 3 recorded requests compared: 3 differ, 0 failed")?;
    holds(&told, "body .said\t\\\"one\\\" -> \\\"two\\\"")?;
    ensure!(!told.contains(".at") && !told.contains("s3cret"), "{told}");
    holds(&told, "is serving 100 percent of traffic.")?;
    holds(&tanebi.script(&format!("curl -sf {url}/"))?, "\"said\": \"two\"")?;

    // One that fails where the serving one does not takes none.
    let told = tanebi.script_failing(&deploy(broken.path(), "--shadow"))?;
    holds(&told, "FAILED\tGET /b")?;
    holds(&told, "takes no traffic: what served before still does.")?;
    holds(&tanebi.script(&format!("curl -sf {url}/b"))?, "\"said\": \"two\"")?;
    let service = describe(&tanebi)?;
    let held = service["traffic"][0]["revision"].as_str().context("traffic is pinned")?.to_owned();
    ensure!(service["latestReadyRevision"].as_str().is_some_and(|latest| !latest.ends_with(&held)), "{service:#}");

    // The copies carried nobody's credentials but those of who asked, and said what they are; no caller can say so.
    let compared: Value = serde_json::from_str(&tanebi.script("tanebi run shadow shadowed --format json || true")?)?;
    let comparisons = compared["comparisons"].as_array().context("comparisons")?;
    ensure!(comparisons.len() == 4, "{compared:#}");
    for one in comparisons {
        let answered: Value = serde_json::from_str(one["serving"]["text"].as_str().context("a text")?)?;
        let seen: Vec<_> = answered["seen"].as_array().context("headers")?.iter().filter_map(Value::as_str).collect();
        ensure!(seen.contains(&"tanebi-shadow") && seen.contains(&"authorization"), "{seen:?}");
        ensure!(!seen.contains(&"cookie") && !seen.contains(&"x-api-key"), "{seen:?}");
    }
    // Who may only see and call it is told where answers differ, and no word of them.
    for role in ["roles/run.viewer", "roles/run.invoker"] {
        tanebi
            .script(&format!("gcloud projects add-iam-policy-binding $GOOGLE_CLOUD_PROJECT --member user:viewer@example.com --role {role} --condition None"))?;
    }
    let seen = text_of(&tanebi, "tanebi run --as viewer@example.com shadow shadowed --format json")?;
    ensure!(seen.contains("\"isShown\": false") && seen.contains("\".at\"") && !seen.contains("\"text\"") && !seen.contains("two"), "{seen}");
    let direct = tanebi.script(&format!("curl -sf {secrets} {url}/b"))?;
    ensure!(direct.contains("x-api-key") && !direct.contains("tanebi-shadow"), "{direct}");

    // A restart forgets them: what is held is not let go because nothing could be compared, and that is said.
    let tanebi = Tanebi::start_with(tanebi.stop()?, &[])?;
    let told = tanebi.script_failing(&deploy(first.path(), "--shadow"))?;
    holds(&told, "nothing to compare")?;
    holds(&told, "To send it traffic all the same")?;
    tanebi.script(&format!("curl -sf '{url}/a?x=1' && sleep 0.2"))?;

    // The next one that does well gets what was held from it.
    holds(&tanebi.script_all(&deploy(first.path(), "--shadow"))?, "is serving 100 percent of traffic.")?;
    let service = describe(&tanebi)?;
    ensure!(
        service["traffic"][0]["type"] == "TRAFFIC_TARGET_ALLOCATION_TYPE_LATEST" && service["annotations"]["tanebi.dev/shadow-held"].is_null(),
        "{service:#}"
    );

    // A request that changes something is kept only where the owner has said so, and its copies are logged as such.
    let patch = |word: &str| {
        format!(
            "curl -s -X PATCH \"https://run.googleapis.com/v2/projects/$GOOGLE_CLOUD_PROJECT/locations/asia-northeast1/services/shadowed?updateMask=annotations\" \
             -H \"Authorization: Bearer $(gcloud auth print-access-token)\" -H 'content-type: application/json' -d '{{\"annotations\":{{\"tanebi.dev/shadow\":\"{word}\"}}}}'"
        )
    };
    holds(&tanebi.script(&patch("everything"))?, "must be \\\"off\\\", \\\"reads\\\"")?;
    tanebi.script(&patch("all"))?;
    eventually("a POST is recorded", || {
        tanebi.script(&format!("curl -sf -d '{{\"order\": 2}}' {url}/order; sleep 0.2"))?;
        let told = tanebi.script_all(&deploy(second.path(), "--shadow"))?;
        Ok(told.contains("\tPOST /order").then_some(()))
    })?;
    let denied = text_of(&tanebi, &format!("tanebi run --as viewer@example.com shadow shadowed --revision {held}"))?;
    holds(&denied, "run.services.update")?;
    eventually("its copies are in the log", || {
        let log = tanebi.script("tanebi logs shadowed --limit 1000")?;
        Ok((log.contains("changed by {\"order\": 2} copy 1") && log.contains("changed by {\"order\": 1} copy None") && !log.contains("{\"order\": 1} copy 1"))
            .then_some(()))
    })?;

    // And is forgotten when the owner says no.
    tanebi.script(&patch("reads"))?;
    tanebi.script(&patch("all"))?;
    let told = text_of(&tanebi, &format!("tanebi run shadow shadowed --revision {held}"))?;
    ensure!(told.contains("\tGET /") && !told.contains("\tPOST /order"), "{told}");
    Ok(())
}

/// What a script says, whatever it ends with.
fn text_of(tanebi: &Tanebi, script: &str) -> Result<String> {
    let output = tanebi.shell(&format!("{{ {script}\n}} 2>&1"))?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn describe(tanebi: &Tanebi) -> Result<Value> {
    Ok(serde_json::from_str(&tanebi.script("tanebi run describe shadowed")?)?)
}
