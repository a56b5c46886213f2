//! A page of a bucket's objects: prefix, delimiter, offsets, page token.
//!
//! Pure but for [`Names`], which is where objects come from. Objects and common prefixes are in one order (of UTF-8 bytes) and count
//! together. A common prefix is found once: what else begins with it is leapt over, not read.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use model::Status;

/// The objects of one bucket, in the order of their places: a place is the name, or begins with it when a name is there in several versions.
pub(crate) trait Names {
    type Item;
    /// Those after the place `after` that begin with `prefix`, in order, at most `limit`; none only when there are none.
    fn after(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<Vec<Self::Item>, Status>;
    /// The object whose place is `name`.
    fn get(&self, name: &str) -> Result<Option<Self::Item>, Status>;
    fn place(&self, item: &Self::Item) -> String;
    fn name(item: &Self::Item) -> &str;
}

/// What is asked for. Empty texts ask for nothing.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ask<'a> {
    pub prefix: &'a str,
    pub delimiter: &'a str,
    /// The first name that may be listed.
    pub start: &'a str,
    /// The first name that may not.
    pub end: &'a str,
    /// Objects whose names end with the delimiter are listed beside their prefix.
    pub trailing_delimiter: bool,
    pub token: &'a str,
    /// At least 1.
    pub limit: usize,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Page<T> {
    pub items: Vec<T>,
    pub prefixes: Vec<String>,
    pub next: Option<String>,
}

/// Where the last page ended. It is a name that the caller may list anyway (each page checks the bucket's permission again),
/// so it is not sealed: a forged one is no more than `startOffset`.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    Object(String),
    Prefix(String),
}

impl Token {
    fn write(&self) -> String {
        let (kind, name) = match self {
            Self::Object(name) => ('o', name),
            Self::Prefix(name) => ('p', name),
        };
        URL_SAFE_NO_PAD.encode(format!("{kind}{name}"))
    }

    fn read(text: &str) -> Result<Self, Status> {
        let bad = || Status::invalid("Invalid value for pageToken: it is not one that this server gave out.");
        let text = String::from_utf8(URL_SAFE_NO_PAD.decode(text).map_err(|_| bad())?).map_err(|_| bad())?;
        match (text.get(..1), text.get(1..)) {
            (Some("o"), Some(name)) => Ok(Self::Object(name.to_owned())),
            (Some("p"), Some(name)) => Ok(Self::Prefix(name.to_owned())),
            _ => Err(bad()),
        }
    }
}

/// Lists one page.
///
/// # Errors
/// `INVALID_ARGUMENT` for a token that is none; those of `names`.
pub(crate) fn page<N: Names>(names: &N, ask: &Ask<'_>) -> Result<Page<N::Item>, Status> {
    let token = if ask.token.is_empty() { None } else { Some(Token::read(ask.token)?) };
    let mut page = Page { items: Vec::new(), prefixes: Vec::new(), next: None };
    // `last` is the end of the page so far; `queue` what was read and not yet looked at.
    let mut last = token;
    let mut queue = Vec::new();
    if last.is_none() && !ask.start.is_empty() {
        // Reading goes on after a name; the offset itself is listed too.
        queue.extend(names.get(ask.start)?.filter(|item| N::name(item).starts_with(ask.prefix)));
    }
    let mut cursor = match &last {
        None => Some(ask.start.to_owned()).filter(|start| !start.is_empty()),
        Some(Token::Object(name)) => Some(name.clone()),
        Some(Token::Prefix(prefix)) => Some(past(prefix)),
    };
    if !ask.start.is_empty() && cursor.as_deref() < Some(ask.start) {
        cursor = Some(ask.start.to_owned());
    }
    loop {
        let fresh = queue.is_empty();
        if fresh {
            queue = names.after(ask.prefix, cursor.as_deref(), (ask.limit + 1).min(1001))?;
            if queue.is_empty() {
                return Ok(page);
            }
        }
        for item in std::mem::take(&mut queue) {
            let (name, place) = (N::name(&item).to_owned(), names.place(&item));
            if !ask.end.is_empty() && name.as_str() >= ask.end {
                return Ok(page);
            }
            cursor = cursor.max(Some(place.clone()));
            let common = common_prefix(&name, ask.prefix, ask.delimiter);
            let seen = matches!((&common, &last), (Some(common), Some(Token::Prefix(last))) if common == last);
            let listed = match &common {
                None => true,
                Some(common) => ask.trailing_delimiter && *common == name,
            };
            if (!seen || listed) && page.items.len() + page.prefixes.len() >= ask.limit {
                page.next = last.as_ref().map(Token::write);
                return Ok(page);
            }
            if listed {
                page.items.push(item);
            }
            match common {
                None => last = Some(Token::Object(place)),
                Some(common) => {
                    if !seen {
                        page.prefixes.push(common.clone());
                    }
                    let leap = past(&common);
                    last = Some(Token::Prefix(common));
                    if name < leap {
                        cursor = Some(leap);
                        break;
                    }
                }
            }
        }
    }
}

/// `name` up to and with the first delimiter after `prefix`.
fn common_prefix(name: &str, prefix: &str, delimiter: &str) -> Option<String> {
    if delimiter.is_empty() {
        return None;
    }
    let at = name.get(prefix.len()..)?.find(delimiter)?;
    Some(name[..prefix.len() + at + delimiter.len()].to_owned())
}

/// The token that goes on after everything that begins with the common prefix `marker`; `None` when it is none of the list that is asked for.
pub(crate) fn token_after_prefix(marker: &str, prefix: &str, delimiter: &str) -> Option<String> {
    (common_prefix(marker, prefix, delimiter).as_deref() == Some(marker)).then(|| Token::Prefix(marker.to_owned()).write())
}

/// A name past (nearly) all that begin with `prefix`: only those that go on with U+10FFFF come after it, and they are recognised.
fn past(prefix: &str) -> String {
    format!("{prefix}\u{10FFFF}")
}

#[cfg(test)]
mod tests {
    use std::{cell::Cell, collections::BTreeSet};

    use proptest::prelude::*;

    use super::*;

    struct Set {
        names: BTreeSet<String>,
        read: Cell<usize>,
    }

    impl Set {
        fn of<'a>(names: impl IntoIterator<Item = &'a str>) -> Self {
            Self { names: names.into_iter().map(str::to_owned).collect(), read: Cell::new(0) }
        }
    }

    impl Names for Set {
        type Item = String;
        fn after(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<Vec<String>, Status> {
            let found: Vec<String> =
                self.names.iter().filter(|name| name.starts_with(prefix) && after.is_none_or(|after| name.as_str() > after)).take(limit).cloned().collect();
            self.read.set(self.read.get() + found.len());
            Ok(found)
        }
        fn get(&self, name: &str) -> Result<Option<String>, Status> {
            Ok(self.names.get(name).cloned())
        }
        fn place(&self, item: &String) -> String {
            item.clone()
        }
        fn name(item: &String) -> &str {
            item.split('\0').next().unwrap()
        }
    }

    /// What the documentation says, without pages.
    fn expected(set: &Set, ask: &Ask<'_>) -> (Vec<String>, Vec<String>) {
        let (mut items, mut prefixes) = (Vec::new(), BTreeSet::new());
        for name in &set.names {
            let within = name.starts_with(ask.prefix) && name.as_str() >= ask.start && (ask.end.is_empty() || name.as_str() < ask.end);
            if !within {
                continue;
            }
            match common_prefix(name, ask.prefix, ask.delimiter) {
                None => items.push(name.clone()),
                Some(common) => {
                    if ask.trailing_delimiter && common == *name {
                        items.push(name.clone());
                    }
                    prefixes.insert(common);
                }
            }
        }
        (items, prefixes.into_iter().collect())
    }

    /// All pages together.
    fn all(set: &Set, ask: &Ask<'_>) -> (Vec<String>, Vec<String>) {
        let (mut items, mut prefixes, mut token) = (Vec::new(), Vec::new(), String::new());
        loop {
            let page = page(set, &Ask { token: &token, ..ask.clone() }).unwrap();
            assert!(page.items.len() + page.prefixes.len() <= ask.limit + usize::from(ask.trailing_delimiter));
            items.extend(page.items);
            prefixes.extend(page.prefixes);
            match page.next {
                Some(next) => token = next,
                None => return (items, prefixes),
            }
        }
    }

    #[test]
    fn pages() {
        let set = Set::of(["a", "b/", "b/1", "b/2", "b/c/3", "c", "d/4"]);
        let check = |ask: Ask<'_>, items: &[&str], prefixes: &[&str]| {
            for limit in [1, 2, 3, 1000] {
                let found = all(&set, &Ask { limit, ..ask.clone() });
                let owned = |names: &[&str]| names.iter().map(|s| s.to_string()).collect::<Vec<_>>();
                assert_eq!(found, (owned(items), owned(prefixes)), "{ask:?} by {limit}");
            }
        };
        check(Ask::default(), &["a", "b/", "b/1", "b/2", "b/c/3", "c", "d/4"], &[]);
        check(Ask { delimiter: "/", ..Ask::default() }, &["a", "c"], &["b/", "d/"]);
        check(Ask { delimiter: "/", prefix: "b/", ..Ask::default() }, &["b/", "b/1", "b/2"], &["b/c/"]);
        check(Ask { delimiter: "/", trailing_delimiter: true, ..Ask::default() }, &["a", "b/", "c"], &["b/", "d/"]);
        check(Ask { start: "b/2", ..Ask::default() }, &["b/2", "b/c/3", "c", "d/4"], &[]);
        check(Ask { start: "b/2", end: "d", ..Ask::default() }, &["b/2", "b/c/3", "c"], &[]);
        check(Ask { prefix: "x", ..Ask::default() }, &[], &[]);
    }

    #[test]
    fn a_prefix_is_leapt_over() {
        let names: Vec<String> = (0..5000).map(|n| format!("big/{n:05}")).chain(["z".to_owned()]).collect();
        let set = Set::of(names.iter().map(String::as_str));
        assert_eq!(all(&set, &Ask { delimiter: "/", limit: 1000, ..Ask::default() }), (vec!["z".to_owned()], vec!["big/".to_owned()]));
        assert!(set.read.get() < 2100, "{}", set.read.get());
    }

    #[test]
    fn versions_of_a_name_are_listed_each_and_make_one_prefix() {
        let set = Set::of(["a\u{0}1", "a\u{0}2", "b/\u{0}1", "b/c\u{0}1", "b/c\u{0}2"]);
        let check = |ask: Ask<'_>, items: &[&str], prefixes: &[&str]| {
            for limit in [1, 2, 1000] {
                let owned = |names: &[&str]| names.iter().map(|s| s.to_string()).collect::<Vec<_>>();
                assert_eq!(all(&set, &Ask { limit, ..ask.clone() }), (owned(items), owned(prefixes)), "{ask:?} by {limit}");
            }
        };
        check(Ask { start: "a", ..Ask::default() }, &["a\u{0}1", "a\u{0}2", "b/\u{0}1", "b/c\u{0}1", "b/c\u{0}2"], &[]);
        check(Ask { delimiter: "/", ..Ask::default() }, &["a\u{0}1", "a\u{0}2"], &["b/"]);
        check(Ask { delimiter: "/", trailing_delimiter: true, end: "b/c", ..Ask::default() }, &["a\u{0}1", "a\u{0}2", "b/\u{0}1"], &["b/"]);
    }

    #[test]
    fn tokens_that_are_none_are_refused() {
        for token in ["!", "eA", "", "b_-"] {
            let ask = Ask { token, limit: 1, ..Ask::default() };
            assert_eq!(page(&Set::of([]), &ask).is_err(), !token.is_empty(), "{token}");
        }
    }

    proptest! {
        #[test]
        fn pages_together_are_the_whole(
            names in prop::collection::btree_set("[ab/\u{10FFFF}]{1,5}", 0..40),
            prefix in "[ab/]{0,2}", delimiter in prop::sample::select(vec!["", "/", "a/"]),
            start in "[ab/]{0,3}", end in "[ab/]{0,3}", trailing_delimiter in any::<bool>(), limit in 1usize..6,
        ) {
            let set = Set { names, read: Cell::new(0) };
            let ask = Ask { prefix: &prefix, delimiter, start: &start, end: &end, trailing_delimiter, token: "", limit };
            prop_assert_eq!(all(&set, &ask), expected(&set, &ask));
        }
    }
}
