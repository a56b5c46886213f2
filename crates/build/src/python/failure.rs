//! Why a package manager failed, read from its last lines.
//!
//! The first line that a user sees says the cause. uv prints `error: WHAT` and `cause: WHY` lines (older ones a tree of
//! `×` and `╰─▶`), pip prints `ERROR: WHAT`.

/// What kind of failure it is: decides what is tried next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// The requirements cannot be met together, or do not exist.
    NoSolution,
    /// A package must be built, which was not allowed.
    BuildNeeded,
    /// The registry did not answer.
    Network,
    Other,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Explained {
    pub(crate) failure: Failure,
    /// One sentence or more, ending with a full stop.
    pub(crate) text: String,
}

/// Bytes of the text.
const TEXT_MAX_BYTES: usize = 1000;

/// The folder that uv makes to build packages in; it is blocked where no package may be built.
pub(crate) const BUILDS_BUCKET: &str = "builds-v0";

pub(crate) fn explain(tail: &[String]) -> Explained {
    let start = tail.iter().rposition(|line| is_head(line));
    let text = match start {
        Some(start) => sentence(&tail[start..]),
        None => {
            tail.iter().rev().find(|line| !line.trim().is_empty()).map_or_else(|| "it said nothing.".to_owned(), |line| sentence(std::slice::from_ref(line)))
        }
    };
    let all = tail[start.unwrap_or(0)..].join("\n");
    let has = |parts: &[&str]| parts.iter().any(|part| all.contains(part));
    let failure = if has(&[&format!("{BUILDS_BUCKET}`"), &format!("{BUILDS_BUCKET}:")]) {
        Failure::BuildNeeded
    } else if has(&["No solution found"]) {
        Failure::NoSolution
    } else if has(&[
        "dns error",
        "tcp connect error",
        "error sending request",
        "Failed to establish a new connection",
        "Temporary failure in name resolution",
        "timed out",
        "Network is unreachable",
        "Connection reset",
        "No matching distribution found for uv",
    ]) {
        Failure::Network
    } else {
        Failure::Other
    };
    Explained { failure, text }
}

fn is_head(line: &str) -> bool {
    let line = line.trim_start();
    line.starts_with("error:") || line.starts_with("ERROR:") || line.starts_with("× ")
}

/// Joins an error and its causes to one text.
fn sentence(lines: &[String]) -> String {
    let mut out = String::new();
    for line in lines {
        let line = line.trim();
        if line.is_empty() || line.starts_with("hint:") && !out.is_empty() && out.len() > TEXT_MAX_BYTES / 2 {
            break;
        }
        let line = line.trim_start_matches(['×', '╰', '─', '▶', '├', '│', ' ']);
        for (mark, glue) in [("error: ", ""), ("ERROR: ", ""), ("cause: ", ": "), ("Caused by: ", ": "), ("hint: ", " Hint: ")] {
            if let Some(rest) = line.strip_prefix(mark) {
                join(&mut out, glue, rest);
                break;
            }
        }
        if !["error: ", "ERROR: ", "cause: ", "Caused by: ", "hint: "].iter().any(|mark| line.starts_with(mark)) {
            join(&mut out, " ", line);
        }
        if out.len() > TEXT_MAX_BYTES {
            break;
        }
    }
    let mut out: String = out.chars().take(TEXT_MAX_BYTES).collect();
    if !out.ends_with(['.', '!', '?']) {
        out.push('.');
    }
    out
}

fn join(out: &mut String, glue: &str, text: &str) {
    if !out.is_empty() {
        let glue = if glue.is_empty() { " " } else { glue };
        if glue == ": " {
            out.truncate(out.trim_end_matches([':', '.', ' ']).len());
        }
        out.push_str(glue);
    }
    out.push_str(text);
}

/// What `uv pip install --strict` found that does not fit together.
pub(crate) fn incompatibilities(tail: &[String]) -> Vec<String> {
    let text = |line: &String| {
        let line = line.trim().trim_start_matches("warning: ");
        let is_fault = line.starts_with("The package `") && (line.contains("` requires `") || line.contains(" requires "));
        is_fault.then(|| line.to_owned())
    };
    tail.iter().filter_map(text).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(tail: &str, failure: Failure, text: &str) {
        let tail: Vec<String> = tail.lines().map(str::to_owned).collect();
        assert_eq!(explain(&tail), Explained { failure, text: text.to_owned() });
    }

    #[test]
    fn the_cause_is_told_in_one_text() {
        check(
            "Using Python 3.12.1 environment at: v\nerror: No solution found when resolving dependencies\n  cause: Because nosuchpkg was not found in the package registry and you require nosuchpkg, we can conclude that your requirements are unsatisfiable.",
            Failure::NoSolution,
            "No solution found when resolving dependencies: Because nosuchpkg was not found in the package registry and you require nosuchpkg, we can conclude that your requirements are unsatisfiable.",
        );
        check(
            "  × No solution found when resolving dependencies:\n  ╰─▶ Because there is no version of flask==99 and you require\n      flask==99, we can conclude that your requirements are unsatisfiable.",
            Failure::NoSolution,
            "No solution found when resolving dependencies: Because there is no version of flask==99 and you require flask==99, we can conclude that your requirements are unsatisfiable.",
        );
        check(
            "error: Failed to download and build `docopt==0.6.2`\n  cause: failed to create directory `/cache/builds-v0`: File exists (os error 17)",
            Failure::BuildNeeded,
            "Failed to download and build `docopt==0.6.2`: failed to create directory `/cache/builds-v0`: File exists (os error 17).",
        );
        check(
            "error: Request failed after 3 retries in 9.0s\n  cause: Failed to fetch: http://127.0.0.1:9/simple/six/\n  cause: error sending request for url (http://127.0.0.1:9/simple/six/)",
            Failure::Network,
            "Request failed after 3 retries in 9.0s: Failed to fetch: http://127.0.0.1:9/simple/six/: error sending request for url (http://127.0.0.1:9/simple/six/).",
        );
        check("something else\n", Failure::Other, "something else.");
        check("", Failure::Other, "it said nothing.");
    }

    #[test]
    fn packages_that_do_not_fit_are_found() {
        let tail = ["Installed 20 packages", "warning: The package `flask` requires `werkzeug>=3.0.0`, but `2.0.0` is installed", "x"].map(str::to_owned);
        assert_eq!(incompatibilities(&tail), ["The package `flask` requires `werkzeug>=3.0.0`, but `2.0.0` is installed"]);
    }
}
