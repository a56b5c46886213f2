//! JSON of a request before it is a message: parameters put in their places, unknown names refused in Google's words.

use model::{Status, status::FieldViolation};
use prost_reflect::{FieldDescriptor, Kind, MessageDescriptor};
use serde_json::{Map, Value as Json, json};

use crate::grpc::Removed;

/// Puts `text` (of the path or the query) at the dotted field path, with the JSON type that the field wants.
///
/// # Errors
/// `INVALID_ARGUMENT` for a field that is not there or holds something else already.
pub(super) fn put(message: &MessageDescriptor, into: &mut Map<String, Json>, path: &str, text: &str) -> Result<(), Status> {
    put_at(message, into, path, path, text)
}

fn put_at(message: &MessageDescriptor, into: &mut Map<String, Json>, whole: &str, path: &str, text: &str) -> Result<(), Status> {
    let unknown = || {
        violation(
            whole,
            format!(
                "Invalid JSON payload received. Unknown name \"{whole}\": Cannot bind query parameter. Field '{whole}' could not be found in request message."
            ),
        )
    };
    let (head, tail) = path.split_once('.').map_or((path, None), |(head, tail)| (head, Some(tail)));
    let field = field_find(message, head).ok_or_else(unknown)?;
    // A client may have written the field by its other name; two spellings would be two values.
    if field.name() != field.json_name() && into.contains_key(field.name()) {
        let value = into.remove(field.name()).unwrap_or_default();
        into.insert(field.json_name().to_owned(), value);
    }
    let key = field.json_name().to_owned();
    if let Some(tail) = tail {
        let Kind::Message(inner) = field.kind() else {
            return Err(unknown());
        };
        if field.is_list() || field.is_map() {
            return Err(unknown());
        }
        let slot = into.entry(key).or_insert_with(|| json!({}));
        let slot = slot.as_object_mut().ok_or_else(|| violation(whole, format!("Invalid value at '{whole}': it is not a message")))?;
        return put_at(&inner, slot, whole, tail, text);
    }
    let value = scalar(&field, whole, text)?;
    if !field.is_list() {
        into.insert(key, value);
        return Ok(());
    }
    match into.entry(key).or_insert_with(|| json!([])) {
        Json::Array(list) => list.push(value),
        _ => {
            return Err(violation(whole, format!("Invalid value at '{whole}': it is not a list")));
        }
    }
    Ok(())
}

/// Text as ProtoJSON has it: numbers, bytes, durations and enums may be strings; only booleans may not.
fn scalar(field: &FieldDescriptor, path: &str, text: &str) -> Result<Json, Status> {
    let is_bool = match field.kind() {
        Kind::Bool => true,
        // Google takes a mask in the proto's spelling too, and gcloud writes it so.
        Kind::Message(message) if message.full_name() == "google.protobuf.FieldMask" => return Ok(Json::String(camel(text))),
        Kind::Message(message) => message.full_name() == "google.protobuf.BoolValue",
        _ => false,
    };
    match (is_bool, text) {
        (false, text) => Ok(Json::String(text.to_owned())),
        (true, "true" | "True" | "1") => Ok(Json::Bool(true)),
        (true, "false" | "False" | "0") => Ok(Json::Bool(false)),
        (true, _) => Err(violation(path, format!("Invalid value at '{path}' (TYPE_BOOL), \"{text}\""))),
    }
}

/// `version_aliases,labels` is `versionAliases,labels`.
fn camel(mask: &str) -> String {
    let mut text = String::with_capacity(mask.len());
    let mut letters = mask.chars().peekable();
    while let Some(letter) = letters.next() {
        match letters.peek() {
            Some(next) if letter == '_' && next.is_ascii_lowercase() => text.extend(letters.next().map(|next| next.to_ascii_uppercase())),
            _ => text.push(letter),
        }
    }
    text
}

/// Takes the entries of maps out that are null, anywhere in `object`.
pub(super) fn removed_take(message: &MessageDescriptor, object: &mut Map<String, Json>) -> Vec<Removed> {
    let mut removed = Vec::new();
    removed_collect(message, object, "", &mut removed);
    removed
}

fn removed_collect(message: &MessageDescriptor, object: &mut Map<String, Json>, at: &str, removed: &mut Vec<Removed>) {
    for (name, value) in object {
        let (Some(field), Json::Object(inner)) = (field_find(message, name), value) else { continue };
        let at = if at.is_empty() { field.name().to_owned() } else { format!("{at}.{}", field.name()) };
        if field.is_map() {
            let keys: Vec<String> = inner.iter().filter(|(_, value)| value.is_null()).map(|(key, _)| key.clone()).collect();
            inner.retain(|_, value| !value.is_null());
            removed.extend(keys.into_iter().map(|key| Removed { map: at.clone(), key }));
        } else if let Kind::Message(kind) = field.kind()
            && !kind.full_name().starts_with("google.protobuf.")
        {
            removed_collect(&kind, inner, &at, removed);
        }
    }
}

/// Refuses names that `message` does not have, anywhere in `value`, all of them at once.
///
/// # Errors
/// `INVALID_ARGUMENT` that names each.
pub(super) fn check(message: &MessageDescriptor, value: &Json) -> Result<(), Status> {
    let mut found = Vec::new();
    unknown_collect(message, value, "", &mut found);
    if found.is_empty() {
        return Ok(());
    }
    let mut status = Status::invalid(found.iter().map(|v| v.description.as_str()).collect::<Vec<_>>().join("\n"));
    status.fields = found;
    Err(status)
}

fn unknown_collect(message: &MessageDescriptor, value: &Json, at: &str, found: &mut Vec<FieldViolation>) {
    // The well-known types have JSON forms of their own.
    if message.full_name().starts_with("google.protobuf.") {
        return;
    }
    let Json::Object(object) = value else { return };
    for (name, value) in object {
        let Some(field) = field_find(message, name) else {
            let place = if at.is_empty() { String::new() } else { format!(" at '{at}'") };
            found.push(FieldViolation {
                field: at.to_owned(),
                description: format!("Invalid JSON payload received. Unknown name \"{name}\"{place}: Cannot find field."),
            });
            continue;
        };
        let kind = if field.is_map() { map_value(&field) } else { field.kind() };
        let Kind::Message(inner) = kind else { continue };
        let at = if at.is_empty() { field.name().to_owned() } else { format!("{at}.{}", field.name()) };
        match value {
            Json::Array(list) if field.is_list() => {
                list.iter().enumerate().for_each(|(i, value)| unknown_collect(&inner, value, &format!("{at}[{i}]"), found));
            }
            Json::Object(map) if field.is_map() => map.iter().for_each(|(key, value)| unknown_collect(&inner, value, &format!("{at}[{key}]"), found)),
            value => unknown_collect(&inner, value, &at, found),
        }
    }
}

fn map_value(field: &FieldDescriptor) -> Kind {
    match field.kind() {
        Kind::Message(entry) => entry.map_entry_value_field().kind(),
        kind => kind,
    }
}

fn field_find(message: &MessageDescriptor, name: &str) -> Option<FieldDescriptor> {
    message.get_field_by_json_name(name).or_else(|| message.get_field_by_name(name))
}

fn violation(field: &str, description: String) -> Status {
    let mut status = Status::invalid(description.clone());
    status.fields.push(FieldViolation { field: field.to_owned(), description });
    status
}
