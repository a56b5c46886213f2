//! Package and imports of Go files: all of Go's syntax that a plan needs to know, which stands at the head of each file.

use std::collections::BTreeSet;

use crate::{
    Error,
    plan::{read, user},
    tree::TreeReader,
};

/// The head of a file.
#[derive(Debug, Default, PartialEq, Eq)]
struct Head {
    package: String,
    imports: Vec<String>,
}

/// The package at the top of the source, and what it imports. As Google's reader has it: every .go file counts, tests too.
/// # Errors
/// `User`: none, several, or a file that cannot be read.
pub(super) fn package(source: &TreeReader) -> Result<(String, Vec<String>), Error> {
    let mut found: Option<String> = None;
    let mut imports = BTreeSet::new();
    let extract = |what: String| user(format!("error extracting package name: Unable to extract package name and imports: {what}"));
    for name in crate::plan::top(source)?.iter().filter(|name| name.ends_with(".go")) {
        let Some(text) = read(source, name)? else { continue };
        let head = head(&text).ok_or_else(|| extract(format!("failed to parse source in the source folder: {name} does not begin as a file of Go does.")))?;
        match &found {
            Some(package) if *package != head.package => {
                return Err(extract(format!("multiple packages in user code directory: {package} != {}.", head.package)));
            }
            _ => found = Some(head.package),
        }
        imports.extend(head.imports);
    }
    let package = found.ok_or_else(|| extract("unable to find Go package in the source folder.".to_owned()))?;
    Ok((package, imports.into_iter().collect()))
}

/// What all Go files of the source import; one that cannot be read imports nothing, and the compiler will say so.
pub(super) fn imports_below(source: &TreeReader) -> Result<Vec<String>, Error> {
    let mut imports = BTreeSet::new();
    source
        .files_below(
            &["vendor", "node_modules"],
            |name| name.ends_with(".go"),
            4 << 20,
            |_, text| {
                imports.extend(head(&String::from_utf8_lossy(&text)).unwrap_or_default().imports);
            },
        )
        .map_err(|e| Error::Internal(format!("reading the source: {e}")))?;
    Ok(imports.into_iter().collect())
}

pub(super) fn is_identifier(text: &str) -> bool {
    text.starts_with(|c: char| c.is_alphabetic() || c == '_') && text.chars().all(|c| c.is_alphanumeric() || c == '_')
}

/// `None` when it begins with no package clause.
fn head(text: &str) -> Option<Head> {
    let mut words = Words { rest: text.trim_start_matches('\u{feff}') };
    if words.next()? != Word::Name("package") {
        return None;
    }
    let Word::Name(package) = words.next()? else { return None };
    let mut head = Head { package: package.to_owned(), imports: Vec::new() };
    loop {
        match words.next() {
            Some(Word::Sign(';')) => {}
            Some(Word::Name("import")) => match words.next() {
                Some(Word::Sign('(')) => loop {
                    match words.next() {
                        Some(Word::Text(path)) => head.imports.push(path.to_owned()),
                        Some(Word::Sign(')')) | None => break,
                        _ => {}
                    }
                },
                Some(Word::Text(path)) => head.imports.push(path.to_owned()),
                // A name, a dot or a blank before the path.
                Some(_) => {
                    if let Some(Word::Text(path)) = words.next() {
                        head.imports.push(path.to_owned());
                    }
                }
                None => break,
            },
            _ => break,
        }
    }
    Some(head)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Word<'a> {
    Name(&'a str),
    Text(&'a str),
    Sign(char),
}

struct Words<'a> {
    rest: &'a str,
}

impl<'a> Words<'a> {
    fn next(&mut self) -> Option<Word<'a>> {
        loop {
            self.rest = self.rest.trim_start();
            if let Some(comment) = self.rest.strip_prefix("//") {
                self.rest = comment.split_once('\n').map_or("", |(_, rest)| rest);
            } else if let Some(comment) = self.rest.strip_prefix("/*") {
                self.rest = comment.split_once("*/").map_or("", |(_, rest)| rest);
            } else {
                break;
            }
        }
        let first = self.rest.chars().next()?;
        if first == '"' || first == '`' {
            let (text, rest) = self.rest[1..].split_once(first)?;
            self.rest = rest;
            return Some(Word::Text(text));
        }
        let end = self.rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(self.rest.len());
        if end == 0 {
            self.rest = &self.rest[first.len_utf8()..];
            return Some(Word::Sign(first));
        }
        let (name, rest) = self.rest.split_at(end);
        self.rest = rest;
        Some(Word::Name(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_are_read() {
        fn check(text: &str, package: &str, imports: &[&str]) {
            let got = head(text).unwrap();
            assert_eq!((got.package.as_str(), got.imports), (package, imports.iter().map(|i| (*i).to_owned()).collect()), "{text}");
        }
        check("package a", "a", &[]);
        check("// Package a\n/* package b\n*/ package a; import \"x\"\n", "a", &["x"]);
        check(
            "//go:build linux\n\npackage a\n\nimport (\n\t\"net/http\" // web\n\n\tce \"a.b/c\"\n\t. `d`\n\t_ \"e\"\n)\nimport f \"f/g\"\n\nfunc import_() {}\nvar s = \"import\"\n",
            "a",
            &["net/http", "a.b/c", "d", "e", "f/g"],
        );
        check("\u{feff}package a\nimport \"C\"\n", "a", &["C"]);
        for text in ["", "pakage a", "package", "\"package\" a", "// only"] {
            assert_eq!(head(text), None, "{text}");
        }
    }
}
