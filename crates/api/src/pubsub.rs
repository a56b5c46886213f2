//! Pub/Sub v1: topics, subscriptions, snapshots, schemas, and the messages in between.
//!
//! The rules are those of [`events::pubsub`]; here are the forms, and who may. Source: google/pubsub/v1/{pubsub,schema}.proto, and the texts
//! of Google's answers.

mod delivery;
mod schema;
mod snapshot;
mod subscription;
mod topic;

use std::time::Duration;

use events::pubsub::{Kind, Name};
use model::{Code, ProjectId, Status};
use proto::google::pubsub::v1 as pb;

use crate::{
    app::App,
    convert::time,
    grpc::{Context, Group, Method},
    permission::{self, Need, Vars, on},
};

const HOSTS: &[&str] = &["pubsub.googleapis.com"];
const PROJECT: &str = "projects/{project}";
const TOPIC: &str = "projects/{project}/topics/{topic}";
const SUBSCRIPTION: &str = "projects/{project}/subscriptions/{subscription}";
const SNAPSHOT: &str = "projects/{project}/snapshots/{snapshot}";
const SCHEMA: &str = "projects/{project}/schemas/{schema}";

pub(crate) fn methods(app: &App) -> Vec<Method> {
    let group = Group::new(app.clone(), HOSTS);
    schemas(snapshots(delivery(subscriptions(topics(group))))).into_methods()
}

fn topics(group: Group<App>) -> Group<App> {
    group
        .unary("google.pubsub.v1.Publisher/CreateTopic", on("pubsub.topics.create", PROJECT), |r: &pb::Topic| r.name.clone(), ("name", TOPIC), topic::create)
        .unary(
            "google.pubsub.v1.Publisher/UpdateTopic",
            on("pubsub.topics.update", TOPIC),
            |r: &pb::UpdateTopicRequest| r.topic.as_ref().map(|topic| topic.name.clone()).unwrap_or_default(),
            ("topic.name", TOPIC),
            topic::update,
        )
        .unary(
            "google.pubsub.v1.Publisher/Publish",
            on("pubsub.topics.publish", TOPIC),
            |r: &pb::PublishRequest| r.topic.clone(),
            ("topic", TOPIC),
            topic::publish,
        )
        .unary("google.pubsub.v1.Publisher/GetTopic", on("pubsub.topics.get", TOPIC), |r: &pb::GetTopicRequest| r.topic.clone(), ("topic", TOPIC), topic::get)
        .unary(
            "google.pubsub.v1.Publisher/ListTopics",
            on("pubsub.topics.list", PROJECT),
            |r: &pb::ListTopicsRequest| r.project.clone(),
            ("project", PROJECT),
            topic::list,
        )
        .unary(
            "google.pubsub.v1.Publisher/ListTopicSubscriptions",
            on("pubsub.topics.attachSubscription", TOPIC),
            |r: &pb::ListTopicSubscriptionsRequest| r.topic.clone(),
            ("topic", TOPIC),
            topic::subscriptions,
        )
        .unary(
            "google.pubsub.v1.Publisher/ListTopicSnapshots",
            on("pubsub.topics.attachSubscription", TOPIC),
            |r: &pb::ListTopicSnapshotsRequest| r.topic.clone(),
            ("topic", TOPIC),
            topic::snapshots,
        )
        .unary(
            "google.pubsub.v1.Publisher/DeleteTopic",
            on("pubsub.topics.delete", TOPIC),
            |r: &pb::DeleteTopicRequest| r.topic.clone(),
            ("topic", TOPIC),
            topic::delete,
        )
        .unary(
            "google.pubsub.v1.Publisher/DetachSubscription",
            // On its topic, which the method looks up.
            Need::Inside { permission: "pubsub.topics.detachSubscription" },
            |r: &pb::DetachSubscriptionRequest| r.subscription.clone(),
            ("subscription", SUBSCRIPTION),
            subscription::detach,
        )
}

fn subscriptions(group: Group<App>) -> Group<App> {
    group
        .unary(
            "google.pubsub.v1.Subscriber/CreateSubscription",
            on("pubsub.subscriptions.create", PROJECT),
            |r: &pb::Subscription| r.name.clone(),
            ("name", SUBSCRIPTION),
            subscription::create,
        )
        .unary(
            "google.pubsub.v1.Subscriber/GetSubscription",
            on("pubsub.subscriptions.get", SUBSCRIPTION),
            |r: &pb::GetSubscriptionRequest| r.subscription.clone(),
            ("subscription", SUBSCRIPTION),
            subscription::get,
        )
        .unary(
            "google.pubsub.v1.Subscriber/UpdateSubscription",
            on("pubsub.subscriptions.update", SUBSCRIPTION),
            |r: &pb::UpdateSubscriptionRequest| r.subscription.as_ref().map(|subscription| subscription.name.clone()).unwrap_or_default(),
            ("subscription.name", SUBSCRIPTION),
            subscription::update,
        )
        .unary(
            "google.pubsub.v1.Subscriber/ModifyPushConfig",
            on("pubsub.subscriptions.update", SUBSCRIPTION),
            |r: &pb::ModifyPushConfigRequest| r.subscription.clone(),
            ("subscription", SUBSCRIPTION),
            subscription::push_modify,
        )
        .unary(
            "google.pubsub.v1.Subscriber/ListSubscriptions",
            on("pubsub.subscriptions.list", PROJECT),
            |r: &pb::ListSubscriptionsRequest| r.project.clone(),
            ("project", PROJECT),
            subscription::list,
        )
        .unary(
            "google.pubsub.v1.Subscriber/DeleteSubscription",
            on("pubsub.subscriptions.delete", SUBSCRIPTION),
            |r: &pb::DeleteSubscriptionRequest| r.subscription.clone(),
            ("subscription", SUBSCRIPTION),
            subscription::delete,
        )
}

fn delivery(group: Group<App>) -> Group<App> {
    const CONSUME: Need = on("pubsub.subscriptions.consume", SUBSCRIPTION);
    let at = ("subscription", SUBSCRIPTION);
    group
        .unary("google.pubsub.v1.Subscriber/Pull", CONSUME, |r: &pb::PullRequest| r.subscription.clone(), at, delivery::pull)
        .unary("google.pubsub.v1.Subscriber/Acknowledge", CONSUME, |r: &pb::AcknowledgeRequest| r.subscription.clone(), at, delivery::acknowledge)
        .unary(
            "google.pubsub.v1.Subscriber/ModifyAckDeadline",
            CONSUME,
            |r: &pb::ModifyAckDeadlineRequest| r.subscription.clone(),
            at,
            delivery::modify_ack_deadline,
        )
        .stream("google.pubsub.v1.Subscriber/StreamingPull", CONSUME, |r: &pb::StreamingPullRequest| r.subscription.clone(), at, delivery::streaming_pull)
        .unary("google.pubsub.v1.Subscriber/Seek", CONSUME, |r: &pb::SeekRequest| r.subscription.clone(), at, delivery::seek)
}

fn snapshots(group: Group<App>) -> Group<App> {
    group
        .unary(
            "google.pubsub.v1.Subscriber/CreateSnapshot",
            on("pubsub.snapshots.create", PROJECT),
            |r: &pb::CreateSnapshotRequest| r.name.clone(),
            ("name", SNAPSHOT),
            snapshot::create,
        )
        .unary(
            "google.pubsub.v1.Subscriber/GetSnapshot",
            on("pubsub.snapshots.get", SNAPSHOT),
            |r: &pb::GetSnapshotRequest| r.snapshot.clone(),
            ("snapshot", SNAPSHOT),
            snapshot::get,
        )
        .unary(
            "google.pubsub.v1.Subscriber/UpdateSnapshot",
            on("pubsub.snapshots.update", SNAPSHOT),
            |r: &pb::UpdateSnapshotRequest| r.snapshot.as_ref().map(|snapshot| snapshot.name.clone()).unwrap_or_default(),
            ("snapshot.name", SNAPSHOT),
            snapshot::update,
        )
        .unary(
            "google.pubsub.v1.Subscriber/ListSnapshots",
            on("pubsub.snapshots.list", PROJECT),
            |r: &pb::ListSnapshotsRequest| r.project.clone(),
            ("project", PROJECT),
            snapshot::list,
        )
        .unary(
            "google.pubsub.v1.Subscriber/DeleteSnapshot",
            on("pubsub.snapshots.delete", SNAPSHOT),
            |r: &pb::DeleteSnapshotRequest| r.snapshot.clone(),
            ("snapshot", SNAPSHOT),
            snapshot::delete,
        )
}

fn schemas(group: Group<App>) -> Group<App> {
    group
        .unary(
            "google.pubsub.v1.SchemaService/CreateSchema",
            on("pubsub.schemas.create", PROJECT),
            |r: &pb::CreateSchemaRequest| r.parent.clone(),
            ("parent", PROJECT),
            schema::create,
        )
        .unary(
            "google.pubsub.v1.SchemaService/GetSchema",
            // Its name may hold a revision, which no policy names.
            Need::Inside { permission: "pubsub.schemas.get" },
            |r: &pb::GetSchemaRequest| r.name.clone(),
            ("name", SCHEMA),
            schema::get,
        )
        .unary(
            "google.pubsub.v1.SchemaService/ListSchemas",
            on("pubsub.schemas.list", PROJECT),
            |r: &pb::ListSchemasRequest| r.parent.clone(),
            ("parent", PROJECT),
            schema::list,
        )
        .unary(
            "google.pubsub.v1.SchemaService/ListSchemaRevisions",
            on("pubsub.schemas.listRevisions", SCHEMA),
            |r: &pb::ListSchemaRevisionsRequest| r.name.clone(),
            ("name", SCHEMA),
            schema::revisions,
        )
        .unary(
            "google.pubsub.v1.SchemaService/CommitSchema",
            on("pubsub.schemas.commit", SCHEMA),
            |r: &pb::CommitSchemaRequest| r.name.clone(),
            ("name", SCHEMA),
            schema::commit,
        )
        .unary(
            "google.pubsub.v1.SchemaService/RollbackSchema",
            on("pubsub.schemas.rollback", SCHEMA),
            |r: &pb::RollbackSchemaRequest| r.name.clone(),
            ("name", SCHEMA),
            schema::rollback,
        )
        .unary(
            "google.pubsub.v1.SchemaService/DeleteSchemaRevision",
            // As GetSchema.
            Need::Inside { permission: "pubsub.schemas.delete" },
            |r: &pb::DeleteSchemaRevisionRequest| r.name.clone(),
            ("name", SCHEMA),
            schema::revision_delete,
        )
        .unary(
            "google.pubsub.v1.SchemaService/DeleteSchema",
            on("pubsub.schemas.delete", SCHEMA),
            |r: &pb::DeleteSchemaRequest| r.name.clone(),
            ("name", SCHEMA),
            schema::delete,
        )
        .unary(
            "google.pubsub.v1.SchemaService/ValidateSchema",
            on("pubsub.schemas.validate", PROJECT),
            |r: &pb::ValidateSchemaRequest| r.parent.clone(),
            ("parent", PROJECT),
            schema::validate,
        )
        .unary(
            "google.pubsub.v1.SchemaService/ValidateMessage",
            on("pubsub.schemas.validate", PROJECT),
            |r: &pb::ValidateMessageRequest| r.parent.clone(),
            ("parent", PROJECT),
            schema::message_validate,
        )
}

/// # Errors
/// `PERMISSION_DENIED`.
fn may(app: &App, context: &Context, permission: &str, name: &Name) -> Result<(), Status> {
    let resource = name.to_string();
    if app.iam.may(Some(&context.who), permission, &resource, name.project.as_str()) { Ok(()) } else { Err(Status::permission_denied(permission, &resource)) }
}

impl Context {
    /// The name that the request's own resource has.
    fn event_name(&self, kind: Kind) -> Result<Name, Status> {
        let id = match kind {
            Kind::Topics => "topic",
            Kind::Subscriptions => "subscription",
            Kind::Snapshots => "snapshot",
            Kind::Schemas => "schema",
        };
        Name::new(kind, self.project()?, self.var(id)?)
    }
}

/// A resource that a field names.
///
/// # Errors
/// `INVALID_ARGUMENT` for another form; `NOT_FOUND` for a project that does not exist.
fn name_read(app: &App, field: &str, kind: Kind, written: &str) -> Result<Name, Status> {
    let pattern = format!("projects/{{project}}/{}/{{id}}", kind.collection());
    let vars: Vars = permission::name_read(&pattern, written)
        .ok_or_else(|| Status::invalid_field(field, format!("Invalid resource name {written:?}: expected the form {pattern}")))?;
    let project = app.control.project_get(&vars["project"]).map_err(|error| match error.code {
        Code::NotFound => Status::not_found(format!(
            "Requested project not found or user does not have access to it (project={}). Make sure to specify the unique project identifier and not the Google Cloud Console display name.",
            vars["project"]
        )),
        _ => error,
    })?;
    Name::new(kind, project.id, &vars["id"])
}

/// The paths of an update mask.
///
/// # Errors
/// `INVALID_ARGUMENT` in Google's words without any.
fn mask_read(request: &str, mask: Option<prost_types::FieldMask>) -> Result<Vec<String>, Status> {
    let paths = mask.map(|mask| mask.paths).unwrap_or_default();
    if paths.is_empty() {
        return Err(Status::invalid(format!("The update_mask in the {request} must be set, and must contain a non-empty paths list.")));
    }
    Ok(paths)
}

fn duration_write(duration: Duration) -> prost_types::Duration {
    prost_types::Duration { seconds: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX), nanos: i32::try_from(duration.subsec_nanos()).unwrap_or_default() }
}

/// # Errors
/// `INVALID_ARGUMENT` for a negative one.
fn duration_read(field: &str, duration: prost_types::Duration) -> Result<Duration, Status> {
    let (seconds, nanos) = (u64::try_from(duration.seconds), u32::try_from(duration.nanos));
    match (seconds, nanos) {
        (Ok(seconds), Ok(nanos)) if nanos < 1_000_000_000 => Ok(Duration::new(seconds, nanos)),
        _ => Err(Status::invalid_field(field, format!("{} seconds and {} nanoseconds are no duration", duration.seconds, duration.nanos))),
    }
}

/// One page of a list: asks for one item more than the page has, to know whether there is another.
struct PageOf<T> {
    items: Vec<T>,
    next: String,
}

async fn page_of<T>(
    app: &App,
    scope: &str,
    token: &str,
    size: i32,
    find: impl FnOnce(Option<&str>, usize) -> Result<Vec<T>, Status>,
    key: impl Fn(&T) -> String,
) -> Result<PageOf<T>, Status> {
    let asked = app.pages.read(scope, token, i64::from(size)).await?;
    let mut items = find(asked.after.as_deref(), asked.size + 1)?;
    let next = if items.len() > asked.size {
        items.truncate(asked.size);
        app.pages.token(scope, &items.last().map(&key).unwrap_or_default()).await?
    } else {
        String::new()
    };
    Ok(PageOf { items, next })
}

/// The project of a list, for its scope.
fn scope(list: &str, project: &ProjectId) -> String {
    format!("pubsub.{list}/{project}")
}

fn message_write(received: &events::pubsub::Message, message_id: String) -> pb::PubsubMessage {
    pb::PubsubMessage {
        data: received.data.clone().into(),
        attributes: received.attributes.clone().into_iter().collect(),
        message_id,
        publish_time: Some(time(received.published())),
        ordering_key: received.ordering_key.clone(),
    }
}
