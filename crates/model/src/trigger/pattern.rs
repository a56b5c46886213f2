//! Path patterns of filters: `/projects/_/buckets/b-*/objects/{name=**}`.
//!
//! A pattern and a value are compared part by part, a slash in front of either counts for nothing. `*` in a part stands for any
//! characters of that part, `**` as a part for any number of parts, none included, once in a pattern. `{name}` and `{name=*}` are one
//! part with at least one character, `{name=**}` is `**`. Source: cloud.google.com/eventarc/docs/path-patterns.

/// One part of a pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part<'a> {
    /// Text in which each `*` stands for any characters.
    Text(&'a str),
    /// One part that is not empty.
    One,
    /// Any number of parts.
    Many,
}

/// # Errors
/// Why `pattern` is none.
pub fn check(pattern: &str) -> Result<(), String> {
    parts(pattern).map(drop)
}

/// Whether `value` is as `pattern` says; never for a pattern that is none.
pub fn matches(pattern: &str, value: &str) -> bool {
    let Ok(pattern) = parts(pattern) else { return false };
    let value: Vec<&str> = bare(value).split('/').collect();
    let Some(many) = pattern.iter().position(|part| *part == Part::Many) else {
        return pattern.len() == value.len() && all_match(&pattern, &value);
    };
    let (front, back) = (&pattern[..many], &pattern[many + 1..]);
    front.len() + back.len() <= value.len() && all_match(front, &value) && all_match(back, &value[value.len() - back.len()..])
}

fn all_match(pattern: &[Part], value: &[&str]) -> bool {
    pattern.iter().zip(value).all(|(part, value)| match part {
        Part::Text(text) => text_matches(text, value),
        Part::One | Part::Many => !value.is_empty(),
    })
}

fn bare(text: &str) -> &str {
    text.strip_prefix('/').unwrap_or(text)
}

fn parts(pattern: &str) -> Result<Vec<Part<'_>>, String> {
    let parts: Vec<Part> = bare(pattern).split('/').map(part).collect::<Result<_, _>>()?;
    if parts.iter().filter(|part| **part == Part::Many).count() > 1 {
        return Err("** can stand in it once".to_owned());
    }
    Ok(parts)
}

fn part(text: &str) -> Result<Part<'_>, String> {
    if let Some(inner) = text.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')) {
        let (name, what) = inner.split_once('=').unwrap_or((inner, "*"));
        let is_name = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        return match what {
            "*" if is_name => Ok(Part::One),
            "**" if is_name => Ok(Part::Many),
            _ => Err(format!("{text:?} is none of {{name}}, {{name=*}} and {{name=**}}")),
        };
    }
    if text.contains(['{', '}']) {
        return Err(format!("{text:?} mixes a name with other characters"));
    }
    match text {
        "**" => Ok(Part::Many),
        "" => Err("a part is empty".to_owned()),
        _ if text.contains("**") => Err(format!("** must be a part of its own, and not within {text:?}")),
        _ => Ok(Part::Text(text)),
    }
}

/// `*` in `pattern` stands for any characters; the last of several takes what is left over.
fn text_matches(pattern: &str, value: &str) -> bool {
    let Some((front, rest)) = pattern.split_once('*') else { return pattern == value };
    let Some(mut value) = value.strip_prefix(front) else { return false };
    let mut pieces: Vec<&str> = rest.split('*').collect();
    let last = pieces.pop().unwrap_or_default();
    for piece in pieces {
        match value.find(piece) {
            Some(at) => value = &value[at + piece.len()..],
            None => return false,
        }
    }
    value.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_part_by_part() {
        let check = |pattern: &str, value: &str, expect: bool| assert_eq!(matches(pattern, value), expect, "{pattern} {value}");
        let object = "projects/_/buckets/my-bucket/objects/a/b.txt";
        check("/projects/_/buckets/my-bucket/objects/a/b.txt", object, true);
        check("projects/_/buckets/my-bucket/objects/a/b.txt", &format!("/{object}"), true);
        check("/projects/_/buckets/my-bucket/objects/*", object, false);
        check("/projects/_/buckets/my-bucket/objects/*/*", object, true);
        check("/projects/_/buckets/my-bucket/objects/**", object, true);
        check("/projects/_/buckets/*/objects/{name=**}", object, true);
        check("/projects/_/buckets/{bucket}/objects/{folder=*}/{file}", object, true);
        check("/projects/_/buckets/my-*/**", object, true);
        check("/projects/_/buckets/your-*/**", object, false);
        check("/projects/_/buckets/my-bucket/objects/a/*.txt", object, true);
        check("/projects/_/buckets/my-bucket/objects/a/*.png", object, false);
        check("/projects/**/b.txt", object, true);
        check("/**/objects/**", object, false);
        // Two ends do not share a part.
        check("/a/**/a", "a", false);
        check("/a/**/b", "a/b", true);
        check("/a/**", "a", true);
        check("/a/{x}", "a/", false);
        check("/a/*", "a/", true);
        check("/a/x*y*z", "a/xyz", true);
        check("/a/x*y*z", "a/x1y2z", true);
        check("/a/x*y*z", "a/xz", false);
        check("/a/x*x", "a/x", false);
        check("/a/夏*", "a/夏 2026", true);
    }

    #[test]
    fn what_is_no_pattern_is_refused() {
        for good in ["/a/b", "a/*", "/a/{b}/c", "/a/{b=**}", "/a*b/c"] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
        for bad in ["", "/", "/a//b", "/a/", "/**/a/**", "/a/{b=**}/**", "/a/{}", "/a/{b=c}", "/a/x{b}", "/a/{b", "/a/b**"] {
            assert!(check(bad).is_err(), "{bad}");
            assert!(!matches(bad, bad), "{bad}");
        }
    }
}
