//! An audited call as a message of a transport: its attributes are those of the event, its data the log entry.
//!
//! Source: google-cloudevents, `google.events.cloud.audit.v1.LogEntryData`, and its mapping to attributes in cloud.google.com/eventarc/docs.

use std::collections::BTreeMap;

use model::{Timestamp, limits::ATTRIBUTE_VALUE_BYTES_MAX, log::Severity, trigger::EventKind};
use serde_json::{Value as Json, json};

use crate::pubsub::Message;

/// An audited call.
pub struct Written<'a> {
    /// An id.
    pub project: &'a str,
    /// The API's host.
    pub service: &'a str,
    pub method: &'a str,
    pub resource: &'a str,
    pub at: Timestamp,
    pub severity: Severity,
    /// `google.cloud.audit.AuditLog`.
    pub payload: Json,
}

impl Written<'_> {
    /// The message; each has an id of its own.
    pub fn message(&self) -> Message {
        let (id, at) = (format!("{:032x}", rand::random::<u128>()), self.at.to_string());
        let data = json!({
            "insertId": id,
            "logName": format!("projects/{}/logs/cloudaudit.googleapis.com%2Factivity", self.project),
            "protoPayload": self.payload,
            "receiveTimestamp": at,
            "resource": {
                "type": "audited_resource",
                "labels": { "method": self.method, "project_id": self.project, "service": self.service },
            },
            "severity": self.severity,
            "timestamp": at,
        });
        let attributes = [
            ("ce-id", id),
            ("ce-source", format!("//cloudaudit.googleapis.com/projects/{}/logs/activity", self.project)),
            ("ce-specversion", "1.0".to_owned()),
            ("ce-type", EventKind::AuditLog.name().to_owned()),
            ("ce-subject", format!("{}/{}", self.service, self.resource)),
            ("ce-time", at.clone()),
            ("ce-recordedtime", at),
            ("ce-servicename", self.service.to_owned()),
            ("ce-methodname", self.method.to_owned()),
            ("ce-resourcename", self.resource.to_owned()),
            ("ce-dataschema", "https://googleapis.github.io/google-cloudevents/jsonschema/google/events/cloud/audit/v1/LogEntryData.json".to_owned()),
            ("content-type", "application/json; charset=utf-8".to_owned()),
        ];
        let attributes: BTreeMap<String, String> = attributes.into_iter().map(|(name, value)| (name.to_owned(), cut(value))).collect();
        Message { data: data.to_string().into(), attributes, ..Message::default() }
    }
}

/// What an attribute of a message has room for.
fn cut(mut value: String) -> String {
    if value.len() > ATTRIBUTE_VALUE_BYTES_MAX {
        let mut end = ATTRIBUTE_VALUE_BYTES_MAX;
        while !value.is_char_boundary(end) {
            end -= 1;
        }
        value.truncate(end);
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_becomes_an_event() {
        let resource = format!("projects/p/secrets/{}", "夏".repeat(400));
        let written = Written {
            project: "p",
            service: "secretmanager.googleapis.com",
            method: "google.cloud.secretmanager.v1.SecretManagerService.CreateSecret",
            resource: &resource,
            at: "2026-11-28T12:00:00.5Z".parse().unwrap(),
            severity: Severity::Notice,
            payload: json!({ "serviceName": "secretmanager.googleapis.com" }),
        };
        let message = written.message();
        let check = |name: &str, expect: &str| assert_eq!(message.attributes[name], expect, "{name}");
        check("ce-source", "//cloudaudit.googleapis.com/projects/p/logs/activity");
        check("ce-type", "google.cloud.audit.log.v1.written");
        check("ce-time", "2026-11-28T12:00:00.5Z");
        check("ce-servicename", "secretmanager.googleapis.com");
        assert!(message.attributes["ce-subject"].starts_with("secretmanager.googleapis.com/projects/p/secrets/夏"));
        assert!(message.attributes.values().all(|value| value.len() <= ATTRIBUTE_VALUE_BYTES_MAX));
        let data: Json = serde_json::from_slice(&message.data).unwrap();
        assert_eq!((&data["severity"], &data["protoPayload"]["serviceName"]), (&json!("NOTICE"), &json!("secretmanager.googleapis.com")));
        assert_eq!(data["insertId"], json!(message.attributes["ce-id"]));
        assert_ne!(written.message().attributes["ce-id"], message.attributes["ce-id"]);
    }
}
