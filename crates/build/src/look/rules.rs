//! What paths of calls are said to make: patterns, the first that fits.

use super::Kind;

/// A pattern of a call's path, and what such a call makes; `None`: nothing that is shared, whatever later patterns say.
///
/// A path is the name that imports lead to: `uuid.uuid4`, `new @google-cloud/storage.Storage`. `*` is any text without a parenthesis. A path
/// ends in `()` or `(…)`, without and with arguments; a pattern that ends in neither is for both.
pub(super) type Rule = (&'static str, Option<Kind>);

/// What the call of `path` makes.
pub(super) fn kind(rules: &[Rule], path: &str) -> Option<Kind> {
    let bare = path.strip_suffix("()").or_else(|| path.strip_suffix("(…)")).unwrap_or(path);
    rules.iter().find(|(pattern, _)| fits(pattern, bare) || fits(pattern, path)).and_then(|(_, kind)| *kind)
}

fn fits(pattern: &str, path: &str) -> bool {
    let Some((start, rest)) = pattern.split_once('*') else { return pattern == path };
    let Some(path) = path.strip_prefix(start) else { return false };
    let end = path.find('(').unwrap_or(path.len());
    let mut cuts = path.char_indices().map(|(at, _)| at).chain([path.len()]).take_while(|at| *at <= end);
    cuts.any(|at| fits(rest, &path[at..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_fit_whole_paths() {
        for (pattern, path, expect) in [
            ("uuid.uuid4", "uuid.uuid4", true),
            ("uuid.uuid4", "uuid.uuid45", false),
            ("random.*", "random.choice", true),
            ("random.*", "random.", true),
            ("random.*", "numpy.random.choice", false),
            ("google.cloud.*Client", "google.cloud.storage.Client", true),
            ("google.cloud.*Client", "google.cloud.storage.Client.x", false),
            ("google.cloud.*Client", "google.cloud.a().Client", false),
            ("secrets.*", "secrets.token_hex(…).upper", false),
            ("random.Random().*", "random.Random().random", true),
            ("random.Random().*", "random.Random(…).random", false),
            ("*.a.*b", "x.a.yb", true),
        ] {
            assert_eq!(fits(pattern, path), expect, "{pattern} {path}");
        }
    }

    #[test]
    fn the_first_rule_decides() {
        let rules: [Rule; 3] = [("a.seed", None), ("a.*", Some(Kind::Random)), ("new b()", Some(Kind::Clock))];
        for (path, expect) in
            [("a.seed()", None), ("a.x()", Some(Kind::Random)), ("a.x(…)", Some(Kind::Random)), ("new b()", Some(Kind::Clock)), ("new b(…)", None)]
        {
            assert_eq!(kind(&rules, path), expect, "{path}");
        }
    }
}
