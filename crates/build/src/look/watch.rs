//! The look's own sandbox: the program that looks sees the source read-only, has no network, little memory and little time.
//!
//! What it says is a stranger's word, since what it read might have overtaken it: taken as text, bounded. Whatever goes wrong, a build goes on
//! without it.

use std::{path::Path, sync::Arc, time::Duration};

use tokio::time::Instant;

use super::{FOUND_MAX, Finding, Looked, WHAT_MAX_CHARS, look};
use crate::{
    Error, Interpreter, Language,
    catalogue::host_paths,
    environment::{Access, Reach, shown},
    job::Job,
    log::BuildLog,
    plan::WORKSPACE,
    step::Runner,
    tree::PATH_MAX_BYTES,
};

/// Where the program lies in its sandbox.
const PROGRAM: &str = "/look/tanebi";
/// The wall time of a look, with the sandbox around it.
const TIMEOUT: Duration = Duration::from_secs(5);
/// The largest tree of a file that is looked at has about a tenth of that.
const MEMORY_BYTES: u64 = 512 << 20;

/// What instances of a source share that are clones: a sentence each. Empty where it cannot be known.
pub(crate) async fn shared(job: &Job<'_>, looker: &Path, interpreter: &Interpreter) -> Vec<String> {
    if super::Grammars::of(interpreter.language).is_none() {
        return Vec::new();
    }
    match walled(job, looker, interpreter).await {
        Ok(looked) => {
            if looked.is_partial {
                job.runner.log.say("Not all of the source was looked at for what its instances would share: it has too many files, or too large ones.");
            }
            sentences(&looked)
        }
        Err(error) => {
            tracing::warn!(%error, "a source was not looked at for what its instances share");
            Vec::new()
        }
    }
}

async fn walled(job: &Job<'_>, looker: &Path, interpreter: &Interpreter) -> Result<Looked, Error> {
    let command = [PROGRAM, "look", interpreter.language.prefix(), WORKSPACE].map(str::to_owned).to_vec();
    let mut spec = job.base.spec(job.work.sandbox_id(), interpreter, Reach::Nothing, command);
    spec.mounts = host_paths().iter().map(|path| shown(path, path, Access::Read)).collect();
    spec.mounts.push(shown(looker, PROGRAM, Access::Read));
    spec.mounts.push(shown(job.source, WORKSPACE, Access::Read));
    spec.limits.memory_bytes = spec.limits.memory_bytes.min(MEMORY_BYTES);
    spec.limits.tmp_bytes = 64 << 10;
    spec.limits.pids = 16;
    let silent = BuildLog::new(Arc::new(|_| {}));
    let runner = Runner { log: silent, deadline: job.runner.deadline.min(Instant::now() + TIMEOUT), timeout: TIMEOUT, ..job.runner.clone() };
    let outcome = runner.run(spec, job.source).await?;
    read(&outcome.tail).filter(|_| outcome.is_success()).ok_or_else(|| Error::Internal(format!("the look ended with {}", outcome.how())))
}

/// What the program is: looks, and says what it saw, a line of JSON for each finding and one for the end. `language` as its base images' ids
/// begin: `python`.
/// # Errors
/// Why nothing can be said.
pub fn program(language: &str, folder: &Path) -> Result<String, String> {
    let language = Language::of_id(language).ok_or_else(|| format!("{language:?} is no language"))?;
    let looked = look(folder, language).map_err(|error| format!("looking at {}: {error}", folder.display()))?;
    Ok(written(looked))
}

fn written(mut looked: Looked) -> String {
    let findings = std::mem::take(&mut looked.findings);
    let lines = findings.iter().map(serde_json::to_string).chain([serde_json::to_string(&looked)]);
    lines.map(|line| line.unwrap_or_default() + "\n").collect()
}

/// `None` unless the last line is the end.
fn read(lines: &[String]) -> Option<Looked> {
    let (end, findings) = lines.split_last()?;
    let mut looked: Looked = serde_json::from_str(end).ok()?;
    let is_fit = |finding: &Finding| finding.file.len() <= PATH_MAX_BYTES && finding.what.chars().count() <= WHAT_MAX_CHARS + 2;
    let findings = findings.iter().filter_map(|line| serde_json::from_str(line).ok()).filter(is_fit);
    looked.findings = findings.take(FOUND_MAX).collect();
    Some(looked)
}

fn sentences(looked: &Looked) -> Vec<String> {
    let clean = |text: String| -> String { text.chars().filter(|c| !c.is_control()).collect() };
    let mut sentences: Vec<String> = looked.findings.iter().map(|finding| clean(finding.sentence())).collect();
    match looked.more {
        0 => {}
        1 => sentences.push("One more call in the global scope makes what clones share.".to_owned()),
        more => sentences.push(format!("{more} more calls in the global scope make what clones share.")),
    }
    sentences
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::look::Kind;

    fn finding(line: usize) -> Finding {
        Finding { file: "main.py".to_owned(), line, what: "uuid.uuid4()".to_owned(), kind: Kind::Random }
    }

    fn lines(text: &str) -> Vec<String> {
        text.lines().map(str::to_owned).collect()
    }

    #[test]
    fn what_is_said_is_read_again() {
        let looked = Looked { findings: vec![finding(1), finding(2)], more: 3, is_partial: true };
        assert_eq!(read(&lines(&written(looked.clone()))), Some(looked));
        assert_eq!(read(&lines(&written(Looked::default()))), Some(Looked::default()));
    }

    #[test]
    fn a_word_of_a_stranger_is_bounded() {
        let many = Looked { findings: (0..80).map(finding).collect(), more: 0, is_partial: false };
        assert_eq!(read(&lines(&written(many))).unwrap().findings.len(), FOUND_MAX);
        let long = Looked { findings: vec![Finding { what: "x".repeat(100), ..finding(1) }], more: 0, is_partial: false };
        assert_eq!(read(&lines(&written(long))).unwrap().findings, []);
        for text in ["", "nothing\n", "{}\nnothing\n", "{\"file\":1}\n"] {
            assert_eq!(read(&lines(text)), None, "{text}");
        }
        let steering = Looked { findings: vec![Finding { file: "a\u{1b}[31m\nb".to_owned(), ..finding(1) }], more: 1, is_partial: false };
        let told = sentences(&read(&lines(&written(steering))).unwrap());
        assert!(told.len() == 2 && told[0].starts_with("a[31mb:1: uuid.uuid4() is drawn"), "{told:?}");
    }
}
