//! The control plane's error: google.rpc codes, a text for the user, a text for our log.

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize};

/// google.rpc.Code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Code {
    Cancelled = 1,
    Unknown = 2,
    InvalidArgument = 3,
    DeadlineExceeded = 4,
    NotFound = 5,
    AlreadyExists = 6,
    PermissionDenied = 7,
    ResourceExhausted = 8,
    FailedPrecondition = 9,
    Aborted = 10,
    OutOfRange = 11,
    Unimplemented = 12,
    Internal = 13,
    Unavailable = 14,
    DataLoss = 15,
    Unauthenticated = 16,
}

impl Code {
    /// The HTTP status that Google's front ends send for this code.
    pub fn http(self) -> u16 {
        match self {
            Code::InvalidArgument | Code::FailedPrecondition | Code::OutOfRange => 400,
            Code::Unauthenticated => 401,
            Code::PermissionDenied => 403,
            Code::NotFound => 404,
            Code::AlreadyExists | Code::Aborted => 409,
            Code::ResourceExhausted => 429,
            Code::Cancelled => 499,
            Code::Unknown | Code::Internal | Code::DataLoss => 500,
            Code::Unimplemented => 501,
            Code::Unavailable => 503,
            Code::DeadlineExceeded => 504,
        }
    }

    /// The name on the wire, such as `INVALID_ARGUMENT`.
    pub fn name(self) -> &'static str {
        match self {
            Code::Cancelled => "CANCELLED",
            Code::Unknown => "UNKNOWN",
            Code::InvalidArgument => "INVALID_ARGUMENT",
            Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
            Code::NotFound => "NOT_FOUND",
            Code::AlreadyExists => "ALREADY_EXISTS",
            Code::PermissionDenied => "PERMISSION_DENIED",
            Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
            Code::FailedPrecondition => "FAILED_PRECONDITION",
            Code::Aborted => "ABORTED",
            Code::OutOfRange => "OUT_OF_RANGE",
            Code::Unimplemented => "UNIMPLEMENTED",
            Code::Internal => "INTERNAL",
            Code::Unavailable => "UNAVAILABLE",
            Code::DataLoss => "DATA_LOSS",
            Code::Unauthenticated => "UNAUTHENTICATED",
        }
    }
}

/// An error of the control plane.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    pub code: Code,
    /// What the user sees, in Google's words where they are known.
    pub outer: String,
    /// What only our log sees; empty when there is nothing to add.
    #[serde(default)]
    pub inner: String,
    /// The fields at fault: google.rpc.BadRequest.
    #[serde(default)]
    pub fields: Vec<FieldViolation>,
    /// What a program reads of it: google.rpc.ErrorInfo.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub info: Option<Box<ErrorInfo>>,
}

/// google.rpc.ErrorInfo: a cause that programs tell apart.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorInfo {
    /// In capitals, such as `EXACTLY_ONCE_ACKID_FAILURE`.
    pub reason: String,
    /// Of the API that says it, such as `pubsub.googleapis.com`.
    pub domain: String,
    pub metadata: BTreeMap<String, String>,
}

/// One field that does not hold what it must.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FieldViolation {
    /// Path of the field as the client wrote it, such as `spec.template.spec.timeoutSeconds`.
    pub field: String,
    pub description: String,
}

impl Status {
    pub fn new(code: Code, outer: impl Into<String>) -> Self {
        Self { code, outer: outer.into(), inner: String::new(), fields: Vec::new(), info: None }
    }

    /// `INVALID_ARGUMENT` that names the field.
    pub fn invalid_field(field: impl Into<String>, description: impl Into<String>) -> Self {
        let (field, description) = (field.into(), description.into());
        let mut status = Self::new(Code::InvalidArgument, format!("{field}: {description}"));
        status.fields.push(FieldViolation { field, description });
        status
    }

    pub fn invalid(outer: impl Into<String>) -> Self {
        Self::new(Code::InvalidArgument, outer)
    }

    /// `NOT_FOUND` in the words of Google's front: `Resource 'NAME' of kind 'KIND' in region 'R' in project 'P' does not exist` is
    /// run's own; callers pass the whole text.
    pub fn not_found(outer: impl Into<String>) -> Self {
        Self::new(Code::NotFound, outer)
    }

    pub fn already_exists(outer: impl Into<String>) -> Self {
        Self::new(Code::AlreadyExists, outer)
    }

    pub fn failed_precondition(outer: impl Into<String>) -> Self {
        Self::new(Code::FailedPrecondition, outer)
    }

    /// `PERMISSION_DENIED` in Google's words.
    pub fn permission_denied(permission: &str, resource: &str) -> Self {
        Self::new(Code::PermissionDenied, format!("Permission '{permission}' denied on resource '{resource}' (or resource may not exist)."))
    }

    pub fn unauthenticated() -> Self {
        Self::new(
            Code::Unauthenticated,
            "Request had invalid authentication credentials. Expected OAuth 2 access token, login cookie or other valid authentication credential. See https://developers.google.com/identity/sign-in/web/devconsole-project.",
        )
    }

    pub fn unimplemented(outer: impl Into<String>) -> Self {
        Self::new(Code::Unimplemented, outer)
    }

    /// `INTERNAL`: the user reads that it is our fault, the log reads why.
    pub fn internal(inner: impl fmt::Display) -> Self {
        let mut status = Self::new(Code::Internal, "Internal error encountered.");
        status.inner = inner.to_string();
        status
    }

    pub fn unavailable(outer: impl Into<String>) -> Self {
        Self::new(Code::Unavailable, outer)
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code.name(), self.outer)?;
        if !self.inner.is_empty() {
            write!(f, " ({})", self.inner)?;
        }
        Ok(())
    }
}

impl std::error::Error for Status {}
