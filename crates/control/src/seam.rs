//! What the control plane asks of other crates while it reconciles, as small traits.
//!
//! The real crates stand behind them everywhere but in this crate's own tests, which decide here
//! when a proof ends and how, so that each order of events can be played.

use std::{collections::HashSet, sync::Arc, time::Duration};

use events::pubsub::{Kind, Message, Name, PubSub};
use futures_util::future::{BoxFuture, FutureExt};
use iam::Identity;
use model::{
    Code, ProjectId, Revision, ServiceKey, Status,
    image::{Image, ImageDigest},
    secret::SecretKey,
    trigger::Trigger,
};

/// Builds images and knows those that are there.
pub(crate) trait Images: Send + Sync + 'static {
    fn base_image_uri(&self, base_image: &str, region: &str) -> Result<String, build::Error>;
    fn build(&self, request: build::Request, log: Arc<dyn Fn(build::LogLine) + Send + Sync>) -> BoxFuture<'_, Result<build::Built, build::Error>>;
    /// Every base image that Google has, and what of it is here.
    fn runtimes(&self) -> Vec<build::Runtime>;
    /// The manifest behind a digest.
    fn image_get(&self, digest: &ImageDigest) -> Result<Option<Image>, store::Error>;
    /// The layers that caches of builds name; what is too old or too much in them is forgotten first. Blocks.
    fn layers_cached(&self) -> Result<HashSet<String>, build::Error>;
}

/// Starts and ends instances.
pub(crate) trait Starter: Send + Sync + 'static {
    fn prove<'a>(&'a self, revision: &'a Revision, image: &'a Image) -> BoxFuture<'a, Result<(), serving::StartFailure>>;
    /// Ends the instances of a service.
    fn stop<'a>(&'a self, service: &'a ServiceKey) -> BoxFuture<'a, ()>;
}

/// Decides about service accounts and keeps policies.
pub(crate) trait Accounts: Send + Sync + 'static {
    /// Whether the account is there, enabled, and `who` may let code run as it.
    fn may_act_as(&self, who: &Identity, email: &str) -> bool;
    /// Whether events of the project may be sent as the account.
    fn may_receive(&self, email: &str, project: &ProjectId) -> bool;
    /// Whether the account may read the payloads of a secret.
    fn may_read(&self, email: &str, secret: &SecretKey) -> bool;
    /// Whether `who` may read the objects of a bucket of `project`.
    fn may_read_objects(&self, who: &Identity, bucket: &str, project: &ProjectId) -> bool;
    /// Forgets the policy of a resource that is gone.
    fn policy_remove<'a>(&'a self, resource: &'a str) -> BoxFuture<'a, Result<(), Status>>;
}

/// Pub/Sub, as far as notifications of buckets and triggers need it.
pub(crate) trait Topics: Send + Sync + 'static {
    /// `topic` is `projects/P/topics/T`.
    fn is_there(&self, topic: &str) -> Result<bool, Status>;
    /// `subscription` is `projects/P/subscriptions/S`.
    fn is_subscription(&self, subscription: &str) -> Result<bool, Status>;
    /// Resolves when the message is durable.
    fn publish<'a>(&'a self, topic: &'a str, message: events::storage::Message) -> BoxFuture<'a, Result<(), Status>>;
    /// Makes a topic that is not there.
    fn topic_make<'a>(&'a self, topic: &'a str) -> BoxFuture<'a, Result<(), Status>>;
    /// Makes a trigger's transport as the trigger says; `url` is the service's.
    fn transport_ensure<'a>(&'a self, trigger: &'a Trigger, url: &'a str) -> BoxFuture<'a, Result<(), Status>>;
    /// Takes it away.
    fn transport_remove<'a>(&'a self, trigger: &'a Trigger) -> BoxFuture<'a, Result<(), Status>>;
    /// Counts what is under way by itself.
    fn busy(&self) -> events::busy::Busy;
}

impl Topics for PubSub {
    fn is_there(&self, topic: &str) -> Result<bool, Status> {
        is_found(self.topic_get(&topic_name(topic)?))
    }

    fn is_subscription(&self, subscription: &str) -> Result<bool, Status> {
        is_found(self.subscription_get(&name(Kind::Subscriptions, subscription)?))
    }

    fn publish<'a>(&'a self, topic: &'a str, message: events::storage::Message) -> BoxFuture<'a, Result<(), Status>> {
        async move {
            let message = Message { data: message.data.into(), attributes: message.attributes, ..Message::default() }.behind(&message.hops);
            PubSub::publish(self, &topic_name(topic)?, vec![message]).await.map(drop)
        }
        .boxed()
    }

    fn topic_make<'a>(&'a self, topic: &'a str) -> BoxFuture<'a, Result<(), Status>> {
        async move {
            match self.topic_create(topic_name(topic)?, Default::default()).await {
                Err(status) if status.code != Code::AlreadyExists => Err(status),
                _ => Ok(()),
            }
        }
        .boxed()
    }

    fn transport_ensure<'a>(&'a self, trigger: &'a Trigger, url: &'a str) -> BoxFuture<'a, Result<(), Status>> {
        events::eventarc::transport_ensure(self, trigger, url).boxed()
    }

    fn transport_remove<'a>(&'a self, trigger: &'a Trigger) -> BoxFuture<'a, Result<(), Status>> {
        events::eventarc::transport_remove(self, trigger).boxed()
    }

    fn busy(&self) -> events::busy::Busy {
        PubSub::busy(self)
    }
}

fn is_found<T>(found: Result<T, Status>) -> Result<bool, Status> {
    match found {
        Ok(_) => Ok(true),
        Err(status) if status.code == Code::NotFound => Ok(false),
        Err(status) => Err(status),
    }
}

/// `projects/P/topics/T`
fn topic_name(topic: &str) -> Result<Name, Status> {
    name(Kind::Topics, topic).map_err(|_| Status::invalid(format!("Invalid topic name: {topic}")))
}

/// `projects/P/KIND/ID`
fn name(kind: Kind, text: &str) -> Result<Name, Status> {
    let bad = || Status::invalid(format!("Invalid [{}] name: (name={text})", kind.collection()));
    let (project, id) = text.strip_prefix("projects/").and_then(|rest| rest.split_once(&format!("/{}/", kind.collection()))).ok_or_else(bad)?;
    Name::new(kind, ProjectId::parse(project).map_err(|_| bad())?, id)
}

/// The real builder, and the store in which its images lie.
pub(crate) struct Builder {
    pub builder: build::Builder,
    pub store: store::Store,
}

impl Images for Builder {
    fn base_image_uri(&self, base_image: &str, region: &str) -> Result<String, build::Error> {
        self.builder.base_image_uri(base_image, region)
    }

    fn build(&self, request: build::Request, log: Arc<dyn Fn(build::LogLine) + Send + Sync>) -> BoxFuture<'_, Result<build::Built, build::Error>> {
        self.builder.build(request, log).boxed()
    }

    fn runtimes(&self) -> Vec<build::Runtime> {
        self.builder.runtimes()
    }

    fn image_get(&self, digest: &ImageDigest) -> Result<Option<Image>, store::Error> {
        build::image_get(&self.store, digest)
    }

    fn layers_cached(&self) -> Result<HashSet<String>, build::Error> {
        self.builder.layers_cached()
    }
}

/// How long instances of a deleted service may take to finish their requests.
const DRAIN_MAX: Duration = Duration::from_secs(model::limits::SHUTDOWN_GRACE_S as u64);

impl Starter for serving::Serving {
    fn prove<'a>(&'a self, revision: &'a Revision, image: &'a Image) -> BoxFuture<'a, Result<(), serving::StartFailure>> {
        serving::Serving::prove(self, revision, image).boxed()
    }

    fn stop<'a>(&'a self, service: &'a ServiceKey) -> BoxFuture<'a, ()> {
        self.stop_instances(Some(service), DRAIN_MAX).map(drop).boxed()
    }
}

impl Accounts for iam::Iam {
    fn may_act_as(&self, who: &Identity, email: &str) -> bool {
        let Ok(account) = self.service_account_get(None, email) else {
            return false;
        };
        let resource = format!("projects/{}/serviceAccounts/{}", account.project, account.email);
        !account.disabled && self.may(Some(who), "iam.serviceAccounts.actAs", &resource, account.project.as_str())
    }

    fn may_receive(&self, email: &str, project: &ProjectId) -> bool {
        self.may(Some(&self.identity(email)), "eventarc.events.receiveEvent", &format!("projects/{project}"), project.as_str())
    }

    fn may_read(&self, email: &str, secret: &SecretKey) -> bool {
        self.may(Some(&self.identity(email)), "secretmanager.versions.access", &secret.resource(), secret.project.as_str())
    }

    fn may_read_objects(&self, who: &Identity, bucket: &str, project: &ProjectId) -> bool {
        self.may(Some(who), "storage.objects.get", &format!("buckets/{bucket}"), project.as_str())
    }

    fn policy_remove<'a>(&'a self, resource: &'a str) -> BoxFuture<'a, Result<(), Status>> {
        self.policy_delete(resource).boxed()
    }
}
