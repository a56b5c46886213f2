//! Whether bytes are a message of a Protocol Buffers schema, found by walking over them: nothing of them is kept.
//!
//! Stricter than a parser of protobuf: a field that the schema does not have is refused, as users of Google's Pub/Sub have seen it.
//! Source of the form: protobuf.dev/programming-guides/encoding.

use prost::encoding::{WireType, decode_key, decode_varint};
use prost_reflect::{Kind, MessageDescriptor, Syntax};

use super::Protobuf;

/// How deep messages may lie in each other, as in Google's own parsers.
const DEPTH_MAX: usize = 100;

/// # Errors
/// Why they are none.
pub(in crate::schema) fn check(schema: &Protobuf, data: &[u8]) -> Result<(), String> {
    let mut left = data;
    message(schema, &schema.root, &mut left, None, DEPTH_MAX)
}

/// Walks to the end of `left`, or of the group that it lies in.
fn message(schema: &Protobuf, kind: &MessageDescriptor, left: &mut &[u8], group: Option<u32>, depth: usize) -> Result<(), String> {
    let depth = depth.checked_sub(1).ok_or_else(|| format!("the message is nested deeper than {DEPTH_MAX} levels"))?;
    let mut lacking = schema.required.get(kind.full_name()).cloned().unwrap_or_default();
    let mut is_ended = false;
    while !left.is_empty() {
        let (number, wire) = decode_key(left).map_err(|error| error.to_string())?;
        if wire == WireType::EndGroup {
            is_ended = group == Some(number);
            if !is_ended {
                return Err(format!("the end of group {number} is where no such group began"));
            }
            break;
        }
        let field = kind.get_field(number).ok_or_else(|| format!("{} has no field with the number {number}", kind.full_name()))?;
        lacking.remove(&number);
        let wrong = || format!("{} is not written as its type", field.full_name());
        let own = wire_of(&field.kind(), field.is_group());
        match (wire, field.kind()) {
            (WireType::LengthDelimited, Kind::Message(inner)) if !field.is_group() => {
                let mut body = sized(left)?;
                message(schema, &inner, &mut body, None, depth)?;
            }
            (WireType::StartGroup, Kind::Message(inner)) if field.is_group() => message(schema, &inner, left, Some(number), depth)?,
            (WireType::LengthDelimited, Kind::String) => {
                let text = sized(left)?;
                if kind.parent_file().syntax() == Syntax::Proto3 && std::str::from_utf8(text).is_err() {
                    return Err(format!("{} is not UTF-8", field.full_name()));
                }
            }
            (WireType::LengthDelimited, Kind::Bytes) => drop(sized(left)?),
            // Packed.
            (WireType::LengthDelimited, _) if field.is_list() && own != WireType::StartGroup => {
                let mut body = sized(left)?;
                while !body.is_empty() {
                    scalar(own, &mut body).ok_or_else(wrong)?;
                }
            }
            (wire, _) if wire == own => scalar(own, left).ok_or_else(wrong)?,
            _ => return Err(wrong()),
        }
    }
    if group.is_some() && !is_ended {
        return Err("a group does not end".to_owned());
    }
    match lacking.iter().min().and_then(|number| kind.get_field(*number)) {
        Some(field) => Err(format!("{} is required and missing", field.full_name())),
        None => Ok(()),
    }
}

fn wire_of(kind: &Kind, is_group: bool) -> WireType {
    match kind {
        Kind::Double | Kind::Fixed64 | Kind::Sfixed64 => WireType::SixtyFourBit,
        Kind::Float | Kind::Fixed32 | Kind::Sfixed32 => WireType::ThirtyTwoBit,
        Kind::Message(_) if is_group => WireType::StartGroup,
        Kind::Message(_) | Kind::String | Kind::Bytes => WireType::LengthDelimited,
        _ => WireType::Varint,
    }
}

/// Passes one value of a fixed form over.
fn scalar(wire: WireType, left: &mut &[u8]) -> Option<()> {
    match wire {
        WireType::Varint => decode_varint(left).ok().map(drop),
        WireType::SixtyFourBit => take(left, 8).map(drop),
        WireType::ThirtyTwoBit => take(left, 4).map(drop),
        _ => None,
    }
}

fn sized<'d>(left: &mut &'d [u8]) -> Result<&'d [u8], String> {
    let bytes = decode_varint(left).map_err(|error| error.to_string())?;
    usize::try_from(bytes).ok().and_then(|bytes| take(left, bytes)).ok_or_else(|| "the message ends inside of a field".to_owned())
}

fn take<'d>(left: &mut &'d [u8], bytes: usize) -> Option<&'d [u8]> {
    let (taken, rest) = left.split_at_checked(bytes)?;
    *left = rest;
    Some(taken)
}
