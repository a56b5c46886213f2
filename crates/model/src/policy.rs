//! IAM policies, principals and roles' shape. Who may do what is decided in `iam`.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::status::Status;

/// google.iam.v1.Policy.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    #[serde(default)]
    pub bindings: Vec<Binding>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Binding {
    /// `roles/run.invoker`, or a project's own: `projects/P/roles/R`.
    pub role: String,
    pub members: Vec<Member>,
    /// The binding holds where this is true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub condition: Option<Condition>,
}

/// google.type.Expr: an expression of CEL, and what people call it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Condition {
    #[serde(default)]
    pub title: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    pub expression: String,
    /// Where it stands, for the messages of whoever wrote it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub location: String,
}

impl Binding {
    /// Without a condition.
    pub fn new(role: impl Into<String>, members: Vec<Member>) -> Self {
        Self { role: role.into(), members, condition: None }
    }
}

impl Policy {
    /// Version 3 is what has conditions; all else is 1.
    pub fn version(&self) -> i32 {
        if self.bindings.iter().any(|binding| binding.condition.is_some()) { 3 } else { 1 }
    }
}

/// Who a binding speaks of.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum Member {
    AllUsers,
    AllAuthenticatedUsers,
    User(String),
    ServiceAccount(String),
    Group(String),
    Domain(String),
}

impl Member {
    /// # Errors
    /// `INVALID_ARGUMENT` for a kind of member that is not served, or an address without `@`.
    pub fn parse(text: &str) -> Result<Self, Status> {
        let bad = |why: &str| {
            Status::invalid_field(
                "policy.bindings.members",
                format!("member {text:?} {why}; use user:, serviceAccount:, group:, domain:, allUsers or allAuthenticatedUsers"),
            )
        };
        match text {
            "allUsers" => return Ok(Self::AllUsers),
            "allAuthenticatedUsers" => return Ok(Self::AllAuthenticatedUsers),
            _ => {}
        }
        let (kind, name) = text.split_once(':').ok_or_else(|| bad("has no kind"))?;
        let email = || {
            let name = name.to_ascii_lowercase();
            match name.split_once('@') {
                Some((local, domain))
                    if !local.is_empty() && domain.contains(|c: char| c != '@') && !domain.contains('@') && !name.contains(char::is_whitespace) =>
                {
                    Ok(name)
                }
                _ => Err(bad("is no e-mail address")),
            }
        };
        Ok(match kind {
            "user" => Self::User(email()?),
            "serviceAccount" => Self::ServiceAccount(email()?),
            "group" => Self::Group(email()?),
            "domain" if !name.is_empty() && !name.contains(['@', ' ', ':']) => Self::Domain(name.to_ascii_lowercase()),
            _ => return Err(bad("is of no known kind")),
        })
    }
}

impl fmt::Display for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AllUsers => f.write_str("allUsers"),
            Self::AllAuthenticatedUsers => f.write_str("allAuthenticatedUsers"),
            Self::User(name) => write!(f, "user:{name}"),
            Self::ServiceAccount(name) => write!(f, "serviceAccount:{name}"),
            Self::Group(name) => write!(f, "group:{name}"),
            Self::Domain(name) => write!(f, "domain:{name}"),
        }
    }
}

impl From<Member> for String {
    fn from(member: Member) -> Self {
        member.to_string()
    }
}

impl TryFrom<String> for Member {
    type Error = Status;
    fn try_from(text: String) -> Result<Self, Status> {
        Self::parse(&text)
    }
}

/// A policy with the etag by which the next writer proves that it has read it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VersionedPolicy {
    pub policy: Policy,
    /// Empty for a policy never written; then any writer may write.
    pub etag: String,
}
