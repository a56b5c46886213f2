//! Errors as Cloud Storage's JSON API writes them: with a `reason` that its clients branch on, and 412 for preconditions.
//!
//! Source: cloud.google.com/storage/docs/json_api/v1/status-codes.

use axum::response::IntoResponse;
use http::{StatusCode, header};
use model::{Code, Status};
use serde_json::json;

use crate::{Response, error::json_response};

/// An answer that is no success.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Error {
    http: StatusCode,
    reason: &'static str,
    message: String,
    /// More words, where they are written: by the XML API.
    details: String,
    /// For our log; empty when there is nothing to add.
    inner: String,
}

impl Error {
    fn new(http: StatusCode, reason: &'static str, message: impl Into<String>) -> Self {
        Self { http, reason, message: message.into(), details: String::new(), inner: String::new() }
    }

    /// 400.
    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid", message)
    }

    /// 400 for a parameter, header or field that would have an effect that this server does not have.
    pub(crate) fn not_served(name: &str, hint: &str) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalidParameter", format!("{name} is not served by this server: {hint}"))
    }

    /// 412.
    pub(crate) fn condition_not_met() -> Self {
        Self::new(StatusCode::PRECONDITION_FAILED, "conditionNotMet", "At least one of the pre-conditions you specified did not hold.")
    }

    /// 412 with a reason in words.
    pub(crate) fn condition(message: impl Into<String>) -> Self {
        Self::new(StatusCode::PRECONDITION_FAILED, "conditionNotMet", message)
    }

    /// 304, which has no body.
    pub(crate) fn not_modified() -> Self {
        Self::new(StatusCode::NOT_MODIFIED, "", "")
    }

    pub(crate) fn not_found(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "notFound", message)
    }

    /// 409.
    pub(crate) fn conflict(message: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, "conflict", message)
    }

    /// 416.
    pub(crate) fn range_unsatisfiable() -> Self {
        Self::new(StatusCode::RANGE_NOT_SATISFIABLE, "requestedRangeNotSatisfiable", "Request range not satisfiable")
    }

    /// 400 for a signed URL whose time is over.
    pub(crate) fn expired(details: &str) -> Self {
        Self { details: details.to_owned(), ..Self::new(StatusCode::BAD_REQUEST, "expired", "Invalid argument.") }
    }

    /// 403 for a signature that is not of the request; `text` is what should have been signed.
    pub(crate) fn signature(text: &str, canonical: Option<&str>) -> Self {
        let canonical = canonical.map_or_else(String::new, |canonical| format!(" The canonical request is: {canonical}"));
        let details = format!(
            "The request signature we calculated does not match the signature you provided. Check your Google secret key and signing method. The string to sign is: {text}{canonical}"
        );
        Self { details, ..Self::new(StatusCode::FORBIDDEN, "signatureDoesNotMatch", "Access denied.") }
    }

    /// 400 for a form that its policy does not allow.
    pub(crate) fn policy(details: impl Into<String>) -> Self {
        Self { details: details.into(), ..Self::new(StatusCode::BAD_REQUEST, "policy", "The policy document was not satisfied.") }
    }

    /// Of a write with preconditions: what `control` calls a failed precondition is this API's 412.
    pub(crate) fn of_write(status: Status) -> Self {
        match status.code {
            Code::FailedPrecondition | Code::Aborted => Self { inner: status.inner, ..Self::condition_not_met() },
            _ => status.into(),
        }
    }

    pub(crate) fn into_response(self) -> Response {
        if !self.inner.is_empty() {
            tracing::error!(http = self.http.as_u16(), outer = %self.message, inner = %self.inner, "a call failed");
        }
        if self.http == StatusCode::NOT_MODIFIED {
            return self.http.into_response();
        }
        let entry = json!({ "message": self.message, "domain": "global", "reason": self.reason });
        let mut response = json_response(self.http, &json!({ "error": { "code": self.http.as_u16(), "message": self.message, "errors": [entry] } }));
        if self.http == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, header::HeaderValue::from_static("Bearer realm=\"https://accounts.google.com/\""));
        }
        response
    }
}

impl Error {
    /// The answer as the XML API writes it. Source: cloud.google.com/storage/docs/xml-api/reference-status.
    pub(crate) fn into_xml(self) -> Response {
        if !self.inner.is_empty() {
            tracing::error!(http = self.http.as_u16(), outer = %self.message, inner = %self.inner, "a call failed");
        }
        if self.http == StatusCode::NOT_MODIFIED {
            return self.http.into_response();
        }
        let http = self.http;
        let (code, message) = match self.reason {
            "notFound" if self.message.contains("bucket does not exist") => ("NoSuchBucket", "The specified bucket does not exist."),
            "notFound" if self.message.contains("upload") => ("NoSuchUpload", "The requested upload was not found."),
            "notFound" => ("NoSuchKey", "The specified key does not exist."),
            "conditionNotMet" => ("PreconditionFailed", "At least one of the pre-conditions you specified did not hold."),
            "requestedRangeNotSatisfiable" => ("InvalidRange", "The requested range cannot be satisfied."),
            "required" => ("AuthenticationRequired", "Authentication required."),
            "forbidden" => ("AccessDenied", "Access denied."),
            "signatureDoesNotMatch" => ("SignatureDoesNotMatch", "Access denied."),
            "expired" => ("ExpiredToken", "Invalid argument."),
            "policy" => ("InvalidPolicyDocument", "The content of the form does not meet the conditions specified in the policy document."),
            "retentionPolicyNotMet" => ("RetentionPolicyNotMet", "Object is under retention."),
            "objectUnderActiveHold" => ("ObjectUnderActiveHold", "Object is under active hold."),
            "conflict" => ("OperationAborted", "A conflicting operation is in progress."),
            "rateLimitExceeded" => ("SlowDown", "Please reduce your request rate."),
            _ if self.message.contains("doesn't match calculated") => {
                ("BadDigest", "The Content-MD5 or checksum you specified did not match what we received.")
            }
            _ if http.is_client_error() => ("InvalidArgument", "Invalid argument."),
            _ => ("InternalError", "We encountered an internal error. Please try again."),
        };
        let details = if self.details.is_empty() { self.message } else { self.details };
        let body = format!(
            "<?xml version='1.0' encoding='UTF-8'?><Error><Code>{code}</Code><Message>{message}</Message><Details>{}</Details></Error>",
            super::xml::escaped(&details)
        );
        (http, [(header::CONTENT_TYPE, "application/xml; charset=UTF-8")], body).into_response()
    }
}

impl From<Status> for Error {
    fn from(status: Status) -> Self {
        let reason = match status.code {
            Code::PermissionDenied if control::lock_reason(&status) == Some("retentionPolicyNotMet") => "retentionPolicyNotMet",
            Code::PermissionDenied if control::lock_reason(&status) == Some("objectUnderActiveHold") => "objectUnderActiveHold",
            Code::InvalidArgument | Code::OutOfRange | Code::FailedPrecondition => "invalid",
            Code::Unauthenticated => "required",
            Code::PermissionDenied => "forbidden",
            Code::NotFound => "notFound",
            Code::AlreadyExists | Code::Aborted => "conflict",
            Code::ResourceExhausted => "rateLimitExceeded",
            _ => "backendError",
        };
        let http = StatusCode::from_u16(status.code.http()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        Self { http, reason, message: status.outer, details: String::new(), inner: status.inner }
    }
}

/// How the front's own refusals are written on this surface.
pub(crate) fn front(status: &Status) -> Response {
    Error::from(status.clone()).into_response()
}

/// The same of the XML API.
pub(crate) fn front_xml(status: &Status) -> Response {
    Error::from(status.clone()).into_xml()
}
