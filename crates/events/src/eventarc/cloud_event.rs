//! A message of a transport as an event: CloudEvents 1.0 over HTTP in binary mode, attributes in headers and data in the body.
//!
//! Source: the CloudEvents HTTP protocol binding 1.0.2; which attributes an event has, the events' pages of cloud.google.com/eventarc/docs.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, header};
use model::{Status, storage::ChangeKind, trigger::EventKind};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};

use crate::pubsub::{EventMode, Message};

/// What a header cannot carry as it is. Section 3.1.3.2 of the binding.
const ESCAPED: &AsciiSet = &CONTROLS.add(b' ').add(b'"').add(b'%');
/// Of Google's senders.
const USER_AGENT: &str = "APIs-Google; (+https://developers.google.com/webmasters/APIs-Google.html)";

/// A message that came over a transport.
pub(crate) struct Arrived<'a> {
    pub message: &'a Message,
    pub message_id: &'a str,
    /// `projects/P/topics/T`.
    pub topic: String,
    /// The JSON that a push of the message has.
    pub wrapped: &'a dyn Fn() -> String,
}

/// Headers and body of the request.
///
/// # Errors
/// `INVALID_ARGUMENT` for a message that is no event: whoever may publish to the topic has sent something else.
pub(crate) fn request(mode: EventMode, arrived: &Arrived) -> Result<(HeaderMap, Bytes), Status> {
    let message = arrived.message;
    let mut headers = HeaderMap::new();
    headers.insert(header::USER_AGENT, HeaderValue::from_static(USER_AGENT));
    headers.insert(header::FROM, HeaderValue::from_static("noreply@google.com"));
    headers.insert(header::ACCEPT, HeaderValue::from_static("application/json"));
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    let mut set = |name: &str, value: &str| -> Result<(), Status> {
        let bad = || Status::invalid(format!("the attribute {name:?} of an event cannot be a header"));
        let value = HeaderValue::try_from(utf8_percent_encode(value, ESCAPED).to_string()).map_err(|_| bad())?;
        headers.insert(HeaderName::try_from(format!("ce-{name}")).map_err(|_| bad())?, value);
        Ok(())
    };
    match mode {
        EventMode::Message => {
            set("id", arrived.message_id)?;
            set("source", &format!("//pubsub.googleapis.com/{}", arrived.topic))?;
            set("specversion", "1.0")?;
            set("type", EventKind::MessagePublished.name())?;
            set("time", &message.published().to_string())?;
            Ok((headers, (arrived.wrapped)().into()))
        }
        EventMode::Object => {
            let attribute = |name: &str| {
                message
                    .attributes
                    .get(name)
                    .map(String::as_str)
                    .ok_or_else(|| Status::invalid(format!("no notification of a bucket: it has no attribute {name:?}")))
            };
            let kind = attribute("eventType")?;
            let kind =
                ChangeKind::ALL.into_iter().find(|known| known.name() == kind).ok_or_else(|| Status::invalid(format!("{kind:?} is no change of an object")))?;
            let bucket = attribute("bucketId")?;
            set("id", arrived.message_id)?;
            set("source", &format!("//storage.googleapis.com/projects/_/buckets/{bucket}"))?;
            set("specversion", "1.0")?;
            set("type", EventKind::Object(kind).name())?;
            set("subject", &format!("objects/{}", attribute("objectId")?))?;
            set("time", attribute("eventTime")?)?;
            set("bucket", bucket)?;
            Ok((headers, message.data.clone()))
        }
        EventMode::Bound => {
            for required in ["ce-id", "ce-source", "ce-specversion", "ce-type"] {
                if !message.attributes.contains_key(required) {
                    return Err(Status::invalid(format!("no event: it has no attribute {required:?}")));
                }
            }
            for (name, value) in &message.attributes {
                if let Some(name) = name.strip_prefix("ce-") {
                    set(name, value)?;
                }
            }
            if let Some(content_type) = message.attributes.get("content-type") {
                let bad = |_| Status::invalid("the content type of an event cannot be a header");
                headers.insert(header::CONTENT_TYPE, HeaderValue::try_from(content_type).map_err(bad)?);
            }
            Ok((headers, message.data.clone()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(attributes: &[(&str, &str)]) -> Message {
        Message {
            data: Bytes::from_static(b"{\"a\":1}"),
            attributes: attributes.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
            published_us: 1_500_000,
            ..Message::default()
        }
    }

    fn check(mode: EventMode, attributes: &[(&str, &str)], expect: &[(&str, &str)], body: &str) {
        let message = message(attributes);
        let arrived = Arrived { message: &message, message_id: "7", topic: "projects/p/topics/t".to_owned(), wrapped: &|| "wrapped".to_owned() };
        let (headers, found) = request(mode, &arrived).unwrap();
        let mut events: Vec<(&str, &str)> =
            headers.iter().filter(|(name, _)| name.as_str().starts_with("ce-")).map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect();
        events.sort_unstable();
        assert_eq!((events.as_slice(), &*found), (expect, body.as_bytes()));
    }

    #[test]
    fn a_message_is_wrapped() {
        let expect = [
            ("ce-id", "7"),
            ("ce-source", "//pubsub.googleapis.com/projects/p/topics/t"),
            ("ce-specversion", "1.0"),
            ("ce-time", "1970-01-01T00:00:01.5Z"),
            ("ce-type", "google.cloud.pubsub.topic.v1.messagePublished"),
        ];
        check(EventMode::Message, &[("x", "y")], &expect, "wrapped");
    }

    #[test]
    fn a_notification_is_an_objects_event() {
        let told = [("eventType", "OBJECT_ARCHIVE"), ("bucketId", "b"), ("objectId", "夏 2026/100%.jpg"), ("eventTime", "2026-11-28T12:00:00.123456Z")];
        let expect = [
            ("ce-bucket", "b"),
            ("ce-id", "7"),
            ("ce-source", "//storage.googleapis.com/projects/_/buckets/b"),
            ("ce-specversion", "1.0"),
            ("ce-subject", "objects/%E5%A4%8F%202026/100%25.jpg"),
            ("ce-time", "2026-11-28T12:00:00.123456Z"),
            ("ce-type", "google.cloud.storage.object.v1.archived"),
        ];
        check(EventMode::Object, &told, &expect, "{\"a\":1}");
    }

    #[test]
    fn attributes_of_a_bound_event_are_headers() {
        let bound = [("ce-id", "1"), ("ce-source", "//s"), ("ce-specversion", "1.0"), ("ce-type", "t"), ("ce-methodname", "M"), ("other", "x")];
        check(
            EventMode::Bound,
            &bound,
            &[("ce-id", "1"), ("ce-methodname", "M"), ("ce-source", "//s"), ("ce-specversion", "1.0"), ("ce-type", "t")],
            "{\"a\":1}",
        );
    }

    #[test]
    fn what_is_no_event_is_refused() {
        let refused = |mode: EventMode, attributes: &[(&str, &str)]| {
            let message = message(attributes);
            let arrived = Arrived { message: &message, message_id: "7", topic: String::new(), wrapped: &String::new };
            assert!(request(mode, &arrived).is_err(), "{attributes:?}");
        };
        refused(EventMode::Object, &[("bucketId", "b")]);
        refused(EventMode::Object, &[("eventType", "OBJECT_MOVED"), ("bucketId", "b"), ("objectId", "o"), ("eventTime", "t")]);
        refused(EventMode::Bound, &[("ce-id", "1")]);
        refused(EventMode::Bound, &[("ce-id", "1"), ("ce-source", "s"), ("ce-specversion", "1.0"), ("ce-type", "t"), ("ce-a b", "x")]);
    }
}
