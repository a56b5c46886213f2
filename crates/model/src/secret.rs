//! Secrets and their versions, as Secret Manager has them: names, records, which version a name means.
//!
//! No payload is here: those are sealed by `iam::Vault` and lie in records of their own. Source of the rules:
//! google/cloud/secretmanager/v1/resources.proto.

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize};

use crate::{
    clock::Timestamp,
    name::ProjectId,
    status::{Code, Status},
};

/// A payload's size, in bytes.
pub const PAYLOAD_MAX_BYTES: usize = 64 << 10;
/// A secret's id, in characters.
pub const ID_MAX: usize = 255;
pub const ALIASES_MAX: usize = 50;
pub const ALIAS_MAX: usize = 63;
pub const LABELS_MAX: usize = 64;
/// Keys and values of all annotations, in bytes: less than this.
pub const ANNOTATIONS_MAX_BYTES: usize = 16 << 10;
/// How far ahead a secret's end may lie: 100 years.
pub const EXPIRY_MAX_S: i64 = 3_153_600_000;
/// Between the wish to destroy a version and its destruction: a day to a thousand days.
pub const DESTROY_TTL_MIN_S: u64 = 86_400;
pub const DESTROY_TTL_MAX_S: u64 = 86_400_000;

/// A secret's id: 1..=255 letters, digits, hyphens and underscores.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SecretId(String);

impl SecretId {
    /// # Errors
    /// `INVALID_ARGUMENT` in Google's words.
    pub fn parse(text: &str) -> Result<Self, Status> {
        let is_good = (1..=ID_MAX).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
        if is_good {
            return Ok(Self(text.to_owned()));
        }
        Err(Status::invalid_field("secret_id", format!("The provided Secret ID [{text}] does not match the expected format [[a-zA-Z_0-9-]{{1,255}}]")))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SecretId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Which secret.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SecretKey {
    pub project: ProjectId,
    pub secret: SecretId,
}

impl SecretKey {
    /// `projects/P/secrets/S`, with the project's id: the resource of policies.
    pub fn resource(&self) -> String {
        format!("projects/{}/secrets/{}", self.project, self.secret)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Secret {
    pub key: SecretKey,
    /// Later than that of any secret before it, on this host.
    pub created: Timestamp,
    /// What writers have seen: counts up with each change of what the owner set, in microseconds of its instant.
    pub etag: i64,
    pub replication: Replication,
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
    /// From then on it is not there.
    #[serde(default)]
    pub expires: Option<Timestamp>,
    /// How long a version that is to be destroyed can be taken back, in seconds; 0 for not at all.
    #[serde(default)]
    pub destroy_ttl_s: u64,
    #[serde(default)]
    pub aliases: BTreeMap<String, u64>,
    /// Versions made so far, destroyed ones included: the number of the newest.
    #[serde(default)]
    pub versions: u64,
}

/// Where the owner wants payloads kept: here they are on this host, whatever it says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Replication {
    Automatic,
    /// Locations, each once.
    UserManaged(Vec<String>),
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecretVersion {
    pub secret: SecretKey,
    /// From 1.
    pub number: u64,
    pub created: Timestamp,
    /// As [`Secret::etag`].
    pub etag: i64,
    pub state: VersionState,
    /// When its payload was destroyed.
    #[serde(default)]
    pub destroyed: Option<Timestamp>,
    /// When its payload will be destroyed, unless it is enabled before.
    #[serde(default)]
    pub destroys: Option<Timestamp>,
    /// Whether its maker gave a checksum with the payload.
    #[serde(default)]
    pub checksum_given: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum VersionState {
    Enabled,
    Disabled,
    Destroyed,
}

impl VersionState {
    /// The name on the wire.
    pub fn name(self) -> &'static str {
        match self {
            VersionState::Enabled => "ENABLED",
            VersionState::Disabled => "DISABLED",
            VersionState::Destroyed => "DESTROYED",
        }
    }
}

impl Secret {
    /// The name under which the payload of a version is sealed: a later secret of the same id has other ones.
    pub fn sealed_name(&self, number: u64) -> String {
        format!("{}/versions/{number}@{}", self.key.resource(), self.created.as_microsecond())
    }

    /// The number that `text` means: itself, `latest`, or an alias.
    ///
    /// `latest` is the newest version whatever its state, as at Google.
    /// # Errors
    /// `NOT_FOUND`, in which `name` (`projects/NUMBER/secrets/S`) is the secret's; `INVALID_ARGUMENT` for what is none of the three.
    pub fn version_named(&self, name: &str, text: &str) -> Result<u64, Status> {
        let missing = || Status::not_found(format!("Secret Version [{name}/versions/{text}] not found."));
        if text == "latest" {
            return if self.versions > 0 { Ok(self.versions) } else { Err(Status::not_found(format!("Secret [{name}] not found or has no versions."))) };
        }
        if text.bytes().all(|b| b.is_ascii_digit()) {
            return text.parse().ok().filter(|number| (1..=self.versions).contains(number)).ok_or_else(missing);
        }
        alias_check(text).map_err(|_| Status::invalid_field("name", format!("{text:?} is neither a version's number, nor latest, nor an alias")))?;
        self.aliases.get(text).copied().ok_or_else(missing)
    }
}

impl SecretVersion {
    /// # Errors
    /// `FAILED_PRECONDITION` in Google's words unless it is enabled; `name` (`projects/NUMBER/secrets/S`) is its secret's.
    pub fn enabled_check(&self, name: &str) -> Result<(), Status> {
        match self.state {
            VersionState::Enabled => Ok(()),
            other => Err(Status::new(Code::FailedPrecondition, format!("Secret Version [{name}/versions/{}] is in {} state.", self.number, other.name()))),
        }
    }
}

/// # Errors
/// `INVALID_ARGUMENT` for what cannot be an alias.
pub fn alias_check(alias: &str) -> Result<(), Status> {
    let is_good = (1..=ALIAS_MAX).contains(&alias.len())
        && alias.starts_with(|c: char| c.is_ascii_alphabetic())
        && alias.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
        && !["latest", "NEW"].contains(&alias);
    if is_good {
        return Ok(());
    }
    Err(Status::invalid_field(
        "secret.version_aliases",
        format!("{alias:?} must have at most {ALIAS_MAX} letters, digits, hyphens and underscores, begin with a letter, and be neither latest nor NEW"),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_and_aliases() {
        let (long, longest, alias) = ("s".repeat(256), "s".repeat(255), "a".repeat(63));
        for good in ["s", "A_b-9", "9", "-", &longest] {
            assert!(SecretId::parse(good).is_ok(), "{good}");
        }
        for bad in ["", "a.b", "a b", "a/b", "秘密", &long] {
            assert!(SecretId::parse(bad).is_err(), "{bad}");
        }
        for good in ["prod", "P_1-x", "Latest", &alias] {
            assert!(alias_check(good).is_ok(), "{good}");
        }
        for bad in ["", "1", "_a", "latest", "NEW", "a.b", &"a".repeat(64)] {
            assert!(alias_check(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_version_is_named_by_number_alias_or_latest() {
        let project = ProjectId::parse("local-project").unwrap();
        let now = Timestamp::UNIX_EPOCH;
        let mut secret = Secret {
            key: SecretKey { project, secret: SecretId::parse("s").unwrap() },
            created: now,
            etag: 1,
            replication: Replication::Automatic,
            labels: BTreeMap::new(),
            annotations: BTreeMap::new(),
            expires: None,
            destroy_ttl_s: 0,
            aliases: BTreeMap::from([("prod".to_owned(), 2)]),
            versions: 3,
        };
        let named = |secret: &Secret, text: &str| secret.version_named("projects/9/secrets/s", text).map_err(|error| (error.code, error.outer));
        assert_eq!(named(&secret, "latest"), Ok(3));
        assert_eq!(named(&secret, "prod"), Ok(2));
        assert_eq!(named(&secret, "1"), Ok(1));
        let missing = |text: &str| Err((Code::NotFound, format!("Secret Version [projects/9/secrets/s/versions/{text}] not found.")));
        for text in ["0", "4", "99999999999999999999", "test"] {
            assert_eq!(named(&secret, text), missing(text), "{text}");
        }
        assert_eq!(named(&secret, "a.b").unwrap_err().0, Code::InvalidArgument);
        secret.versions = 0;
        assert_eq!(named(&secret, "latest"), Err((Code::NotFound, "Secret [projects/9/secrets/s] not found or has no versions.".to_owned())));
    }
}
