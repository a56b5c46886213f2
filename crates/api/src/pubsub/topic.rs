//! The methods of topics.

use events::pubsub::{Kind, Message, SchemaSettings, Topic, TopicNew};
use model::Status;
use proto::google::pubsub::v1 as pb;

use super::{PageOf, duration_read, duration_write, mask_read, page_of, schema, scope};
use crate::{app::App, convert::refuse, grpc::Context, mask::masked};

pub(super) async fn create(app: App, context: Context, request: pb::Topic) -> Result<pb::Topic, Status> {
    let name = context.event_name(Kind::Topics)?;
    let new = read(&app, &context, request, None)?;
    Ok(write(&app, app.pubsub.topic_create(name, new).await?))
}

pub(super) async fn get(app: App, context: Context, _: pb::GetTopicRequest) -> Result<pb::Topic, Status> {
    Ok(write(&app, app.pubsub.topic_get(&context.event_name(Kind::Topics)?)?))
}

pub(super) async fn list(app: App, context: Context, request: pb::ListTopicsRequest) -> Result<pb::ListTopicsResponse, Status> {
    let project = context.project()?;
    let find = |after: Option<&str>, limit| Ok(app.pubsub.topic_list(&project, after, limit));
    let PageOf { items, next } =
        page_of(&app, &scope("topics", &project), &request.page_token, request.page_size, find, |topic: &Topic| topic.name.id.clone()).await?;
    Ok(pb::ListTopicsResponse { topics: items.into_iter().map(|topic| write(&app, topic)).collect(), next_page_token: next })
}

pub(super) async fn update(app: App, context: Context, request: pb::UpdateTopicRequest) -> Result<pb::Topic, Status> {
    let name = context.event_name(Kind::Topics)?;
    let paths = mask_read("UpdateTopicRequest", request.update_mask)?;
    let mut wanted = request.topic.unwrap_or_default();
    wanted.name = name.to_string();
    let pubsub = app.pubsub.clone();
    let within = app.clone();
    let topic = pubsub.topic_update(name, move |old| {
        if let Some(path) = paths.iter().find(|path| matches!(path.as_str(), "name" | "*")) {
            return Err(Status::invalid(format!("Invalid update_mask provided in the UpdateTopicRequest: the '{path}' field in the Topic is not mutable.")));
        }
        let merged = masked(&write(&within, old.clone()), wanted, &paths)?;
        let TopicNew { labels, retention, schema } = read(&within, &context, merged, old.schema.as_ref())?;
        Ok(Topic { labels, retention, schema, ..old })
    });
    Ok(write(&app, topic.await?))
}

pub(super) async fn delete(app: App, context: Context, _: pb::DeleteTopicRequest) -> Result<(), Status> {
    app.pubsub.topic_delete(context.event_name(Kind::Topics)?).await
}

pub(super) async fn subscriptions(
    app: App,
    context: Context,
    request: pb::ListTopicSubscriptionsRequest,
) -> Result<pb::ListTopicSubscriptionsResponse, Status> {
    let name = context.event_name(Kind::Topics)?;
    let find = |after: Option<&str>, limit| Ok(app.pubsub.topic_subscriptions(&name, after, limit)?.iter().map(ToString::to_string).collect());
    let PageOf { items, next } = page_of(&app, &format!("subscriptions of {name}"), &request.page_token, request.page_size, find, String::clone).await?;
    Ok(pb::ListTopicSubscriptionsResponse { subscriptions: items, next_page_token: next })
}

pub(super) async fn snapshots(app: App, context: Context, request: pb::ListTopicSnapshotsRequest) -> Result<pb::ListTopicSnapshotsResponse, Status> {
    let name = context.event_name(Kind::Topics)?;
    let find = |after: Option<&str>, limit| Ok(app.pubsub.topic_snapshots(&name, after, limit)?.iter().map(ToString::to_string).collect());
    let PageOf { items, next } = page_of(&app, &format!("snapshots of {name}"), &request.page_token, request.page_size, find, String::clone).await?;
    Ok(pb::ListTopicSnapshotsResponse { snapshots: items, next_page_token: next })
}

/// Ids and times that a client sets are replaced, as at Google.
pub(super) async fn publish(app: App, context: Context, request: pb::PublishRequest) -> Result<pb::PublishResponse, Status> {
    let messages = request.messages.into_iter().map(|message| Message {
        data: message.data.into(),
        attributes: message.attributes.into_iter().collect(),
        ordering_key: message.ordering_key,
        ..Message::default()
    });
    let messages = messages.map(|message| message.behind(&context.hops));
    let message_ids = app.pubsub.publish(&context.event_name(Kind::Topics)?, messages.collect()).await?;
    Ok(pb::PublishResponse { message_ids })
}

fn read(app: &App, context: &Context, topic: pb::Topic, old: Option<&SchemaSettings>) -> Result<TopicNew, Status> {
    refuse(
        topic.message_storage_policy.is_some_and(|policy| !policy.allowed_persistence_regions.is_empty() || policy.enforce_in_transit),
        "message_storage_policy",
    )?;
    refuse(!topic.kms_key_name.is_empty(), "kms_key_name")?;
    refuse(topic.ingestion_data_source_settings.is_some(), "ingestion_data_source_settings")?;
    refuse(!topic.message_transforms.is_empty(), "message_transforms")?;
    refuse(!topic.tags.is_empty(), "tags")?;
    let retention = topic.message_retention_duration.map(|retention| duration_read("message_retention_duration", retention)).transpose()?;
    let schema = schema::settings_read(app, context, topic.schema_settings, old)?;
    Ok(TopicNew { labels: topic.labels.into_iter().collect(), retention, schema })
}

fn write(app: &App, topic: Topic) -> pb::Topic {
    pb::Topic {
        schema_settings: topic.schema.as_ref().map(|settings| schema::settings_write(app, settings)),
        name: topic.name.to_string(),
        labels: topic.labels.into_iter().collect(),
        message_retention_duration: topic.retention.map(duration_write),
        ..Default::default()
    }
}
