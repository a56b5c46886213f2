//! Names of Pub/Sub's resources, and their labels.
//!
//! Source: cloud.google.com/pubsub/docs/pubsub-basics#resource_names, and the texts of Google's answers.

use std::{collections::BTreeMap, fmt};

use model::{Code, ProjectId, Status, limits::LABELS_MAX};
use serde::{Deserialize, Serialize};

/// A kind of resource, as the collection in its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    Topics,
    Subscriptions,
    Snapshots,
    Schemas,
}

impl Kind {
    pub fn collection(self) -> &'static str {
        match self {
            Self::Topics => "topics",
            Self::Subscriptions => "subscriptions",
            Self::Snapshots => "snapshots",
            Self::Schemas => "schemas",
        }
    }
}

/// `projects/P/topics/T` and its like.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Name {
    pub kind: Kind,
    pub project: ProjectId,
    /// 3..=255 letters, digits and `-_.~+%`; the first a letter; not beginning with `goog`.
    pub id: String,
}

impl Name {
    /// # Errors
    /// `INVALID_ARGUMENT` in Google's words.
    pub fn new(kind: Kind, project: ProjectId, id: &str) -> Result<Self, Status> {
        let is_good = (3..=255).contains(&id.len())
            && id.starts_with(|c: char| c.is_ascii_alphabetic())
            && id.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.~+%".contains(&b))
            && !id.to_ascii_lowercase().starts_with("goog");
        let name = Self { kind, project, id: id.to_owned() };
        if is_good {
            return Ok(name);
        }
        Err(Status::invalid(format!("Invalid [{}] name: (name={name})", kind.collection())))
    }

    pub(crate) fn missing(&self) -> Status {
        Status::not_found(format!("Resource not found (resource={}).", self.id))
    }

    pub(crate) fn taken(&self) -> Status {
        Status::already_exists(format!("Resource already exists in the project (resource={}).", self.id))
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "projects/{}/{}/{}", self.project, self.kind.collection(), self.id)
    }
}

/// # Errors
/// `RESOURCE_EXHAUSTED` when a project has `max` of a kind already.
pub(crate) fn quota_check(kind: Kind, there_are: usize, max: usize) -> Result<(), Status> {
    if there_are < max {
        return Ok(());
    }
    Err(Status::new(
        Code::ResourceExhausted,
        format!("Your project has exceeded a limit: (type=\"num-{}\", current={there_are}, maximum={max}).", kind.collection()),
    ))
}

/// # Errors
/// `INVALID_ARGUMENT` for labels that Google would refuse.
pub(crate) fn labels_check(labels: &BTreeMap<String, String>) -> Result<(), Status> {
    if labels.len() > LABELS_MAX {
        return Err(Status::invalid_field("labels", format!("at most {LABELS_MAX} labels can be set; there are {}", labels.len())));
    }
    let is_good = |text: &str| text.chars().count() <= 63 && text.chars().all(|c| c.is_alphanumeric() && !c.is_uppercase() || matches!(c, '-' | '_'));
    for (key, value) in labels {
        if !(is_good(key) && key.starts_with(char::is_alphabetic) && is_good(value)) {
            return Err(Status::invalid_field(
                format!("labels[{key}]"),
                format!("key and value ({value:?}) must have at most 63 lower-case letters, digits, '-' and '_', and the key must begin with a letter"),
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use model::limits::{SCHEMAS_MAX, SNAPSHOTS_MAX, SUBSCRIPTIONS_MAX, TOPICS_MAX};

    use super::*;

    fn project() -> ProjectId {
        ProjectId::parse("local-project").unwrap()
    }

    #[test]
    fn names_follow_googles_rules() {
        for good in ["abc", "T-1_.~+%", &"a".repeat(255)] {
            assert!(Name::new(Kind::Topics, project(), good).is_ok(), "{good}");
        }
        for bad in ["", "ab", "1abc", "-abc", "a b", "goog-x", "Google", "関数関数", "a/b", &"a".repeat(256)] {
            let status = Name::new(Kind::Topics, project(), bad).expect_err(bad);
            assert_eq!(status.outer, format!("Invalid [topics] name: (name=projects/local-project/topics/{bad})"));
        }
    }

    #[test]
    fn quotas_are_googles() {
        let kinds = [(Kind::Topics, TOPICS_MAX), (Kind::Subscriptions, SUBSCRIPTIONS_MAX), (Kind::Snapshots, SNAPSHOTS_MAX), (Kind::Schemas, SCHEMAS_MAX)];
        for (kind, max) in kinds {
            assert_eq!(max, if kind == Kind::Snapshots { 5_000 } else { 10_000 });
            assert!(quota_check(kind, max - 1, max).is_ok());
            assert_eq!(quota_check(kind, max, max).unwrap_err().code, Code::ResourceExhausted);
        }
    }

    #[test]
    fn labels_follow_googles_rules() {
        let check = |key: &str, value: &str, is_good: bool| {
            assert_eq!(labels_check(&[(key.to_owned(), value.to_owned())].into()).is_ok(), is_good, "{key}={value}");
        };
        check("env", "prod_1", true);
        check("env", "", true);
        check("env", "Prod", false);
        check("1env", "x", false);
        check("", "x", false);
        check("env", &"x".repeat(64), false);
    }
}
