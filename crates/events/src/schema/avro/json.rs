//! Whether a JSON text is a value of an Avro schema, found while it is read: nothing of it is kept.
//!
//! Fields that a record does not have are passed over, fields that it lacks are not made up from their defaults. Texts are those that
//! Google's answers have been seen to hold. Source: Avro 1.11, JSON encoding.

use std::fmt;

use serde::{
    Deserializer,
    de::{DeserializeSeed, Error, IgnoredAny, MapAccess, SeqAccess, Visitor},
};

use super::{Avro, Id, Type, is_byte};

/// # Errors
/// Why it is none.
pub(in crate::schema) fn check(schema: &Avro, data: &[u8]) -> Result<(), String> {
    let mut from = serde_json::Deserializer::from_slice(data);
    let found = Value { schema, id: schema.root }.deserialize(&mut from).and_then(|()| from.end());
    found.map_err(|error| {
        let text = error.to_string();
        // Where in the text helps with what is no JSON, and is not in Google's other answers.
        if error.is_data() {
            text.rsplit_once(" at line ").map_or(text.clone(), |(text, _)| text.to_owned())
        } else {
            format!("JSON could not be parsed: {text}")
        }
    })
}

#[derive(Clone, Copy)]
struct Value<'s> {
    schema: &'s Avro,
    id: Id,
}

impl<'s> Value<'s> {
    fn kind(self) -> &'s Type {
        self.schema.kind(self.id)
    }

    fn at(self, id: Id) -> Self {
        Self { schema: self.schema, id }
    }

    fn mismatch<E: Error>(self, found: &str) -> E {
        let expected = match self.kind() {
            Type::Null => "null",
            Type::Boolean => "boolean",
            Type::Int | Type::Long => "number_integer",
            Type::Float | Type::Double => "number_float",
            Type::Bytes | Type::String | Type::Enum { .. } | Type::Fixed { .. } => "string",
            Type::Array(_) => "array",
            Type::Map(_) | Type::Union { .. } | Type::Record { .. } => "object",
        };
        E::custom(format_args!("JSON object with type {found} does not match schema which expected {expected}"))
    }
}

impl<'de> DeserializeSeed<'de> for Value<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Value<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.schema.name(self.id))
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        match self.kind() {
            Type::Null => Ok(()),
            Type::Union { by_name, .. } if by_name.contains_key("null") => Ok(()),
            _ => Err(self.mismatch("null")),
        }
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<(), E> {
        if matches!(self.kind(), Type::Boolean) { Ok(()) } else { Err(self.mismatch("boolean")) }
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<(), E> {
        match self.kind() {
            Type::Int if i32::try_from(number).is_err() => Err(E::custom(format_args!("{number} is out of the range of an int"))),
            Type::Int | Type::Long | Type::Float | Type::Double => Ok(()),
            _ => Err(self.mismatch("number_integer")),
        }
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<(), E> {
        match i64::try_from(number) {
            Ok(number) => self.visit_i64(number),
            Err(_) if matches!(self.kind(), Type::Float | Type::Double) => Ok(()),
            Err(_) if matches!(self.kind(), Type::Int | Type::Long) => Err(E::custom(format_args!("{number} is out of the range of a long"))),
            Err(_) => Err(self.mismatch("number_integer")),
        }
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<(), E> {
        if matches!(self.kind(), Type::Float | Type::Double) { Ok(()) } else { Err(self.mismatch("number_float")) }
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<(), E> {
        match self.kind() {
            Type::String => Ok(()),
            Type::Bytes if text.chars().all(is_byte) => Ok(()),
            Type::Bytes => Err(E::custom("a string for bytes has a character above U+00FF")),
            Type::Fixed { bytes, .. } if text.chars().all(is_byte) && text.chars().count() == *bytes => Ok(()),
            Type::Fixed { name, bytes } => Err(E::custom(format_args!("a string for {name} does not stand for {bytes} bytes"))),
            Type::Enum { by_symbol, has_default, .. } if *has_default || by_symbol.contains_key(text) => Ok(()),
            Type::Enum { name, .. } => Err(E::custom(format_args!("Invalid enum index without default value: {name}"))),
            _ => Err(self.mismatch("string")),
        }
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        let Type::Array(kind) = self.kind() else { return Err(self.mismatch("array")) };
        while items.next_element_seed(self.at(*kind))?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<(), A::Error> {
        match self.kind() {
            Type::Map(kind) => {
                while members.next_key::<IgnoredAny>()?.is_some() {
                    members.next_value_seed(self.at(*kind))?;
                }
                Ok(())
            }
            Type::Union { by_name, .. } => {
                let Some(name) = members.next_key::<String>()? else { return Err(A::Error::custom("an object for a union names no branch of it")) };
                let Some(kind) = by_name.get(&name) else { return Err(A::Error::custom(format_args!("{name:?} is no branch of the union"))) };
                members.next_value_seed(self.at(*kind))?;
                if members.next_key::<IgnoredAny>()?.is_some() {
                    return Err(A::Error::custom("an object for a union names more than one branch of it"));
                }
                Ok(())
            }
            Type::Record { fields, by_name, .. } => {
                let mut is_there = vec![false; fields.len()];
                while let Some(name) = members.next_key::<String>()? {
                    match by_name.get(&name) {
                        Some(at) => {
                            members.next_value_seed(self.at(fields[*at].kind))?;
                            is_there[*at] = true;
                        }
                        None => drop(members.next_value::<IgnoredAny>()?),
                    }
                }
                match is_there.iter().position(|is_there| !is_there) {
                    Some(lacking) => Err(A::Error::custom(format_args!("Field was not found in JSON object: {}", fields[lacking].name))),
                    None => Ok(()),
                }
            }
            _ => Err(self.mismatch("object")),
        }
    }
}
