//! Schemas of messages: what a definition says, whether a message follows it, and whether one may come after another.
//!
//! Definitions and messages are a stranger's: both are read in time and memory that their own size bounds, whatever they say of
//! lengths and depths. Pure: which schema a topic has is in [`crate::pubsub`].
//!
//! Source: cloud.google.com/pubsub/docs/schemas and /commit-schema-revision; Avro 1.11; protobuf.dev, proto2 and proto3.

mod avro;
mod protobuf;
#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};

use self::{avro::Avro, protobuf::Protobuf};

/// In which language a schema is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Language {
    Avro,
    ProtocolBuffer,
}

/// How a message that follows a schema is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Encoding {
    Json,
    Binary,
}

impl Encoding {
    /// As the attribute `googclient_schemaencoding` has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Json => "JSON",
            Self::Binary => "BINARY",
        }
    }
}

/// A definition, understood.
#[derive(Debug)]
pub(crate) enum Definition {
    Avro(Avro),
    Protobuf(Protobuf),
}

impl Definition {
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn parse(language: Language, text: &str) -> Result<Self, String> {
        match language {
            Language::Avro => Avro::parse(text).map(Self::Avro),
            Language::ProtocolBuffer => Protobuf::parse(text).map(Self::Protobuf),
        }
    }

    /// # Errors
    /// Why `data` does not follow it, in Google's words where they are known.
    pub(crate) fn check(&self, encoding: Encoding, data: &[u8]) -> Result<(), String> {
        match (self, encoding) {
            (Self::Avro(avro), Encoding::Json) => avro::json::check(avro, data),
            (Self::Avro(avro), Encoding::Binary) => avro::binary::check(avro, data),
            (Self::Protobuf(protobuf), Encoding::Json) => protobuf.check_json(data),
            (Self::Protobuf(protobuf), Encoding::Binary) => protobuf::wire::check(protobuf, data),
        }
    }

    /// Whether a message of either can be read as one of the other, so that `self` may come after `before`.
    ///
    /// # Errors
    /// Why not.
    pub(crate) fn follows(&self, before: &Self) -> Result<(), String> {
        match (self, before) {
            (Self::Avro(new), Self::Avro(old)) => {
                avro::resolution::can_read(new, old)?;
                avro::resolution::can_read(old, new)
            }
            (Self::Protobuf(new), Self::Protobuf(old)) => new.follows(old),
            _ => Err("the type of a schema cannot be changed".to_owned()),
        }
    }
}

/// The `reason` of the `ErrorInfo` about a message that does not follow its schema. That of JSON for Protocol Buffers is not documented.
pub(crate) fn reason(language: Language, encoding: Encoding) -> &'static str {
    match (language, encoding) {
        (Language::Avro, Encoding::Json) => "INVALID_JSON_AVRO_MESSAGE",
        (Language::Avro, Encoding::Binary) => "INVALID_BINARY_AVRO_MESSAGE",
        (Language::ProtocolBuffer, Encoding::Json) => "INVALID_JSON_PROTO_MESSAGE",
        (Language::ProtocolBuffer, Encoding::Binary) => "INVALID_BINARY_PROTO_MESSAGE",
    }
}
