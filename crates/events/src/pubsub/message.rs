//! A message: as it lies in its topic's log, and what may be published.

use std::collections::BTreeMap;

use bytes::Bytes;
use model::{
    Code, Hops, Status, Timestamp,
    limits::{ATTRIBUTE_KEY_BYTES_MAX, ATTRIBUTE_VALUE_BYTES_MAX, ATTRIBUTES_MAX, ORDERING_KEY_BYTES_MAX, PUBLISH_BYTES_MAX, PUBLISH_MESSAGES_MAX},
};
use prost::Message as _;

/// A message. Persisted in this form, as protobuf: a change here only adds fields.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Message {
    #[prost(bytes = "bytes", tag = "1")]
    pub data: Bytes,
    #[prost(btree_map = "string, string", tag = "2")]
    pub attributes: BTreeMap<String, String>,
    /// Empty for none.
    #[prost(string, tag = "3")]
    pub ordering_key: String,
    /// Microseconds since 1970; set when it is published.
    #[prost(int64, tag = "4")]
    pub published_us: i64,
    /// Of [`Hops`]; no reader of the message is told of it.
    #[prost(uint32, tag = "5")]
    pub hops: u32,
    #[prost(string, repeated, tag = "6")]
    pub trail: Vec<String>,
}

impl Message {
    /// When it was published.
    pub fn published(&self) -> Timestamp {
        Timestamp::from_microsecond(self.published_us).unwrap_or(Timestamp::MAX)
    }

    /// The same, with `hops` behind it.
    #[must_use]
    pub fn behind(self, hops: &Hops) -> Self {
        Self { hops: hops.count, trail: hops.trail.clone(), ..self }
    }

    /// What lies behind it.
    pub fn hops(&self) -> Hops {
        Hops { count: self.hops, trail: self.trail.clone() }
    }

    /// As limits count it.
    pub fn bytes(&self) -> usize {
        self.data.len() + self.ordering_key.len() + self.attributes.iter().map(|(key, value)| key.len() + value.len()).sum::<usize>()
    }

    pub(crate) fn encode_entry(&self) -> Vec<u8> {
        self.encode_to_vec()
    }

    pub(crate) fn decode_entry(bytes: Vec<u8>) -> Result<Self, Status> {
        Self::decode(Bytes::from(bytes)).map_err(Status::internal)
    }
}

/// # Errors
/// `INVALID_ARGUMENT` for a batch that Google would refuse, in its words where they are known.
pub(crate) fn publish_check(messages: &[Message]) -> Result<(), Status> {
    let over = |what: &str, is: usize, max: usize| {
        Err(Status::invalid(format!("The value for {what} is too large. You passed {is} in the request, but the maximum value is {max}.")))
    };
    if messages.is_empty() {
        return Err(Status::invalid("The value for message_count is too small. You passed 0 in the request, but the minimum value is 1."));
    }
    if messages.len() > PUBLISH_MESSAGES_MAX {
        return over("message_count", messages.len(), PUBLISH_MESSAGES_MAX);
    }
    let bytes: usize = messages.iter().map(Message::bytes).sum();
    if bytes > PUBLISH_BYTES_MAX {
        return over("request_size", bytes, PUBLISH_BYTES_MAX);
    }
    for message in messages {
        if message.data.is_empty() && message.attributes.is_empty() {
            return Err(Status::new(
                Code::InvalidArgument,
                "One or more messages in the publish request is empty. Each message must contain either non-empty data, or at least one attribute.",
            ));
        }
        if message.attributes.len() > ATTRIBUTES_MAX {
            return over("attributes_count", message.attributes.len(), ATTRIBUTES_MAX);
        }
        for (key, value) in &message.attributes {
            if key.is_empty() {
                return Err(Status::invalid_field("attributes", "a key is empty"));
            }
            if key.to_ascii_lowercase().starts_with("goog") {
                return Err(Status::invalid_field("attributes", format!("the key {key:?} begins with goog, which is Google's own")));
            }
            if key.len() > ATTRIBUTE_KEY_BYTES_MAX {
                return over("attribute_key_size", key.len(), ATTRIBUTE_KEY_BYTES_MAX);
            }
            if value.len() > ATTRIBUTE_VALUE_BYTES_MAX {
                return over("attribute_value_size", value.len(), ATTRIBUTE_VALUE_BYTES_MAX);
            }
        }
        if message.ordering_key.len() > ORDERING_KEY_BYTES_MAX {
            return over("ordering_key_size", message.ordering_key.len(), ORDERING_KEY_BYTES_MAX);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_of_a_publish_are_googles() {
        let data = |bytes: usize| Message { data: vec![b'x'; bytes].into(), ..Message::default() };
        let attribute = |key: usize, value: usize| Message { attributes: [("k".repeat(key), "v".repeat(value))].into(), ..Message::default() };
        let check = |messages: Vec<Message>, part: &str| match (publish_check(&messages), part) {
            (Ok(()), "") => {}
            (Err(status), part) if !part.is_empty() => assert!(status.outer.contains(part), "{status}"),
            (found, part) => panic!("{part:?}: {found:?}"),
        };
        check(vec![data(1)], "");
        check(vec![], "message_count");
        check(vec![data(1); 1000], "");
        check(vec![data(1); 1001], "You passed 1001 in the request, but the maximum value is 1000.");
        check(vec![data(10_000_000)], "");
        check(vec![data(10_000_001)], "request_size");
        check(vec![data(1), data(0)], "is empty");
        check(vec![attribute(256, 1024)], "");
        check(vec![attribute(257, 1)], "attribute_key_size");
        check(vec![attribute(1, 1025)], "attribute_value_size");
        check(vec![attribute(0, 1)], "a key is empty");
        check(vec![Message { attributes: [("googx".to_owned(), String::new())].into(), ..data(1) }], "goog");
        let many = |count: usize| Message { attributes: (0..count).map(|n| (n.to_string(), String::new())).collect(), ..Message::default() };
        check(vec![many(100)], "");
        check(vec![many(101)], "attributes_count");
        check(vec![Message { ordering_key: "o".repeat(1024), ..data(1) }], "");
        check(vec![Message { ordering_key: "o".repeat(1025), ..data(1) }], "ordering_key_size");
    }

    #[test]
    fn a_message_comes_back_as_it_was() {
        let message = Message {
            data: Bytes::from_static(b"\0\xff"),
            attributes: [("k".to_owned(), "v".to_owned())].into(),
            ordering_key: "o".to_owned(),
            published_us: 1_795_000_000_000_001,
            ..Message::default()
        };
        assert_eq!(Message::decode_entry(message.encode_entry()), Ok(message.clone()));
        let hops = Hops::default().next("f").next("g");
        let behind = message.behind(&hops);
        assert_eq!(Message::decode_entry(behind.encode_entry()).unwrap().hops(), hops);
    }
}
