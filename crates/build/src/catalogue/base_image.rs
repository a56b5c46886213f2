//! Names of base images: `python312`, `google-22/python312`, a whole path.

use super::known::{KNOWN, KnownLanguage, KnownRuntime};
use crate::{Error, Language};

pub(crate) const STACKS: [&str; 3] = ["google-18", "google-22", "google-24"];

/// A base image as somebody wrote it, understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BaseImage {
    pub(crate) id: String,
    /// `google-22`, `google-22-full`.
    pub(crate) stack: String,
}

/// What gcloud asks for when its user names no base image: the stack without a language.
const ANY: &str = "gcr.io/buildpacks/google-22/run";

/// The base image that gcloud shows when the source decides, for a name by which nobody decided.
pub(crate) fn any(text: &str) -> Option<&str> {
    if text.is_empty() {
        return Some(ANY);
    }
    let stack = text.strip_prefix("gcr.io/buildpacks/")?.split(['@', ':']).next()?.strip_suffix("/run")?;
    STACKS.contains(&stack.strip_suffix("-full").unwrap_or(stack)).then_some(text)
}

impl BaseImage {
    /// Understands an id, `STACK/ID`, or a whole path, with a tag or digest or without.
    /// # Errors
    /// `User` for what is none of Google's.
    pub(crate) fn parse(text: &str) -> Result<Self, Error> {
        let without_digest = text.split_once('@').map_or(text, |(name, _)| name);
        let (path, last) = without_digest.rsplit_once('/').map_or(("", without_digest), |(path, last)| (path, last));
        let id = last.split_once(':').map_or(last, |(id, _)| id);
        let Some((_, runtime)) = KNOWN.runtime(id) else {
            return Err(Error::User(unknown_text(text, id)));
        };
        let unknown_stack =
            |stack: &str| Error::User(format!("Base image {text:?} names an unknown stack {stack:?}. Known: {}, each also with \"-full\".", STACKS.join(", ")));
        let stack = match path.split('/').find(|segment| segment.starts_with("google-")) {
            Some(stack) if STACKS.contains(&stack.strip_suffix("-full").unwrap_or(stack)) => stack.to_owned(),
            Some(stack) => return Err(unknown_stack(stack)),
            // `something/python312` must be a place where base images lie, not a word that we pass over.
            None if !path.is_empty() && !path.contains('/') => return Err(unknown_stack(path)),
            None => runtime.stack.clone(),
        };
        Ok(Self { id: id.to_owned(), stack })
    }

    /// A runtime on its own stack.
    pub(crate) fn of_runtime(runtime: &KnownRuntime) -> Self {
        Self { id: runtime.id.clone(), stack: runtime.stack.clone() }
    }

    pub(crate) fn known(&self) -> (&'static KnownLanguage, &'static KnownRuntime) {
        KNOWN.runtime(&self.id).expect("made from a known runtime only")
    }

    pub(crate) fn language(&self) -> Language {
        self.known().0.language
    }

    /// As gcloud shows it.
    pub(crate) fn uri(&self, region: &str) -> String {
        format!("{region}-docker.pkg.dev/serverless-runtimes/{}/runtimes/{}", self.stack, self.id)
    }
}

fn unknown_text(text: &str, id: &str) -> String {
    let ids = |language: &KnownLanguage| language.runtimes.iter().map(|runtime| runtime.id.as_str()).collect::<Vec<_>>().join(", ");
    let family = id.trim_end_matches(|c: char| c.is_ascii_digit());
    let known = match KNOWN.languages().iter().find(|language| language.prefix == family) {
        Some(language) => ids(language),
        None => KNOWN.languages().iter().filter(|language| language.unavailable.is_none()).map(ids).collect::<Vec<_>>().join(", "),
    };
    format!("Unknown base image {text:?}. Known: {known}, also with a stack in front, such as google-22/python312.")
}
