//! Pub/Sub: topics, what is published to them, and the subscriptions that deliver it.
//!
//! Topics, subscriptions, snapshots and schemas are records; messages lie in one log for each topic (`topic/UID`), what is acknowledged in
//! one for each subscription (`sub/UID`). A record is written after its log was begun and deleted before it is forgotten; a log that
//! no record needs is swept at the start. What was answered is on disk: after a kill, everything that was published and not
//! acknowledged is delivered.
//!
//! A topic's messages outlive it while a subscription or a snapshot needs them (`stream`). `live` is a running subscription,
//! `upkeep` trims logs and ends what has expired, `push` sends to a service.
//! Who may call, and Google's shapes, are not known here.

mod ack_id;
mod dead_letter;
mod definitions;
mod journal;
mod live;
mod message;
mod name;
mod puller;
mod push;
mod record;
mod schemas;
mod snapshots;
mod stream;
mod subscriptions;
#[cfg(test)]
mod tests;
mod topics;
mod upkeep;

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
};

use futures_util::future::{BoxFuture, join_all};
use iam::Iam;
use model::{Clock, Code, Status, key};
use parking_lot::RwLock;
use serde::de::DeserializeOwned;
use store::{CommitError, Store, Write};
use tokio::sync::mpsc;
use tokio_util::sync::{CancellationToken, DropGuard};

use self::{
    definitions::Definitions,
    live::Live,
    stream::{Memory, Stream},
    topics::RunningTopic,
};
pub use self::{
    live::{Outcome, Received},
    message::Message,
    name::{Kind, Name},
    puller::Puller,
    record::{Oidc, Push, Revision, Schema, SchemaSettings, Snapshot, Subscription, Topic, Wrapper},
    schemas::{DELETED_SCHEMA, SchemaChoice, SchemaView},
    subscriptions::{SubscriptionNew, SubscriptionView},
    topics::TopicNew,
};
use crate::{
    busy::Busy,
    deliver::{Answer, Call, Deliverer, Failure},
    history::About,
};

/// What a deleted topic is called by those that were made of it.
pub const DELETED_TOPIC: &str = "_deleted-topic_";

/// All topics and subscriptions. Clones share it; when the last one is dropped, its tasks end.
#[derive(Clone)]
pub struct PubSub {
    inner: Arc<Inner>,
    _running: Arc<DropGuard>,
}

/// What lies outside of Pub/Sub, as far as it is needed.
pub trait Outside: Send + Sync + 'static {
    /// Forgets the policy of a resource that is deleted.
    fn policy_forget(&self, resource: String) -> BoxFuture<'static, Result<(), Status>>;

    /// Whether a push can be sent to `url`.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` when not.
    fn endpoint_check(&self, field: &str, url: &str) -> Result<http::Uri, Status>;

    /// Counts what is under way.
    fn busy(&self) -> Busy;

    /// Sends a push, an attempt of the event `about`.
    fn deliver(&self, about: About, call: Call) -> BoxFuture<'static, Result<Answer, Failure>>;
}

/// The real one.
pub struct Platform {
    pub iam: Iam,
    pub deliverer: Deliverer,
    pub clock: Arc<dyn Clock>,
}

impl Outside for Platform {
    fn policy_forget(&self, resource: String) -> BoxFuture<'static, Result<(), Status>> {
        let iam = self.iam.clone();
        Box::pin(async move { iam.policy_delete(&resource).await })
    }

    fn endpoint_check(&self, field: &str, url: &str) -> Result<http::Uri, Status> {
        self.deliverer.url(field, url)
    }

    fn busy(&self) -> Busy {
        self.deliverer.busy().clone()
    }

    fn deliver(&self, about: About, call: Call) -> BoxFuture<'static, Result<Answer, Failure>> {
        let (deliverer, now) = (self.deliverer.clone(), self.clock.now());
        Box::pin(async move { deliverer.deliver(about, now, call).await })
    }
}

pub(crate) struct Inner {
    store: Store,
    clock: Arc<dyn Clock>,
    outside: Arc<dyn Outside>,
    tables: RwLock<Tables>,
    definitions: Definitions,
    memory: Arc<Memory>,
    /// To `upkeep`: what may end at another instant.
    ends: mpsc::UnboundedSender<upkeep::Change>,
    /// Held while resources are made, changed or deleted, and while logs are trimmed: no message is trimmed that a subscription or
    /// snapshot in the making needs.
    changes: tokio::sync::Mutex<()>,
    /// Ends the tasks.
    stop: CancellationToken,
}

#[derive(Default)]
struct Tables {
    topics: BTreeMap<Name, Arc<RunningTopic>>,
    subscriptions: BTreeMap<Name, Arc<Running>>,
    snapshots: BTreeMap<Name, Arc<Snapshot>>,
    schemas: BTreeMap<Name, Arc<Schema>>,
    /// By uid: those of topics, and of deleted ones that are still needed.
    streams: BTreeMap<String, Arc<Stream>>,
}

/// A subscription, as it runs.
enum Running {
    Attached(Arc<Live>),
    Detached(Arc<Subscription>),
    /// What its logs hold cannot be read, for this reason; it can be deleted.
    Broken(Arc<Subscription>, Status),
}

impl Running {
    fn record(&self) -> Arc<Subscription> {
        match self {
            Self::Attached(live) => live.record(),
            Self::Detached(record) | Self::Broken(record, _) => record.clone(),
        }
    }
}

impl PubSub {
    /// Reads what there is and starts it. Call inside a tokio runtime.
    ///
    /// # Errors
    /// `INTERNAL` when the store fails.
    pub async fn open(store: Store, clock: Arc<dyn Clock>, outside: Arc<dyn Outside>) -> Result<Self, Status> {
        let stop = CancellationToken::new();
        let (ends, changes) = mpsc::unbounded_channel();
        let inner = Arc::new(Inner {
            store,
            clock,
            outside,
            tables: RwLock::default(),
            definitions: Definitions::default(),
            memory: Arc::default(),
            ends,
            changes: tokio::sync::Mutex::default(),
            stop: stop.clone(),
        });
        inner.load().await?;
        tokio::spawn(upkeep::run(Arc::downgrade(&inner), inner.clock.clone(), stop.clone(), changes));
        Ok(Self { inner, _running: Arc::new(stop.drop_guard()) })
    }

    /// Counts what is under way: among other things pushes, from the moment in which their message was published.
    pub fn busy(&self) -> Busy {
        self.inner.outside.busy()
    }

    /// Ends the tasks: who waits for messages is told that the server goes, and nothing is pushed any more. What was answered stands.
    pub fn close(&self) {
        self.inner.stop.cancel();
    }
}

impl Inner {
    async fn load(self: &Arc<Self>) -> Result<(), Status> {
        let topics: Vec<Topic> = self.records(key::TOPICS)?;
        let subscriptions: Vec<Subscription> = self.records(key::SUBSCRIPTIONS)?;
        let snapshots: Vec<Snapshot> = self.records(key::SNAPSHOTS)?;
        let schemas: Vec<Schema> = self.records(key::SCHEMAS)?;
        self.logs_sweep(&topics, &subscriptions, &snapshots).await?;

        let attached = subscriptions.iter().filter(|subscription| !subscription.is_detached).map(|subscription| &subscription.topic_uid);
        let uids: HashSet<&String> = topics.iter().map(|topic| &topic.uid).chain(attached).chain(snapshots.iter().map(|s| &s.topic_uid)).collect();
        let mut streams = BTreeMap::new();
        for uid in uids {
            match Stream::open(self.store.clone(), uid, &self.memory) {
                Ok(stream) => drop(streams.insert(uid.clone(), stream)),
                Err(status) => tracing::error!(topic = uid, %status, "a topic's messages cannot be read: it is not served"),
            }
        }
        let running = join_all(subscriptions.into_iter().map(|record| {
            let stream = streams.get(&record.topic_uid).cloned();
            async move { (record.name.clone(), Arc::new(self.running(record, stream).await)) }
        }))
        .await;
        let mut tables = self.tables.write();
        for topic in topics {
            if let Some(stream) = streams.get(&topic.uid).cloned() {
                tables.topics.insert(topic.name.clone(), Arc::new(RunningTopic { record: topic, stream }));
            }
        }
        tables.subscriptions.extend(running);
        tables.snapshots.extend(snapshots.into_iter().map(|snapshot| (snapshot.name.clone(), Arc::new(snapshot))));
        tables.schemas.extend(schemas.into_iter().map(|schema| (schema.name.clone(), Arc::new(schema))));
        tables.streams = streams;
        Ok(())
    }

    /// Starts what can be started: one that is damaged keeps no other from running.
    async fn running(self: &Arc<Self>, record: Subscription, stream: Option<Arc<Stream>>) -> Running {
        if record.is_detached {
            return Running::Detached(Arc::new(record));
        }
        let opened = match stream {
            Some(stream) => Live::open(self, record.clone(), stream).await,
            None => Err(Status::new(Code::DataLoss, "The messages of the subscription's topic cannot be read.")),
        };
        match opened {
            Ok(live) => {
                push::start(self, &live);
                Running::Attached(live)
            }
            Err(status) => {
                tracing::error!(subscription = %record.name, %status, "a subscription cannot be read: it does not run");
                Running::Broken(Arc::new(record), status)
            }
        }
    }

    /// Deletes logs that no record needs: their making or deletion was cut off.
    async fn logs_sweep(&self, topics: &[Topic], subscriptions: &[Subscription], snapshots: &[Snapshot]) -> Result<(), Status> {
        let attached = || subscriptions.iter().filter(|subscription| !subscription.is_detached);
        let topic_logs = topics.iter().map(|topic| &topic.uid).chain(attached().map(|s| &s.topic_uid)).chain(snapshots.iter().map(|s| &s.topic_uid));
        let needed: HashSet<String> =
            topic_logs.map(|uid| stream::log_name(uid)).chain(attached().map(|subscription| live::log_name(&subscription.uid))).collect();
        // A record that cannot be read may need any of them.
        if !self.store.is_whole() {
            return Ok(());
        }
        for prefix in [stream::log_name(""), live::log_name("")] {
            for log in self.store.logs().names(&prefix).into_iter().filter(|log| !needed.contains(log)) {
                self.store.logs().delete(&log).await.map_err(Status::internal)?;
            }
        }
        Ok(())
    }

    fn records<T: DeserializeOwned>(&self, prefix: &str) -> Result<Vec<T>, Status> {
        const PAGE: usize = 1000;
        let (mut found, mut after) = (Vec::new(), None::<String>);
        loop {
            let page = self.store.scan(prefix, after.as_deref(), PAGE).map_err(Status::internal)?;
            after = page.last().map(|record| record.key.clone());
            let is_last = page.len() < PAGE;
            for record in page {
                found.push(record.json().map_err(Status::internal)?);
            }
            if is_last {
                return Ok(found);
            }
        }
    }

    async fn commit(&self, write: Write) -> Result<(), Status> {
        self.commit_all(vec![write]).await
    }

    async fn commit_all(&self, writes: Vec<Write>) -> Result<(), Status> {
        match self.store.commit(writes).await {
            Ok(_) => Ok(()),
            Err(CommitError::Conflict { key }) => Err(Status::internal(format!("{key} was changed past the lock of changes"))),
            Err(error) => Err(Status::internal(error)),
        }
    }

    pub(crate) fn topic(&self, name: &Name) -> Result<Arc<RunningTopic>, Status> {
        self.tables.read().topics.get(name).cloned().ok_or_else(|| name.missing())
    }

    fn subscription(&self, name: &Name) -> Result<Arc<Running>, Status> {
        self.tables.read().subscriptions.get(name).cloned().ok_or_else(|| name.missing())
    }

    fn live(&self, name: &Name) -> Result<Arc<Live>, Status> {
        match &*self.subscription(name)? {
            Running::Attached(live) => Ok(live.clone()),
            Running::Detached(_) => {
                Err(Status::failed_precondition(format!("The subscription is detached from its topic and has no messages (resource={}).", name.id)))
            }
            Running::Broken(_, status) => Err(status.clone()),
        }
    }

    /// The stream of a topic's uid is forgotten, with its log, when nothing needs it any more. The lock of changes is held.
    async fn stream_release(&self, uid: &str) -> Result<(), Status> {
        {
            let mut tables = self.tables.write();
            let is_needed = tables.topics.values().any(|topic| topic.record.uid == uid)
                || tables.subscriptions.values().any(|running| matches!(&**running, Running::Attached(live) if live.stream.uid == uid))
                || tables.subscriptions.values().any(|running| matches!(&**running, Running::Broken(record, _) if record.topic_uid == uid))
                || tables.snapshots.values().any(|snapshot| snapshot.topic_uid == uid);
            if is_needed {
                return Ok(());
            }
            tables.streams.remove(uid);
        }
        self.store.logs().delete(&stream::log_name(uid)).await.map_err(Status::internal)
    }
}
