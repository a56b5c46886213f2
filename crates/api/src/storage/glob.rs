//! `matchGlob`: names by pattern.
//!
//! `*` is any text without a slash, `**` any text, `?` one character but a slash, `[a-z]` and `[!a-z]` one of (or none of) some,
//! `{a,b}` one of several patterns, a backslash takes the next character as it is.
//! Source: cloud.google.com/storage/docs/json_api/v1/objects/list#list-objects-and-prefixes-using-glob.

/// The longest pattern, in bytes. Each `{}` multiplies, so that what it becomes is bounded too.
const PATTERN_MAX_BYTES: usize = 1024;
const ALTERNATIVES_MAX: usize = 256;
/// Of all alternatives together: each name is tried against all of them.
const PIECES_MAX: usize = 4096;

/// A parsed pattern.
#[derive(Clone, Debug)]
pub(crate) struct Glob(Vec<Vec<Piece>>);

#[derive(Clone, Debug, PartialEq)]
enum Piece {
    One(char),
    AnyOne,
    /// Ranges, and whether they are those that are not meant.
    Class(Vec<(char, char)>, bool),
    Star,
    Stars,
}

impl Glob {
    /// # Errors
    /// What is wrong, in words.
    pub(crate) fn parse(text: &str) -> Result<Self, &'static str> {
        if text.len() > PATTERN_MAX_BYTES {
            return Err("it has more than 1024 bytes");
        }
        let mut chars: Vec<char> = text.chars().collect();
        chars.reverse();
        let alternatives = alternatives(&mut chars, 0)?;
        if alternatives.iter().map(Vec::len).sum::<usize>() > PIECES_MAX {
            return Err("its alternatives have more than 4096 characters together");
        }
        if chars.is_empty() { Ok(Self(alternatives)) } else { Err("a closing brace has no opening one") }
    }

    pub(crate) fn matches(&self, name: &str) -> bool {
        let name: Vec<char> = name.chars().collect();
        self.0.iter().any(|pieces| matches(pieces, &name))
    }
}

/// Reads up to the end, or up to `,` or `}` within braces; `rest` is in reverse.
fn alternatives(rest: &mut Vec<char>, depth: usize) -> Result<Vec<Vec<Piece>>, &'static str> {
    let mut all: Vec<Vec<Piece>> = vec![Vec::new()];
    while let Some(c) = rest.last().copied() {
        if c == '}' || depth > 0 && c == ',' {
            break;
        }
        rest.pop();
        let piece = match c {
            '{' => {
                let mut inner = Vec::new();
                loop {
                    inner.append(&mut alternatives(rest, depth + 1)?);
                    match rest.pop() {
                        Some(',') => {}
                        Some('}') => break,
                        _ => return Err("an opening brace has no closing one"),
                    }
                }
                if all.len() * inner.len() > ALTERNATIVES_MAX {
                    return Err("it has more than 256 alternatives");
                }
                all = all.iter().flat_map(|begin| inner.iter().map(|end| [begin.as_slice(), end.as_slice()].concat())).collect();
                continue;
            }
            '*' if rest.last() == Some(&'*') => {
                while rest.last() == Some(&'*') {
                    rest.pop();
                }
                Piece::Stars
            }
            '*' => Piece::Star,
            '?' => Piece::AnyOne,
            '[' => class(rest)?,
            '\\' => Piece::One(rest.pop().ok_or("a backslash has nothing after it")?),
            c => Piece::One(c),
        };
        all.iter_mut().for_each(|pieces| pieces.push(piece.clone()));
    }
    Ok(all)
}

fn class(rest: &mut Vec<char>) -> Result<Piece, &'static str> {
    let open = "an opening bracket has no closing one";
    let negated = matches!(rest.last(), Some('!' | '^')) && rest.pop().is_some();
    let mut ranges = Vec::new();
    loop {
        let first = match rest.pop().ok_or(open)? {
            ']' if !ranges.is_empty() => return Ok(Piece::Class(ranges, negated)),
            '\\' => rest.pop().ok_or(open)?,
            c => c,
        };
        let is_range = rest.last() == Some(&'-') && rest.len() > 1 && rest[rest.len() - 2] != ']';
        let last = if is_range {
            rest.pop();
            rest.pop().ok_or(open)?
        } else {
            first
        };
        ranges.push((first, last));
    }
}

/// By the places in `pieces` that can be reached, character by character: time is at most their product, whatever the pattern.
fn matches(pieces: &[Piece], name: &[char]) -> bool {
    let skip = |reached: &mut Vec<bool>| {
        for at in 0..pieces.len() {
            if reached[at] && matches!(pieces[at], Piece::Star | Piece::Stars) {
                reached[at + 1] = true;
            }
        }
    };
    let mut reached = vec![false; pieces.len() + 1];
    reached[0] = true;
    skip(&mut reached);
    for c in name {
        let mut next = vec![false; pieces.len() + 1];
        for (at, piece) in pieces.iter().enumerate().filter(|(at, _)| reached[*at]) {
            match piece {
                Piece::Stars => next[at] = true,
                Piece::Star => next[at] |= *c != '/',
                Piece::AnyOne => next[at + 1] |= *c != '/',
                Piece::One(wanted) => next[at + 1] |= c == wanted,
                Piece::Class(ranges, negated) => next[at + 1] |= *c != '/' && ranges.iter().any(|(first, last)| first <= c && c <= last) != *negated,
            }
        }
        skip(&mut next);
        reached = next;
    }
    reached[pieces.len()]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_match() {
        for (glob, good, bad) in [
            ("foo*bar", &["foobar", "foo1bar"][..], &["foo/bar", "foobarx"][..]),
            ("foo**bar", &["foobar", "foo/1/bar"], &["foo"]),
            ("**/a.txt", &["x/a.txt", "x/y/a.txt"], &["a.txt", "x/ba.txt"]),
            ("?at", &["cat"], &["at", "/at", "chat"]),
            ("[ab]1", &["a1", "b1"], &["c1"]),
            ("[!a-c]1", &["d1"], &["b1", "/1"]),
            ("[]a]", &["]", "a"], &["b"]),
            ("{a,b/*}.{txt,md}", &["a.txt", "b/x.md"], &["b.txt", "a.csv"]),
            ("{a,{b,c}}", &["a", "b", "c"], &["d"]),
            ("\\*", &["*"], &["x"]),
            ("関*", &["関数"], &["数"]),
            ("", &[""], &["a"]),
        ] {
            let parsed = Glob::parse(glob).unwrap();
            good.iter().for_each(|name| assert!(parsed.matches(name), "{glob} {name}"));
            bad.iter().for_each(|name| assert!(!parsed.matches(name), "{glob} {name}"));
        }
        for bad in ["{a", "a}", "[a", "\\", &"{a,b}".repeat(9), &"a".repeat(1025)] {
            assert!(Glob::parse(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn nothing_panics(glob in "[a*?{},!\\[\\]\\\\/-]{0,20}", name in "[a/*]{0,20}") {
            if let Ok(glob) = Glob::parse(&glob) {
                glob.matches(&name);
            }
        }
    }
}
