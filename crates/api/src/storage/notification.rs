//! `notificationConfigs` of a bucket.

use std::collections::BTreeMap;

use events::storage::etag;
use model::{
    Status,
    storage::{ChangeKind, Notification},
};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{error::Error, query::Query};
use crate::{Deps, Response, surface::Call};

const TOPIC_HOST: &str = "//pubsub.googleapis.com/";
/// Source: cloud.google.com/storage/docs/pubsub-notifications#custom-attributes.
const ATTRIBUTES_MAX: usize = 10;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    topic: String,
    #[serde(default)]
    event_types: Vec<String>,
    #[serde(default)]
    custom_attributes: BTreeMap<String, String>,
    #[serde(default)]
    object_name_prefix: String,
    payload_format: String,
    #[serde(default, rename = "kind")]
    _kind: Value,
    #[serde(default, rename = "id")]
    _id: Value,
    #[serde(default, rename = "selfLink")]
    _self_link: Value,
    #[serde(default, rename = "etag")]
    _etag: Value,
}

impl Written {
    fn read(self) -> Result<Notification, Error> {
        let bad = |name: &str, why: &str| Error::invalid(format!("Invalid value for field {name}: {why}."));
        let topic = self.topic.strip_prefix(TOPIC_HOST).filter(|topic| {
            let parts: Vec<&str> = topic.split('/').collect();
            matches!(parts.as_slice(), ["projects", project, "topics", id] if !project.is_empty() && !id.is_empty())
        });
        let topic = topic.ok_or_else(|| bad("topic", "it has not the form //pubsub.googleapis.com/projects/PROJECT/topics/TOPIC"))?;
        let kind = |name: &String| {
            ChangeKind::ALL.into_iter().find(|kind| kind.name() == name).ok_or_else(|| bad("event_types", &format!("{name:?} is no type of event")))
        };
        let payload = match self.payload_format.as_str() {
            "JSON_API_V1" => true,
            "NONE" => false,
            _ => return Err(bad("payload_format", "it is neither JSON_API_V1 nor NONE")),
        };
        if self.custom_attributes.len() > ATTRIBUTES_MAX
            || self.custom_attributes.iter().any(|(key, value)| key.is_empty() || key.len() > 256 || value.len() > 1024)
        {
            return Err(bad("custom_attributes", "at most 10, of at most 256 bytes with values of at most 1024"));
        }
        Ok(Notification {
            id: String::new(),
            topic: topic.to_owned(),
            kinds: self.event_types.iter().map(kind).collect::<Result<_, _>>()?,
            attributes: self.custom_attributes,
            prefix: self.object_name_prefix,
            payload,
        })
    }
}

fn resource(bucket: &str, notification: &Notification) -> Value {
    let id = &notification.id;
    let mut json = json!({
        "kind": "storage#notification",
        "id": id,
        "selfLink": format!("https://www.googleapis.com/storage/v1/b/{bucket}/notificationConfigs/{id}"),
        "topic": format!("{TOPIC_HOST}{}", notification.topic),
        "payload_format": if notification.payload { "JSON_API_V1" } else { "NONE" },
        "etag": etag(&[id.parse().unwrap_or(0)]),
    });
    if !notification.kinds.is_empty() {
        json["event_types"] = notification.kinds.iter().map(|kind| kind.name()).collect();
    }
    if !notification.attributes.is_empty() {
        json["custom_attributes"] = json!(notification.attributes);
    }
    if !notification.prefix.is_empty() {
        json["object_name_prefix"] = notification.prefix.as_str().into();
    }
    json
}

pub(crate) async fn list(deps: Deps, call: Call) -> Result<Response, Error> {
    let query = Query::of(&call, &[])?;
    let bucket = call.var("bucket")?;
    let found = deps.control.notification_list(bucket)?;
    let mut body = json!({ "kind": "storage#notifications" });
    if !found.is_empty() {
        body["items"] = found.iter().map(|notification| resource(bucket, notification)).collect();
    }
    query.answer(body)
}

pub(crate) async fn get(deps: Deps, call: Call) -> Result<Response, Error> {
    let query = Query::of(&call, &[])?;
    let bucket = call.var("bucket")?;
    query.answer(resource(bucket, &deps.control.notification_get(bucket, call.var("notification")?)?))
}

pub(crate) async fn insert(deps: Deps, mut call: Call) -> Result<Response, Error> {
    let query = Query::of(&call, &[])?;
    let written: Written = call.json().await?;
    let (bucket, notification) = (call.var("bucket")?, written.read()?);
    // Google asks whether its agent may publish; there is none here, so whoever asks for messages must be allowed to send them.
    const PUBLISH: &str = "pubsub.topics.publish";
    let project = notification.topic.split('/').nth(1).unwrap_or_default();
    if !deps.iam.may(call.who.as_ref(), PUBLISH, &notification.topic, project) {
        return Err(Status::permission_denied(PUBLISH, &notification.topic).into());
    }
    let made = deps.control.notification_create(bucket, notification).await?;
    query.answer(resource(bucket, &made))
}

pub(crate) async fn delete(deps: Deps, call: Call) -> Result<Response, Error> {
    Query::of(&call, &[])?;
    deps.control.notification_delete(call.var("bucket")?, call.var("notification")?).await?;
    Ok(super::no_content())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn configurations_are_read_strictly() {
        let check = |body: Value, refused: Option<&str>| {
            let read = serde_json::from_value::<Written>(body.clone()).map_err(|why| Error::invalid(why.to_string())).and_then(Written::read);
            match (read, refused) {
                (Ok(_), None) => {}
                (Err(error), Some(name)) => assert!(format!("{error:?}").contains(name), "{body}: {error:?}"),
                (read, _) => panic!("{body}: {read:?}"),
            }
        };
        let topic = "//pubsub.googleapis.com/projects/p/topics/t";
        check(json!({ "topic": topic, "payload_format": "NONE", "event_types": ["OBJECT_DELETE"], "custom_attributes": { "a": "b" } }), None);
        check(json!({ "topic": "projects/p/topics/t", "payload_format": "NONE" }), Some("topic"));
        check(json!({ "topic": topic, "payload_format": "XML" }), Some("payload_format"));
        check(json!({ "topic": topic }), Some("payload_format"));
        check(json!({ "topic": topic, "payload_format": "NONE", "event_types": ["OBJECT_READ"] }), Some("event_types"));
        check(json!({ "topic": topic, "payload_format": "NONE", "x": 1 }), Some("x"));
    }
}
