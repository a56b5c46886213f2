//! `model::Status` as Google's front ends write it: the JSON frame of REST, the status of gRPC.
//!
//! Source of the shapes: google/rpc/status.proto, error_details.proto, and the recorded replies.

use axum::response::IntoResponse;
use bytes::Bytes;
use http::{StatusCode, header};
use model::{Code, Status, status::FieldViolation};
use prost::Message;
use proto::google::rpc;
use serde_json::{Value as Json, json};

use crate::Response;

/// A [`Status`] that an axum handler can return with `?`.
#[derive(Clone, Debug)]
pub struct Error(pub Status);

impl From<Status> for Error {
    fn from(status: Status) -> Self {
        Self(status)
    }
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        rest(&self.0)
    }
}

/// `{"error": {"code", "message", "status", "details"}}`.
pub(crate) fn rest(status: &Status) -> Response {
    log(status);
    json_response(http_status(status.code), &json!({ "error": frame(status) }))
}

/// The status of a gRPC call, with `google.rpc.BadRequest` for the fields at fault and `google.rpc.ErrorInfo` for programs.
pub(crate) fn grpc(status: &Status) -> tonic::Status {
    log(status);
    let code = tonic::Code::from(status.code as i32);
    if status.fields.is_empty() && status.info.is_none() {
        return tonic::Status::new(code, &status.outer);
    }
    tonic::Status::with_details(code, &status.outer, Bytes::from(rpc_status(status).encode_to_vec()))
}

/// `google.rpc.Status`, as it stands in an operation's `error`.
pub(crate) fn rpc_status(status: &Status) -> rpc::Status {
    let fields = bad_request(&status.fields).map(|detail| prost_types::Any::from_msg(&detail));
    let info = error_info(status).map(|detail| prost_types::Any::from_msg(&detail));
    let details = info.into_iter().chain(fields).map(|detail| detail.expect("a Vec takes every message")).collect();
    rpc::Status { code: status.code as i32, message: status.outer.clone(), details }
}

/// Parts of APIs that clients ask for and that are not served, by the end of the host and the word in the path.
const MISSING: [(&str, &str, &str); 7] = [
    ("run.googleapis.com", "/jobs", "Cloud Run jobs are"),
    ("run.googleapis.com", "/executions", "executions of Cloud Run jobs are"),
    ("run.googleapis.com", "/tasks", "tasks of Cloud Run jobs are"),
    ("run.googleapis.com", "/workerPools", "Cloud Run worker pools are"),
    ("run.googleapis.com", "/workerpools", "Cloud Run worker pools are"),
    ("run.googleapis.com", "/domainmappings", "domain mappings are"),
    ("run.googleapis.com", "/instances", "Cloud Run instances are"),
];

/// A 404 for a path that no method has. Google's front answers it with a page; clients of ours read JSON.
pub(crate) fn no_method(method: &http::Method, host: &str, path: &str) -> Status {
    let missing = MISSING.iter().find(|(of, word, _)| host.ends_with(of) && path.contains(word));
    let why = missing.map_or_else(String::new, |(_, _, what)| format!(" {what} not served by this server."));
    Status::not_found(format!("Method not found: {method} {path} is not served on {host}.{why}"))
}

/// A JSON answer, printed as Google prints it.
pub(crate) fn json_response(code: StatusCode, body: &Json) -> Response {
    let mut text = serde_json::to_string_pretty(body).expect("a Value has string keys only");
    text.push('\n');
    (code, [(header::CONTENT_TYPE, "application/json; charset=UTF-8")], text).into_response()
}

fn frame(status: &Status) -> Json {
    let mut error = json!({ "code": status.code.http(), "message": status.outer, "status": status.code.name() });
    if let Some(detail) = bad_request(&status.fields) {
        let violations: Vec<Json> = detail.field_violations.iter().map(|v| json!({ "field": v.field, "description": v.description })).collect();
        error["details"] = json!([{ "@type": "type.googleapis.com/google.rpc.BadRequest", "fieldViolations": violations }]);
    }
    if let Some(info) = &status.info {
        let detail = json!({ "@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": info.reason, "domain": info.domain, "metadata": info.metadata });
        match &mut error["details"] {
            Json::Array(details) => details.insert(0, detail),
            none => *none = json!([detail]),
        }
    }
    error
}

fn error_info(status: &Status) -> Option<rpc::ErrorInfo> {
    let info = status.info.as_ref()?;
    Some(rpc::ErrorInfo { reason: info.reason.clone(), domain: info.domain.clone(), metadata: info.metadata.clone().into_iter().collect() })
}

fn bad_request(fields: &[FieldViolation]) -> Option<rpc::BadRequest> {
    (!fields.is_empty()).then(|| rpc::BadRequest {
        field_violations: fields
            .iter()
            .map(|f| rpc::bad_request::FieldViolation { field: f.field.clone(), description: f.description.clone(), ..Default::default() })
            .collect(),
    })
}

fn http_status(code: Code) -> StatusCode {
    StatusCode::from_u16(code.http()).expect("every code has an HTTP status")
}

/// What the caller does not read goes to the operator.
fn log(status: &Status) {
    if !status.inner.is_empty() {
        tracing::error!(code = status.code.name(), outer = %status.outer, inner = %status.inner, "a call failed");
    }
}
