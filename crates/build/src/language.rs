//! The languages of functions: what each is called, and by which files a source is one of it.

use crate::{Error, catalogue::KNOWN, tree::TreeReader};
use model::limits;

/// A language that Google has base images for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Language {
    Python,
    Nodejs,
    Go,
    Java,
    Ruby,
    Php,
    Dotnet,
    /// No language: a program that the source brings.
    Os,
}

impl Language {
    /// In the order in which Google's builder tries them.
    pub(crate) const ALL: [Language; 8] =
        [Language::Dotnet, Language::Go, Language::Java, Language::Python, Language::Ruby, Language::Php, Language::Nodejs, Language::Os];

    /// As people write it: `Node.js`.
    pub fn name(self) -> &'static str {
        &KNOWN.of(self).name
    }

    /// What its runtimes' ids start with: `nodejs`.
    pub(crate) fn prefix(self) -> &'static str {
        &KNOWN.of(self).prefix
    }

    /// Of a runtime's id, or of a bare prefix.
    pub(crate) fn of_id(id: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|language| id.strip_prefix(language.prefix()).is_some_and(|rest| rest.bytes().all(|b| b.is_ascii_digit())))
    }
}

/// The language of a source, by its files. The first that Google's builder would take.
/// # Errors
/// `Internal` when the source cannot be read.
pub(crate) fn detect(source: &TreeReader) -> Result<Option<Language>, Error> {
    let fail = |e: std::io::Error| Error::Internal(format!("reading the source: {e}"));
    let top = crate::tree::names(source.root(), limits::SOURCE_ENTRIES_MAX).map_err(fail)?;
    for language in Language::ALL {
        for sign in &KNOWN.of(language).detect {
            let found = match (sign.strip_prefix("**/*"), sign.strip_prefix('*')) {
                (Some(ending), _) => source.has_file_below(&["node_modules"], ending).map_err(fail)?,
                (None, Some(ending)) => top.iter().any(|name| name.ends_with(ending.as_bytes())),
                (None, None) => source.has_file(sign).map_err(fail)?,
            };
            if found {
                return Ok(Some(language));
            }
        }
    }
    Ok(None)
}
