//! Names of resources, each checked once where it enters.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::status::Status;

macro_rules! text_name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(String);

        impl $name {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }
    };
}

text_name! {
    /// A project's id: 6..=30 of lower-case letters, digits and hyphens, beginning with a letter and not ending in a hyphen.
    ProjectId
}
text_name! {
    /// A region, such as `asia-northeast1`, or (where [`Region::parse_location`] made it) another location, such as `global`. Any of
    /// Google's is accepted: one host plays them all.
    Region
}
text_name! {
    /// A service's name: at most 49 lower-case letters, digits and hyphens, beginning with a letter and not ending in a hyphen.
    ServiceName
}
text_name! {
    /// A revision's name: the service's name, a hyphen and a suffix; at most 63 characters.
    RevisionName
}

/// A project's number.
///
/// Those that Google gives out have at most 13 digits, the largest seen near 1.1e12. Those drawn here lie
/// far above, from [`ProjectNumber::FIRST`]: a URL made from one reaches nobody there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ProjectNumber(pub u64);

impl ProjectNumber {
    /// The lowest number drawn here.
    pub const FIRST: u64 = 9_000_000_000_000;
    /// The first number past those drawn here.
    pub const END: u64 = 10_000_000_000_000;
}

impl fmt::Display for ProjectNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl ProjectId {
    /// # Errors
    /// `INVALID_ARGUMENT` naming the rule that `text` breaks.
    pub fn parse(text: &str) -> Result<Self, Status> {
        if (6..=30).contains(&text.len()) && is_label(text) {
            return Ok(Self(text.to_owned()));
        }
        Err(Status::invalid_field(
            "project",
            format!("project id {text:?} must have 6 to 30 lower-case letters, digits and hyphens, begin with a letter and not end with a hyphen"),
        ))
    }
}

impl Region {
    /// # Errors
    /// `INVALID_ARGUMENT` when `text` is not one of Google's regions (see [`crate::address::region_code`]).
    pub fn parse(text: &str) -> Result<Self, Status> {
        if crate::address::region_code(text).is_some() {
            return Ok(Self(text.to_owned()));
        }
        Err(Status::invalid_field("location", format!("{text:?} is not a region of Cloud Run; an example of one is asia-northeast1")))
    }

    /// A place where something can lie that is no service: a region, several at once, or everywhere.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` when `text` is none.
    pub fn parse_location(text: &str) -> Result<Self, Status> {
        if crate::address::region_code(text).is_some() || crate::address::LOCATIONS.contains(&text) {
            return Ok(Self(text.to_owned()));
        }
        Err(Status::invalid_field("location", format!("{text:?} is not a location; examples are asia-northeast1, us and global")))
    }
}

impl ServiceName {
    /// # Errors
    /// `INVALID_ARGUMENT` in Google's words.
    pub fn parse(text: &str) -> Result<Self, Status> {
        if text.len() <= 49 && is_label(text) {
            return Ok(Self(text.to_owned()));
        }
        Err(Status::invalid_field(
            "service_id",
            format!(
                "Resource name {text:?} must use only lowercase, digits, and -, must begin with a letter, may not end with -, and must be less than 50 characters"
            ),
        ))
    }
}

impl RevisionName {
    /// # Errors
    /// `INVALID_ARGUMENT` when `text` is no DNS label of at most 63 characters.
    pub fn parse(text: &str) -> Result<Self, Status> {
        if text.len() <= 63 && is_label(text) {
            return Ok(Self(text.to_owned()));
        }
        Err(Status::invalid_field(
            "revision",
            format!(
                "Revision name {text:?} must use only lowercase alphanumeric characters and -, begin with a letter, may not end with -, and have at most 63 characters"
            ),
        ))
    }
}

/// Whether `text` is a non-empty lower-case DNS label that begins with a letter.
fn is_label(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && text.starts_with(|c: char| c.is_ascii_lowercase())
        && !text.ends_with('-')
}

/// Which service: the key by which everything that belongs to one is looked up.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ServiceKey {
    pub project: ProjectId,
    pub region: Region,
    pub service: ServiceName,
}

impl ServiceKey {
    /// `projects/P/locations/R/services/S`.
    pub fn resource(&self) -> String {
        format!("projects/{}/locations/{}/services/{}", self.project, self.region, self.service)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn service_names() {
        for good in ["a", "sample-function-1", &"a".repeat(49)] {
            assert!(ServiceName::parse(good).is_ok(), "{good}");
        }
        for bad in ["", "A", "1a", "-a", "a-", "a_b", "a.b", "関数", &"a".repeat(50)] {
            assert!(ServiceName::parse(bad).is_err(), "{bad}");
        }
    }
}
