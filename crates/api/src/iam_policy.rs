//! google.iam.v1.IAMPolicy: one method for the policies of all resources whose own API has none, as Google's own.
//!
//! Which resource it is, is seen by its name; the permission is that of its kind.

use events::pubsub::{Kind, Name};
use model::{Code, ServiceKey, ServiceName, Status, trigger::TriggerKey};
use proto::google::iam::v1 as pb;

use crate::{
    app::App,
    grpc::{Context, Group, Method},
    permission::Need,
    policy,
};

const HOSTS: &[&str] = &["pubsub.googleapis.com", "eventarc.googleapis.com", "cloudfunctions.googleapis.com"];
const ANY: &str = "{collection}/{project}/{kind}/{id}|projects/{project}/locations/{location}/{kind}/{id}";

pub(crate) fn methods(app: &App) -> Vec<Method> {
    let at = ("resource", ANY);
    Group::new(app.clone(), HOSTS)
        .unary(
            "google.iam.v1.IAMPolicy/GetIamPolicy",
            Need::Inside { permission: "pubsub.topics.getIamPolicy" },
            |r: &pb::GetIamPolicyRequest| r.resource.clone(),
            at,
            policy_get,
        )
        .unary(
            "google.iam.v1.IAMPolicy/SetIamPolicy",
            Need::Inside { permission: "pubsub.topics.setIamPolicy" },
            |r: &pb::SetIamPolicyRequest| r.resource.clone(),
            at,
            policy_set,
        )
        .unary("google.iam.v1.IAMPolicy/TestIamPermissions", Need::SignedIn, |r: &pb::TestIamPermissionsRequest| r.resource.clone(), at, permissions_test)
        .into_methods()
}

/// The API of the resource, for the audit log: its host.
pub(crate) fn host_of(resource: &str) -> &'static str {
    let has = |collection: &str| resource.contains(&format!("/{collection}/"));
    match () {
        () if has("triggers") => HOSTS[1],
        () if has("functions") => HOSTS[2],
        () => HOSTS[0],
    }
}

/// A resource with a policy.
enum Policied {
    PubSub(Name),
    Trigger(TriggerKey),
    Function(ServiceKey),
}

impl Policied {
    fn of(context: &Context) -> Result<Self, Status> {
        let bad = |why: &str| Status::invalid_field("resource", why);
        let (kind, id, project) = (context.var("kind")?, context.var("id")?, context.project()?);
        if context.vars.contains_key("location") {
            return match kind {
                "triggers" => Ok(Self::Trigger(TriggerKey::new(project, context.location()?, id)?)),
                "functions" => Ok(Self::Function(ServiceKey { project, region: context.region()?, service: ServiceName::parse(id)? })),
                _ => Err(bad("it is no trigger and no function")),
            };
        }
        if context.var("collection")? != "projects" {
            return Err(bad("it does not begin with projects/"));
        }
        let kinds = [Kind::Topics, Kind::Subscriptions, Kind::Snapshots, Kind::Schemas];
        let kind = kinds.into_iter().find(|known| known.collection() == kind).ok_or_else(|| bad("it is no topic, subscription, snapshot or schema"))?;
        Name::new(kind, project, id).map(Self::PubSub)
    }

    fn name(&self) -> String {
        match self {
            Self::PubSub(name) => name.to_string(),
            Self::Trigger(key) => key.resource(),
            Self::Function(key) => model::function::resource(key),
        }
    }

    fn get_permission(&self) -> &'static str {
        match self {
            Self::PubSub(name) => match name.kind {
                Kind::Topics => "pubsub.topics.getIamPolicy",
                Kind::Subscriptions => "pubsub.subscriptions.getIamPolicy",
                Kind::Snapshots => "pubsub.snapshots.getIamPolicy",
                Kind::Schemas => "pubsub.schemas.getIamPolicy",
            },
            Self::Trigger(_) => "eventarc.triggers.getIamPolicy",
            Self::Function(_) => "cloudfunctions.functions.getIamPolicy",
        }
    }

    fn set_permission(&self) -> &'static str {
        match self {
            Self::PubSub(name) => match name.kind {
                Kind::Topics => "pubsub.topics.setIamPolicy",
                Kind::Subscriptions => "pubsub.subscriptions.setIamPolicy",
                Kind::Snapshots => "pubsub.snapshots.setIamPolicy",
                Kind::Schemas => "pubsub.schemas.setIamPolicy",
            },
            Self::Trigger(_) => "eventarc.triggers.setIamPolicy",
            Self::Function(_) => "cloudfunctions.functions.setIamPolicy",
        }
    }

    fn is_there(&self, app: &App) -> Result<(), Status> {
        match self {
            Self::PubSub(name) => match name.kind {
                Kind::Topics => app.pubsub.topic_get(name).map(drop),
                Kind::Subscriptions => app.pubsub.subscription_get(name).map(drop),
                Kind::Snapshots => app.pubsub.snapshot_get(name).map(drop),
                Kind::Schemas => app.pubsub.schema_get(name, None).map(drop),
            },
            Self::Trigger(key) => app.control.trigger_get(key).map(drop),
            Self::Function(key) => app.control.function_get(key).map(drop),
        }
    }

    /// Only who may learn of it learns that it is not there.
    fn check(self, app: &App, context: &Context, permission: &str) -> Result<String, Status> {
        let name = self.name();
        if !app.iam.may(Some(&context.who), permission, &name, context.var("project")?) {
            return Err(Status::permission_denied(permission, &name));
        }
        self.is_there(app).map(|()| name)
    }
}

async fn policy_get(app: App, context: Context, request: pb::GetIamPolicyRequest) -> Result<pb::Policy, Status> {
    let resource = Policied::of(&context)?;
    let permission = resource.get_permission();
    policy::policy_get(&app, &resource.check(&app, &context, permission)?, &request)
}

async fn policy_set(app: App, context: Context, request: pb::SetIamPolicyRequest) -> Result<pb::Policy, Status> {
    let resource = Policied::of(&context)?;
    let permission = resource.set_permission();
    policy::policy_set(&app, &context.who, (permission, context.var("project")?), &resource.check(&app, &context, permission)?, request).await
}

async fn permissions_test(app: App, context: Context, request: pb::TestIamPermissionsRequest) -> Result<pb::TestIamPermissionsResponse, Status> {
    let resource = Policied::of(&context)?;
    // Of what is not there nobody has a permission, as Google's documentation says.
    match resource.is_there(&app) {
        Err(absent) if absent.code == Code::NotFound => Ok(pb::TestIamPermissionsResponse::default()),
        found => found.and_then(|()| policy::permissions_test(&app, &context.who, &resource.name(), context.var("project")?, &request)),
    }
}
