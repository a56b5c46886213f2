//! A shell script of plain commands, each of which must succeed: what a step with more than one command runs.

use sandbox::Spec;

/// Where the script lies inside.
const PATH: &str = "/build/steps.sh";
const SHELL: &str = "/usr/bin/sh";

/// The commands so far.
pub(crate) struct Script(String);

impl Script {
    pub(crate) fn new() -> Self {
        Self("set -eu\n".to_owned())
    }

    /// A command of words, none of which the shell interprets.
    pub(crate) fn run<S: AsRef<str>>(&mut self, words: &[S]) -> &mut Self {
        let words: Vec<String> = words.iter().map(|word| quoted(word.as_ref())).collect();
        self.line(&words.join(" "))
    }

    /// What is in a folder, into another that is made where it is missing.
    pub(crate) fn copy(&mut self, from: &str, to: &str) -> &mut Self {
        self.run(&["mkdir", "-p", to]);
        self.run(&["cp", "-R", "-P", "--preserve=mode,timestamps", &format!("{from}/."), to]);
        // Layers are read-only to all; what is copied of them is the copier's.
        self.run(&["chmod", "-R", "u+w", to])
    }

    pub(crate) fn enter(&mut self, folder: &str) -> &mut Self {
        self.run(&["cd", folder])
    }

    /// A line as it is: nothing that a user wrote may be in it.
    pub(crate) fn line(&mut self, line: &str) -> &mut Self {
        self.0.push_str(line);
        self.0.push('\n');
        self
    }

    /// Makes it what a sandbox runs.
    pub(crate) fn install(&self, spec: &mut Spec) {
        spec.command = vec![SHELL.to_owned(), PATH.to_owned()];
        spec.files.push((PATH.into(), self.0.clone().into_bytes()));
    }
}

pub(crate) fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_word_is_interpreted() {
        let mut script = Script::new();
        script.run(&["echo", "a b", "$(rm -rf /)", "it's", ""]).line("true");
        assert_eq!(script.0, "set -eu\n'echo' 'a b' '$(rm -rf /)' 'it'\\''s' ''\ntrue\n");
    }
}
