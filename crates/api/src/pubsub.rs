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
use proto::google::{iam::v1 as policy_pb, pubsub::v1 as pb};

use crate::{
    app::App,
    convert::time,
    grpc::{Context, Group, Method},
    permission::{self, Need, Vars, on},
    policy,
};

const HOSTS: &[&str] = &["pubsub.googleapis.com"];
const PROJECT: &str = "projects/{project}";
const TOPIC: &str = "projects/{project}/topics/{topic}";
const SUBSCRIPTION: &str = "projects/{project}/subscriptions/{subscription}";
const SNAPSHOT: &str = "projects/{project}/snapshots/{snapshot}";
const SCHEMA: &str = "projects/{project}/schemas/{schema}";
/// Of the mixin that gets and sets policies: which resource is seen by its name.
const ANY: &str = "{collection}/{project}/{kind}/{id}";

pub(crate) fn methods(app: &App) -> Vec<Method> {
    let group = Group::new(app.clone(), HOSTS);
    policies(schemas(snapshots(delivery(subscriptions(topics(group)))))).into_methods()
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

/// One method for all four kinds of resources, as Google's own: the permission is that of the kind.
fn policies(group: Group<App>) -> Group<App> {
    let at = ("resource", ANY);
    group
        .unary(
            "google.iam.v1.IAMPolicy/GetIamPolicy",
            Need::Inside { permission: "pubsub.topics.getIamPolicy" },
            |r: &policy_pb::GetIamPolicyRequest| r.resource.clone(),
            at,
            policy_get,
        )
        .unary(
            "google.iam.v1.IAMPolicy/SetIamPolicy",
            Need::Inside { permission: "pubsub.topics.setIamPolicy" },
            |r: &policy_pb::SetIamPolicyRequest| r.resource.clone(),
            at,
            policy_set,
        )
        .unary(
            "google.iam.v1.IAMPolicy/TestIamPermissions",
            Need::SignedIn,
            |r: &policy_pb::TestIamPermissionsRequest| r.resource.clone(),
            at,
            permissions_test,
        )
}

/// The resource that a policy method names, once the caller may do with its policy what `verb` says.
fn policied(app: &App, context: &Context, verb: &str) -> Result<Name, Status> {
    let kind = kind_of(context.var("kind")?).ok_or_else(|| Status::invalid_field("resource", "it is no topic, subscription, snapshot or schema"))?;
    if context.var("collection")? != "projects" {
        return Err(Status::invalid_field("resource", "it does not begin with projects/"));
    }
    let name = Name::new(kind, context.project()?, context.var("id")?)?;
    // Only who may learn of it learns that it is not there.
    let is_there = match kind {
        Kind::Topics => app.pubsub.topic_get(&name).map(drop),
        Kind::Subscriptions => app.pubsub.subscription_get(&name).map(drop),
        Kind::Snapshots => app.pubsub.snapshot_get(&name).map(drop),
        Kind::Schemas => app.pubsub.schema_get(&name, None).map(drop),
    };
    let permission = match (kind, verb) {
        (Kind::Topics, "get") => "pubsub.topics.getIamPolicy",
        (Kind::Topics, _) => "pubsub.topics.setIamPolicy",
        (Kind::Subscriptions, "get") => "pubsub.subscriptions.getIamPolicy",
        (Kind::Subscriptions, _) => "pubsub.subscriptions.setIamPolicy",
        (Kind::Snapshots, "get") => "pubsub.snapshots.getIamPolicy",
        (Kind::Snapshots, _) => "pubsub.snapshots.setIamPolicy",
        (Kind::Schemas, "get") => "pubsub.schemas.getIamPolicy",
        (Kind::Schemas, _) => "pubsub.schemas.setIamPolicy",
    };
    if verb != "test" {
        may(app, context, permission, &name)?;
    }
    is_there.map(|()| name)
}

async fn policy_get(app: App, context: Context, request: policy_pb::GetIamPolicyRequest) -> Result<policy_pb::Policy, Status> {
    let name = policied(&app, &context, "get")?;
    policy::policy_get(&app, &name.to_string(), &request)
}

async fn policy_set(app: App, context: Context, request: policy_pb::SetIamPolicyRequest) -> Result<policy_pb::Policy, Status> {
    let name = policied(&app, &context, "set")?;
    policy::policy_set(&app, &name.to_string(), request).await
}

async fn permissions_test(app: App, context: Context, request: policy_pb::TestIamPermissionsRequest) -> Result<policy_pb::TestIamPermissionsResponse, Status> {
    // Of what is not there nobody has a permission, as Google's documentation says.
    let name = match policied(&app, &context, "test") {
        Err(absent) if absent.code == Code::NotFound => return Ok(policy_pb::TestIamPermissionsResponse::default()),
        found => found?,
    };
    policy::permissions_test(&app, &context.who, &name.to_string(), name.project.as_str(), &request)
}

fn kind_of(collection: &str) -> Option<Kind> {
    [Kind::Topics, Kind::Subscriptions, Kind::Snapshots, Kind::Schemas].into_iter().find(|kind| kind.collection() == collection)
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
