//! Why a tool failed, read from its last lines: the cause first, then what it said.

/// Lines shown below the cause.
const SHOWN_MAX: usize = 16;
/// Characters of the cause.
const CAUSE_MAX: usize = 600;
/// What tools say when nobody answers.
const NETWORK: [&str; 16] = [
    "ENOTFOUND",
    "EAI_AGAIN",
    "ECONNREFUSED",
    "ECONNRESET",
    "ETIMEDOUT",
    "ERR_SOCKET_TIMEOUT",
    "no such host",
    "i/o timeout",
    "connection refused",
    "Unknown host",
    "UnknownHostException",
    "Connect timed out",
    "Could not transfer artifact",
    "network is unreachable",
    "Temporary failure in name resolution",
    "ConnectionRefused",
];

/// A failure, told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    /// One line that ends with a full stop.
    pub(crate) cause: String,
    /// The lines that matter, without the tool's marks.
    pub(crate) shown: Vec<String>,
    /// The registry did not answer.
    pub(crate) is_network: bool,
}

/// `marks`: what the tool puts before lines of an error (none: the last lines are shown). `noise`: parts of lines that say nothing.
pub(crate) fn explain(tail: &[String], marks: &[&str], noise: &[&str]) -> Fault {
    let text = |line: &String| {
        let line = line.trim_end();
        let marked = marks.iter().find_map(|mark| line.trim_start().strip_prefix(mark));
        let text = marked.map_or(line, |rest| rest.strip_prefix(' ').unwrap_or(rest));
        let is_noise = text.trim().is_empty() || noise.iter().any(|part| text.contains(part));
        (!is_noise).then(|| (marked.is_some(), text.to_owned()))
    };
    let lines: Vec<(bool, String)> = tail.iter().filter_map(text).collect();
    let marked: Vec<String> = lines.iter().filter(|(is_marked, _)| *is_marked).map(|(_, text)| text.clone()).collect();
    let shown = if marked.is_empty() { lines.into_iter().map(|(_, text)| text).collect() } else { marked };
    let shown: Vec<String> =
        if marks.is_empty() { shown.into_iter().rev().take(SHOWN_MAX).rev().collect() } else { shown.into_iter().take(SHOWN_MAX).collect() };
    // `code E404`: the next line says it in words.
    let is_code = |line: &&String| ["code ", "errno ", "syscall ", "path "].iter().any(|word| line.starts_with(word));
    let first = if marks.is_empty() { shown.last() } else { shown.iter().find(|line| !is_code(line)).or(shown.first()) };
    let cause = sentence(first.map_or("it said nothing", |line| line.trim()));
    let is_network = tail.iter().any(|line| NETWORK.iter().any(|part| line.contains(part)));
    Fault { cause, shown, is_network }
}

impl Fault {
    /// The cause, then the other lines.
    pub(crate) fn text(&self, what: &str, advice: &str) -> String {
        let mut text = format!("{what}: {} {advice}", self.cause);
        for line in &self.shown {
            text.push('\n');
            text.push_str(line);
        }
        text
    }
}

fn sentence(text: &str) -> String {
    let mut text: String = text.chars().take(CAUSE_MAX).collect();
    if !text.ends_with(['.', '!', '?']) {
        text.push('.');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> Vec<String> {
        text.lines().map(str::to_owned).collect()
    }

    #[test]
    fn the_tools_own_lines_are_shown_and_its_noise_is_not() {
        let fault = explain(
            &lines(
                "added 3 packages\nnpm error code E404\nnpm error 404 Not Found - GET https://r/x\nnpm error A complete log of this run can be found in: /tmp/x",
            ),
            &["npm error", "npm ERR!"],
            &["A complete log"],
        );
        assert_eq!(fault.shown, ["code E404", "404 Not Found - GET https://r/x"]);
        assert_eq!(fault.cause, "404 Not Found - GET https://r/x.");
        assert!(!fault.is_network);
        assert!(explain(&lines("npm error code EAI_AGAIN"), &["npm error"], &[]).is_network);
    }

    #[test]
    fn without_marks_the_last_lines_are_the_cause() {
        let fault = explain(&lines("# example.com/f\n./f.go:3:1: undefined: x"), &[], &[]);
        assert_eq!(fault.cause, "./f.go:3:1: undefined: x.");
        assert_eq!(fault.shown.len(), 2);
        assert_eq!(explain(&[], &[], &[]).cause, "it said nothing.");
    }
}
