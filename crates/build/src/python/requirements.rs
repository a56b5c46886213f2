//! What a requirements file names, as far as a build must know it: which packages, and whether it leads to other files.
//!
//! Not a resolver: versions, markers and indexes are uv's. Source: pip's requirements file format, PEP 508, PEP 503.

use std::collections::BTreeSet;

/// What was read of a requirements file.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Requirements {
    /// Packages that it names itself, by their normalised names.
    pub(crate) packages: BTreeSet<String>,
    /// Extras asked for, as `package[extra]`.
    pub(crate) extras: BTreeSet<String>,
    /// Whether it may lead to other files of the source: `-r`, `-c`, `-e`, paths, or a line that is not understood.
    pub(crate) is_local: bool,
}

/// Options that name no file of the source.
const HARMLESS_OPTIONS: [&str; 12] = [
    "-i",
    "--index-url",
    "--extra-index-url",
    "--no-index",
    "--pre",
    "--prefer-binary",
    "--no-binary",
    "--only-binary",
    "--require-hashes",
    "--trusted-host",
    "--use-feature",
    "--hash",
];

impl Requirements {
    pub(crate) fn parse(text: &str) -> Self {
        let mut found = Self::default();
        for line in logical_lines(text) {
            found.line(&line);
        }
        found
    }

    pub(crate) fn names(&self, package: &str) -> bool {
        self.packages.contains(&normalised(package))
    }

    fn line(&mut self, line: &str) {
        if let Some(egg) = line.split_once("#egg=").map(|(_, egg)| egg) {
            self.requirement(egg.split(['&', ' ']).next().unwrap_or(""));
        }
        if line.starts_with('-') {
            let option = line.split(['=', ' ', '\t']).next().unwrap_or("");
            self.is_local |= !HARMLESS_OPTIONS.contains(&option);
            // An index may be a folder of the source.
            if matches!(option, "-i" | "--index-url" | "--extra-index-url") {
                let url = line[option.len()..].trim_start_matches(['=', ' ', '\t']);
                self.is_local |= !url.starts_with("https://") && !url.starts_with("http://");
            }
            return;
        }
        self.is_local |= !self.requirement(line);
    }

    /// Whether it is a name with what may follow one, and no path.
    fn requirement(&mut self, line: &str) -> bool {
        let end = line.find(|c: char| !(c.is_ascii_alphanumeric() || "._-".contains(c))).unwrap_or(line.len());
        let (name, rest) = line.split_at(end);
        let rest = rest.trim_start();
        let starts_well = name.starts_with(|c: char| c.is_ascii_alphanumeric());
        let direct = rest.strip_prefix('@').map(str::trim_start);
        let is_file = [".whl", ".zip", ".tar.gz"].iter().any(|end| name.ends_with(end));
        let plain = rest.is_empty() || rest.starts_with(['[', '=', '<', '>', '!', '~', ';', '(']);
        let remote = direct.is_some_and(|url| ["https://", "http://", "git+https://"].iter().any(|scheme| url.starts_with(scheme)));
        if !starts_well || is_file || !(plain || remote) {
            return false;
        }
        self.packages.insert(normalised(name));
        if let Some(extras) = rest.strip_prefix('[').and_then(|rest| rest.split_once(']')).map(|(extras, _)| extras) {
            for extra in extras.split(',') {
                self.extras.insert(format!("{}[{}]", normalised(name), normalised(extra.trim())));
            }
        }
        // `name[extra] @ file:///workspace/x` or a marker that smuggles a path: looked at no further.
        !line.contains("file:")
    }
}

/// Lines without comments and empty ones, continuations joined.
fn logical_lines(text: &str) -> Vec<String> {
    let joined = text.replace("\\\r\n", " ").replace("\\\n", " ");
    joined
        .lines()
        .map(|line| {
            let line = line.trim().trim_start_matches('\u{feff}');
            let comment = if line.starts_with('#') { Some(0) } else { line.find(" #").or_else(|| line.find("\t#")) };
            comment.map_or(line, |at| line[..at].trim_end()).to_owned()
        })
        .filter(|line| !line.is_empty())
        .collect()
}

/// PEP 503: `Functions_Framework` is `functions-framework`.
pub(crate) fn normalised(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    for c in name.chars() {
        match c {
            '-' | '_' | '.' if out.ends_with('-') => {}
            '-' | '_' | '.' => out.push('-'),
            c => out.push(c.to_ascii_lowercase()),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_framework_is_seen_however_it_is_written() {
        fn check(text: &str, expect: bool) {
            assert_eq!(Requirements::parse(text).names("functions-framework"), expect, "{text:?}");
        }
        check("functions-framework==3.*", true);
        check("functions-framework", true);
        check("functions-framework~=3.0 ; python_version > '3.7'", true);
        check("Functions_Framework>=3", true);
        check("functions-framework[x]==3.10.2", true);
        check("flask\r\nfunctions-framework==3.*\r\n", true);
        check("functions-framework == 3.10.2 \\\n --hash=sha256:00", true);
        check("git+https://github.com/GoogleCloudPlatform/functions-framework-python#egg=functions-framework", true);
        check("functions-framework @ https://example.com/x.whl", true);
        check("", false);
        check("# functions-framework", false);
        check("flask # functions-framework", false);
        check("functions-framework-extras==1", false);
        check("my-functions-framework", false);
    }

    #[test]
    fn files_that_lead_to_others_are_told() {
        fn check(text: &str, expect: bool) {
            assert_eq!(Requirements::parse(text).is_local, expect, "{text:?}");
        }
        check("flask\nrequests[security]>=2,<3 ; extra == 'x'\n--index-url https://example.com\n--pre", false);
        check("flask\n--extra-index-url file:///workspace/simple", true);
        check("flask\n-i=./simple", true);
        check("flask==3.0 --hash=sha256:00", false);
        check("six @ https://example.com/six-1.whl", false);
        check("-r other.txt", true);
        check("--requirement=other.txt", true);
        check("-c constraints.txt", true);
        check("-e .", true);
        check("-f wheels", true);
        check(".", true);
        check("./pkg", true);
        check("pkg/sub", true);
        check("six-1-py3-none-any.whl", true);
        check("six @ file:///workspace/six", true);
        check("/workspace/x", true);
        check("what is this", true);
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn any_text_is_read(text in "\\PC{0,200}") {
            Requirements::parse(&text);
        }
    }
}
