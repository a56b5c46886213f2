//! A Protocol Buffers schema: one file of proto2 or proto3 without imports, and one message in it that is the type.
//!
//! `protox` reads the file, `prost-reflect` the JSON; binary messages are walked over in `wire`.

pub(super) mod wire;

use std::collections::{HashMap, HashSet};

use prost::Message as _;
use prost_reflect::{Cardinality, DeserializeOptions, DynamicMessage, FieldDescriptor, Kind, MessageDescriptor, Syntax};
use protox::{
    Compiler,
    file::{File, FileResolver},
};

/// What a definition's file is called in errors.
const FILE: &str = "schema.proto";
/// How deep brackets may lie in each other, as `protoc` has it for messages: the parser calls itself for each.
const DEPTH_MAX: usize = 32;

/// A schema.
#[derive(Debug)]
pub(crate) struct Protobuf {
    root: MessageDescriptor,
    /// The numbers of fields that must be there, by the full name of a message that has such.
    required: HashMap<String, HashSet<u32>>,
}

/// There is one file and nothing to import.
struct Alone(File);

impl FileResolver for Alone {
    fn open_file(&self, name: &str) -> Result<File, protox::Error> {
        if name == FILE { Ok(self.0.clone()) } else { Err(protox::Error::file_not_found(name)) }
    }
}

impl Protobuf {
    /// # Errors
    /// What is wrong with `text`.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        depth_check(text)?;
        let file = File::from_source(FILE, text).map_err(|error| error.to_string())?;
        let proto = file.file_descriptor_proto();
        if let Some(import) = proto.dependency.first() {
            return Err(format!("it imports {import:?}: imports are not supported"));
        }
        if proto.message_type.len() != 1 || !proto.enum_type.is_empty() {
            let (messages, enums) = (proto.message_type.len(), proto.enum_type.len());
            return Err(format!("it must define one top-level message, with all other types in it; it defines {messages} messages and {enums} enums"));
        }
        let mut compiler = Compiler::with_file_resolver(Alone(file));
        compiler.open_file(FILE).map_err(|error| error.to_string())?;
        let pool = compiler.descriptor_pool();
        let file = pool.get_file_by_name(FILE).ok_or("it was not read")?;
        if !matches!(file.syntax(), Syntax::Proto2 | Syntax::Proto3) {
            return Err("its syntax must be proto2 or proto3".to_owned());
        }
        let root = file.messages().next().ok_or("it defines no message")?;
        let numbers = |message: MessageDescriptor| {
            let numbers: HashSet<u32> = message.fields().filter(is_required).map(|field| field.number()).collect();
            (!numbers.is_empty()).then(|| (message.full_name().to_owned(), numbers))
        };
        let required = pool.all_messages().filter_map(numbers).collect();
        Ok(Self { root, required })
    }

    /// Memory: up to some forty times the text, while it is read.
    pub(super) fn check_json(&self, data: &[u8]) -> Result<(), String> {
        let mut from = serde_json::Deserializer::from_slice(data);
        let options = DeserializeOptions::new().deny_unknown_fields(true);
        let message = DynamicMessage::deserialize_with_options(self.root.clone(), &mut from, &options).map_err(|error| error.to_string())?;
        from.end().map_err(|error| error.to_string())?;
        // Only that nothing required is missing is left to see.
        wire::check(self, &message.encode_to_vec())
    }

    /// Fields may come and go unless they are required; those that stay keep number, name and type. Source:
    /// cloud.google.com/pubsub/docs/commit-schema-revision.
    pub(super) fn follows(&self, before: &Self) -> Result<(), String> {
        let (mut seen, mut left) = (HashSet::new(), vec![(self.root.clone(), before.root.clone())]);
        while let Some((new, old)) = left.pop() {
            if !seen.insert((new.full_name().to_owned(), old.full_name().to_owned())) {
                continue;
            }
            for field in old.fields() {
                match new.get_field(field.number()) {
                    None if is_required(&field) => return Err(format!("{} is required and was removed", field.full_name())),
                    None => {}
                    Some(kept) if !is_same(&kept, &field) => return Err(format!("{} was changed", field.full_name())),
                    Some(kept) => {
                        if let (Kind::Message(new), Kind::Message(old)) = (kept.kind(), field.kind()) {
                            left.push((new, old));
                        }
                    }
                }
            }
            if let Some(field) = new.fields().find(|field| is_required(field) && old.get_field(field.number()).is_none()) {
                return Err(format!("{} is required and was added", field.full_name()));
            }
        }
        Ok(())
    }
}

fn is_required(field: &FieldDescriptor) -> bool {
    field.cardinality() == Cardinality::Required
}

/// Types that a field names may have changed: their own fields are compared.
fn is_same(new: &FieldDescriptor, old: &FieldDescriptor) -> bool {
    let kind = match (new.kind(), old.kind()) {
        (Kind::Message(_), Kind::Message(_)) | (Kind::Enum(_), Kind::Enum(_)) => true,
        (new, old) => new == old,
    };
    kind && new.name() == old.name() && new.cardinality() == old.cardinality() && new.is_map() == old.is_map() && new.is_group() == old.is_group()
}

/// Brackets outside of comments and strings.
fn depth_check(text: &str) -> Result<(), String> {
    let (mut depth, mut rest) = (0_usize, text.bytes().peekable());
    while let Some(byte) = rest.next() {
        match byte {
            b'/' if rest.peek() == Some(&b'/') => drop(rest.find(|byte| *byte == b'\n')),
            b'/' if rest.peek() == Some(&b'*') => {
                rest.next();
                while let Some(byte) = rest.next() {
                    if byte == b'*' && rest.peek() == Some(&b'/') {
                        rest.next();
                        break;
                    }
                }
            }
            b'"' | b'\'' => {
                while let Some(inner) = rest.next().filter(|inner| *inner != byte && *inner != b'\n') {
                    if inner == b'\\' {
                        rest.next();
                    }
                }
            }
            b'{' | b'[' | b'<' | b'(' => {
                depth += 1;
                if depth > DEPTH_MAX {
                    return Err(format!("its brackets are nested deeper than {DEPTH_MAX} levels"));
                }
            }
            b'}' | b']' | b'>' | b')' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    Ok(())
}
