//! Update masks: which fields of a message replace those of another.
//!
//! Source of the rules: google/protobuf/field_mask.proto and AIP-134: an empty mask or `*` replaces all.

use model::Status;
use prost::Message;
use prost_reflect::{DynamicMessage, Kind, MessageDescriptor, ReflectMessage, Value};

use crate::transcode;

/// `current` with the fields of `new` that `paths` name. Names may be of the proto or of JSON.
///
/// # Errors
/// `INVALID_ARGUMENT` for a path that the message does not have.
pub(crate) fn masked<T: Message + prost::Name + Default>(current: &T, new: T, paths: &[String]) -> Result<T, Status> {
    if paths.is_empty() || paths.iter().any(|path| path == "*") {
        return Ok(new);
    }
    let descriptor = transcode::descriptor::<T>();
    let dynamic = |message: &T| DynamicMessage::decode(descriptor.clone(), message.encode_to_vec().as_slice()).map_err(Status::internal);
    let (mut into, from) = (dynamic(current)?, dynamic(&new)?);
    for path in paths {
        known(&descriptor, path)?;
        copy(&mut into, &from, path);
    }
    into.transcode_to().map_err(Status::internal)
}

fn known(message: &MessageDescriptor, path: &str) -> Result<(), Status> {
    let bad = || Status::invalid_field("update_mask", format!("{path:?} is no field of {}", message.name()));
    let (mut message_at, mut rest) = (message.clone(), path);
    loop {
        let (head, tail) = rest.split_once('.').map_or((rest, None), |(head, tail)| (head, Some(tail)));
        let field = message_at.get_field_by_name(head).or_else(|| message_at.get_field_by_json_name(head)).ok_or_else(bad)?;
        let Some(tail) = tail else { return Ok(()) };
        match field.kind() {
            Kind::Message(inner) if !field.is_list() && !field.is_map() => (message_at, rest) = (inner, tail),
            _ => return Err(Status::invalid_field("update_mask", format!("{path:?} leads into {head}, which can be replaced as a whole only"))),
        }
    }
}

/// Copies the field at a path that [`known`] has checked; what `from` does not have is cleared.
fn copy(into: &mut DynamicMessage, from: &DynamicMessage, path: &str) {
    let (head, tail) = path.split_once('.').map_or((path, None), |(head, tail)| (head, Some(tail)));
    let descriptor = into.descriptor();
    let Some(field) = descriptor.get_field_by_name(head).or_else(|| descriptor.get_field_by_json_name(head)) else { return };
    match tail {
        None if from.has_field(&field) => into.set_field(&field, from.get_field(&field).into_owned()),
        None => into.clear_field(&field),
        Some(tail) => {
            let source = from.get_field(&field);
            // An absent message reads as an empty one: there is nothing in it to copy, and the field is cleared there.
            if let (Value::Message(into), Value::Message(from)) = (into.get_field_mut(&field), source.as_ref()) {
                copy(into, from, tail);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proto::google::cloud::run::v2::{RevisionScaling, RevisionTemplate, Service};

    use super::*;

    #[test]
    fn only_what_is_named_changes() {
        let service = |description: &str, ingress, min, revision: &str| Service {
            description: description.to_owned(),
            ingress,
            template: Some(RevisionTemplate {
                revision: revision.to_owned(),
                scaling: Some(RevisionScaling { min_instance_count: min, ..Default::default() }),
                ..Default::default()
            }),
            ..Default::default()
        };
        let check = |paths: &[&str], expect: Service| {
            let paths: Vec<_> = paths.iter().map(|p| p.to_string()).collect();
            assert_eq!(masked(&service("old", 1, 1, "old"), service("new", 2, 2, "new"), &paths).unwrap(), expect, "{paths:?}");
        };
        check(&[], service("new", 2, 2, "new"));
        check(&["*"], service("new", 2, 2, "new"));
        check(&["ingress"], service("old", 2, 1, "old"));
        check(&["template"], service("old", 1, 2, "new"));
        check(&["template.scaling.min_instance_count", "description"], service("new", 1, 2, "old"));
        check(&["template.scaling.minInstanceCount"], service("old", 1, 2, "old"));
    }

    #[test]
    fn what_is_not_in_the_new_one_is_cleared() {
        let current = Service { description: "old".to_owned(), ..Default::default() };
        assert_eq!(masked(&current, Service::default(), &["description".to_owned()]).unwrap(), Service::default());
    }

    #[test]
    fn unknown_paths_are_refused() {
        for bad in ["nothing", "template.nothing", "ingress.x", "labels.x", "template.containers.image", ""] {
            assert!(masked(&Service::default(), Service::default(), &[bad.to_owned()]).is_err(), "{bad}");
        }
    }
}
